"""The answer of any study: its sentence, and whatever it says of itself. Studies with more to show have a module of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.text import Text

from sim.metrics.store import write_json
from sim.report import words
from sim.report.templating import Cell, Page, Section, Table

if TYPE_CHECKING:
    from sim.document import Json
    from sim.document import Table as Row
    from sim.study.base import Answer

FORMAT: Final = "servesim-study/1"
_STYLE: Final = {True: "bold green", False: "bold red", None: "bold"}
STATE: Final = {True: "holds", False: "misses", None: ""}


def screen(answer: Answer) -> Group:
    """The sentence and the first warnings."""
    return Group(Text(answer.sentence(), style=_STYLE[answer.verdict]), *warnings(answer))


def warnings(answer: Answer, most: int = 3) -> list[Text]:
    """The first warnings of an answer, whole, and how many there are besides."""
    found = list(getattr(answer, "warnings", ()))
    lines = [
        *found[:most],
        *([f"{words.counted(len(found) - most, 'more warning')} in the report."] if len(found) > most else []),
    ]
    return [Text(f"! {w}", style="yellow") for w in lines]


def files(answer: Answer, folder: Path) -> None:
    """``summary.json`` and ``report.html``."""
    data = answer.as_dict()
    write(folder, data, page(answer, data).html())


def write(folder: Path, data: Mapping[str, Json], html: str) -> None:
    """The two files that every study has."""
    write_json({"format": FORMAT, **data}, folder / "summary.json")
    (folder / "report.html").write_text(html, encoding="utf-8")


def page(answer: Answer, data: Row) -> Page:
    """Plain facts as cards, lists of rows as tables, the rest as JSON."""
    cards, sections = [], []
    for key, value in data.items():
        title = key.replace("_", " ")
        if (
            isinstance(value, bool)
            or (isinstance(value, str) and len(value) > 40)
            or value is None
            or key in ("sentence", "warnings")
        ):
            continue
        if isinstance(value, int | float):
            cards.append({"label": title, "value": words.number(float(value), 4)})
        elif isinstance(value, str):
            cards.append({"label": title, "value": value})
        elif isinstance(value, list) and (rows := [row for row in value if isinstance(row, Mapping)]) and len(rows) == len(value):
            sections.append(Section(title.capitalize(), table=rows_table(rows)))
        elif value:
            text = json.dumps(value, indent=1, ensure_ascii=False)
            sections.append(Section(title.capitalize(), html="", text=text if len(text) < 400 else text[:400] + "…"))
    return Page(
        str(data.get("name", "Study")),
        "",
        answer.sentence(),
        STATE[answer.verdict],
        cards=cards,
        warnings=list(getattr(answer, "warnings", ())),
        sections=sections,
    )


def rows_table(rows: Sequence[Row], columns: Mapping[str, str] | None = None) -> Table:
    """Flat mappings as a table to sort and filter; ``columns``: name → title, all of them without."""
    names = columns or {k: k for k in dict.fromkeys(k for row in rows for k in row)}
    cells = [[cell(row.get(name)) for name in names] for row in rows]
    left = [i for i, name in enumerate(names) if any(isinstance(row.get(name), str) for row in rows)]
    return Table(list(names.values()), cells, left, sortable=True)


def cell(value: object) -> Cell:
    """A value as a cell that sorts by its number."""
    if isinstance(value, bool):
        return Cell("yes", 1, "yes") if value else Cell("no", 0, "no")
    if isinstance(value, int):
        return Cell(f"{value:,}", value)
    if isinstance(value, float):
        return Cell(words.number(float(value), 4), value)
    return Cell(words.DASH if value is None else str(value), None if isinstance(value, str) else 0)
