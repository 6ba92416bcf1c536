"""The answer of a capacity search on one screen, and as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from markupsafe import Markup
from rich.console import Group
from rich.text import Text

from sim.document import number_at
from sim.metrics.definitions import definition
from sim.metrics.store import write_csv
from sim.report import page, study, words
from sim.report.figures import BLUE, GREEN, ORANGE, Figure, Layout, Trace, layout, level_line, line, rounded, time_axis
from sim.report.fitting import Fitting
from sim.report.templating import Cell, Page, Section, Table
from sim.study.questions.capacity import CapacityAnswer, Probe
from sim.units import show_number

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sim.ledger import Values
    from sim.study.figures import Figures

_MAX_ROWS: Final = 14  # one terminal screen

_COLUMNS: Final = ("held", "SLO met", "goodput/s", "TTFT p50", "TTFT p99", "TPOT p99", "E2E p99", "KV peak")
_SPARE: Final = ("E2E p99", "TTFT p50", "KV peak", "goodput/s")


def _cells(s: Figures) -> list[str]:
    return [
        words.met_cell(s.slo.attainment.get("joint")),
        words.number(words.rates(s).goodput_requests_per_s),
        words.seconds(s.latency.ttft.p50),
        words.seconds(s.latency.ttft.p99),
        words.seconds(s.latency.tpot.p99),
        words.seconds(s.latency.e2e.p99),
        words.percent(s.utilisation.kv_peak, 0),
    ]


def _unit(answer: CapacityAnswer) -> str:
    return "requests/s" if answer.question == "rate" else "replicas"


def _load(answer: CapacityAnswer, probe: Probe) -> str:
    return show_number(probe.value, 4) if answer.question == "rate" else f"{probe.value:.0f}"


def _slo(answer: CapacityAnswer) -> str:
    if not answer.probes:
        return ""
    slo = answer.probes[0].summary.slo
    return f"SLO: {words.required(slo.required or 0.0)} of requests with {words.targets(slo)}."


def _tested(answer: CapacityAnswer) -> str:
    facts = [str(v) for k, v in answer.tested.items() if k == "model" or k.startswith(("engine", "deployment"))]
    return f"Tested: {', '.join(facts)}." if facts else ""


def nearest(answer: CapacityAnswer, most: int = _MAX_ROWS) -> list[Probe]:
    """The probes closest to the answer, in order of load: of the first repetition for a rate, the worst of each number of replicas."""
    shown = (p for p in answer.probes if p.replication == 0) if answer.question == "rate" else _worst(answer)
    probes = sorted(shown, key=lambda p: p.value)
    if answer.answer is not None and len(probes) > most:
        at = answer.answer
        probes = sorted(sorted(probes, key=lambda p: abs(np.log(p.value / at)))[:most], key=lambda p: p.value)
    return probes[:most]


def _worst(answer: CapacityAnswer) -> list[Probe]:
    """Of each number of replicas the repetition that met the SLO least."""
    found: dict[float, Probe] = {}
    for p in sorted(answer.probes, key=lambda p: (p.held, p.summary["slo"]["attainment"].get("joint") or 0.0)):
        found.setdefault(p.value, p)
    return list(found.values())


def _mark(answer: CapacityAnswer, probe: Probe) -> Text:
    """Whether a probe held; for replicas, in how many of its repetitions."""
    runs = [p.held for p in answer.probes if p.value == probe.value]
    many = answer.question == "replicas" and len(answer.found) > 1
    return Text("✔" if probe.held else "✘", "green" if probe.held else "red") + (f" {sum(runs)} of {len(runs)}" * many)


def _which(answer: CapacityAnswer) -> str:
    if len(answer.found) < 2:
        return ""
    return " Table: the first repetition." if answer.question == "rate" else " Table: the worst repetition of each size."


def screen(answer: CapacityAnswer) -> Group:
    """The answer, the probes around it, and what breaks first."""
    heads = ["rate, /s" if answer.question == "rate" else "replicas", *(c.replace(" ", "\n") for c in _COLUMNS)]
    table = Fitting(heads, (), spare=[c.replace(" ", "\n") for c in _SPARE])
    for probe in nearest(answer):  # of the first repetition
        table.add(
            _load(answer, probe),
            _mark(answer, probe),
            *_cells(probe.summary),
            style="bold" if probe.value == answer.answer else "",
        )
    style = "bold green" if answer.answer is not None else "bold red"
    lines: list[RenderableType] = [
        Text(answer.sentence(), style=style),
        Text(" ".join(filter(None, (_slo(answer), _tested(answer)))) + _which(answer), style="dim"),
        table,
        Text(f"Beyond: {answer.limit()}"),
    ]
    return Group(*lines, *study.warnings(answer, 2))


def _figures(answer: CapacityAnswer) -> list[Figure]:
    probes = sorted((p for p in answer.probes if p.replication == 0), key=lambda p: p.value)
    others = [
        (p.value, joint)
        for p in answer.probes
        if p.replication > 0 and (joint := p.summary.slo.attainment.get("joint")) is not None
    ]
    if len(probes) < 2:
        return []
    x = [p.value for p in probes]
    summaries = [p.summary for p in probes]
    slo = summaries[0].slo
    stop: list[Layout] = []
    if answer.answer is not None:
        shape: Layout = {"type": "line", "x0": answer.answer, "x1": answer.answer, "yref": "paper", "y0": 0, "y1": 1}
        stop = [shape | {"line": {"color": GREEN, "width": 1.5, "dash": "dot"}}]

    def plot(name: str, title: str, caption: str, y: str, curves: list[Trace], level: float | None, axis: Layout) -> Figure:
        for curve in curves:
            curve |= {"mode": "lines+markers", "marker": {"size": 6}}
        shapes = stop if level is None else [*stop, level_line(level)]
        return Figure(name, title, caption, {"data": curves, "layout": layout(_unit(answer), y, shapes=shapes, yaxis=axis)})

    share = [None if (v := s.slo.attainment.get("joint")) is None else 100 * v for s in summaries]
    good = [words.rates(s).goodput_requests_per_s for s in summaries]
    done = [words.rates(s).requests_per_s for s in summaries]
    figures = [
        plot(
            "attainment",
            "SLO attainment",
            "Dashed: required. Dotted: the answer.",
            "% of requests",
            [line(x, rounded(np.array(share, float)), "all targets", BLUE)],
            100 * (slo.required or 0.0),
            {
                "range": [max(0.0, 10 * (min((v for v in share if v is not None), default=0.0) // 10) - 10), 101],
                "rangemode": "normal",
            },
        ),
        plot(
            "goodput",
            "Throughput and goodput",
            "Requests finished, and finished within all targets, per second.",
            "requests/s",
            [
                line(x, rounded(np.array(done, float)), "finished", ORANGE),
                line(x, rounded(np.array(good, float)), "within the SLO", BLUE),
            ],
            None,
            {},
        ),
    ]
    if others:
        dots: Trace = {
            "type": "scatter",
            "mode": "markers",
            "marker": {"size": 5, "color": GREEN, "opacity": 0.6},
            "name": "other repetitions",
        }
        figures[0].spec["data"].append(dots | {"x": [v for v, _ in others], "y": rounded([100 * joint for _, joint in others])})
    for key, stats in (("ttft_s", [s.latency.ttft for s in summaries]), ("tpot_s", [s.latency.tpot for s in summaries])):
        found = {"p50": np.array([x.p50 for x in stats], float), "p99": np.array([x.p99 for x in stats], float)}
        values = np.concatenate([v[np.isfinite(v) & (v > 0)] for v in found.values()])
        target = slo.targets.get(key)
        if not values.size:
            continue
        top = max(float(values.max()), target or 0.0)
        curves = [line(x, rounded(v), p, c) for (p, v), c in zip(found.items(), (BLUE, ORANGE), strict=True)]
        title = definition(key).title
        axis = time_axis(float(values.min()), top)
        figures.append(plot(key[:-2], title, "Dashed: target.", title, curves, target or None, axis))
    return figures


def page_of(answer: CapacityAnswer) -> Page:
    """The report: the answer and how sure it is, what was tested, every probe."""
    rows: list[list[str | Cell]] = []
    for p in answer.probes:
        held = Cell("✔", 1, "yes") if p.held else Cell("✘", 0, "no")
        rows.append([Cell(_load(answer, p), p.value), Cell(str(p.replication), p.replication), held, *_cells(p.summary)])
    head = [_unit(answer), "repetition", *("held" if c == "held" else c for c in _COLUMNS)]
    cards = [{"label": str(k), "value": str(v)} for k, v in answer.tested.items() if len(str(v)) <= 60]
    found = [show_number(f, 4) if f is not None else words.DASH for f in answer.found]
    sections = [
        Section(
            "The curves",
            "Of the first repetition; dots are the others." if len(answer.found) > 1 else "",
            figures=_figures(answer),
        ),
        Section("Probes", table=Table(head, rows, (), sortable=True)),
    ]
    notes = [f"Beyond: {answer.limit()}"]
    if len(found) > 1:
        notes.append(f"What each repetition found: {', '.join(found)} {_unit(answer)}.")
    return Page(
        f"Capacity of {answer.name}",
        _slo(answer),
        answer.sentence(),
        "holds" if answer.answer is not None else "misses",
        notes,
        cards,
        answer.warnings,
        sections,
        [Section("Definitions of every metric", html=Markup(page.definition_table()))],
    )


def render(answer: CapacityAnswer) -> str:
    """The search as one HTML file."""
    return page_of(answer).html()


def files(answer: CapacityAnswer, folder: Path) -> None:
    """``summary.json, probes.csv, report.html``."""
    study.write(folder, answer.as_dict(), render(answer))
    columns: dict[str, Values] = {
        "rate_per_s" if answer.question == "rate" else "replicas": np.array([p.value for p in answer.probes]),
        "replication": np.array([p.replication for p in answer.probes], int),
    }
    columns["held"] = np.array([p.held for p in answer.probes], bool)
    paths = ["slo.attainment.joint", "slo.goodput_requests_per_s", "throughput.output_tokens_per_s"]
    paths += [f"latency.{k}.{p}" for k in ("ttft_s", "tpot_s", "itl_s", "e2e_s") for p in ("p50", "p99")]
    for path in paths:
        columns[path.replace(".", "/")] = np.array([number_at(p.summary, path) for p in answer.probes], float)
    write_csv(columns, folder / "probes.csv")
