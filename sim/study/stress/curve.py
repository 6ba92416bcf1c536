"""Latency, throughput and attainment over load, with intervals, and the load at which each target breaks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sim.document import number_at
from sim.metrics.definitions import DEFINITIONS
from sim.study.base import Load, Outcome, Trial
from sim.study.plan.together import Part
from sim.study.statistics.replications import bounds
from sim.study.stress.failures import breaking
from sim.study.variants import is_random, repeated

if TYPE_CHECKING:
    from sim.config.scenario import Scenario
    from sim.metrics.slo import SloFigures

Interval = tuple[float, float, float]
FIGURES = {
    "ttft_p50_s": "latency.ttft_s.p50",
    "ttft_p99_s": "latency.ttft_s.p99",
    "tpot_p50_s": "latency.tpot_s.p50",
    "tpot_p99_s": "latency.tpot_s.p99",
    "e2e_p99_s": "latency.e2e_s.p99",
    "output_tokens_per_s": "throughput.output_tokens_per_s",
    "requests_per_s": "throughput.requests_per_s",
    "busy": "utilisation.busy",
    "kv_mean": "utilisation.kv_mean",
}
_STEP = 1.25
_FINE = 1.03


@dataclass(frozen=True)
class Point:
    """One load: ``factor`` times the scenario's. ``figures`` and ``attainment`` (by target, and joint): mean and interval over the runs.

    ``saturated``: the queue grew to the end; latencies then depend on how long the run is. ``limit``: what limits, in words.
    """

    factor: float
    rate: float
    runs: int
    figures: Mapping[str, Interval]
    attainment: Mapping[str, Interval]
    saturated: bool
    limit: str


@dataclass(frozen=True)
class Curve:
    """``points`` by load; ``breaks``: target → (highest factor that held, lowest that did not), NaN where there is none."""

    along: str
    points: Sequence[Point]
    required: float
    breaks: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    klass: str = ""
    """The class whose rate grows."""

    def first(self) -> str | None:
        """The target that breaks at the lowest load."""
        found = {k: b for k, (_, b) in self.breaks.items() if k != "joint" and not math.isnan(b)}
        return min(found, key=lambda k: found[k]) if found else None

    @property
    def unit(self) -> str:
        """Of the load, short."""
        return {"rate": "requests/s", "lengths": "lengths ×", "burst": "bursts ×", "failures": "failures ×"}.get(
            self.along, f"{self.klass} ×"
        )

    def knee(self) -> float | None:
        """The factor at which TTFT p99 is twice what it is at the lowest load (log-linear between points); None: never."""
        rows = [(p.factor, p.figures["ttft_p99_s"][0]) for p in self.points if "ttft_p99_s" in p.figures]
        if len(rows) < 2 or rows[0][1] <= 0:
            return None
        target = 2.0 * rows[0][1]
        for (x0, y0), (x1, y1) in itertools.pairwise(rows):
            if y0 <= target < y1:
                part = math.log(target / y0) / math.log(y1 / y0)
                return float(x0 * (x1 / x0) ** part)
        return None

    def capacity(self) -> float | None:
        """The most requests per second that were served while more came (requests/s); None: no point is saturated."""
        served = [p.figures["requests_per_s"][0] for p in self.points if p.saturated and "requests_per_s" in p.figures]
        return max(served, default=None)


def measure(
    scenario: Scenario, offered: float, along: str, factor: float, replications: int, confidence: float, of: str = ""
) -> Part[Point]:
    """One load, ``replications`` runs."""
    runs = replications if is_random(scenario) else 1
    load: Load = {}
    if along == "failures":
        scenario = breaking(scenario, factor)
    elif along == "rate":
        load = {"rate": offered * factor}
    elif factor != 1.0:
        load = {"classes": {of: factor}} if along == "class" else worse(along, factor)
    outcomes = yield [Trial(repeated(scenario, r), {along: factor, "replication": r}, load) for r in range(runs)]
    return _point(outcomes, offered, along, factor, confidence)


def worse(along: str, factor: float) -> Load:
    """``lengths`` or bursts so many times the scenario's."""
    return {"lengths": factor} if along == "lengths" else {"burst": factor}


def _point(outcomes: Sequence[Outcome], offered: float, along: str, factor: float, confidence: float) -> Point:
    data = [o.figures for o in outcomes]
    figures = {}
    for name, path in FIGURES.items():
        values = [float(v) for d in data if (v := number_at(d, path)) is not None]
        if values:
            figures[name] = bounds(values, confidence)
    shares = [_shares(d.slo) for d in data]
    attainment = {k: bounds([s.get(k, 0.0) for s in shares], confidence) for k in shares[0]}
    rate = offered * factor if along == "rate" else offered
    saturated = sum(d.bottleneck.queue_grows for d in data) * 2 > len(data)
    return Point(factor, rate, len(data), figures, attainment, saturated, data[0].bottleneck.sentence)


def _shares(slo: SloFigures) -> dict[str, float]:
    """Attainment by what is asked, ``joint`` of all of it, comparable with the one share that is required of all.

    One demand: by metric. Several (classes, percentiles): by demand, as the part of the misses it allows that it had (`SloFigures.effective`).
    """
    if len(slo.demands) == 1 and slo.demands[0].target == "joint":
        return {k: float(v or 0.0) for k, v in slo.attainment.items() if v is not None}
    out = {}
    for d in slo.demands:
        name = "" if d.klass is None else f"class {d.klass}"
        what = d.target if d.percentile is None else f"{d.target} {d.percentile}"
        misses = (1.0 - float(d.attainment or 0.0)) / max(1.0 - d.required, 1e-9)
        out[" ".join(x for x in (name, "" if what == "joint" else what) if x) or "each"] = max(
            1.0 - (1.0 - (slo.required or 0.0)) * misses, 0.0
        )
    return out | {"joint": float(slo.effective or 0.0)}


def title_of(target: str) -> str:
    """``TTFT``, ``class code``, ``class code TTFT p95``."""
    known = {m.key: m.title for m in DEFINITIONS}
    return " ".join(known.get(word, word) for word in target.split(" ")) if target != "each" else "what every request must meet"


def trace(
    scenario: Scenario,
    offered: float,
    along: str,
    most: float,
    required: float,
    replications: int,
    confidence: float,
    of: str | None = None,
) -> Part[Curve]:
    """Raise the load from the scenario's own until it saturates (or ``most``), lower it until the SLO holds, then close in on each break."""
    points: dict[float, Point] = {}

    def at(factor: float) -> Part[Point]:
        factor = round(factor, 6)
        if factor not in points:
            points[factor] = yield from measure(scenario, offered, along, factor, replications, confidence, of or "")
        return points[factor]

    def held(p: Point, target: str) -> bool:
        return p.attainment.get(target, (0.0, 0.0, 0.0))[0] >= required

    factor, lowest = 1.0, 1.0 if along != "rate" else 1.0 / 64
    yield from at(1.0)
    while factor < most and not (points[max(points)].saturated and not held(points[max(points)], "joint")):
        factor = min(factor * _STEP, most)
        yield from at(factor)
    factor = 1.0
    while not held(points[min(points)], "joint") and factor / _STEP**2 >= lowest:
        factor /= _STEP**2
        yield from at(factor)
    if along == "rate" and min(points) > 0.5:
        yield from at(0.5)
    targets = list(points[1.0].attainment)
    breaks = {}
    for target in targets:
        good = max((f for f, p in points.items() if held(p, target)), default=math.nan)
        bad = min((f for f, p in points.items() if not held(p, target) and not f < good), default=math.nan)
        while not math.isnan(good) and not math.isnan(bad) and bad / good > _FINE:
            middle = round(math.sqrt(good * bad), 6)
            p = yield from at(middle)
            good, bad = (middle, bad) if held(p, target) else (good, middle)
        breaks[target] = (good, bad)
    return Curve(along, [points[f] for f in sorted(points)], required, breaks, of or "")
