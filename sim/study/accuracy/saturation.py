"""How good predictions are of servers near saturation: errors at equal load relative to capacity, and errors of the capacity itself.

Near its capacity a server that is predicted 5 % too slow is predicted to queue without end: the error of a latency there says little of what caused
it. Two figures take that apart. *Capacity*: where a deployment was saturated, the highest throughput that was measured against the highest
predicted. *Equal load*: open arrivals are stretched by as much as the predicted time per token is longer than the measured one, so that the
predicted server is as loaded as the measured one was; closed loops adapt by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np

from sim.study.accuracy.errors import Outcome
from sim.study.accuracy.point import Point
from sim.study.accuracy.traffic import read_requests

_THROUGHPUT: Final = ("output_tokens_per_s", "requests_per_s", "input_tokens_per_s")
OF_RATES: Final = (*_THROUGHPUT, "makespan_s")
"""What follows the rate at which requests come: stretched arrivals say nothing of it."""
_PACE: Final = ("tpot_s.mean", "tpot_s.p50", "itl_s.mean", "itl_s.p50")
_OPEN: Final = ("trace", "stages")
_FLAT: Final = 1.05
"""Throughput that grows by less than this while half as many clients again send says that the server is saturated."""
_MORE: Final = 1.5
_MANY: Final = 100
"""Requests at once from which on a burst waits in line by itself: engines run so many, or fewer, at a time."""
_MOST: Final = 3.0
"""Beyond, predictions are so far off that no stretch brings them to the measured load."""


@dataclass(frozen=True)
class Capacity:
    """Highest throughput of one deployment under one kind of request; ``metric`` says of what."""

    deployment: str
    engine: str
    metric: str
    measured: float
    predicted: float
    points: int

    @property
    def error(self) -> float:
        """Predicted over measured, less 1."""
        return self.predicted / self.measured - 1.0


def paced(outcome: Outcome) -> float | None:
    """Predicted over measured time per token; None where it is not known."""
    for metric in _PACE:
        measured, predicted = outcome.point.measured.get(metric, 0.0), outcome.predicted.get(metric, 0.0)
        if measured > 0.0 and predicted > 0.0:
            return predicted / measured
    return None


def at_equal_load(outcomes: Iterable[Outcome]) -> list[Point]:
    """Points with open arrivals, stretched so that the predicted server is as loaded as the measured one was."""
    out = []
    for o in outcomes:
        factor = paced(o) if o.point.traffic["kind"] in _OPEN and o.point.scenario is None else None
        if factor is not None and 1.0 / _MOST < factor < _MOST:
            out.append(stretched(o.point, factor))
    return out


def stretched(point: Point, factor: float) -> Point:
    """The point with ``factor`` times as long between its requests."""
    t = point.traffic.copy()
    window = point.window.copy()
    if "after_s" in window:
        window["after_s"] *= factor
    if "before_s" in window:
        window["before_s"] *= factor
    if t["kind"] == "stages":
        t["stages"] = [{**s, "rate": s["rate"] / factor, "duration": s["duration"] * factor} for s in t["stages"]]
        return replace(point, traffic=t, window=window)
    columns = dict(point.columns) if point.columns is not None else read_requests(point.folder / str(t["file"]))
    columns["arrival_s"] = np.asarray(columns["arrival_s"]) * factor
    return replace(point, columns=columns, window=window)


def capacities(outcomes: Iterable[Outcome]) -> list[Capacity]:
    """Of every deployment and kind of request measured saturated: overloaded runs, bursts of many, loops and bursts that no longer give more."""
    groups: dict[tuple[object, ...], list[Outcome]] = {}
    for o in outcomes:
        if not o.reason:
            groups.setdefault(_same(o.point), []).append(o)
    found = []
    for key, members in groups.items():
        metric = next((m for m in _THROUGHPUT if all(m in o.predicted and o.point.measured.get(m) for o in members)), None)
        if metric is None or not _saturated(members, metric):
            continue
        measured = max(o.point.measured[metric] for o in members)
        predicted = max(o.predicted[metric] for o in members)
        found.append(Capacity(str(key[0]), str(key[1]), metric, measured, predicted, len(members)))
    return found


def _same(p: Point) -> tuple[object, ...]:
    """What is served, how, and for what requests."""
    t = p.traffic
    lengths = repr((t.get("prompt_tokens"), t.get("output_tokens"), t.get("file")))
    served = (p.version, p.weights, p.kv_cache, p.tp, p.pp, p.dp, p.ep, repr(sorted(p.settings.items(), key=str)))
    return (p.deployment, p.engine, *served, lengths)


def _saturated(members: Sequence[Outcome], metric: str) -> bool:
    if any(o.point.overload or (o.point.traffic["kind"] == "burst" and _at_once(o) >= _MANY) for o in members):
        return True
    loops = sorted((o for o in members if _at_once(o)), key=_at_once)
    return any(
        _at_once(b) >= _MORE * _at_once(a) and b.point.measured[metric] <= _FLAT * a.point.measured[metric]
        for a, b in pairwise(loops)
    )


def _at_once(o: Outcome) -> int:
    """Requests that are there at the same time: clients of a closed loop, requests of a burst; 0 for other traffic."""
    t = o.point.traffic
    return int(t["concurrency"] if t["kind"] == "closed_loop" else t.get("num_requests", 0) if t["kind"] == "burst" else 0)
