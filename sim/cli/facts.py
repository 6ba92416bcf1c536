"""What needs no run: ``memory``, ``schema``, ``scenarios``."""

from __future__ import annotations

from typing import Annotated

import typer

from sim.cli import common
from sim.cli.app import FILES, LOOK, command


@command(LOOK, "servesim memory quickstart", "servesim memory quickstart -s model=llama-3.3-70b -s deployment.tp=4")
def memory(scenario: common.Scenario, set_: common.Overrides = None) -> None:
    """Print the memory budget of a deployment line by line, ending in the number of KV blocks."""
    import sim
    from sim.report import memory as view

    view.show(sim.memory(sim.load(scenario, set_ or ())))


@command(FILES, "servesim schema > scenario.schema.json")
def schema(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND", help="scenario, accelerator, link, engine-profile, servers or summary (default: scenario)."
        ),
    ] = "scenario",
) -> None:
    """Print the JSON schema of a kind of file, for editors to complete from."""
    from sim.study.schemas import schema as make

    typer.echo(common.json(make(kind)))


@command(LOOK)
def scenarios() -> None:
    """List the built-in scenarios and the question each one answers."""
    from sim.config import built_in

    for name, question in built_in():
        typer.echo(f"{name:<28} {question}")
