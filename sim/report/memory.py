"""The memory budget of every pool, line by line, ending in KV blocks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from sim.cost.memory import Budget


def show(pools: Iterable[tuple[str, Budget | None]], console: Console | None = None) -> None:
    """``pools``: (heading, budget) with a budget of `sim.cost.memory`, or None where the engine does not manage KV memory."""
    console = console or Console()
    for heading, budget in pools:
        if budget is None:
            console.print(f"{heading}: the engine does not manage KV memory", highlight=False)
            continue
        table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for name in ("of one accelerator", "size", "evidence", "source"):
            table.add_column(name, justify="right" if name == "size" else "left", overflow="fold")
        for row in budget.rows():
            table.add_row(*row)
        console.print(table)
        for warning in budget.warnings:
            console.print(f"! {warning}", highlight=False)
