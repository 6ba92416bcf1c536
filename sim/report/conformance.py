"""The terminal view of a conformance replay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from sim.study.conformance import Case


def show_difference(case: Case, console: Console | None = None) -> None:
    """The first step that differs, both sides field by field."""
    console = console or Console()
    d = case.difference
    assert d is not None
    table = Table(title=f"{case.name}: step {d.step} differs (matched {case.matched:,} of {case.steps:,})", title_justify="left")
    for heading in ("field", "recorded", "ours"):
        table.add_column(heading, overflow="fold")
    for key in dict.fromkeys((*d.recorded, *d.ours)):
        left, right = d.recorded.get(key, "–"), d.ours.get(key, "–")
        style = "" if left == right else "bold red"
        table.add_row(Text(str(key), style), Text(str(left), style), Text(str(right), style))
    console.print(table)


def show_total(engine: str, cases: Sequence[Case], console: Console | None = None) -> None:
    """``matched N of N``."""
    console = console or Console()
    matched, steps = sum(c.matched for c in cases), sum(c.steps for c in cases)
    whole = sum(c.difference is None for c in cases)
    console.print(
        f"{engine}: matched {matched:,} of {steps:,} steps; {whole} of {len(cases)} recordings agree throughout", highlight=False
    )
