"""``servesim accuracy`` and ``calibrate``: measured points against simulated ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from sim.cli import common
from sim.cli.app import app


def _pairs(option: str, given: list[str] | None) -> dict[str, str]:
    """``["a=b"]`` → ``{"a": "b"}``."""
    from sim.errors import ConfigError

    pairs = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise ConfigError(option, text, "is not of the form TEXT=NAME", hint=f"such as {option} qwen3-14b=h100-pcie")
        pairs[name] = value
    return pairs


@app.command()
def accuracy(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH…",
            help="Results of benchmark tools, tables of requests, folders of them, or folders of operating points.",
        ),
    ],
    scenario: Annotated[
        Optional[str],
        typer.Option(help="What was deployed, which results of benchmark tools do not say: a scenario file or name."),
    ] = None,
    engine: Annotated[Optional[str], typer.Option(help="Only points of this engine.")] = None,
    accelerator: Annotated[Optional[str], typer.Option(help="Only points whose accelerator has this in its name.")] = None,
    model: Annotated[Optional[str], typer.Option(help="Only points whose model has this in its name.")] = None,
    quality: Annotated[str, typer.Option(help="Qualities taken, with commas.")] = "good,fair",
    overload: Annotated[bool, typer.Option("--overload", help="Also points of saturated systems.")] = False,
    on: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="TEXT=NAME", help="Deployments with TEXT in their name ran on accelerator NAME, whatever is recorded."
        ),
    ] = None,
    by: Annotated[
        str, typer.Option(help="Group errors by: engine, version, accelerator, family, quality, traffic, deployment.")
    ] = "engine",
    worst: Annotated[int, typer.Option(help="Print so many of the largest errors.")] = 0,
    leave_out: Annotated[
        bool, typer.Option("--leave-out", help="Simulate each point again as if its accelerator had never been measured.")
    ] = False,
    csv: Annotated[
        Optional[Path], typer.Option("--csv", help="Write every figure, measured and predicted, to this CSV file.")
    ] = None,
    record: Annotated[
        Optional[Path],
        typer.Option("--record", help="Write the spread of errors by class, from which runs take their intervals."),
    ] = None,
    out: Annotated[
        Optional[Path], typer.Option("--out", "-o", help="Folder for report.html, accuracy.csv and accuracy.json.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the error tables as JSON.")] = False,
    quiet: common.Quiet = False,
) -> None:
    """Simulate measured operating points of real systems and print how far the predictions are off."""
    import sim
    from sim.report import accuracy as view
    from sim.study.accuracy import accuracy as simulate_points

    target = common.target(out, "accuracy") if out else None
    common.writable("--csv", csv)
    common.writable("--record", record)
    with common.progress(quiet or json) as progress:
        report = simulate_points(
            paths,
            engine=engine,
            accelerator=accelerator,
            model=model,
            qualities=tuple(q.strip() for q in quality.split(",")),
            overload=overload,
            on=_pairs("--on", on),
            scenario=sim.load(scenario) if scenario else None,
            leave_out=leave_out,
            progress=progress,
        )
    groups = [g.strip() for g in by.split(",") if g.strip()]
    if json:
        typer.echo(common.json(report.as_dict()))
    elif not quiet:
        view.show(report, groups, worst)
    if csv:
        view.write_table(report, csv)
    if record:
        view.write_record(report, record)
    if target:
        view.save(report, target)
        common.say(quiet or json, f"Report: {target / 'report.html'}")


@app.command()
def calibrate(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH…", help="As for accuracy; a vLLM server's log with iteration details tells most."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The engine profile to write; a scenario names it as deployment.profile.")
    ],
    scenario: Annotated[Optional[str], typer.Option(help="What was deployed, for JSON and CSV files.")] = None,
    engine: Annotated[Optional[str], typer.Option(help="Only points of this engine.")] = None,
    accelerator: Annotated[Optional[str], typer.Option(help="Only points whose accelerator has this in its name.")] = None,
    figures: Annotated[Optional[str], typer.Option(help="Figures to fit, with commas, e.g. gemm_scale,host_step.")] = None,
    quiet: common.Quiet = False,
) -> None:
    """Fit host overheads and efficiency factors to measured points; write them as an engine profile of your own."""
    import sim
    from sim.report import accuracy as view
    from sim.study.calibrate import calibrate as fit_points

    common.writable("--out", out)
    chosen: dict[str, Any] = {"figures": tuple(f.strip() for f in figures.split(","))} if figures else {}
    loaded = sim.load(scenario) if scenario else None
    with common.progress(quiet) as progress:
        done = fit_points(paths, scenario=loaded, engine=engine, accelerator=accelerator, progress=progress, **chosen)
    file = done.save(out, engine)
    if not quiet:
        view.show_calibration(done)
    common.say(quiet, f"Profile: {file}")
