"""Tables of the terminal in as many columns as there is room for: a column goes as a whole, no number is ever cut."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

_GAP = 2
Key = TypeVar("Key", bound=Hashable)


def kept(widths: Mapping[Key, int], spare: Sequence[Key], room: int) -> list[Key]:
    """The columns that stay: of ``spare`` one after the other goes until the others fit."""
    left = dict(widths)
    for key in spare:
        if sum(left.values()) + _GAP * (len(left) - 1) <= room:
            break
        left.pop(key, None)
    return list(left)


def plain_table() -> Table:
    """An empty table as all of the terminal look."""
    return Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)


class Fitting:
    """Rows under ``heads``; words are in the columns ``words`` and fold, the others are figures. ``spare``: heads that may go, first the first."""

    def __init__(self, heads: Sequence[str], words: Sequence[int] = (0,), spare: Sequence[str] = ()) -> None:
        self.heads, self.words, self.spare = heads, words, spare
        self.rows: list[tuple[list[Text], str]] = []

    def add(self, *cells: str | Text, style: str = "") -> None:
        """A row; ``style`` as rich has it."""
        self.rows.append(([c if isinstance(c, Text) else Text(c) for c in cells], style))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table of this width."""
        widths = {i: self._width(i) for i in range(len(self.heads))}
        shown = kept(widths, [self.heads.index(name) for name in self.spare], options.max_width)
        table = plain_table()
        for i in shown:
            word = i in self.words
            table.add_column(
                self.heads[i], justify="left" if word else "right", no_wrap=not word, min_width=widths[i], overflow="fold"
            )
        for cells, style in self.rows:
            table.add_row(*(cells[i] for i in shown), style=style)
        yield table

    def _width(self, i: int) -> int:
        """What a column needs at least: its longest word, or its longest line of figures."""
        texts = [self.heads[i], *(cells[i].plain for cells, _ in self.rows)]
        return max(len(part) for text in texts for part in (text.split() if i in self.words else text.split("\n")) or [""])
