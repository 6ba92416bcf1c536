"""The choice of a serving system: the advice first, figures of each, then facts with their sources."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from sim.report import study, words
from sim.report.fitting import plain_table
from sim.report.templating import Cell, Page, Section, Table
from sim.units import show_share

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sim.study.questions.select import SelectAnswer


def screen(answer: SelectAnswer) -> Group:
    """Advice, figures, situations."""
    from sim.study.selection.advice import SITUATIONS, TITLES

    table = plain_table()
    money = [f"{answer.currency}/h"] if answer.currency else []
    for i, title in enumerate(("engine", "on", "cards", *money, "SLO met", "TTFT\np99", "TPOT\np50")):
        table.add_column(title, justify="left" if i < 2 else "right", overflow="fold")
    for r in answer.rows:
        price = [words.DASH if r.cost is None else f"{r.cost:,.2f}"] if answer.currency else []
        on = f"{r.size} × {r.accelerator} tp {r.tp}" if r.size else r.accelerator
        cards = (f"{r.accelerators:,}" if r.accelerators else words.DASH) + (f" ({r.within()})" if " " in r.within() else "")
        cells = (cards, *price, show_share(r.attainment))
        shown = [words.seconds(r.figures[k]) if k in r.figures else words.DASH for k in ("ttft_p99_s", "tpot_p50_s")]
        table.add_row(TITLES.get(r.engine, r.engine), on, *cells, *shown, style="" if r.holds else "dim")
    lines: list[RenderableType] = [Text(answer.english[0], style="bold green" if answer.verdict else "bold red"), table]
    lines += [Text(line) for line in answer.english[1:]]
    if any(" " in r.within() for r in answer.rows):
        lines.append(Text("Cards in brackets: within the error of the model on measured deployments.", style="dim"))
    lines += [Text(f"{TITLES.get(r.engine, r.engine)}: {r.why}", style="dim") for r in answer.rows if r.why]
    lines.append(Text("By situation:", style="bold"))
    lines += [Text(f"  {where}: {what}") for where, what, _, _ in SITUATIONS]
    lines += [Text(line) for line in answer.chinese]
    return Group(*lines, *study.warnings(answer))


def files(answer: SelectAnswer, folder: Path) -> None:
    """``summary.json`` and ``report.html``."""
    study.write(folder, answer.as_dict(), page(answer).html())


def page(answer: SelectAnswer) -> Page:
    """The report."""
    from sim.study.selection.advice import SITUATIONS, TITLES
    from sim.study.selection.facts import SHOWN, facts

    money = [answer.currency + " per hour"] if answer.currency else []
    head = ["engine", "best deployment", "accelerators", "within model error", *money, "SLO met", "TTFT p99", "within model error",
            "TPOT p50", "tokens/s/card", "remark"]  # fmt: skip
    rows: list[list[str | Cell]] = []
    for r in answer.rows:
        price = [study.cell(r.cost)] if answer.currency else []
        figures = [
            Cell(show(r.figures[k]), r.figures[k]) if k in r.figures else Cell(words.DASH)
            for k, show in (("ttft_p99_s", words.seconds), ("tpot_p50_s", words.seconds), ("per_accelerator", words.number))
        ]
        if (found := r.bands.get("ttft_p99_s")) is not None:
            figures.insert(1, Cell(words.between(found), found.high))
        else:
            figures.insert(1, Cell(words.DASH))
        within = Cell(r.within() or words.DASH)
        met = Cell(show_share(r.attainment), r.attainment, "yes" if r.holds else "no")
        on = f"{r.size} × {r.accelerator}, tp {r.tp}" if r.size else words.DASH
        rows.append([TITLES.get(r.engine, r.engine), on, study.cell(r.accelerators), within, *price, met, *figures, r.why])
    known = {r.engine: facts(r.engine) for r in answer.rows}
    fields = [f for f in SHOWN if any(f in k for k in known.values())]
    cells = [[f.replace("_", " "), *(known[e][f].value if f in known[e] else words.DASH for e in known)] for f in fields]
    sources = [
        [TITLES.get(e, e), f.replace("_", " "), k[f].source, k[f].date or words.DASH, k[f].confidence]
        for e, k in known.items()
        for f in fields
        if f in k
    ]
    situations = [[where, what, wo, was] for where, what, wo, was in SITUATIONS]
    engines = [TITLES.get(e, e) for e in known]
    return Page(
        f"Which engine for {answer.name}?",
        answer.question,
        answer.sentence(),
        study.STATE[answer.verdict],
        notes=[*answer.english[1:], *answer.chinese],
        warnings=list(answer.warnings),
        sections=[
            Section("Under this traffic", FIGURES, table=_without_empty(head, rows)),
            Section("By situation", table=Table(["situation", "choice", "场景", "选择"], situations, (0, 1, 2, 3))),
            Section("Facts", FACTS, table=Table(["", *engines], cells, tuple(range(len(engines) + 1)))),
        ],
        details=[
            Section(
                "Sources of the facts", table=Table(["engine", "field", "source", "date", "confidence"], sources, (0, 1, 2, 3, 4))
            ),
            Section("Everything that was tried", table=study.rows_table(list(answer.tried))),
        ],
    )


def _without_empty(head: list[str], rows: list[list[str | Cell]]) -> Table:
    """The table, without its last column where nobody has a remark."""
    if not any(row[-1] for row in rows):
        return Table(head[:-1], [row[:-1] for row in rows], (0, 1), sortable=True)
    return Table(head, rows, (0, 1, len(head) - 1), sortable=True)


FIGURES = (
    "Each engine in its best deployment: the fewest accelerators (the least money where prices are known) that hold the SLO. "
    "Within model error: where 4 of 5 real deployments like this one would be, by the record of measured ones."
)
FACTS = "What no simulation gives, as of the dates below; those whose confidence is “recalled” were not read on a page: check them before you rely on them."
