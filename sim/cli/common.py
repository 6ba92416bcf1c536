"""What commands share: options, the output folder, progress, Ctrl-C. Heavy rooms are loaded inside functions."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Optional

import typer

HOW = "Running and saving"
"""Section of the options that say nothing about the question."""
Scenario = Annotated[
    str, typer.Argument(metavar="SCENARIO", help="A scenario file, or the name of a built-in one (see `servesim scenarios`).")
]
Overrides = Annotated[
    Optional[list[str]],
    typer.Option("--set", "-s", metavar="PATH=VALUE", help="Change one setting, e.g. deployment.replicas=2. Repeatable."),
]
Seed = Annotated[Optional[int], typer.Option(metavar="N", help="Seed of all random streams, instead of the scenario's.")]
Out = Annotated[
    Optional[Path],
    typer.Option(
        "--out", "-o", metavar="FOLDER", help="Folder of the result (default: servesim-results/NAME).", rich_help_panel=HOW
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.", rich_help_panel=HOW)]
NoSave = Annotated[bool, typer.Option("--no-save", help="Print only, write nothing.", rich_help_panel=HOW)]


def say(quiet: bool, text: str) -> None:
    """Print a line unless ``quiet``."""
    if not quiet:
        typer.echo(text)


def show(*parts: object) -> None:
    """Print what rich can print."""
    from rich.console import Console

    for part in parts:
        Console().print(part)


@contextmanager
def printing() -> Iterator[None]:
    """Print as long as somebody reads: ``| head`` ends the printing, not the command, whose exit code still tells."""
    try:
        yield
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # rich ends the program
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def json(data: object) -> str:
    """Indented JSON."""
    import json

    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)


def target(out: Path | None, name: str) -> Path:
    """The result's folder, checked before anything is computed."""
    from sim import output

    output.on_kept.set(lambda sentence: print(f"! {sentence}", file=sys.stderr))
    target = out or Path("servesim-results") / name
    output.check(target)
    return target


def writable(option: str, file: Path | None) -> None:
    """Refuse a file that cannot be written, before anything is computed."""
    from sim import output

    if file is not None:
        output.check_file(file, option)


@contextmanager
def stopping(kept: str = "the partial result will be saved") -> Iterator[Callable[[], int]]:
    """Ctrl-C, or a polite end by the system, asks the run to stop at the next good moment; a second one stops at once.

    Yields what tells which signal came, 0 for none.
    """
    asked: list[int] = []

    def ask(number: int, _: object) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise KeyboardInterrupt
        with suppress(OSError, ValueError):  # the terminal may be gone
            print(f"\nstopping: {kept} (Ctrl-C again to stop at once)", file=sys.stderr, flush=True)

    heard = [
        n for n in STOPS if n == signal.SIGINT or signal.getsignal(n) is not signal.SIG_IGN
    ]  # nohup: somebody wants otherwise
    before = {number: signal.signal(number, ask) for number in heard}
    try:
        yield lambda: asked[0] if asked else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


STOPS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
"""What asks a program to end."""


def interrupted(number: int) -> int:
    """The exit code of a program that a signal stopped: 130 for Ctrl-C."""
    return 128 + number


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[..., None]]:
    """A bar on the terminal's error stream for whoever watches; silent otherwise. ``update(done, total, label)``."""
    if quiet or not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("preparing", total=None)

        def update(done: int, total: int | None, label: str = "simulating") -> None:
            bar.update(task, completed=done, total=total, description=label)

        def compiles(_: str, signature: str) -> None:
            from sim.study.warm import engine_of

            engine = engine_of(signature)
            if engine:
                bar.update(task, description=f"compiling {engine} (once, {COMPILING.get(engine, 'about 25 s')})")

        from sim.workload.textfile import on_read

        token = on_read.set(update)  # large files say how far they are read
        try:
            with _compiling(compiles):
                yield update
        finally:
            on_read.reset(token)


COMPILING = {"vllm": "about 35 s", "vllm_ascend": "about 35 s", "static": "about 15 s"}
"""Processor seconds that compiling takes (one core of an AMD EPYC), where they are not the usual 20 to 27."""


@contextmanager
def _compiling(tell: Callable[[str, str], None]) -> Iterator[None]:
    from sim import kept_code  # loads the compiler, which whoever shows a bar is about to use

    kept_code.listeners.append(tell)
    try:
        yield
    finally:
        kept_code.listeners.remove(tell)


def stage(progress: Callable[..., None], stopped: Callable[[], int]) -> Callable[..., bool]:
    """``progress`` that ends the study at once when ``stopped``."""

    def update(done: int, total: int | None, label: str = "simulating") -> bool:
        progress(done, total, label)
        if stopped():
            raise KeyboardInterrupt
        return False

    return update
