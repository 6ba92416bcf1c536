"""The accuracy of predictions: terminal tables, a CSV of every figure, an HTML page with predicted against measured."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from sim import output
from sim.metrics import model_error
from sim.metrics.store import write_json
from sim.report import page
from sim.report.figures import PALETTE, Figure, layout, rounded
from sim.study.accuracy.errors import GROUPS, TARGETS, Row, title

if TYPE_CHECKING:
    from sim.study.accuracy import AccuracyReport
    from sim.study.calibrate import Calibration

_PLOTTED: Final = ("tpot_s.mean", "ttft_s.mean", "e2e_s.mean", "ttft_s.p99", "output_tokens_per_s")
_GROUPED: Final = ("tpot_s.mean", "e2e_s.mean", "ttft_s.mean", "output_tokens_per_s")


def percent(x: float, signed: bool = False) -> str:
    """``0.052`` → ``5.2 %``."""
    return f"{100 * x:+.1f} %" if signed else f"{100 * x:.1f} %"


def screen(report: AccuracyReport, by: Sequence[str] = ("engine",), worst: int = 0) -> Group:
    """Everything as rich renderables."""
    done, refused = len(report.simulated), len(report.refused)
    head = f"{done} of {done + refused} operating points simulated"
    if report.skipped:
        head += f", {report.skipped} left out by quality or overload"
    parts: list[Any] = [Text(head, style="bold"), _table(report.rows(), with_group=False)]
    covered = report.coverage()
    if covered and max(n for _, _, n in covered.values()) > model_error.FEWEST:
        parts.append(Text(f"{model_error.LEVEL:.0%} interval of model error, each deployment judged by all others", style="bold"))
        table = Table.grid(padding=(0, 2, 0, 0))
        for metric, (inside, half, n) in covered.items():
            table.add_row(title(metric), f"{percent(inside)} inside", f"± {percent(half)}", f"{n} deployments")
        parts.append(table)
    left = report.left_out(_PLOTTED)
    if left:
        parts += [Text("what nothing was fitted to", style="bold"), _table(left, with_group=True)]
    for name in by:
        parts += [Text(f"by {name}", style="bold"), _table(report.rows(name, _GROUPED), with_group=True)]
    if worst:
        parts += [Text("worst first", style="bold"), _worst(report, worst)]
    reasons = report.reasons()
    if reasons:
        parts.append(Text("not simulated", style="bold"))
        table = Table.grid(padding=(0, 2, 0, 0))
        for engine, reason, n in reasons:
            table.add_row(str(n), engine, reason)
        parts.append(table)
    notes = report.notes()
    if notes:
        parts.append(Text("assumed or left out", style="bold"))
        table = Table.grid(padding=(0, 2, 0, 0))
        for note, n in notes:
            table.add_row(str(n), note)
        parts.append(table)
    return Group(*parts)


def _table(rows: Sequence[Row], with_group: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    if with_group:
        table.add_column("")
    table.add_column("metric")
    for name in ("points", "median |error|", "p90 |error|", "bias"):
        table.add_column(name, justify="right", no_wrap=True)
    if not with_group:
        table.add_column("aim", justify="right", no_wrap=True)
    last = ""
    for r in rows:
        aim = TARGETS.get(r.metric)
        style = "" if aim is None else "green" if r.median <= aim else "yellow"
        cells: list[Any] = [
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
        table.add_row(*cells)
    return table


def _worst(report: AccuracyReport, n: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in ("point", "metric", "measured", "predicted", "error"):
        table.add_column(name, justify="left" if name in ("point", "metric") else "right", overflow="fold")
    for o, metric, error in report.worst(n):
        measured, predicted = o.point.measured[metric], o.predicted[metric]
        table.add_row(o.point.id, title(metric), f"{measured:.4g}", f"{predicted:.4g}", percent(error, True))
    return table


def show(report: AccuracyReport, by: Sequence[str] = ("engine",), worst: int = 0, console: Console | None = None) -> None:
    """Print the tables."""
    (console or Console()).print(screen(report, by, worst))


def show_calibration(done: Calibration, console: Console | None = None) -> None:
    """Print what was fitted, with errors before, after and cross-validated."""
    console = console or Console()
    for f in done.fits:
        console.print(Text(f"{f.engine} {f.line} on {f.accelerator}: {f.points} points", style="bold"))
        console.print("  " + ", ".join(f"{k} {v:.4g}" for k, v in f.figures.items()))
        if f.unmoved:
            console.print(f"  left as they were, nothing measured depends on them: {', '.join(f.unmoved)}")
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        for name in ("median |error|", "before", "after", f"one {f.folds} left out"):
            table.add_column(name, justify="left" if name.startswith("median") else "right")
        for metric, before in f.before.items():
            table.add_row(title(metric), percent(before), percent(f.after[metric]), percent(f.held_out[metric]))
        console.print(table)
    console.print(Text("all points, before", style="bold"), _table(done.before.rows(None, tuple(TARGETS)), False))
    console.print(Text("all points, after", style="bold"), _table(done.after.rows(None, tuple(TARGETS)), False))


def write_table(report: AccuracyReport, file: Path) -> None:
    """``--csv``: one row a point and metric."""
    rows = list(report.table())

    def fill(to: Path) -> None:
        with to.open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, fieldnames=list(rows[0]) if rows else ["id"])
            writer.writeheader()
            writer.writerows(rows)

    output.write_file(file, fill, "--csv")


def write_record(report: AccuracyReport, file: Path) -> None:
    """``--record``: the spread of errors by class of deployments, as `sim.metrics.model_error` reads it."""
    ratios = report.ratios()
    source = f"servesim accuracy --record: {len({r[1] for r in ratios})} deployments, {len(report.simulated)} operating points"
    text = model_error.as_yaml(model_error.spread(ratios), source)
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
    guide = {"color": "#8b93a1", "width": 1}
    data: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "lines", "x": [low, high], "y": [low * k, high * k], "showlegend": False, "hoverinfo": "skip",
            "line": guide | ({} if k == 1.0 else {"dash": "dot"}),
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
    unit = "" if metric.endswith("per_s") else ", s"
    look = layout(
        f"measured{unit}",
        f"predicted{unit}",
        xaxis={"type": "log"},
        yaxis={"type": "log", "rangemode": "normal"},
        hovermode="closest",
    )
    row = report.rows(None, (metric,))[0]
    caption = f"{row.points} points; median error {percent(row.median)}, p90 {percent(row.p90)}, bias {percent(row.bias, True)}"
    return Figure(
        "accuracy-" + metric.replace(".", "-").replace("_", "-"), title(metric), caption, {"data": data, "layout": look}
    )


def render(report: AccuracyReport) -> str:
    """The page."""
    figures = [f for f in (scatter(report, m) for m in _PLOTTED) if f]
    cards = [
        page.card(
            title(r.metric),
            percent(r.median),
            f"aim {percent(aim)}; p90 {percent(r.p90)}; {r.points} points",
            "good" if ok else "bad",
        )
        for r, aim, ok in report.targets()
    ]
    done = len(report.simulated)
    body = [
        f'<h1>Accuracy</h1><p class="kicker">{done} of {len(report.outcomes)} operating points simulated; median absolute error</p>',
        f'<div class="cards">{"".join(cards)}</div>',
        "<h2>Predicted against measured</h2>",
        page.plots(figures),
        "<h2>Errors</h2>",
        _html(report.rows(), False),
        *(page.details(f"By {name}", _html(report.rows(name), True)) for name in GROUPS),
    ]
    worst = [
        {
            "point": o.point.id,
            "metric": title(m),
            "measured": o.point.measured[m],
            "predicted": o.predicted[m],
            "error": percent(e, True),
        }
        for o, m, e in report.worst(100)
    ]
    body.append(page.records("Worst first", worst))
    reasons = [{"points": n, "engine": e, "reason": r} for e, r, n in report.reasons()]
    if reasons:
        body.append(page.records("Not simulated", reasons))
    return page.page("Accuracy · servesim", body, figures)


def _html(rows: Sequence[Row], with_group: bool) -> str:
    head = ["group"] * with_group + ["metric", "points", "median |error|", "p90 |error|", "bias"]
    cells = [
        [page.esc(r.group)] * with_group
        + [page.esc(title(r.metric)), str(r.points), percent(r.median), percent(r.p90), percent(r.bias, True)]
        for r in rows
    ]
    return page.table(head, cells, (0, 1) if with_group else (0,))


def save(report: AccuracyReport, folder: str | Path) -> Path:
    """``accuracy.json, accuracy.csv, report.html`` in a folder, all or nothing. Raises ConfigError, OSError."""

    def fill(to: Path) -> None:
        write_json(report.as_dict(), to / "accuracy.json")
        write_table(report, to / "accuracy.csv")
        (to / "report.html").write_text(render(report), encoding="utf-8")

    return output.write_folder(Path(folder), fill)
