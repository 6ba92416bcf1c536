"""A stress test: what breaks first and where, the curve of load with its bands, and how spikes are taken."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.text import Text

from sim.metrics.definitions import definition
from sim.report import study, words
from sim.report.figures import BLUE, ORANGE, PALETTE, Figure, Layout, Trace, layout, level_line, rounded, time_axis
from sim.report.fitting import Fitting
from sim.report.templating import Cell, Page, Section, Table
from sim.study.stress.curve import title_of
from sim.units import show_number, show_share

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sim.study.questions.stress import StressAnswer
    from sim.study.stress.curve import Curve, Interval, Point
    from sim.study.stress.hysteresis import Hysteresis

CURVE: Final = (
    "Bands are the interval of the mean over the runs. Where the queue grows to the end of the run, latencies depend on how long the run is: "
    "such loads are marked."
)
SPIKES: Final = (
    "Requests by time of arrival. The spike is shaded; a window is bad when fewer requests meet the SLO than it requires."
)

STEPS: Final = (
    "Load goes up in steps, is briefly more than can be served, and goes down the same steps. Requests of the second half of each step: by then "
    "the queue that the overload left has been worked off."
)


def screen(answer: StressAnswer) -> Group:
    """The sentence, the loads, the spikes."""
    from sim.study.questions.stress import recovery_sentence

    style = {True: "bold green", False: "bold red", None: "bold"}[answer.verdict]
    curve = answer.curve
    heads = (curve.unit.replace(" ", "\n"), "SLO met", "TTFT\np50", "TTFT\np99", "TPOT\np99", "tokens/s", "")
    table = Fitting(heads, (6,), spare=("TTFT\np50",))
    for p in curve.points:
        held = p.attainment["joint"][0] >= curve.required
        cells = [c.text.partition(" ± ")[0] for c in _cells(curve, p)]
        table.add(*cells[:5], *cells[6:8], style="green" if held else "")
    lines: list[RenderableType] = [Text(answer.sentence(), style=style), table]
    lines += [Text(line) for line in facts(answer)]
    lines += [Text(recovery_sentence(r), style="red" if r.stuck else "") for r in answer.recoveries]
    if answer.hysteresis is not None:
        lines.append(Text(answer.hysteresis.sentence(), style="red" if any(v.worse for v in answer.hysteresis.levels) else ""))
    return Group(*lines, *study.warnings(answer))


def facts(answer: StressAnswer) -> list[str]:
    """Knee, saturation, and the break of each target, a line each."""
    c = answer.curve
    scale = answer.offered if c.along == "rate" else 1.0
    unit = c.unit
    out = []
    knee, capacity = c.knee(), c.capacity()
    if knee is not None:
        out.append(f"Knee: TTFT p99 has doubled at {show_number(knee * scale, 4)} {unit}.")
    held = c.breaks["joint"][0] * scale if "joint" in c.breaks and c.along == "rate" else math.nan
    if capacity is not None and capacity < held:
        out.append("Saturation cannot be told from runs this short: they are mostly the wait for the last answers.")
    elif capacity is not None:
        out.append(f"Saturation: at most {show_number(capacity, 4)} requests/s are served.")
    for target, (good, bad) in c.breaks.items():
        if target == "joint" or math.isnan(bad):
            continue
        low = "below" if math.isnan(good) else f"between {show_number(good * scale, 4)} and"
        out.append(f"{title_of(target)} breaks {low} {show_number(bad * scale, 4)} {unit}.")
    return out


def _mean(mean: float, low: float, high: float, show: Callable[[float], str], mood: str = "") -> Cell:
    return Cell(show(mean) + ("" if low == high else f" ± {show((high - low) / 2)}"), mean, mood)


def _cells(curve: Curve, p: Point) -> list[Cell]:
    def figure(name: str, show: Callable[[float], str]) -> Cell:
        return _mean(*p.figures[name], show) if name in p.figures else Cell(words.DASH)

    load = p.rate if curve.along == "rate" else p.factor
    joint = p.attainment["joint"]
    return [
        Cell(show_number(load, 4), load),
        _mean(*joint, show_share, "yes" if joint[0] >= curve.required else "no"),
        figure("ttft_p50_s", words.seconds),
        figure("ttft_p99_s", words.seconds),
        figure("tpot_p99_s", words.seconds),
        figure("e2e_p99_s", words.seconds),
        figure("output_tokens_per_s", words.number),
        Cell("queue grows" if p.saturated else ""),
    ]


def files(answer: StressAnswer, folder: Path) -> None:
    """``summary.json`` and ``report.html``."""
    study.write(folder, answer.as_dict(), page(answer).html())


def page(answer: StressAnswer) -> Page:
    """The report."""
    from sim.study.questions.stress import recovery_sentence

    c = answer.curve
    head = [c.unit, "SLO met", "TTFT p50", "TTFT p99", "TPOT p99", "E2E p99", "output tokens/s", ""]
    figures = [
        _band(c, "attainment"),
        _band(c, "ttft_p99_s"),
        _band(c, "tpot_p99_s"),
        _band(c, "output_tokens_per_s"),
    ]
    sections = [
        Section("Load against service", CURVE, figures=[f for f in figures if f is not None]),
        Section("Every load", table=Table(head, [_cells(c, p) for p in c.points], (7,), sortable=True)),
    ]
    if answer.recoveries:
        spikes = [f for i in range(len(answer.recoveries)) for f in _spike(answer, i)]
        sections.insert(1, Section("After a spike", SPIKES, figures=spikes))
    notes = [*facts(answer), *(recovery_sentence(r) for r in answer.recoveries)]
    if answer.hysteresis is not None:
        notes.append(answer.hysteresis.sentence())
        sections.insert(-1, Section("The same load before and after an overload", STEPS, table=_steps(answer.hysteresis)))
    return Page(
        f"Stress test of {answer.name}",
        answer.question,
        answer.sentence(),
        study.STATE[answer.verdict],
        notes=notes,
        warnings=list(answer.warnings),
        sections=sections,
    )


def _steps(found: Hysteresis) -> Table:
    rows = [
        [Cell(show_number(v.rate, 4), v.rate), _mean(*v.up, show_share), _mean(*v.down, show_share, "no" if v.worse else "yes")]
        for v in found.levels
    ]
    return Table(["requests/s", "SLO met on the way up", "on the way down"], rows)


def _band(c: Curve, name: str) -> Figure | None:
    x_title = {
        "rate": "requests/s",
        "lengths": "lengths, times the scenario's",
        "burst": "height of bursts, times the mean",
        "failures": "failures, times the scenario's",
        "class": f"rate of class {c.klass}, times the scenario's",
    }[c.along]
    points = [p for p in c.points if name == "attainment" or name in p.figures]
    if len(points) < 2:
        return None
    xs = [p.rate if c.along == "rate" else p.factor for p in points]
    if name == "attainment":
        targets = list(points[0].attainment)
        data = [
            t
            for i, k in enumerate(targets)
            for t in _line(xs, [p.attainment[k] for p in points], _short(k), PALETTE[i % len(PALETTE)])
        ]
        made = layout(x_title, "share of requests", yaxis={"range": [0, 1.02], "tickformat": ".0%"})
        made["shapes"] = [level_line(c.required)]
        return Figure(
            "attainment",
            "Requests within the SLO",
            "By target; dashed: what is required.",
            {"data": data, "layout": made},
            wide=True,
        )
    title = "Output tokens/s" if name == "output_tokens_per_s" else f"{definition(name.rsplit('_p', 1)[0] + '_s').title} p99"
    rows = [p.figures[name] for p in points]
    if name == "output_tokens_per_s":
        made = layout(x_title, "tokens/s")
    else:  # an interval that reaches below zero reaches the foot of a logarithmic axis
        axis = time_axis(min(r[0] for r in rows) / 2, max(r[2] for r in rows))
        rows = [(mean, max(low, rows[0][0] / 1e3), high) for mean, low, high in rows] if axis["type"] == "log" else rows
        made = layout(x_title, title, yaxis=axis)
    data = _line(xs, rows, title, BLUE)
    return Figure(name.replace("_", "-"), title, "Mean and interval over the runs.", {"data": data, "layout": made})


def _short(target: str) -> str:
    return "all together" if target == "joint" else title_of(target)


def _line(xs: list[float], rows: list[Interval], name: str, color: str) -> list[Trace]:
    mean, low, high = ([r[i] for r in rows] for i in range(3))
    band: Trace = {
        "type": "scatter",
        "mode": "lines",
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
        "x": rounded(xs),
    }
    line: Trace = {"type": "scatter", "mode": "lines+markers", "name": name, "x": rounded(xs), "y": rounded(mean)}
    return [
        band | {"y": rounded(low)},
        band | {"y": rounded(high), "fill": "tonexty", "fillcolor": color + "33"},
        line | {"line": {"color": color}, "marker": {"color": color, "size": 5}},
    ]


def _spike(answer: StressAnswer, i: int) -> list[Figure]:
    w, r = answer.windows[i], answer.recoveries[i]
    start = 60.0
    shade: Layout = {
        "type": "rect", "xref": "x", "yref": "paper", "x0": start, "x1": start + r.duration_s, "y0": 0, "y1": 1,
        "fillcolor": ORANGE + "22", "line": {"width": 0},
    }  # fmt: skip
    xs = [s + w.width_s / 2 for s in w.start_s]
    out = []
    waits = [v for v in w.ttft_p99_s if v] or [1.0]
    panels: tuple[tuple[str, str, list[float | None], Layout], ...] = (
        ("met", "Requests within the SLO", w.attainment, {"range": [0, 1.02], "tickformat": ".0%"}),
        ("ttft", "TTFT p99", w.ttft_p99_s, time_axis(min(waits), max(waits))),
    )
    for key, title, values, axis in panels:
        ys = rounded([math.nan if v is None else v for v in values])
        line: Trace = {"type": "scatter", "mode": "lines", "x": rounded(xs), "y": ys, "line": {"color": BLUE}, "name": title}
        made = layout("time, s", title, yaxis=axis, showlegend=False)
        made["shapes"] = [shade, *([level_line(answer.curve.required)] if key == "met" else [])]
        at = f"{r.factor:g}× for {r.duration_s:g} s at {show_number(r.load, 4)} requests/s"
        out.append(
            Figure(
                f"spike-{key}-{i}", f"{title}: {at}", f"Windows of {show_number(w.width_s)} s.", {"data": [line], "layout": made}
            )
        )
    return out
