"""Deployments side by side: the verdicts first, then every figure with its interval, the best of each row marked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from markupsafe import Markup
from rich.console import Group
from rich.text import Text

from sim.document import number_at
from sim.metrics.bottleneck import WORDS
from sim.metrics.store import write_csv
from sim.report import page, study, words
from sim.report.figures import Figure, cdf_figure, rounded
from sim.report.fitting import plain_table
from sim.report.html import KIND_COLORS
from sim.report.templating import Cell, Page, Section, Table
from sim.study.against import FIGURES
from sim.study.questions.compare import CompareAnswer, Deployment
from sim.study.statistics.paired import percent
from sim.study.stretches import curve_grid
from sim.units import show_number

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sim.ledger import Values
    from sim.study.against import Against

_SIDE_BY_SIDE: Final = 4
"""More deployments than this become rows of the terminal table, with fewer figures each."""


@dataclass(frozen=True)
class Row:
    """One line of the comparison.

    ``path``: where in the summary; ``best``: min, max or nothing; ``brief``: also in the narrow table.
    """

    title: str
    path: str
    show: Callable[[float | None], str]
    best: str = ""
    brief: bool = False

    def value(self, d: Deployment) -> float | None:
        """The mean over repetitions; that of the first one where not all have it; None where there is none."""
        if self.path in d.intervals:
            return d.intervals[self.path].value
        return d.means.get(self.path, number_at(d.summary, self.path))

    def cell(self, d: Deployment) -> str:
        """The value, with half of its interval."""
        value = self.value(d)
        interval = d.intervals.get(self.path)
        if value is None or interval is None or not value:
            return self.show(value)
        if not math.isfinite(interval.high):
            return f"{self.show(value)} (at least {self.show(interval.low)})"
        if self.path == "slo.attainment.joint":
            return f"{self.show(value)} ± {100 * interval.half:.2f} points"
        return f"{self.show(value)} ± {percent(interval.half / abs(value))}"


def _count(value: float | None) -> str:
    if value is None or value != int(value):  # accelerators that come and go have a mean
        return words.number(value)
    return f"{int(value):,}"


def _share(value: float | None) -> str:
    return words.percent(value, 2)


_GOODPUT: Final = "slo.goodput_requests_per_s"


def _use(value: float | None) -> str:
    return words.percent(value, 0)


ROWS: Final = (
    Row("Requests within all targets", "slo.attainment.joint", words.met_cell, "max", brief=True),
    Row("Effective attainment", "slo.effective", words.met_cell, "max"),
    Row("Goodput/s without the drain", _GOODPUT, words.number, "max"),
    Row("TTFT p50", "latency.ttft_s.p50", words.seconds, "min"),
    Row("TTFT p99", "latency.ttft_s.p99", words.seconds, "min", brief=True),
    Row("TPOT p50", "latency.tpot_s.p50", words.seconds, "min"),
    Row("TPOT p99", "latency.tpot_s.p99", words.seconds, "min", brief=True),
    Row("ITL p99", "latency.itl_s.p99", words.seconds, "min"),
    Row("E2E p50", "latency.e2e_s.p50", words.seconds, "min"),
    Row("E2E p99", "latency.e2e_s.p99", words.seconds, "min", brief=True),
    Row("Queue, mean", "latency.queue_s.mean", words.seconds, "min"),
    Row("Requests/s with the drain", "throughput.requests_per_s", words.number),
    Row("Output tokens/s with the drain", "throughput.output_tokens_per_s", words.number),
    Row("… per accelerator", "throughput.output_tokens_per_s_per_accelerator", words.number, "max", brief=True),
    Row("Accelerators", "context.accelerators", _count, "min"),
    Row("Unserved", "slo.unserved", _share, "min"),
    Row("KV use, peak", "utilisation.kv_peak", _use),
    Row("Preemptions", "preemptions", _count, "min"),
)
LIMITED: Final = "Limited by"
"""The last line, and the only one in words."""


def limited(d: Deployment) -> str:
    """By what, in a word or two."""
    return WORDS.get(d.summary.bottleneck.limit, "nothing")


def best(row: Row, answer: CompareAnswer) -> set[int]:
    """Which deployments are best in this row: not those that merely look better. Empty without an order, or when all are alike."""
    values = [row.value(d) for d in answer.deployments]
    known = [v for v in values if v is not None]
    if not row.best or len(known) < 2:
        return set()
    top = values.index(max(known) if row.best == "max" else min(known))
    alike = {top}
    for i, value in enumerate(values):
        if value is not None and i != top and (row.show(value) == row.show(values[top]) or not _differs(row, answer, i, top)):
            alike.add(i)
    return alike if len(alike) < len(values) else set()


def _differs(row: Row, answer: CompareAnswer, i: int, top: int) -> bool:
    """Whether the difference of two deployments is shown; of figures that nobody has tested only accelerators, which are counted."""
    if row.path not in FIGURES:
        return row.path == "context.accelerators"
    for k in {i, top} - {0}:
        against = next(c for c in answer.comparisons if c.second == answer.deployments[k].name)
        if row.path in against.differences and not against.differences[row.path].significant and 0 in (i, top):
            return False
    return True


def facts(d: Deployment) -> str:
    """What a deployment is, in a line: accelerators, engine."""
    return ", ".join(str(v) for k, v in d.summary.context.items() if k.startswith(("deployment", "engine")))


def shown(answer: CompareAnswer) -> list[Row]:
    """Rows that say something: effective attainment only where several things are demanded apart."""
    apart = any(len(d.summary.slo.demands) > 1 for d in answer.deployments)
    known = [r for r in ROWS if any(r.value(d) is not None for d in answer.deployments)]
    whole = {
        d.summary.steady.requests_per_s is None for d in answer.deployments
    }  # too short to have anything but a start and a drain
    if whole != {False}:
        title = "Goodput/s with the drain" if whole == {True} else "Goodput/s"
        known = [replace(r, title=title) if r.path == _GOODPUT else r for r in known]
    return [r for r in known if apart or r.path != "slo.effective"]


_STYLES: Final = {"better": "green", "worse": "red", "better in some, worse in others": "yellow", "not shown to differ": ""}


def screen(answer: CompareAnswer) -> Group:
    """The comparison as one screen."""
    narrow = len(answer.deployments) > _SIDE_BY_SIDE
    rows = [r for r in shown(answer) if r.brief or not narrow]
    marks = {row.title: best(row, answer) for row in rows}
    show = Row.cell if len(answer.deployments) <= 2 else lambda row, d: row.show(row.value(d))
    cells = [[_mark(show(row, d), i in marks[row.title]) for row in rows] for i, d in enumerate(answer.deployments)]
    table = plain_table()
    if narrow:
        for title in ("", *(row.title for row in rows)):
            table.add_column(title, justify="right" if title else "left", overflow="fold")
        for d, line in zip(answer.deployments, cells, strict=True):
            table.add_row(Text(d.name, style="bold"), *line)
    else:
        for title in ("", *(d.name for d in answer.deployments)):
            table.add_column(title, justify="right" if title else "left", overflow="fold")
        for k, row in enumerate(rows):
            table.add_row(row.title, *(line[k] for line in cells))
        table.add_row(LIMITED, *(limited(d) for d in answer.deployments))
    style = {True: "bold green", False: "bold red", None: "bold"}[answer.verdict]
    lines: list[RenderableType] = [Text(c.verdict, style=_STYLES[c.mood]) for c in answer.comparisons if c.verdict]
    if len(lines) > 1:
        lines.insert(0, Text(answer.headline(), style=style))
    lines = [*(Text(f"{name} failed: {error}", style="bold red") for name, error in answer.failed.items()), *lines]
    lines = [*(Text(c, style="bold yellow") for c in answer.cautions()), *lines]
    lines += [Text(slo_line(answer)), table, Text(legend(answer), style="dim")]
    lines += [Text(f"! {n}", style="yellow") for n in answer.notes]
    lines += study.warnings(answer)
    return Group(*lines)


def slo_line(answer: CompareAnswer) -> str:
    """Who holds the SLO."""
    judged = [d for d in answer.deployments if d.summary.slo.met is not None]
    if not judged:
        return ""
    held = [d.name for d in judged if answer.held(d)]
    whom = "None" if not held else "All" if len(held) == len(judged) else words.join(held)
    return f"{whom} {'holds' if len(held) == 1 and len(judged) > 1 else 'hold'} the SLO ({words.targets(judged[0].summary.slo)})."


def legend(answer: CompareAnswer) -> str:
    """How to read the marks."""
    how = f"mean of {answer.replications} repetitions" if answer.replications > 1 else "one run"
    traffic = "the same requests for all" if answer.same_traffic else "each its own requests"
    return f"★ best, where a difference is shown. ± half of the {answer.level:.0%} interval; {how}, {traffic}."


def _mark(text: str, is_best: bool) -> Text:
    return Text(f"★ {text}", style="green") if is_best else Text(text)


def page_of(answer: CompareAnswer) -> Page:
    """The comparison as a report."""
    names = [d.name for d in answer.deployments]
    rows: list[list[str | Cell]] = [["", *(Cell(facts(d), mood="fact") for d in answer.deployments)]]
    for row in shown(answer):
        marks = best(row, answer)
        cells = [Cell(row.cell(d), mood="best" if i in marks else "") for i, d in enumerate(answer.deployments)]
        rows.append([row.title, *cells])
    rows.append([LIMITED, *(limited(d) for d in answer.deployments)])
    limits = Table(["", "what limits"], [[d.name, d.summary.bottleneck.sentence] for d in answer.deployments], (0, 1))
    bars = "".join(page.bar(d.name, d.summary.bottleneck.shares, WORDS, KIND_COLORS) for d in answer.deployments)
    sections = [
        Section("Side by side", legend(answer), table=Table(["", *names], rows)),
        *(Section(f"{c.second} against {c.first}", table=_differences(c)) for c in answer.comparisons),
        Section("Latency", "Of the first repetition.", figures=figures(answer)),
        Section("Where the time went", html=Markup(f'<section class="panel">{bars}</section><br>'), table=limits),
    ]
    notes = [
        *([c.verdict for c in answer.comparisons] if len(answer.comparisons) > 1 else []),
        *(f"{name} failed: {error}" for name, error in answer.failed.items()),
        *answer.cautions(),
        slo_line(answer),
        *answer.notes,
    ]
    details = [
        Section("Definitions of every metric", html=Markup(page.definition_table())),
        *(Section(f"Scenario {d.name}", pre=d.scenario) for d in answer.deployments if d.scenario),
    ]
    return Page(
        " · ".join(names),
        f"{len(names)} deployments side by side, {legend(answer).partition('; ')[2]}",
        answer.headline() or "Nothing to compare.",
        study.STATE[answer.verdict],
        [n for n in notes if n],
        warnings=answer.warnings,
        sections=sections,
        details=details,
    )


def _differences(c: Against) -> Table:
    rows: list[list[str | Cell]] = []
    for path, d in c.differences.items():
        r = d.relative
        p = d.p if d.holm is None else d.holm
        mood = "" if not d.significant else "yes" if (d.relative.value < 0) == (FIGURES[path][1] == "lower") else "no"
        show: Callable[[float], str] = partial(percent, sign=True)
        if path == "slo.attainment.joint":  # as the verdict tells it
            r, show = d.change, _points
        cells = [show(r.value), f"{show(r.low)} to {show(r.high)}"]
        effect = words.DASH if d.as_dict()["effect"] is None else f"{d.effect:+,.1f}".replace("-", "−")
        rows.append(
            [
                FIGURES[path][0],
                Cell(cells[0], mood=mood),
                cells[1],
                effect,
                ("< 0.0001" if p < 1e-4 else show_number(p, 2)) + " (Holm)" * (d.holm is not None),
            ]
        )
    return Table(["figure", "difference", "interval", "effect size (d)", "p"], rows)


def _points(share: float) -> str:
    return f"{100 * share:+.1f} points".replace("-", "−")


def figures(answer: CompareAnswer) -> list[Figure]:
    """Distributions of latency, one curve per deployment."""
    out = []
    shares = rounded(100.0 * np.asarray(curve_grid()), 6)
    for key in ("ttft_s", "tpot_s", "e2e_s"):
        curves = [(d.name, d.curves[key], shares) for d in answer.deployments if d.curves.get(key)]
        aims = {d.summary.slo.targets.get(key) for d in answer.deployments}
        if curves:
            out.append(cdf_figure(curves, key, aims.pop() if len(aims) == 1 else None))
    return out


def files(answer: CompareAnswer, folder: Path) -> None:
    """``summary.json, compare.csv, report.html``."""
    study.write(folder, answer.as_dict(), page_of(answer).html())
    columns: dict[str, Values] = {"name": np.array([d.name for d in answer.deployments], dtype=object)}
    for row in ROWS:
        columns[row.path] = _numbers([row.value(d) for d in answer.deployments])
        if any(row.path in d.intervals for d in answer.deployments):
            found = [d.intervals.get(row.path) for d in answer.deployments]
            columns[f"{row.path}.low"] = _numbers([None if i is None else i.low for i in found])
            columns[f"{row.path}.high"] = _numbers([None if i is None or not math.isfinite(i.high) else i.high for i in found])
    columns["bottleneck.limit"] = np.array([d.summary.bottleneck.limit for d in answer.deployments], dtype=object)
    write_csv(columns, folder / "compare.csv")


def _numbers(values: Sequence[float | None]) -> Values:
    return np.array([np.nan if v is None else v for v in values], float)
