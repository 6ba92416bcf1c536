"""Conversations and agent runs as wholes: a user judges the whole, not its turns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from sim.ledger import Values as Array
from sim.metrics.facts import Facts
from sim.metrics.latency import number
from sim.metrics.section import Extra, Section
from sim.registry import register
from sim.units import show_number, show_seconds

_ROWS: Final = 1_000_000  # of requests that are looked at together
_NEEDED: Final = ("session", "klass", "status", "arrival_s", "finish_s")


@dataclass(frozen=True)
class SessionLatency(Section):
    """Seconds over sessions; None without any."""

    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None


@register("section")
@dataclass(frozen=True)
class Sessions(Extra):
    """Sessions of which every request counts and finished.

    ``whole``: so many of ``count`` sessions; ``requests_mean``: requests per session; ``met``: share of sessions with counted requests whose every
    request met its targets (None without targets); ``duration``: first request to last answer; ``served``: seconds of that in which the session
    waited for answers, the rest are its user and its tools; ``classes``: the share ``met`` by class.
    """

    name = "sessions"

    count: int
    whole: int
    requests_mean: float | None
    met: float | None
    duration_s: SessionLatency
    served_s: SessionLatency
    classes: Mapping[str, float | None]

    @classmethod
    def of(cls, facts: Facts) -> Sessions | None:
        """Of traffic that has sessions."""
        if "session" not in facts.columns:
            return None
        aims = bool(facts.record.slo.targets() or facts.record.class_slo)
        by_class = aims and bool(facts.record.class_names)
        columns = {**{k: facts.columns[k] for k in _NEEDED}, "slo_met": facts.ok}
        counted_sessions: Counter[int] = Counter()
        met_sessions: Counter[int] = Counter()
        count = requests = 0
        classes: set[int] = set()
        durations, served = [], []
        for frame in _some_sessions(columns, facts.counted):
            counts, whole = frame["counted"] > 0, frame["whole"]
            count += len(counts)
            requests += int(frame["requests"].sum())
            durations.append(frame["end_s"][whole] - frame["start_s"][whole])
            served.append(frame["served_s"][whole])
            klass = frame["klass"]
            classes.update(np.unique(klass).tolist())
            counted_sessions.update(dict(zip(*_how_many(klass[counts]), strict=True)))
            met_sessions.update(dict(zip(*_how_many(klass[frame["met"] & whole & counts]), strict=True)))
        n = counted_sessions.total()
        duration = np.concatenate(durations)
        return cls(
            count=count,
            whole=len(duration),
            requests_mean=requests / count if count else None,
            met=met_sessions.total() / n if aims and n else None,
            duration_s=_latency(duration),
            served_s=_latency(np.concatenate(served)),
            classes={
                facts.record.class_name(k): met_sessions[k] / counted_sessions[k] if counted_sessions[k] else None
                for k in sorted(classes)
            }
            if by_class
            else {},
        )

    def sentences(self) -> list[str]:
        """The section in words."""
        text = f"{self.count:,} sessions of {show_number(self.requests_mean)} requests"
        if self.duration_s.p50 is not None and self.duration_s.p99 is not None:
            text += f", {show_seconds(self.duration_s.p50)} from first request to last answer (p99 {show_seconds(self.duration_s.p99)})"
        if self.met is not None:
            text += f"; in {100 * self.met:.4g}% of them every request met the SLO"
        return [text]


def _how_many(values: Array) -> tuple[list[int], list[int]]:
    """Each value, and how often it is there."""
    found, count = np.unique(values, return_counts=True)
    return found.tolist(), count.tolist()


def _some_sessions(columns: Mapping[str, Array], counted: Array) -> Iterator[dict[str, Array]]:
    """`session_table` in parts, so that what is in memory does not grow with all requests."""
    session = columns["session"]
    parts = 1 + len(session) // _ROWS
    if parts == 1:
        yield session_table(columns, counted)
        return
    for part in range(parts):
        rows = np.flatnonzero((session >= 0) & (session % parts == part))
        yield session_table({name: column[rows] for name, column in columns.items()}, counted[rows])


def session_table(columns: Mapping[str, Array], counted: Array) -> dict[str, Array]:
    """A row per session, in order of its first request: ``session, klass, requests, counted, whole, met, start_s, end_s, served_s``.

    ``whole``: all its requests count and finished; ``served_s``: the time in which at least one of its requests was under way.
    """
    mine = np.flatnonzero(columns["session"] >= 0)
    session, first, group = np.unique(columns["session"][mine], return_index=True, return_inverse=True)
    order = np.argsort(mine[first], kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    group = rank[group]
    n = len(order)
    arrival, finish = columns["arrival_s"][mine].astype(float), columns["finish_s"][mine].astype(float)
    finished = counted[mine] & (columns["status"][mine] == 0)
    start, end = np.full(n, np.inf), np.full(n, -np.inf)
    np.minimum.at(start, group, arrival)
    np.maximum.at(end, group, np.where(np.isnan(finish), -np.inf, finish))
    requests = np.bincount(group, minlength=n)
    done = np.bincount(group[finished], minlength=n)
    ok = columns["slo_met"][mine].astype(bool) if "slo_met" in columns else finished
    return {
        "session": session[order],
        "klass": columns["klass"][mine][first[order]],
        "requests": requests,
        "counted": np.bincount(group[counted[mine]], minlength=n),
        "whole": done == requests,
        "met": np.bincount(group[ok & finished], minlength=n) == requests,
        "start_s": start,
        "end_s": np.where(np.isfinite(end), end, np.nan),
        "served_s": _under_way(group, arrival, finish, n),
    }


def _under_way(group: Array, arrival: Array, finish: Array, n: int) -> Array:
    """Seconds covered by at least one interval [arrival, finish], by group."""
    keep = ~np.isnan(finish)
    group, arrival, finish = group[keep], arrival[keep], finish[keep]
    order = np.lexsort((arrival, group))
    group, arrival, finish = group[order], arrival[order], finish[order]
    if not len(group):
        return np.zeros(n)
    shift = group * (float(finish.max()) + 1.0)  # groups one after the other on one axis, so that one pass does for all
    a, b = arrival + shift, finish + shift
    reached = np.maximum.accumulate(np.concatenate([[-np.inf], b[:-1]]))
    return np.bincount(group, np.maximum(b - np.maximum(a, reached), 0.0), n).astype(float)


def _latency(values: Array) -> SessionLatency:
    if not values.size:
        return SessionLatency(None, None, None, None)
    p50, p95, p99 = np.percentile(values, (50.0, 95.0, 99.0))
    return SessionLatency(number(values.mean()), number(p50), number(p95), number(p99))
