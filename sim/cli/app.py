"""The application that every command joins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

import typer

from sim.cli.help import Command, Group

F = TypeVar("F", bound=Callable[..., None])

app = typer.Typer(
    cls=Group,
    rich_markup_mode=None,
    name="servesim",
    help="Simulate LLM serving: what TTFT, ITL and throughput a deployment gives under real traffic, what breaks first, and how much it holds.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="servesim run quickstart\nservesim scenarios\nservesim plan --help",
)

ASK, TRUST, LOOK, FILES = "Answer a question", "Compare with measurements and recordings", "Look up", "Files and set-up"
"""Sections of the list of commands."""


def command(section: str, *examples: str, name: str | None = None, of: typer.Typer = app) -> Callable[[F], F]:
    """Decorates a function that is a command of ``of``: where it is listed, and examples for its help."""
    return of.command(name, cls=Command, rich_help_panel=section, epilog="\n".join(examples) or None)


def group(name: str, section: str, words: str) -> typer.Typer:
    """A command with commands of its own."""
    made = typer.Typer(name=name, help=words, no_args_is_help=True, cls=Group, rich_markup_mode=None)
    app.add_typer(made, rich_help_panel=section)
    return made


def _version(asked: bool) -> None:
    if asked:
        from sim import __version__

        typer.echo(f"servesim {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Run program files that a scenario file names; those named by -s run anyway.")
    ] = False,
) -> None:
    """Options of the application itself."""
