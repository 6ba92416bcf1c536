"""The application that every command joins."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    name="servesim",
    help="Simulate LLM serving: what TTFT, ITL and throughput a deployment gives under real traffic, what breaks first, and how much it holds.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
