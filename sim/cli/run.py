"""``servesim run``: one scenario, one result."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from sim.cli import common
from sim.cli.app import app


@app.command()
def run(
    scenario: common.Scenario,
    set_: common.Overrides = None,
    out: common.Out = None,
    seed: Annotated[Optional[int], typer.Option(help="Seed of all random streams, instead of the scenario's.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON instead of tables.")] = False,
    quiet: common.Quiet = False,
    no_save: common.NoSave = False,
) -> None:
    """Simulate one scenario, print what its users would see, and save tables, figures and an HTML report."""
    import sim
    from sim.metrics.expect import unmet
    from sim.report import terminal

    overrides = [*(set_ or ()), *([f"seed={seed}"] if seed is not None else ())]
    loaded = sim.load(scenario, overrides)
    target = None if no_save else common.target(out, loaded.name)
    with common.stopping() as stopped, common.progress(quiet or json) as progress:
        result = sim.run(loaded, progress=lambda done, total: progress(done, total) or stopped())
    if json:
        typer.echo(common.json(result.summary))
    elif not quiet:
        terminal.show(result)
    if target:
        result.save(target)
        common.say(quiet or json, f"Result: {target}   Report: {target / 'report.html'}")
    missed = unmet(result.summary, loaded.expect or {})
    for sentence in missed:
        typer.echo(f"not as expected: {sentence}", err=True)
    if stopped():
        where = f"the partial result is in {target}" if target else "nothing was saved (--no-save)"
        typer.echo(f"interrupted: {where}", err=True)
        raise typer.Exit(130)
    raise typer.Exit(1 if missed else 0)
