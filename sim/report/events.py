"""Faults, storms and scaling on the time axes of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from sim.document import at
from sim.metrics.sections.clients import Clients
from sim.metrics.sections.events import Event, Events
from sim.metrics.sections.kv_tiers import MEDIA, KvTiers
from sim.metrics.sections.links import Links
from sim.report.figures import BLUE, GREY, ORANGE, PURPLE, RED, Figure, Layout, Spec, layout, line, rounded
from sim.report.words import extra

if TYPE_CHECKING:
    from sim.metrics.result import Result
    from sim.metrics.summary import Summary

_COLORS: Final = {"fault": RED, "storm": PURPLE, "slo": ORANGE, "scaling": GREY}
_NAMED: Final = 8
"""Events that are named on an axis; of more, only the bands are drawn."""


def marked(figures: Sequence[Figure], summary: Summary) -> list[Figure]:
    """The figures with the events of the run as bands, on axes of time."""
    found = extra(summary, Events)
    if found is None or not found.events:
        return list(figures)
    return [_marked(f, found.events) if _is_timed(f) else f for f in figures]


def _is_timed(figure: Figure) -> bool:
    return at(figure.spec["layout"], "xaxis.title.text") in ("simulated time (s)", "arrival time (s)")


def _marked(figure: Figure, events: Sequence[Event]) -> Figure:
    shapes: list[Layout] = []
    for e in events:
        if e.kind == "scaling" and figure.name == "scaling":
            continue
        shape: Layout = {"yref": "paper", "y0": 0, "y1": 1, "x0": e.start_s, "x1": e.end_s, "layer": "below"}
        color = _COLORS[e.kind]
        if e.end_s > e.start_s:
            shapes.append(shape | {"type": "rect", "fillcolor": color, "opacity": 0.10, "line": {"width": 0}})
        shapes.append(shape | {"type": "line", "x1": e.start_s, "line": {"color": color, "width": 1, "dash": "dot"}})
    notes: list[Layout] = [
        {
            "x": e.start_s,
            "yref": "paper",
            "y": 0.99 - 0.07 * (k % 4),
            "text": e.words,
            "showarrow": False,
            "xanchor": "left",
            "font": {"size": 10, "color": _COLORS[e.kind]},
            "bgcolor": "rgba(255,255,255,0.75)",
        }
        for k, e in enumerate([e for e in events if e.kind in ("fault", "storm")][:_NAMED])
    ]
    look = dict(figure.spec["layout"])
    for key, more in (("shapes", shapes), ("annotations", notes)):
        old = look.get(key)
        look[key] = [*(old if isinstance(old, list) else ()), *more]
    return replace(figure, spec={"data": figure.spec["data"], "layout": look})


def client_figures(result: Result) -> list[Figure]:
    """What clients wanted, sent, and got no answer to, over time."""
    clients = extra(result.summary, Clients)
    if clients is None or len(clients.series.time_s) < 2:
        return []
    s = clients.series
    t = rounded(s.time_s, 6)
    data = [
        line(t, rounded(s.wanted_per_s), "wanted", BLUE, fill="tozeroy", fillcolor="rgba(40,100,168,0.12)"),
        line(t, rounded(s.attempts_per_s), "sent", PURPLE),
        line(t, rounded(s.failed_per_s), "failed attempts", RED, line={"width": 1.2, "dash": "dot"}),
    ]
    caption = "Requests that clients want, the attempts that they send for them, and the attempts that failed."
    spec: Spec = {"data": data, "layout": layout("simulated time (s)", "per second")}
    return [Figure("attempts", "What clients send", caption, spec)]


def link_figures(result: Result) -> list[Figure]:
    """How busy the links between prefill and decode replicas are, over time."""
    links = extra(result.summary, Links)
    if links is None or len(links.time_s) < 2:
        return []
    t = rounded(links.time_s, 6)
    rows = sorted(links.ports, key=lambda p: -p.busy)[:_NAMED]
    palette = (BLUE, ORANGE, PURPLE, GREY, RED)
    data = [line(t, rounded([100 * v for v in p.busy_share]), f"replica {p.replica}", palette[k % 5]) for k, p in enumerate(rows)]
    spec: Spec = {"data": data, "layout": layout("simulated time (s)", "% of time", yaxis={"range": [0, 102]})}
    return [Figure("links", "Links for KV", "Time in which the ports of a replica carry KV; the busiest ones.", spec)]


def tier_figures(result: Result) -> list[Figure]:
    """What KV beyond the accelerators held, gave back and took in, over time."""
    tiers = extra(result.summary, KvTiers)
    s = tiers.series if tiers is not None else None
    if s is None or len(s.time_s) < 2:
        return []
    last = 2.0 * (s.time_s[-1] - s.time_s[-2]) - s.width_s  # seconds of the last bin, which ends with the run
    shown = slice(None if last > s.width_s / 2 else -1)  # a rate over a few moments towers above all others
    t = rounded(s.time_s[shown], 6)
    named = list(zip(s.tiers, (BLUE, ORANGE, PURPLE), strict=False))
    found = [line(t, rounded(row.hit_tokens_per_s[shown]), MEDIA[row.name], color) for row, color in named]
    read: Layout = {"width": 1.6}
    written: Layout = {"width": 1.2, "dash": "dot"}
    moved = [
        line(t, rounded([v / 1e9 for v in amounts[shown]]), f"{MEDIA[row.name]}, {way}", color, line=style)
        for row, color in named
        for way, amounts, style in (("read", row.read_bytes_per_s, read), ("written", row.written_bytes_per_s, written))
    ]
    held = [line(t, rounded([100 * v for v in row.used[shown]]), MEDIA[row.name], color) for row, color in named]
    return [
        Figure("tier_hits", "KV found beyond the accelerators", "Prompt tokens found in each medium.",
               {"data": found, "layout": layout("simulated time (s)", "tokens per second")}),
        Figure("tier_moves", "KV that moves between media", "What is read from each medium, and written to it.",
               {"data": moved, "layout": layout("simulated time (s)", "GB per second")}),
        Figure("tier_use", "KV that media hold", "Share of each medium that is in use.",
               {"data": held, "layout": layout("simulated time (s)", "% of its size", yaxis={"range": [0, 102]})}),
    ]  # fmt: skip
