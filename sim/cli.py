"""The command ``servesim``: parse, call the public API, print, exit code. Heavy rooms are loaded inside the commands.

Exit codes: 0 done, 1 a check failed (conformance differs, capacity not found), 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from sim.errors import ServesimError

app = typer.Typer(
    name="servesim",
    help="Simulate LLM serving: what TTFT, ITL and throughput a deployment gives under real traffic, what breaks first, and how much it holds.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Scenario = Annotated[
    str, typer.Argument(metavar="SCENARIO", help="A scenario file, or the name of a built-in one (see `servesim scenarios`).")
]
Overrides = Annotated[
    Optional[list[str]],
    typer.Option("--set", "-s", metavar="PATH=VALUE", help="Change one setting, e.g. deployment.replicas=2. Repeatable."),
]
Out = Annotated[Optional[Path], typer.Option("--out", "-o", help="Folder of the result [default: servesim-results/NAME].")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
NoSave = Annotated[bool, typer.Option("--no-save", help="Print only, write nothing.")]


@app.command()
def run(
    scenario: Scenario,
    set_: Overrides = None,
    out: Out = None,
    seed: Annotated[Optional[int], typer.Option(help="Seed of all random streams, instead of the scenario's.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON instead of tables.")] = False,
    quiet: Quiet = False,
    no_save: NoSave = False,
) -> None:
    """Simulate one scenario, print what its users would see, and save tables, figures and an HTML report."""
    import sim
    from sim.metrics.expect import unmet
    from sim.report import terminal

    overrides = [*(set_ or ()), *([f"seed={seed}"] if seed is not None else ())]
    loaded = sim.load(scenario, overrides)
    target = None if no_save else _target(out, loaded.name)
    with _stopping() as stopped, _progress(quiet or json) as progress:
        result = sim.run(loaded, progress=lambda done, total: progress(done, total) or stopped())
    if json:
        typer.echo(_json(result.summary))
    elif not quiet:
        terminal.show(result)
    if target:
        result.save(target)
        _say(quiet or json, f"Result: {target}   Report: {target / 'report.html'}")
    missed = unmet(result.summary, loaded.expect or {})
    for sentence in missed:
        typer.echo(f"not as expected: {sentence}", err=True)
    if stopped():
        where = f"the partial result is in {target}" if target else "nothing was saved (--no-save)"
        typer.echo(f"interrupted: {where}", err=True)
        raise typer.Exit(130)
    raise typer.Exit(1 if missed else 0)


@app.command()
def capacity(
    scenario: Scenario,
    set_: Overrides = None,
    replicas: Annotated[
        bool, typer.Option("--replicas", help="Find the fewest replicas for the scenario's rate instead of the highest rate.")
    ] = False,
    tolerance: Annotated[float, typer.Option(help="Relative width of the last bracket of the rate.")] = 0.02,
    out: Out = None,
    json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
    quiet: Quiet = False,
    no_save: NoSave = False,
) -> None:
    """Find the highest request rate a deployment holds under its SLO, or the fewest replicas for a given rate."""
    import sim
    from sim.report import capacity as view

    loaded = sim.load(scenario, set_ or ())
    target = None if no_save else _target(out, f"{loaded.name}-capacity")
    with _stopping() as stopped, _progress(quiet or json) as progress:
        answer = sim.capacity(loaded, "replicas" if replicas else "rate", tolerance=tolerance, progress=_stage(progress, stopped))
    if json:
        typer.echo(_json(answer.as_dict()))
    elif not quiet:
        view.show(answer)
    if target:
        view.save(answer, target)
        _say(quiet or json, f"Report: {target / 'report.html'}")
    if stopped():
        typer.echo(
            f"interrupted: {f'the probes so far are in {target}' if target else 'nothing was saved (--no-save)'}", err=True
        )
        raise typer.Exit(130)
    raise typer.Exit(0 if answer.answer is not None else 1)


@app.command()
def compare(
    scenarios: Annotated[list[str], typer.Argument(metavar="SCENARIO…", help="Two or more scenario files or built-in names.")],
    set_: Overrides = None,
    own_traffic: Annotated[
        bool, typer.Option("--own-traffic", help="Let each scenario keep its own traffic instead of the first one's.")
    ] = False,
    out: Out = None,
    json: Annotated[bool, typer.Option("--json", help="Print the summaries as JSON.")] = False,
    quiet: Quiet = False,
    no_save: NoSave = False,
) -> None:
    """Run several scenarios on the same traffic and print them side by side."""
    import sim
    from sim.report import compare as view

    loaded = [sim.load(s, set_ or ()) for s in scenarios]
    target = None if no_save else _target(out, "compare-" + "-".join(s.name for s in loaded)[:80])
    with _stopping() as stopped, _progress(quiet or json) as progress:
        results = sim.compare(loaded, same_traffic=not own_traffic, progress=_stage(progress, stopped))
    if json:
        typer.echo(_json({r.name: r.summary for r in results}))
    elif not quiet:
        view.show(results)
    if target:
        view.save(results, target)
        _say(quiet or json, f"Report: {target / 'report.html'}")


@app.command()
def memory(scenario: Scenario, set_: Overrides = None) -> None:
    """Print the memory budget of a deployment line by line, ending in the number of KV blocks."""
    import sim
    from sim.report import memory as view

    view.show(sim.memory(sim.load(scenario, set_ or ())))


@app.command()
def schema() -> None:
    """Print the JSON schema of a scenario file, for editors to complete from."""
    from sim.config import schema as make

    typer.echo(_json(make()))


@app.command()
def scenarios() -> None:
    """List the built-in scenarios and the question each one answers."""
    from sim.config import built_in

    for name, question in built_in():
        typer.echo(f"{name:<28} {question}")


@app.command()
def conformance(
    engine: Annotated[str, typer.Argument(help="vllm, sglang, tgi, …")],
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Recordings, or folders of them.")],
    quiet: Quiet = False,
) -> None:
    """Replay recordings of a real scheduler against ours: matched N of N, or the first step that differs (exit 1)."""
    from sim.report import conformance as view
    from sim.study.conformance import check

    cases = []
    for case in check(engine, paths):
        cases.append(case)
        if not quiet and case.difference is not None:
            view.show_difference(case)
    if not quiet:
        view.show_total(engine, cases)
    raise typer.Exit(0 if all(c.difference is None for c in cases) else 1)


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
        list[Path], typer.Argument(metavar="PATH…", help="Folders of operating points, `vllm bench serve` JSON, per-request CSV.")
    ],
    scenario: Annotated[
        Optional[str], typer.Option(help="What was deployed, for JSON and CSV files, which do not say: a scenario file or name.")
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
    csv: Annotated[
        Optional[Path], typer.Option("--csv", help="Write every figure, measured and predicted, to this CSV file.")
    ] = None,
    out: Annotated[
        Optional[Path], typer.Option("--out", "-o", help="Folder for report.html, accuracy.csv and accuracy.json.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the error tables as JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Simulate measured operating points of real systems and print how far the predictions are off."""
    import sim
    from sim.report import accuracy as view
    from sim.study.accuracy import accuracy as simulate_points

    target = _target(out, "accuracy") if out else None
    with _progress(quiet or json) as progress:
        report = simulate_points(
            paths,
            engine=engine,
            accelerator=accelerator,
            model=model,
            qualities=tuple(q.strip() for q in quality.split(",")),
            overload=overload,
            on=_pairs("--on", on),
            scenario=sim.load(scenario) if scenario else None,
            progress=progress,
        )
    groups = [g.strip() for g in by.split(",") if g.strip()]
    if json:
        typer.echo(_json(report.as_dict()))
    elif not quiet:
        view.show(report, groups, worst)
    if csv:
        view.write_table(report, csv)
    if target:
        view.save(report, target)
        _say(quiet or json, f"Report: {target / 'report.html'}")


@app.command()
def calibrate(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="As for accuracy.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The engine profile to write; a scenario names it as deployment.profile.")
    ],
    scenario: Annotated[Optional[str], typer.Option(help="What was deployed, for JSON and CSV files.")] = None,
    engine: Annotated[Optional[str], typer.Option(help="Only points of this engine.")] = None,
    accelerator: Annotated[Optional[str], typer.Option(help="Only points whose accelerator has this in its name.")] = None,
    figures: Annotated[Optional[str], typer.Option(help="Figures to fit, with commas, e.g. gemm_scale,host_step.")] = None,
    quiet: Quiet = False,
) -> None:
    """Fit host overheads and efficiency factors to measured points; write them as an engine profile of your own."""
    import sim
    from sim.report import accuracy as view
    from sim.study.calibrate import calibrate as fit_points

    chosen: dict[str, Any] = {"figures": tuple(f.strip() for f in figures.split(","))} if figures else {}
    loaded = sim.load(scenario) if scenario else None
    with _progress(quiet) as progress:
        done = fit_points(paths, scenario=loaded, engine=engine, accelerator=accelerator, progress=progress, **chosen)
    if not quiet:
        view.show_calibration(done)
    file = done.save(out, engine)
    _say(quiet, f"Profile: {file}")


profiles = typer.Typer(name="profiles", help="Hardware, models and engines with sources and grades.", no_args_is_help=True)
app.add_typer(profiles)


@profiles.command("list")
def profiles_list() -> None:
    """List all built-in profiles."""
    from sim.report import profiles as view
    from sim.study.profiles import profiles as entries

    view.show_list(entries())


@profiles.command("show")
def profiles_show(name: Annotated[str, typer.Argument(help="h100-sxm, llama-3.1-8b, vllm, 'vllm 0.15', …")]) -> None:
    """Print every figure of a profile with its grade and source."""
    from sim.report import profiles as view
    from sim.study.profiles import show

    view.show_one(*show(name))


@profiles.command("check")
def profiles_check() -> None:
    """Read every profile; exit 1 when one cannot be used or has a figure without a source."""
    from sim.study.profiles import check

    found = list(check())
    for profile, problem in found:
        typer.echo(f"{profile}: {problem}")
    typer.echo(f"{len(found)} problems" if found else "all profiles are well")
    raise typer.Exit(1 if found else 0)


def main() -> None:
    """Entry point: errors of ours become one line and exit code 2."""
    try:
        code = app(standalone_mode=False)  # of `typer.Exit`, else what the command returned: None
        sys.exit(code if isinstance(code, int) else 0)
    except ServesimError as error:
        _fail(f"error: {error}", 2)
    except KeyboardInterrupt:
        _fail("interrupted: nothing was written", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        _fail(f"error: {error}", 2)
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # a usage error of the command-line library
            error.show()
            sys.exit(2)
        if type(error).__name__ == "Abort":
            _fail("interrupted: nothing was written", 130)
        raise


def _fail(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(code)


def _say(quiet: bool, text: str) -> None:
    if not quiet:
        typer.echo(text)


def _json(data: Any) -> str:
    import json

    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)


def _target(out: Path | None, name: str) -> Path:
    """The result's folder, checked before anything is computed."""
    from sim.metrics.store import check_target

    target = out or Path("servesim-results") / name
    check_target(target)
    return target


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Ctrl-C asks the run to stop at the next good moment; a second one stops at once."""
    asked: list[bool] = []

    def ask(*_: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(True)
        print("\nstopping: the partial result will be saved (Ctrl-C again to stop at once)", file=sys.stderr)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[..., None]]:
    """A bar on the terminal's error stream for whoever watches; silent otherwise. ``update(done, total, label)``."""
    if quiet or not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("compiling, simulating", total=None)

        def update(done: int, total: int | None, label: str = "simulating") -> None:
            bar.update(task, completed=done, total=total, description=label)

        yield update


def _stage(progress: Callable[..., None], stopped: Callable[[], bool]) -> Callable[..., bool]:
    def update(done: int, total: int | None, label: str = "simulating") -> bool:
        progress(done, total, label)
        if stopped():
            raise KeyboardInterrupt
        return False

    return update


if __name__ == "__main__":
    main()
