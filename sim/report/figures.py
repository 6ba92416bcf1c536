"""Plotly figures as plain dicts (``data``, ``layout``): small, and no plotly import is needed to make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, TypedDict

import numpy as np
from numpy.typing import ArrayLike

from sim.document import Json
from sim.ledger import Values as Array
from sim.metrics.definitions import definition
from sim.metrics.histogram import cdf
from sim.metrics.sections.kv_pools import KvPool, KvPools
from sim.metrics.series import fleet
from sim.report.words import extra, seconds

if TYPE_CHECKING:
    from sim.metrics.result import Result
    from sim.metrics.scaling import ScalingFigures

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#2864a8", "#d9802e", "#2f8f6b", "#c2413a", "#7b5aa6", "#8b93a1"
PALETTE: Final = (BLUE, ORANGE, GREEN, PURPLE, RED, "#3d9db5", "#a67c2d", "#5b6472")
_GRID: Final = "#e9ecf1"
_FONT: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"
_CDF_POINTS: Final = 320
MANY_REPLICAS: Final = 12


Trace: TypeAlias = dict[str, Json]
"""One entry of ``data``, as plotly's schema of its ``type`` has it."""
Layout: TypeAlias = dict[str, Json]
"""``layout``, shapes and axes of it, as plotly has them."""


class Spec(TypedDict):
    """What ``Plotly.newPlot`` is given."""

    data: list[Trace]
    layout: Layout


@dataclass(frozen=True)
class Figure:
    """One plot: ``name`` is its element id, ``title`` a heading, ``caption`` how to read it; ``wide`` takes the whole row."""

    name: str
    title: str
    caption: str
    spec: Spec
    wide: bool = False


def rounded(values: ArrayLike, digits: int = 5) -> list[float | None]:
    """A list for JSON with so many significant digits (the file stays small); None for NaN."""
    a = np.asarray(values, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 10.0 ** (digits - 1 - np.floor(np.log10(np.abs(a))))
        out = np.where(a == 0, 0.0, np.round(a * scale) / scale)
    return [None if not np.isfinite(v) else float(f"{v:.{digits}g}") for v in out]


def layout(x: str, y: str, **changes: Json) -> Layout:
    """The look that all plots share; ``x`` and ``y`` are axis titles."""
    axis: Layout = {
        "gridcolor": _GRID,
        "zeroline": False,
        "linecolor": "#c9ced8",
        "ticks": "outside",
        "tickcolor": "#c9ced8",
        "automargin": True,
    }
    base: Layout = {
        "font": {"family": _FONT, "size": 12, "color": "#3a4150"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 56, "r": 16, "t": 12, "b": 44},
        "hovermode": "x unified",
        "hoverlabel": {"bgcolor": "#ffffff", "bordercolor": "#c9ced8"},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left"},
        "xaxis": axis | {"title": {"text": x, "standoff": 8}},
        "yaxis": axis | {"title": {"text": y, "standoff": 8}, "rangemode": "tozero"},
    }
    for key, value in changes.items():
        old = base.get(key)
        base[key] = {**old, **value} if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return base


def line(
    x: Sequence[Json], y: Sequence[Json], name: str, color: str, *, line: Mapping[str, Json] | None = None, **more: Json
) -> Trace:
    """One curve; ``line``: more of its style."""
    style = {"color": color, "width": 1.8, **(line or {})}
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "name": name, "line": style, **more}


def cdf_points(values: Array) -> tuple[list[float | None], list[float | None]]:
    """(value, percent at or below) at so many quantiles, closer together in the upper tail."""
    values = values[~np.isnan(values)]
    if values.size == 0:
        return [], []
    tail = 1 - np.logspace(-1, -4, _CDF_POINTS // 3)
    q = np.concatenate([np.linspace(0, 0.9, _CDF_POINTS - tail.size, endpoint=False), tail, [1.0]])
    return rounded(np.quantile(values, q)), rounded(100 * q, 6)


def latency_cdf(result: Result, key: str) -> tuple[list[float | None], list[float | None]]:
    """The CDF of a latency metric of a result; ITL from its histogram."""
    if key != "itl_s":
        return cdf_points(result.columns[key])
    x, share = cdf(result.itl_hist)
    return rounded(x), rounded(100 * share, 6)


def cdf_figure(
    curves: Sequence[tuple[str, Sequence[float | None], Sequence[float | None]]], key: str, target: float | None
) -> Figure:
    """CDF of one metric, one curve per (name, x, y) in seconds and percent, with the SLO as a line."""
    metric = definition(key)
    data = [line(x, y, name, PALETTE[i % len(PALETTE)]) for i, (name, x, y) in enumerate(curves)]
    for curve in data:
        curve["hovertemplate"] = "%{y:.2f} % ≤ %{x:.4~s}s"
    values = [v for _, x, _ in curves for v in x if v]
    shapes: list[Layout] = []
    notes: list[Layout] = []
    if target is not None:
        values.append(target)
        shape: Layout = {"type": "line", "x0": target, "x1": target, "yref": "paper", "y0": 0, "y1": 1}
        shapes.append(shape | {"line": {"color": RED, "width": 1.5, "dash": "dash"}})
    axis = time_axis(min(values, default=0.001), max(values, default=1.0))
    if target is not None:
        at = float(np.log10(target)) if axis["type"] == "log" else target
        left = target > 0.6 * max(values)
        note: Layout = {
            "x": at,
            "yref": "paper",
            "y": 0.06,
            "text": f"SLO {seconds(target)}",
            "showarrow": False,
            "bgcolor": "rgba(255,255,255,0.85)",
        }
        notes.append(
            note | {"font": {"color": RED, "size": 11}, "xanchor": "right" if left else "left", "xshift": -4 if left else 4}
        )
    spec: Spec = {
        "data": data,
        "layout": layout(
            metric.title,
            "% of " + ("gaps" if key == "itl_s" else "requests"),
            xaxis=axis,
            yaxis={"range": [0, 101]},
            shapes=shapes,
            annotations=notes,
            showlegend=len(curves) > 1,
            hovermode="closest",
        ),
    }
    return Figure(f"cdf-{key[:-2]}", f"{metric.title} distribution", metric.formula, spec)


def level_line(y: float) -> Layout:
    """A dashed line over the whole width, at what is required."""
    line: Layout = {"color": RED, "width": 1, "dash": "dash"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line}


def time_axis(low: float, high: float) -> Layout:
    """An axis of seconds with ticks that read like times (``50 ms``, ``1 s``): logarithmic from a factor of eight on."""
    log = high > 8 * low > 0
    if log:
        decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
        steps = (1, 2, 5) if len(decades) <= 4 else (1,)
        ticks = [m * 10.0**d for d in decades for m in steps if 0.9 * low <= m * 10.0**d <= 1.1 * high]
    else:
        raw = max(high, 1e-9) / 6
        size = 10.0 ** np.floor(np.log10(raw))
        step = next(m * size for m in (1, 2, 2.5, 5, 10) if m * size >= raw)
        ticks = [k * step for k in range(8) if k * step <= 1.05 * high]
    text = [seconds(float(f"{t:.6g}")) for t in ticks]
    ends = [float(np.log10(low)) - 0.08, float(np.log10(high)) + 0.08] if log else [0.0, 1.05 * high]
    return {"type": "log" if log else "linear", "tickvals": ticks, "ticktext": text, "range": ends}


def time_figures(result: Result) -> list[Figure]:
    """Requests, latency, KV use, batch composition over simulated time."""
    f = fleet(result.series)
    figures = [] if result.summary.scaling is None else [_replicas_over_time(result.summary.scaling, result.summary.simulated_s)]
    by_time = _latency_over_time(result)
    if by_time is not None:
        figures.append(by_time)
    if f["time_s"].size < 2:
        return figures
    t = rounded(f["time_s"], 6)
    running = [
        line(t, rounded(f["running"]), "running", BLUE, fill="tozeroy", fillcolor="rgba(40,100,168,0.12)"),
        line(t, rounded(f["waiting"]), "waiting", ORANGE, fill="tozeroy", fillcolor="rgba(217,128,46,0.15)"),
    ]
    spec: Spec = {"data": running, "layout": layout("simulated time (s)", "requests")}
    figures.append(Figure("requests", "Requests in the engines", "Time averages, all replicas together.", spec))
    if not np.isnan(f["kv_use"]).all():
        use = [
            line(t, rounded(100 * f["kv_use"]), "KV blocks in use", GREEN, fill="tozeroy", fillcolor="rgba(47,143,107,0.14)"),
            line(t, rounded(100 * f["kv_blocked"]), "queue waits for KV", RED),
            line(t, rounded(100 * f["busy"]), "busy", GREY, line={"width": 1.2, "dash": "dot"}),
        ]
        spec = {"data": use, "layout": layout("simulated time (s)", "% of blocks, % of time", yaxis={"range": [0, 102]})}
        figures.append(Figure("kv", "KV cache and busy time", "KV use as share of blocks; the others as share of time.", spec))
    pools = extra(result.summary, KvPools)
    if pools is not None:
        figures.append(_pools(pools.pools))
    tokens = [
        line(t, rounded(f[f"{phase}_tokens_per_s"]), phase, color, line={"width": 0.8}, fillcolor=fill, stackgroup="tokens")
        for phase, color, fill in (("decode", BLUE, "rgba(40,100,168,0.55)"), ("prefill", ORANGE, "rgba(217,128,46,0.55)"))
    ]
    spec = {"data": tokens, "layout": layout("simulated time (s)", "tokens/s")}
    figures.append(Figure("batch", "Batch composition", "Tokens processed per second, by the phase of their request.", spec))
    return figures


def _pools(rows: Sequence[KvPool]) -> Figure:
    """How full each pool within the replicas was."""
    colors = (GREEN, ORANGE, BLUE, RED, GREY)
    data = [
        line(
            [p.bin_s * (i + 0.5) for i in range(len(p.used))],
            [round(100 * v, 3) for v in p.used],
            p.name,
            colors[k % len(colors)],
        )
        for k, p in enumerate(rows)
    ]
    shared = any(p.shared for p in rows)
    spec: Spec = {"data": data, "layout": layout("simulated time (s)", "% of the pool", yaxis={"range": [0, 102]})}
    title = "KV blocks by kind of layer" if shared else "Pools of a replica"
    note = "Held, as share of all blocks" if shared else "In use, as share of each pool"
    return Figure("pools", title, f"{note}, all replicas together.", spec)


def _replicas_over_time(scaling: ScalingFigures, end: float) -> Figure:
    """What the autoscaler wanted, what existed, what served."""
    steps = scaling.steps
    t = rounded([*steps["time_s"], max(end, steps["time_s"][-1])], 6)

    def curve(key: str, name: str, color: str, style: Mapping[str, Json], **more: Json) -> Trace:
        return line(t, [*steps[key], steps[key][-1]], name, color, line={"shape": "hv", **style}, **more)

    data = [
        curve("exist", "exist", GREY, {}, fill="tozeroy", fillcolor="rgba(139,147,161,0.18)"),
        curve("serving", "serve", BLUE, {}),
        curve("wanted", "wanted", ORANGE, {"width": 1.4, "dash": "dot"}),
    ]
    spec: Spec = {"data": data, "layout": layout("simulated time (s)", "replicas")}
    caption = (
        f"Between {scaling.least} and {scaling.most}, by {scaling.scaler}. Grey without blue: accelerators that are held by replicas "
        "which start or drain."
    )
    return Figure("scaling", "Replicas through the run", caption, spec)


def _latency_over_time(result: Result) -> Figure | None:
    c = result.columns
    fine = ~np.isnan(c["ttft_s"])
    if np.count_nonzero(fine) < 20:
        return None
    at, ttft = c["arrival_s"][fine], c["ttft_s"][fine]
    bins = int(min(120, max(8, at.size // 40)))
    start, end = float(at.min()), float(at.max())
    if end <= start:
        return None
    label = np.minimum(((at - start) / (end - start) * bins).astype(np.int64), bins - 1)
    parts = np.split(ttft[np.argsort(label, kind="stable")], np.cumsum(np.bincount(label, minlength=bins))[:-1])
    found = np.array([np.percentile(p, (50, 90, 99)) if p.size else [np.nan] * 3 for p in parts]).T
    t = rounded(start + (np.arange(bins) + 0.5) * (end - start) / bins, 6)
    curves = [
        line(t, rounded(v), n, color) for v, n, color in zip(found, ("p50", "p90", "p99"), (BLUE, GREEN, ORANGE), strict=True)
    ]
    positive = found[np.isfinite(found) & (found > 0)]
    top = float(positive.max(initial=1e-3))
    shapes: list[Layout] = []
    target = result.summary.slo.targets.get("ttft_s")
    if target is not None and target < 20 * top:
        top = max(top, target)
        shape: Layout = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": target, "y1": target}
        shapes.append(shape | {"line": {"color": RED, "width": 1.5, "dash": "dash"}})
    axis = time_axis(float(positive.min(initial=top)), top)
    spec: Spec = {"data": curves, "layout": layout("arrival time (s)", "TTFT", yaxis=axis, shapes=shapes)}
    caption = "Percentiles of the requests that arrived in each interval; dashed: SLO."
    return Figure("ttft-time", "TTFT through the run", caption, spec)


def replica_figures(result: Result, rows: int = 150, points: int = 160) -> list[Figure]:
    """With several replicas: how evenly they are loaded. A heat map stays readable with a thousand of them."""
    table, s = result.summary.replicas, result.series
    n = len(table)
    if n < 2 or s["time_s"].size < 2:
        return []
    group = -(-n // rows)
    end = float((s["time_s"] + s["width_s"]).max())
    points = min(points, max(2, np.unique(s["time_s"]).size))
    row, at = s["replica"] // group, np.minimum((s["time_s"] / end * points + 1e-9).astype(np.int64), points - 1)
    cells = -(-n // group)
    flat = row.astype(np.int64) * points + at
    load = np.bincount(flat, (s["running"] + s["waiting"]) * s["width_s"], cells * points)
    time = np.bincount(flat, s["width_s"], cells * points)
    z = np.divide(load, time, out=np.full(load.shape, np.nan), where=time > 0).reshape(cells, points)
    names = [str(k * group) if group > 1 or not table[k].name else table[k].name for k in range(cells)]
    ticks = [k * group for k in range(cells)]
    heat: Trace = {
        "type": "heatmap",
        "x": rounded((np.arange(points) + 0.5) * end / points),
        "y": ticks,
        "z": [rounded(r, 3) for r in z],
        "colorscale": [[0, "#f4f7fb"], [0.35, "#9cc3e6"], [0.7, "#2864a8"], [1, "#102a4c"]],
        "colorbar": {"title": {"text": "requests"}, "thickness": 12, "outlinewidth": 0},
        "hovertemplate": "replica %{y}, %{x:.4g} s: %{z:.1f} requests<extra></extra>",
    }
    axis: Layout = {"rangemode": "normal", "autorange": "reversed"}
    if n <= MANY_REPLICAS:
        axis |= {"tickvals": ticks, "ticktext": names}
    each = f" Each row is the mean of {group} replicas." if group > 1 else ""
    spec: Spec = {"data": [heat], "layout": layout("simulated time (s)", "replica", yaxis=axis, hovermode="closest")}
    figures = [
        Figure("replicas", "Load by replica", f"Requests running and waiting on each replica over time.{each}", spec, wide=True)
    ]
    p99 = [r.ttft_p99_s for r in table if r.ttft_p99_s is not None]
    if n > MANY_REPLICAS and p99:
        figures += [
            _spread(p99, "spread-ttft", "p99 TTFT by replica", "p99 TTFT (s)", BLUE),
            _spread([r.requests for r in table], "spread-requests", "Requests by replica", "requests", GREEN),
        ]
    return figures


def _spread(values: Sequence[float], name: str, title: str, axis: str, color: str) -> Figure:
    counts, edges = np.histogram(values, bins=min(40, max(8, len(values) // 10)))
    bars: Trace = {
        "type": "bar",
        "x": rounded((edges[1:] + edges[:-1]) / 2),
        "y": counts.tolist(),
        "marker": {"color": color},
        "name": "replicas",
    }
    spec: Spec = {"data": [bars], "layout": layout(axis, "replicas", bargap=0.05, showlegend=False)}
    return Figure(name, title, "How far the replicas are apart.", spec)


def run_figures(result: Result) -> Mapping[str, list[Figure]]:
    """All plots of one run by section: ``latency, time, replicas``."""
    aims = result.summary.slo.targets
    cdfs = [
        cdf_figure([(result.name or "run", *latency_cdf(result, key))], key, aims.get(key))
        for key in ("ttft_s", "tpot_s", "itl_s", "e2e_s")
    ]
    from sim.report.events import client_figures, link_figures, marked, tier_figures

    timed = [*time_figures(result), *client_figures(result), *link_figures(result), *tier_figures(result)]
    return {
        "latency": [f for f in cdfs if f.spec["data"][0]["x"]],
        "time": marked(timed, result.summary),
        "replicas": replica_figures(result),
    }
