"""The answer of a capacity search on one screen, and as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from sim.metrics.capacity import CapacityAnswer, Probe
from sim.metrics.definitions import definition
from sim.metrics.store import write_csv, write_folder, write_json
from sim.report import page, words
from sim.report.figures import BLUE, GREEN, ORANGE, RED, Figure, layout, line, rounded, time_axis

FORMAT: Final = "servesim-capacity/1"
_MAX_ROWS: Final = 14  # one terminal screen

_COLUMNS: Final = ("held", "SLO met", "goodput/s", "TTFT p50", "TTFT p99", "TPOT p99", "E2E p99", "busy", "KV peak")


def _cells(s: Mapping[str, Any]) -> list[str]:
    latency, use = s["latency"], s["utilisation"]
    return [
        words.percent(s["slo"]["attainment"].get("joint"), 2),
        words.number(s["slo"]["goodput_requests_per_s"]),
        words.seconds(latency["ttft_s"]["p50"]),
        words.seconds(latency["ttft_s"]["p99"]),
        words.seconds(latency["tpot_s"]["p99"]),
        words.seconds(latency["e2e_s"]["p99"]),
        words.percent(use["busy"], 0),
        words.percent(use["kv_peak"], 0),
    ]


def _unit(answer: CapacityAnswer) -> str:
    return "requests/s" if answer.question == "rate" else "replicas"


def _load(answer: CapacityAnswer, probe: Probe) -> str:
    return f"{probe.value:.4g}" if answer.question == "rate" else f"{probe.value:.0f}"


def _slo(answer: CapacityAnswer) -> str:
    if not answer.probes:
        return ""
    s = answer.probes[0].summary
    return f"SLO: {words.required(s['slo']['required'])} of requests with {words.targets(s)}."


def nearest(answer: CapacityAnswer, most: int = _MAX_ROWS) -> list[Probe]:
    """The probes closest to the answer, in order of load."""
    probes = sorted(answer.probes, key=lambda p: p.value)
    if answer.answer is not None and len(probes) > most:
        at = answer.answer
        probes = sorted(sorted(probes, key=lambda p: abs(np.log(p.value / at)))[:most], key=lambda p: p.value)
    return probes[:most]


def screen(answer: CapacityAnswer) -> Group:
    """The answer, the probes around it, and what breaks first."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("rate, /s" if answer.question == "rate" else "replicas", justify="right", no_wrap=True)
    for title in _COLUMNS:
        table.add_column("" if title == "held" else title.replace(" ", "\n"), justify="right", no_wrap=True)
    for probe in nearest(answer):
        mark = Text("✔", style="green") if probe.held else Text("✘", style="red")
        table.add_row(_load(answer, probe), mark, *_cells(probe.summary), style="bold" if probe.value == answer.answer else "")
    style = "bold green" if answer.answer is not None else "bold red"
    lines: list[Any] = [
        Text(answer.sentence(), style=style),
        Text(_slo(answer), style="dim"),
        table,
        Text(f"Beyond: {answer.limit()}"),
    ]
    lines += [Text(f"! {w}", style="yellow", no_wrap=True, overflow="ellipsis") for w in answer.warnings[:2]]
    return Group(*lines)


def show(answer: CapacityAnswer, console: Console | None = None) -> None:
    """Print the screen."""
    (console or Console()).print(screen(answer))


def _figures(answer: CapacityAnswer) -> list[Figure]:
    probes = sorted(answer.probes, key=lambda p: p.value)
    if len(probes) < 2:
        return []
    x = [p.value for p in probes]
    summaries = [p.summary for p in probes]
    slo = summaries[0]["slo"]
    stop: list[dict[str, Any]] = []
    if answer.answer is not None:
        shape = {"type": "line", "x0": answer.answer, "x1": answer.answer, "yref": "paper", "y0": 0, "y1": 1}
        stop = [shape | {"line": {"color": GREEN, "width": 1.5, "dash": "dot"}}]

    def level(y: float) -> dict[str, Any]:
        return {
            "type": "line",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "y0": y,
            "y1": y,
            "line": {"color": RED, "width": 1.5, "dash": "dash"},
        }

    def plot(
        name: str,
        title: str,
        caption: str,
        y: str,
        curves: list[dict[str, Any]],
        shapes: list[dict[str, Any]],
        axis: dict[str, Any],
    ) -> Figure:
        for curve in curves:
            curve |= {"mode": "lines+markers", "marker": {"size": 6}}
        return Figure(
            name, title, caption, {"data": curves, "layout": layout(_unit(answer), y, shapes=stop + shapes, yaxis=axis)}
        )

    share = [None if (v := s["slo"]["attainment"].get("joint")) is None else 100 * v for s in summaries]
    good = [s["slo"]["goodput_requests_per_s"] for s in summaries]
    done = [s["throughput"]["requests_per_s"] for s in summaries]
    figures = [
        plot(
            "attainment",
            "SLO attainment",
            "Dashed: required. Dotted: the answer.",
            "% of requests",
            [line(x, rounded(np.array(share, float)), "all targets", BLUE)],
            [level(100 * slo["required"])],
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
            [],
            {},
        ),
    ]
    for key in ("ttft_s", "tpot_s"):
        found = {p: np.array([s["latency"][key][p] for s in summaries], float) for p in ("p50", "p99")}
        values = np.concatenate([v[np.isfinite(v) & (v > 0)] for v in found.values()])
        target = slo["targets"].get(key)
        if not values.size:
            continue
        top = max(float(values.max()), target or 0.0)
        curves = [line(x, rounded(v), p, c) for (p, v), c in zip(found.items(), (BLUE, ORANGE), strict=True)]
        title = definition(key).title
        axis = time_axis(float(values.min()), top)
        figures.append(plot(key[:-2], title, "Dashed: target.", title, curves, [level(target)] if target else [], axis))
    return figures


def render(answer: CapacityAnswer) -> str:
    """The search as one HTML file."""
    state = "holds" if answer.answer is not None else "misses"
    figures = _figures(answer)
    rows = []
    for p in sorted(answer.probes, key=lambda p: p.value):
        held = '<span class="yes">✔</span>' if p.held else '<span class="no">✘</span>'
        value = _load(answer, p)
        rows.append([f"<b>{value}</b>" if p.value == answer.answer else value, held, *(page.esc(c) for c in _cells(p.summary))])
    notes = "".join(f"<li>{page.esc(w)}</li>" for w in answer.warnings)
    body = [
        f'<h1>Capacity of {page.esc(answer.name)}</h1><p class="kicker">{page.esc(_slo(answer))}</p>',
        f'<div class="verdict {state}"><p><strong>{page.esc(answer.sentence())}</strong></p>',
        f"<p>Beyond: {page.esc(answer.limit())}</p></div>",
        f'<ul class="warnings">{notes}</ul>' if notes else "",
        page.plots(figures) if figures else "",
        "<h2>Probes</h2>",
        page.table([_unit(answer), *("" if c == "held" else c for c in _COLUMNS)], rows),
        "<h2>Behind the numbers</h2>",
        page.definitions(),
    ]
    return page.page(f"Capacity of {answer.name} · servesim", body, figures)


def save(answer: CapacityAnswer, folder: str | Path) -> Path:
    """``summary.json, probes.csv, report.html`` in a folder, all or nothing. Raises ConfigError, OSError."""

    def fill(to: Path) -> None:
        write_json(
            {"format": FORMAT, "sentence": answer.sentence(), "limit": answer.limit()} | answer.as_dict(), to / "summary.json"
        )
        columns: dict[str, Any] = {
            "rate_per_s" if answer.question == "rate" else "replicas": np.array([p.value for p in answer.probes])
        }
        columns["held"] = np.array([p.held for p in answer.probes], bool)
        paths = [("slo", "attainment", "joint"), ("slo", "goodput_requests_per_s"), ("throughput", "output_tokens_per_s")]
        paths += [("latency", k, p) for k in ("ttft_s", "tpot_s", "itl_s", "e2e_s") for p in ("p50", "p99")]
        for path in paths:
            columns["/".join(path)] = np.array([_at(p.summary, path) for p in answer.probes], float)
        write_csv(columns, to / "probes.csv")
        (to / "report.html").write_text(render(answer), encoding="utf-8")

    return write_folder(Path(folder), fill)


def _at(summary: Mapping[str, Any], path: tuple[str, ...]) -> float:
    value: Any = summary
    for key in path:
        value = value.get(key)
    return float("nan") if value is None else float(value)
