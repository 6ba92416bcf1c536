"""Profiles on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from sim.study.profiles import Entry, Fact


def show_list(entries: Sequence[Entry], console: Console | None = None) -> None:
    """One table a kind."""
    console = console or Console()
    for kind in dict.fromkeys(e.kind for e in entries):
        table = Table(
            title=kind, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False
        )
        for name in ("name", "", "figures by grade", "note"):
            table.add_column(name, overflow="fold")
        for e in (e for e in entries if e.kind == kind):
            table.add_row(e.name, e.title, ", ".join(f"{n} {g}" for g, n in e.grades.items()), e.note)
        console.print(table)


def show_one(entry: Entry, facts: Sequence[Fact], console: Console | None = None) -> None:
    """Every figure with grade and source."""
    console = console or Console()
    console.print(Text(f"{entry.name}  {entry.title}", style="bold"))
    if entry.note:
        console.print(Text(entry.note, style="dim"))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in ("figure", "value", "grade", "source"):
        table.add_column(name, overflow="fold")
    for f in facts:
        table.add_row(f.name, f.value, f.grade, f.source)
    console.print(table)
