"""``servesim engine``: what is modelled of an engine, and what each of its settings can change."""

from __future__ import annotations

from typing import Annotated

import typer

from sim.cli.app import LOOK, command


@command(LOOK, "servesim engine vllm")
def engine(name: Annotated[str, typer.Argument(metavar="ENGINE", help="vllm, sglang, tgi …")]) -> None:
    """Print the page of an engine: version, what is modelled and what is not, all settings, and those without effect on time."""
    from sim.report.engine_page import show_engine
    from sim.study.engine_page import engine_page

    show_engine(engine_page(name))
