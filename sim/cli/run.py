"""``servesim run``: one scenario, one result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from sim.cli import common
from sim.cli.app import ASK, command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.metrics.result import Result
    from sim.report.exports import Export


@command(
    ASK,
    "servesim run quickstart",
    "servesim run quickstart -s deployment.accelerator=l40s -s traffic.synthetic.arrival.rate=4/s",
    "servesim run my.yaml --export vllm-bench,perfetto",
)
def run(
    scenario: common.Scenario,
    set_: common.Overrides = None,
    out: common.Out = None,
    seed: common.Seed = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON instead of tables.", rich_help_panel=common.HOW)
    ] = False,
    quiet: common.Quiet = False,
    no_save: common.NoSave = False,
    replications: Annotated[
        Optional[int],
        typer.Option(
            "--replications", "-r", metavar="N", help="Runs under other random numbers, instead of one; as `servesim repeat`."
        ),
    ] = None,
    precision: Annotated[
        Optional[str], typer.Option(metavar="SHARE", help="Repeat until every interval is within so much of its value, e.g. 2%.")
    ] = None,
    gate: Annotated[
        bool, typer.Option("--gate", help="Exit with 3 when the SLO is missed, for CI.", rich_help_panel=common.HOW)
    ] = False,
    export: Annotated[
        Optional[str],
        typer.Option(
            metavar="A,B,…",
            help="Also write the result as other tools do: vllm-bench, guidellm, aiperf, perfetto, prometheus …",
            rich_help_panel=common.HOW,
        ),
    ] = None,
) -> None:
    """Simulate one scenario, print what its users would see, and save tables, figures and an HTML report."""
    if precision is not None or (replications or 1) > 1:
        from sim.cli.studies import ask

        how = {"out": out, "set_": set_, "seed": seed, "json": json, "quiet": quiet, "no_save": no_save, "gate": gate}
        ask("repeat", scenario, {"replications": replications, "precision": precision}, how)

    import sim
    from sim.metrics.expect import unmet
    from sim.report import confidence as view
    from sim.report import terminal
    from sim.study.statistics.worth import confidence, worth

    overrides = [*(set_ or ()), *([f"seed={seed}"] if seed is not None else ())]
    loaded = sim.load(scenario, overrides)
    target = None if no_save else common.target(out, loaded.name)
    exports = _exports(export, target)
    with common.stopping() as stopped, common.progress(quiet or json) as progress:
        result = sim.run(loaded, progress=lambda done, total: progress(done, total) or bool(stopped()))
        if target:  # before anything is printed: what stops the printing does not lose the run
            result.save(target, lambda to: _fill(exports, result, to))
    with common.printing():
        if json:
            typer.echo(common.json(result.summary.as_dict() | {"confidence": confidence(result)}))
        elif not quiet:
            sure = worth(result)
            common.show(*view.caution(sure.stationary))
            terminal.show(result, sure=sure)
            common.show(*view.one_run(sure, result.summary))
        if target:
            for one in exports:
                common.say(quiet or json, f"Export: {target / one.file}")
            common.say(quiet or json, f"Result: {target}   Report: {target / 'report.html'}")
    missed = unmet(result.summary, loaded.expect or {})
    for sentence in missed:
        typer.echo(f"not as expected: {sentence}", err=True)
    if stopped():
        where = f"the partial result is in {target}" if target else "nothing was saved (--no-save)"
        typer.echo(f"interrupted: {where}", err=True)
        raise typer.Exit(common.interrupted(stopped()))
    if missed:
        raise typer.Exit(1)
    raise typer.Exit(3 if gate and result.summary.slo.met is False else 0)


def _fill(exports: Sequence[Export], result: Result, to: Path) -> None:
    for one in exports:
        one.fill(result, to / one.file)


def _exports(names: str | None, target: Path | None) -> list[Export]:
    """The exports asked for, found before anything runs."""
    if not names:
        return []
    from sim.errors import ConfigError
    from sim.report.exports._base import find

    if target is None:
        raise ConfigError("--export", names, "has no place to be written with --no-save")
    return find(names.split(","))
