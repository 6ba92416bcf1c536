"""Entry point: commands collected, errors of ours turned into one line and an exit code.

Exit codes: 0 done, 1 a check failed (conformance differs, capacity not found), 2 bad input,
3 a verdict is negative (with --gate), 4 a law does not hold (a fault of ours), 130 interrupted.
"""

from __future__ import annotations

import codecs
import gc
import io
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import typer

from sim import plugins, trust
from sim.cli.app import app
from sim.errors import LawViolation, ServesimError

COMMANDS = ("run", "studies", "facts", "conformance", "profiles", "prices", "warm", "traffic", "engine")
"""Modules with commands, in the order in which ``--help`` lists them."""


def application(asked: str = "") -> typer.Typer:
    """The program with all its commands, or with no more than ``run`` if that is asked for: the others load what it does not need."""
    for module in ("run",) if asked == "run" else COMMANDS:
        import_module(f"sim.cli.{module}")
    return app


def main() -> None:
    """Entry point: errors of ours become one line and exit code 2."""
    gc.set_threshold(50_000, 20, 20)  # what is loaded stays: looking through it again and again is an eighth of a short run
    plugins.alone = True
    try:
        with trust.command_line(sys.argv):
            _main()
    finally:
        plugins.alone = False


def _main() -> None:
    try:
        _print_somewhere()
        _spell_what_the_terminal_can()
        _end_politely()
        program = application(*sys.argv[1:2])
        _own_study()
        code = _unless_nobody_reads(program)
        sys.exit(code if isinstance(code, int) else 0)
    except LawViolation as error:
        _fail(f"a law does not hold, which is a fault of servesim: {error}\n{_reproducer(error)}", 4)
    except ServesimError as error:
        _fail(f"error: {error}", 2)
    except KeyboardInterrupt:
        _fail("interrupted: nothing was written", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except MemoryError as error:
        _fail(f"error: there is not enough memory for this run{f' ({error})' if str(error) else ''}; nothing was written", 2)
    except OSError as error:
        _fail(f"error: {plugins.blame(error) or error}", 2)
    except Exception as error:
        blamed = plugins.blame(error)
        if blamed is not None:
            _fail(f"error: {blamed}", 2)
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # a usage error of the command-line library
            error.show()
            sys.exit(2)
        if type(error).__name__ == "Abort":
            _fail("interrupted: nothing was written", 130)
        raise


_PLAINER = {
    "≤": "<",
    "≥": ">",
    "×": "x",
    "·": "-",
    "–": "-",
    "−": "-",
    "±": "~",
    "→": ">",
    "…": ".",
    "µ": "u",
    "█": "#",
    "■": "#",
    "²": "2",
}
_PLAINER |= (
    dict.fromkeys("─━╌╴╶╸╺", "-")
    | dict.fromkeys("│┃", "|")
    | dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╯╰┏┓┗┛┡┩╇", "+")
    | {"✔": "+", "✘": "x", "✗": "x", "•": "*"}
)
"""One for one, so that tables stay straight."""


def _unless_nobody_reads(program: Callable[..., int | None]) -> int | None:
    """The exit code of `typer.Exit`, else what the command returned: None; 0 where ``| head`` has read enough, which libraries call a failure."""
    try:
        return program(standalone_mode=False)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):
            return 0
        raise


def _print_somewhere() -> None:
    """Streams that the caller closed lead nowhere: a file of ours would be opened in their place, and written by whoever prints."""
    while True:
        number = os.open(os.devnull, os.O_RDWR)
        if number > 2:
            os.close(number)
            break
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - as long as the program


def _spell_what_the_terminal_can() -> None:
    """A character that the terminal's encoding (ASCII, GBK) does not have is printed as one that looks like it, or as ``?``."""

    def plainer(error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        return "".join(_PLAINER.get(c, "?") for c in error.object[error.start : error.end]), error.end

    codecs.register_error("servesim", plainer)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and "utf" not in stream.encoding.lower():
            stream.reconfigure(errors="servesim")


def _end_politely() -> None:
    """A signal that asks the program to end lets it clear away what is half written."""

    def end(number: int, _: object) -> None:
        sys.exit(128 + number)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # else: somebody wants otherwise (nohup)
            signal.signal(number, end)


def _own_study() -> None:
    """``servesim path/to/file.py:Class SCENARIO``: a study of one's own is a command as the built-in ones are."""
    if len(sys.argv) > 1 and ".py:" in sys.argv[1]:
        from sim import registry
        from sim.cli import studies

        cls = registry.lookup("study", sys.argv[1], "study")
        plugins.carry(cls.__module__)
        studies.add(cls)
        sys.argv[1] = cls.name


def _reproducer(error: LawViolation) -> str:
    """Write the scenario that shows a broken law again beside the results, or where there is room; what to do with it."""
    import hashlib
    import tempfile

    name = f"servesim-broken-law-{hashlib.sha256(error.scenario.encode()).hexdigest()[:8]}.yaml"
    for folder in (Path(), Path(tempfile.gettempdir())):
        with suppress(OSError):
            (folder / name).write_text(error.scenario, encoding="utf-8")
            return f"nothing was saved but {folder / name}, which shows it again: please report it with that file"
    return "nothing was saved; please report it with the scenario"


def _fail(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(code)
