"""What needs no run: ``memory``, ``schema``, ``scenarios``."""

from __future__ import annotations

from typing import Annotated

import typer

from sim.cli import common
from sim.cli.app import app


@app.command()
def memory(scenario: common.Scenario, set_: common.Overrides = None) -> None:
    """Print the memory budget of a deployment line by line, ending in the number of KV blocks."""
    import sim
    from sim.report import memory as view

    view.show(sim.memory(sim.load(scenario, set_ or ())))


@app.command()
def schema(
    kind: Annotated[str, typer.Argument(help="scenario, accelerator, link, engine-profile, servers or summary")] = "scenario",
) -> None:
    """Print the JSON schema of a kind of file, for editors to complete from."""
    from sim.study.schemas import schema as make

    typer.echo(common.json(make(kind)))


@app.command()
def scenarios() -> None:
    """List the built-in scenarios and the question each one answers."""
    from sim.config import built_in

    for name, question in built_in():
        typer.echo(f"{name:<28} {question}")
