"""The application that every command joins."""

from __future__ import annotations

import typer

app = typer.Typer(
    name="servesim",
    help="Simulate LLM serving: what TTFT, ITL and throughput a deployment gives under real traffic, what breaks first, and how much it holds.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
