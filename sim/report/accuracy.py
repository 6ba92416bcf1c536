"""The accuracy of predictions: terminal tables, a CSV of every figure, an HTML page with predicted against measured."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from sim import output
from sim.metrics import model_error
from sim.metrics.store import write_json
from sim.report import study
from sim.report.figures import PALETTE, Figure, Layout, Trace, layout, rounded, time_axis
from sim.report.fitting import Fitting, plain_table
from sim.report.templating import Cell, Page, Section, Table
from sim.study.accuracy.errors import GROUPS, STEPS, TARGETS, Row, title
from sim.units import show_number

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sim.document import Json
    from sim.study.accuracy import AccuracyReport
    from sim.study.accuracy.saturation import Capacity

_PLOTTED: Final = ("tpot_s.mean", "ttft_s.mean", "e2e_s.mean", "ttft_s.p99", "output_tokens_per_s")
_CAPACITY: Final = ("", "deployments", "median |error|", "p90 |error|", "bias")
_GROUPED: Final = ("tpot_s.mean", "e2e_s.mean", "ttft_s.mean", "output_tokens_per_s", *STEPS)


def percent(x: float, signed: bool = False) -> str:
    """``0.052`` → ``5.2 %``."""
    return f"{100 * x:+.1f} %" if signed else f"{100 * x:.1f} %"


def screen(report: AccuracyReport) -> Group:
    """The sentence, then everything as tables."""
    by, worst = report.by, report.show_worst
    parts: list[RenderableType] = [Text(report.sentence(), style="bold")]
    if report.skipped:
        parts.append(Text(f"{report.skipped} points left out by quality or overload", style="dim"))
    parts += [*study.warnings(report), errors(report.rows(), with_group=False)]
    covered, of_sources = report.coverage(), report.coverage(whole=True)
    if covered and max(n for _, _, n in covered.values()) > model_error.FEWEST:
        judged = "each deployment judged by all others, and by all other sources"
        parts.append(Text(f"{model_error.LEVEL:.0%} interval of model error, {judged}", style="bold"))
        table = RichTable.grid(padding=(0, 2, 0, 0))
        for metric, (inside, half, n) in covered.items():
            others = of_sources.get(metric)
            beside = ("", "") if others is None else (f"{percent(others[0])} inside", f"± {percent(others[1])}")
            table.add_row(title(metric), f"{percent(inside)} inside", f"± {percent(half)}", *beside, f"{n} deployments")
        parts.append(table)
    left = report.left_out((*_PLOTTED, *STEPS))
    if left:
        parts += [Text("what nothing was fitted to", style="bold"), errors(left, with_group=True)]
    even = report.at_equal_load(_PLOTTED)
    if even:
        parts += [Text("near saturation", style="bold"), errors(even, with_group=True)]
    if found := report.capacities():
        parts += [Text("capacity: highest throughput, predicted against measured", style="bold"), _capacity(found)]
    for name in by:
        parts += [Text(f"by {name}", style="bold"), errors(report.rows(name, _GROUPED), with_group=True)]
    if worst:
        parts += [Text("worst first", style="bold"), _worst(report, worst)]
    reasons = report.reasons()
    if reasons:
        parts.append(Text("not simulated", style="bold"))
        table = RichTable.grid(padding=(0, 2, 0, 0))
        for engine, reason, n in reasons:
            table.add_row(str(n), engine, reason)
        parts.append(table)
    notes = report.notes()
    if notes:
        parts.append(Text("assumed or left out", style="bold"))
        table = RichTable.grid(padding=(0, 2, 0, 0))
        for note, n in notes:
            table.add_row(str(n), note)
        parts.append(table)
    return Group(*parts)


def errors(rows: Sequence[Row], with_group: bool) -> Fitting:
    """The error table of the terminal."""
    heads = ["metric", "points", "median\n|error|", "p90\n|error|", "bias"]
    table = Fitting(["", *heads] if with_group else [*heads, "aim"], (0, 1) if with_group else (0,))
    last = ""
    for r in rows:
        aim = TARGETS.get(r.metric)
        style = "" if aim is None else "green" if r.median <= aim else "yellow"
        cells: list[str | Text] = [
            title(r.metric),
            str(r.points),
            Text(percent(r.median), style=style),
            percent(r.p90),
            percent(r.bias, True),
        ]
        if with_group:
            cells.insert(0, r.group if r.group != last else "")
        else:
            cells.append("" if aim is None else percent(aim))
        last = r.group
        table.add(*cells)
    return table


def capacity_rows(found: Sequence[Capacity]) -> list[list[str]]:
    """Engine, deployments, median and 90th percentile of the absolute error, median: all together first."""
    groups: dict[str, list[float]] = {"all": [c.error for c in found]}
    for c in found:
        groups.setdefault(c.engine, []).append(c.error)
    return [
        [name, str(len(e)), percent(float(np.median(np.abs(e)))), percent(float(np.percentile(np.abs(e), 90))), percent(float(np.median(e)), True)]
        for name, e in groups.items()
    ]  # fmt: skip


def _capacity(found: Sequence[Capacity]) -> RichTable:
    table = plain_table()
    for name in _CAPACITY:
        table.add_column(name, justify="left" if name == "" else "right", no_wrap=True)
    for row in capacity_rows(found):
        table.add_row(*row)
    return table


def _worst(report: AccuracyReport, n: int) -> RichTable:
    table = plain_table()
    for name in ("point", "metric", "measured", "predicted", "error"):
        table.add_column(name, justify="left" if name in ("point", "metric") else "right", overflow="fold")
    for o, metric, error in report.worst(n):
        measured, predicted = o.point.measured[metric], o.predicted[metric]
        table.add_row(o.point.id, title(metric), show_number(measured, 4), show_number(predicted, 4), percent(error, True))
    return table


def write_table(report: AccuracyReport, file: Path) -> None:
    """``--csv``: one row a point and metric."""
    output.write_file(file, lambda to: _csv(report, to), "--csv")


def _csv(report: AccuracyReport, file: Path) -> None:
    rows = list(report.table())
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, fieldnames=list(rows[0]) if rows else ["id"])
        writer.writeheader()
        writer.writerows(rows)


def write_record(report: AccuracyReport, file: Path) -> None:
    """``--record``: the spread of errors by class of deployments, as `sim.metrics.model_error` reads it."""
    ratios = report.ratios()
    source = f"servesim accuracy --record: {len({r[1] for r in ratios})} deployments, {len(report.simulated)} operating points"
    errors: dict[str, dict[str, list[float]]] = {}
    for r in (*(replace(r, group="all points") for r in report.rows(None, _PLOTTED)), *report.left_out(_PLOTTED)):
        errors.setdefault(r.group, {})[r.metric] = [round(r.median, 5), round(r.p90, 5), r.points]
    text = model_error.as_yaml(report.entries(), source, errors)
    output.write_file(file, lambda to: _text(to, text), "--record")


def _text(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def scatter(report: AccuracyReport, metric: str) -> Figure | None:
    """Predicted against measured, logarithmic, one colour an engine; the dashed lines are ±10 %."""
    groups: dict[str, list[tuple[float, float, str]]] = {}
    for o in report.simulated:
        if metric in o.predicted and o.point.measured[metric] > 0 and o.predicted[metric] > 0:
            groups.setdefault(f"{o.point.engine} {o.point.accelerator}", []).append(
                (o.point.measured[metric], o.predicted[metric], o.point.id)
            )
    if not groups:
        return None
    every = [v for points in groups.values() for m, p, _ in points for v in (m, p)]
    low, high = min(every) / 1.2, max(every) * 1.2
    guide: dict[str, Json] = {"color": "#8b93a1", "width": 1}
    data: list[Trace] = [
        {
            "type": "scatter", "mode": "lines", "x": [low, high], "y": [low * k, high * k], "showlegend": False, "hoverinfo": "skip",
            "line": guide if k == 1.0 else guide | {"dash": "dot"},
        }
        for k in (1.0, 0.9, 1.1)
    ]  # fmt: skip
    for i, (name, points) in enumerate(sorted(groups.items())):
        data.append(
            {
                "type": "scatter", "mode": "markers", "name": name, "x": rounded([p[0] for p in points]), "y": rounded([p[1] for p in points]),
                "text": [p[2] for p in points], "hovertemplate": "%{text}<br>measured %{x}<br>predicted %{y}<extra></extra>",
                "marker": {"size": 6, "opacity": 0.7, "color": PALETTE[i % len(PALETTE)]},
            }
        )  # fmt: skip
    axis: Layout = {"type": "log", "nticks": 8} if metric.endswith("per_s") else time_axis(low, high)
    look = layout("measured", "predicted", xaxis=axis, yaxis=axis | {"rangemode": "normal"}, hovermode="closest")
    row = report.rows(None, (metric,))[0]
    caption = f"{row.points} points; median error {percent(row.median)}, p90 {percent(row.p90)}, bias {percent(row.bias, True)}"
    return Figure(
        "accuracy-" + metric.replace(".", "-").replace("_", "-"), title(metric), caption, {"data": data, "layout": look}
    )


def page(report: AccuracyReport) -> Page:
    """The report."""
    figures = [f for f in (scatter(report, m) for m in _PLOTTED) if f]
    cards = [
        {
            "label": title(r.metric),
            "value": percent(r.median),
            "note": f"aim {percent(aim)}; p90 {percent(r.p90)}; {r.points} points",
            "mood": "good" if ok else "bad",
        }
        for r, aim, ok in report.targets()
    ]
    sections = [Section("Predicted against measured", figures=figures)] if figures else []
    sections.append(Section("Errors", "Of the absolute relative error: median and 90th percentile; bias: median with its sign.",
                            table=error_table(report.rows(), False)))  # fmt: skip
    if even := report.at_equal_load(_PLOTTED):
        sections.append(Section("Near saturation", "The same points at the rates that were measured, and at the same load relative to capacity.",
                                table=error_table(even, True)))  # fmt: skip
    if found := report.capacities():
        sections.append(Section("Capacity", "Highest throughput where a deployment was saturated, predicted against measured.",
                                table=Table(list(_CAPACITY), capacity_rows(found), (0,))))  # fmt: skip
    details = [Section(f"By {name}", table=error_table(report.rows(name), True)) for name in GROUPS]
    worst: list[list[str | Cell]] = [
        [
            o.point.id,
            title(m),
            study.cell(o.point.measured[m]),
            study.cell(o.predicted[m]),
            Cell(percent(e, True), abs(e)),
        ]
        for o, m, e in report.worst(100)
    ]
    if worst:
        head = ["point", "metric", "measured", "predicted", "error"]
        details.append(Section("Worst first", table=Table(head, worst, (0, 1), sortable=True)))
    if reasons := report.reasons():
        rows = [[engine, reason, f"{n:,}"] for engine, reason, n in reasons]
        details.append(Section("Not simulated", table=Table(["engine", "reason", "points"], rows, (0, 1))))
    if notes := report.notes():
        rows = [[note, f"{n:,}"] for note, n in notes]
        details.append(Section("Assumed or left out", table=Table(["what", "points"], rows, (0,))))
    return Page(
        "Accuracy",
        "How far predictions are from what was measured",
        report.sentence(),
        study.STATE[report.verdict],
        cards=cards,
        warnings=report.warnings,
        sections=sections,
        details=details,
    )


def error_table(rows: Sequence[Row], with_group: bool) -> Table:
    """The error table of a page."""
    head = ["group"] * with_group + ["metric", "points", "median |error|", "p90 |error|", "bias"]
    cells: list[list[str | Cell]] = [
        [
            *[r.group] * with_group,
            title(r.metric),
            f"{r.points:,}",
            Cell(percent(r.median), r.median),
            Cell(percent(r.p90), r.p90),
            Cell(percent(r.bias, True), r.bias),
        ]
        for r in rows
    ]
    return Table(head, cells, (0, 1) if with_group else (0,), sortable=True)


def files(report: AccuracyReport, folder: Path) -> None:
    """``summary.json, accuracy.csv, report.html``."""
    write_json(report.as_dict(), folder / "summary.json")
    _csv(report, folder / "accuracy.csv")
    (folder / "report.html").write_text(page(report).html(), encoding="utf-8")


def elsewhere(report: AccuracyReport) -> None:
    """``--csv`` and ``--record``."""
    for option, file in report.elsewhere.items():
        {"--csv": write_table, "--record": write_record}[option](report, Path(file))
