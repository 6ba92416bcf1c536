"""Many runs of one scenario: every figure with the interval of its mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.text import Text

from sim.report import confidence, study
from sim.report.compare import ROWS
from sim.report.fitting import Fitting
from sim.report.templating import Page, Section, Table
from sim.study.statistics.paired import percent

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sim.study.questions.repeat import RepeatAnswer

_ALONE: Final = "An interval needs at least two runs: --replications 5."


def _rows(answer: RepeatAnswer) -> list[list[str]]:
    rows = []
    for row in ROWS:
        interval = answer.intervals.get(row.path)
        if interval is not None:
            share = interval.half if row.path == "slo.attainment.joint" else interval.relative
            rows.append(
                [
                    row.title,
                    row.show(interval.value),
                    row.show(max(0.0, interval.low)),
                    row.show(interval.high),
                    f"± {percent(share)}",
                ]
            )
    return rows


def screen(answer: RepeatAnswer) -> Group:
    """The figures with their intervals."""
    table = Fitting(("", "mean", "from", "to", "half-width"))
    for row in _rows(answer):
        table.add(*row)
    style = {True: "bold green", False: "bold red", None: "bold"}[answer.verdict]
    lines: list[RenderableType] = [*confidence.caution(answer.stationary), Text(answer.sentence(), style=style)]
    if table.rows:
        lines += [table, Text(f"{answer.level:.0%} intervals of the mean over {answer.replications} runs.", style="dim")]
    else:
        lines.append(Text(_ALONE, style="dim"))
    return Group(*lines, *study.warnings(answer, 2))


def files(answer: RepeatAnswer, folder: Path) -> None:
    """``summary.json`` and ``report.html``."""
    notes = [answer.stationary] if answer.stationary else []
    rows = _rows(answer)
    if not rows:
        notes.append(_ALONE)
    page = Page(
        f"{answer.name}, {answer.replications} runs",
        f"{answer.level:.0%} intervals of the mean over the runs",
        answer.sentence(),
        study.STATE[answer.verdict],
        notes,
        warnings=answer.warnings,
        sections=[Section("Figures", table=Table(["figure", "mean", "from", "to", "half-width"], rows))] if rows else [],
    )
    study.write(folder, answer.as_dict(), page.html())
