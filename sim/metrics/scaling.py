"""A fleet whose replicas come and go: when each existed, what that means for time series and shares, and what a cold start did to requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, isnan, nan
from typing import Any, Final, NamedTuple

import numpy as np

from sim.ledger import Series, by_name, series_of
from sim.ledger import Values as Array
from sim.metrics.latency import number
from sim.metrics.record import RunRecord
from sim.metrics.section import ABSENT, Section, keyed

MAX_EVENTS: Final = 2000
"""Events listed in a summary."""


@dataclass
class Life:
    """One life of a replica: when it was ``asked`` for, its machine was there (``born``), it was ``ready``, told to ``drain``, and ``gone``.

    Seconds; NaN: did not happen. Its accelerators count from ``born`` to ``gone``; it serves from ``ready`` to ``drain``. ``why``: how it went.
    """

    replica: int
    asked: float
    born: float = nan
    ready: float = nan
    drain: float = nan
    gone: float = nan
    why: str = "drained"

    def events(self) -> list[tuple[float, str, int]]:
        """(time, what, replica) in order of time."""
        names = {"asked": "scale out", "born": "loading", "ready": "ready", "drain": "draining", "gone": "gone"}
        return [(t, name, self.replica) for key, name in names.items() if not isnan(t := getattr(self, key))]


class Pool(NamedTuple):
    """A pool of a fleet that scales: its name, the replicas that can be, and the data-parallel ranks of each, which are rows of results."""

    name: str
    most: int
    ranks: int = 1


@dataclass
class Scaling:
    """What the autoscaler did. ``phases`` of a cold start: (name, seconds, grade, source); ``wishes``: (time, replicas wanted).

    ``accelerators`` of one replica, or of each. Replicas from number ``dedicated`` on, or those in ``public``, run on public machines (None: no
    such difference). ``pools``: in the order in which their replicas are numbered; none: one, without ranks.
    """

    scaler: str
    least: int
    most: int
    accelerators: int | Sequence[int]
    phases: Sequence[tuple[str, float, str, str]]
    dedicated: int | None = None
    lives: list[Life] = field(default_factory=list)
    wishes: list[tuple[float, int]] = field(default_factory=list)
    outs: int = 0
    ins: int = 0
    public: Sequence[int] | None = None
    pools: Sequence[Pool] = ()
    cold_start_s: float | None = None
    """Of the pool that takes longest; None: all phases one after the other."""

    def cards(self, replicas: Array) -> Array:
        """Accelerators of each of these replicas."""
        if isinstance(self.accelerators, int):
            return np.full(len(replicas), self.accelerators)
        return np.asarray(self.accelerators)[np.asarray(replicas, np.int64)]

    @property
    def cards_at_most(self) -> int:
        """Accelerators of all replicas that can be."""
        return self.most * self.accelerators if isinstance(self.accelerators, int) else sum(self.accelerators)

    def on_public(self, replicas: Array) -> Array | None:
        """Which of these replicas run on public machines; None: no such difference."""
        if self.public is not None:
            return np.isin(replicas, self.public)
        return None if self.dedicated is None else np.asarray(replicas) >= self.dedicated

    def known(self) -> tuple[Array, Array]:
        """Replicas of each pool up to the last that ever was, and the rows of results that are theirs."""
        pools = self.pools or (Pool("", self.most),)
        replicas, rows, first, row = [], [], 0, 0
        for pool in pools:
            mine = [x.replica for x in self.lives if first <= x.replica < first + pool.most]
            n = 1 + max(mine, default=first) - first
            replicas.append(np.arange(first, first + n))
            rows.append(np.arange(row, row + n * pool.ranks))
            first += pool.most
            row += pool.most * pool.ranks
        return np.concatenate(replicas), np.concatenate(rows)

    def ranks(self, replicas: Array) -> Array:
        """Ranks of each of these replicas."""
        of_each = (
            np.repeat([p.ranks for p in self.pools], [p.most for p in self.pools]) if self.pools else np.ones(self.most, np.int64)
        )
        found: Array = of_each[np.asarray(replicas, np.int64)]
        return found

    def spans(self, begin: str, end: str, horizon: float) -> Array:
        """f8[m, 3]: replica and the times between two moments of its lives, cut at ``horizon``; nothing of what did not begin by then."""
        rows = []
        for life in self.lives:
            a, stops = getattr(life, begin), (getattr(life, end), life.gone, horizon)
            b = min(t for t in stops if not isnan(t))
            if not isnan(a) and a <= b:
                rows.append((life.replica, a, b))
        return np.array(rows, np.float64).reshape(-1, 3)


def existed(scaling: Scaling, replicas: int, horizon: float) -> Array:
    """f8[replica]: seconds in which each replica held its accelerators."""
    spans = scaling.spans("born", "gone", horizon)
    return np.bincount(spans[:, 0].astype(np.int64), spans[:, 2] - spans[:, 1], replicas)


def narrowed(record: RunRecord) -> RunRecord:
    """The record without replicas that never were, and with series that cover only the time in which a replica existed."""
    scaling = record.scaling
    assert scaling is not None
    horizon = float(record.totals.get("last_s", 0.0))
    replicas, rows = scaling.known()
    ranks = scaling.ranks(replicas)
    kv_total = None if record.kv_total is None else np.asarray(record.kv_total)[rows]
    alive = existed(scaling, int(replicas[-1]) + 1, horizon)[replicas]
    series = Series()
    if record.series:
        width = float(record.series["width_s"])
        series = series_of({k: np.asarray(values)[rows].copy() for k, values in by_name(record.series).items()}, width)
        shape = (int(replicas[-1]) + 1, series["time_s"].shape[1])
        time = np.repeat(_covered(scaling.spans("born", "gone", horizon), shape, width)[replicas], ranks, axis=0)
        series["time_s"] = time
        series["kv_full"] = np.minimum(series["kv_full"], time)
        if kv_total is not None:
            series["kv_used"] = np.minimum(series["kv_used"], time * kv_total[:, None])
    place = np.full(int(rows[-1]) + 1, -1, np.int32)  # rows of replicas that never were are left out
    place[rows] = np.arange(len(rows), dtype=np.int32)
    moved = {
        k: np.where(v < 0, -1, place[v]).astype(v.dtype)
        for k, v in record.requests.items()
        if k in ("replica", "prefill_replica")
    }
    cards = scaling.cards(replicas)
    held = float((alive * cards).sum())
    return replace(
        record,
        requests={**record.requests, **moved},
        parts=record.parts[rows],
        kv_total=kv_total,
        kv_peak=None if record.kv_peak is None else np.asarray(record.kv_peak)[rows],
        series=series,
        replica_names=[record.replica_names[r] for r in rows],
        alive_s=np.repeat(alive, ranks),
        replicas=len(replicas),
        accelerators=held / horizon if horizon > 0 else float(cards.max()),
    )


def _covered(spans: Array, shape: tuple[int, ...], width: float) -> Array:
    """f8[replica, bin]: seconds of each bin that the spans (replica, from, to) cover."""
    out = np.zeros(shape)
    edges = np.arange(shape[1] + 1) * width
    for replica, a, b in spans.tolist():
        out[int(replica)] += np.clip(np.minimum(edges[1:], b) - np.maximum(edges[:-1], a), 0.0, None)
    return np.minimum(out, width)


def counts(scaling: Scaling, horizon: float) -> dict[str, list[float]]:
    """Replicas over time as steps: from ``time_s[i]`` on ``exist[i]`` held accelerators, ``serving[i]`` served, ``wanted[i]`` were asked for."""
    exist, serving = (scaling.spans(a, b, inf) for a, b in (("born", "gone"), ("ready", "drain")))
    wishes = scaling.wishes or [(0.0, 0)]
    times = np.unique(np.concatenate([exist[:, 1:].ravel(), serving[:, 1:].ravel(), [t for t, _ in wishes], [0.0]]))
    times = times[times <= horizon]

    def level(spans: Array) -> list[float]:
        up, down = np.sort(spans[:, 1]), np.sort(spans[:, 2])
        return [float(v) for v in np.searchsorted(up, times, "right") - np.searchsorted(down, times, "right")]

    at = np.maximum(np.searchsorted([t for t, _ in wishes], times, "right") - 1, 0)
    wanted = np.array([n for _, n in wishes])[at]
    return {"time_s": times.tolist(), "exist": level(exist), "serving": level(serving), "wanted": [float(v) for v in wanted]}


def _latency(columns: Mapping[str, Array], rows: Array) -> WhileStarting:
    ttft = columns["ttft_s"][rows]
    ttft = ttft[~np.isnan(ttft)]
    p50, p99 = np.percentile(ttft, (50.0, 99.0)) if ttft.size else (np.nan, np.nan)
    return WhileStarting(int(np.count_nonzero(rows)), number(p50), number(p99))


@dataclass(frozen=True)
class WhileStarting(Section):
    """Requests and their TTFT."""

    requests: int
    ttft_p50_s: float | None
    ttft_p99_s: float | None


@dataclass(frozen=True)
class ScalingFigures(Section):
    """What an autoscaler did: times in seconds, accelerators in hours.

    ``steps``: how many replicas exist, serve and are wanted from each of its times on; ``events``: [time, what, replica].
    """

    scaler: str
    least: int = field(metadata=keyed("min"))
    most: int = field(metadata=keyed("max"))
    replicas_mean: float
    serving_mean: float
    replicas_peak: int
    serving_end: int
    scale_outs: int
    scale_ins: int
    started: int
    cold_start_s: float
    cold_start_phases_s: Mapping[str, float]
    accelerator_hours: float
    accelerator_hours_at_max: float
    while_starting: WhileStarting
    otherwise: WhileStarting
    steps: Mapping[str, tuple[float, ...]]
    events: tuple[tuple[float | str, ...], ...]
    accelerator_hours_public: float | None = field(default=None, metadata=ABSENT)


def section(record: RunRecord, columns: Mapping[str, Array]) -> ScalingFigures:
    """``scaling`` of a summary."""
    scaling = record.scaling
    assert scaling is not None
    horizon = float(record.totals.get("last_s", 0.0))
    lives, steps = scaling.lives, counts(scaling, horizon)
    spans = scaling.spans("born", "gone", horizon)
    hours = (spans[:, 2] - spans[:, 1]) * scaling.cards(spans[:, 0]) / 3600.0
    lengths = np.diff([*steps["time_s"], horizon])

    def mean(key: str) -> float:
        return float((np.array(steps[key]) * lengths).sum()) / horizon if horizon > 0 else 0.0

    cold = np.zeros(columns["arrival_s"].size, bool)
    for _, a, b in scaling.spans("asked", "ready", horizon).tolist():
        if b > a:
            cold |= (columns["arrival_s"] < b) & ~(columns["first_scheduled_s"] < a)
    public = scaling.on_public(spans[:, 0])
    return ScalingFigures(
        scaler=scaling.scaler,
        least=scaling.least,
        most=scaling.most,
        replicas_mean=mean("exist"),
        serving_mean=mean("serving"),
        replicas_peak=int(max(steps["exist"])),
        serving_end=int(steps["serving"][-1]),
        scale_outs=scaling.outs,
        scale_ins=scaling.ins,
        started=sum(life.asked > 0 for life in lives),
        cold_start_s=(
            sum(seconds for _, seconds, _, _ in scaling.phases) if scaling.cold_start_s is None else scaling.cold_start_s
        ),
        cold_start_phases_s={name: seconds for name, seconds, _, _ in scaling.phases},
        accelerator_hours=float(hours.sum()),
        accelerator_hours_at_max=horizon * scaling.cards_at_most / 3600.0,
        while_starting=_latency(columns, cold),
        otherwise=_latency(columns, ~cold),
        steps={name: tuple(values) for name, values in steps.items()},
        events=tuple(sorted(e for life in lives for e in life.events() if 0 < e[0] <= horizon)[:MAX_EVENTS]),
        accelerator_hours_public=None if public is None else float(hours[public].sum()),
    )


def sentences(s: Mapping[str, Any]) -> list[str]:
    """The section in words, for the report."""
    phases = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in s["cold_start_phases_s"].items())
    first = (
        f"{s['scaler']} scaled out {s['scale_outs']:,} times and in {s['scale_ins']:,} times: {s['replicas_mean']:.2f} replicas on average, "
        f"{s['replicas_peak']} at most; {s['accelerator_hours']:.2f} accelerator hours, {s['max']} replicas all the time would be "
        f"{s['accelerator_hours_at_max']:.2f}"
    )
    out = [first]
    if "accelerator_hours_public" in s:
        out.append(f"{s['accelerator_hours_public']:.2f} accelerator hours were on public resources")
    cold, warm = s["while_starting"], s["otherwise"]
    if s["started"]:
        out.append(f"a cold start takes {s['cold_start_s']:.0f} s ({phases})")
    if cold["ttft_p99_s"] is not None and warm["ttft_p99_s"] is not None:
        out.append(
            f"TTFT p99 of the {cold['requests']:,} requests that came or waited while a replica was starting: {cold['ttft_p99_s']:.2f} s; "
            f"of the others: {warm['ttft_p99_s']:.2f} s"
        )
    return out
