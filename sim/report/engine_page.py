"""The page of an engine on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from sim.study.engine_page import EnginePage


def show_engine(page: EnginePage, console: Console | None = None) -> None:
    """What is modelled and what is not, all settings, and those that change no time."""
    console = console or Console()
    console.print(Text(page.title, style="bold"))
    console.print(Text(f"{page.models}\n\n{page.words}\n"))
    if page.not_modelled:
        console.print(Text(f"Not modelled: {'; '.join(page.not_modelled)}\n"))
    table = Table(
        title="settings", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False
    )
    for column in ("name", "default", "what it is"):
        table.add_column(column, overflow="fold")
    for s in page.settings:
        table.add_row(Text(s.name), Text(s.default), Text(s.description + (f" ({s.note})" if s.note else "")))
    console.print(table)
    console.print(Text("\nsettings without effect on time", style="bold"))
    for name, why in page.idle.items():
        console.print(Text(f"{name}: {why}"))
    if not page.idle:
        console.print(Text("none"))
