"""Commands of studies."""

from __future__ import annotations

from typing import Annotated

import typer

from sim.cli import common
from sim.cli.app import app


@app.command()
def capacity(
    scenario: common.Scenario,
    set_: common.Overrides = None,
    replicas: Annotated[
        bool, typer.Option("--replicas", help="Find the fewest replicas for the scenario's rate instead of the highest rate.")
    ] = False,
    tolerance: Annotated[float, typer.Option(help="Relative width of the last bracket of the rate.")] = 0.02,
    out: common.Out = None,
    json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
    quiet: common.Quiet = False,
    no_save: common.NoSave = False,
) -> None:
    """Find the highest request rate a deployment holds under its SLO, or the fewest replicas for a given rate."""
    import sim
    from sim.report import capacity as view

    loaded = sim.load(scenario, set_ or ())
    target = None if no_save else common.target(out, f"{loaded.name}-capacity")
    with common.stopping() as stopped, common.progress(quiet or json) as progress:
        answer = sim.capacity(
            loaded, "replicas" if replicas else "rate", tolerance=tolerance, progress=common.stage(progress, stopped)
        )
    if json:
        typer.echo(common.json(answer.as_dict()))
    elif not quiet:
        view.show(answer)
    if target:
        view.save(answer, target)
        common.say(quiet or json, f"Report: {target / 'report.html'}")
    if stopped():
        typer.echo(
            f"interrupted: {f'the probes so far are in {target}' if target else 'nothing was saved (--no-save)'}", err=True
        )
        raise typer.Exit(130)
    raise typer.Exit(0 if answer.answer is not None else 1)


@app.command()
def compare(
    scenarios: Annotated[list[str], typer.Argument(metavar="SCENARIO…", help="Two or more scenario files or built-in names.")],
    set_: common.Overrides = None,
    own_traffic: Annotated[
        bool, typer.Option("--own-traffic", help="Let each scenario keep its own traffic instead of the first one's.")
    ] = False,
    out: common.Out = None,
    json: Annotated[bool, typer.Option("--json", help="Print the summaries as JSON.")] = False,
    quiet: common.Quiet = False,
    no_save: common.NoSave = False,
) -> None:
    """Run several scenarios on the same traffic and print them side by side."""
    import sim
    from sim.report import compare as view

    loaded = [sim.load(s, set_ or ()) for s in scenarios]
    target = None if no_save else common.target(out, "compare-" + "-".join(s.name for s in loaded)[:80])
    with common.stopping() as stopped, common.progress(quiet or json) as progress:
        results = sim.compare(loaded, same_traffic=not own_traffic, progress=common.stage(progress, stopped))
    if json:
        typer.echo(common.json({r.name: r.summary for r in results}))
    elif not quiet:
        view.show(results)
    if target:
        view.save(results, target)
        common.say(quiet or json, f"Report: {target / 'report.html'}")
