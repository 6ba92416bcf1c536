"""Per-request latencies and their statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from sim.ledger import FINISHED
from sim.ledger import Values as Array
from sim.metrics.histogram import quantiles
from sim.metrics.section import Section, keyed

if TYPE_CHECKING:
    from sim.metrics.facts import Facts

LATENCIES: Final = ("ttft_s", "tpot_s", "e2e_s", "ingress_s", "queue_s")
"""Columns that `derive` adds to the request table."""
PERCENTILES: Final = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p999": 99.9}


@dataclass(frozen=True)
class Distribution(Section):
    """Statistics of a latency in seconds, over ``count`` requests (ITL: gaps). None: there are none, or (ITL) they are not kept."""

    count: int
    mean: float | None
    std: float | None
    min: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    p999: float | None
    max: float | None


_NOTHING: Final = Distribution(0, *[None] * 9)


@dataclass(frozen=True)
class Latency(Section):
    """Latencies of the finished requests."""

    ttft: Distribution = field(metadata=keyed("ttft_s"))
    tpot: Distribution = field(metadata=keyed("tpot_s"))
    itl: Distribution = field(metadata=keyed("itl_s"))
    e2e: Distribution = field(metadata=keyed("e2e_s"))
    ingress: Distribution = field(metadata=keyed("ingress_s"))
    queue: Distribution = field(metadata=keyed("queue_s"))


def latency_of(facts: Facts) -> Latency:
    """Of a run."""
    ttft, tpot, e2e, ingress, queue = (describe(facts.of_finished(name)) for name in LATENCIES)
    itl = describe_itl(facts.record.itl_hist, facts.record.totals)
    return Latency(ttft, tpot, itl, e2e, ingress, queue)


def derive(columns: Mapping[str, Array]) -> dict[str, Array]:
    """`LATENCIES` (f8[n]) by `definitions`; NaN where a request has none.

    Without ``taken_s`` an engine is taken to have a request as soon as it is sent.
    """
    arrival = columns["arrival_s"]
    ttft = columns["first_token_s"] - arrival
    e2e = columns["finish_s"] - arrival
    e2e[columns["status"] != FINISHED] = np.nan
    steps = columns["output_tokens"] - 1.0
    steps[steps <= 0] = np.nan
    taken = columns.get("taken_s", arrival)
    return {
        "ttft_s": ttft,
        "tpot_s": (e2e - ttft) / steps,
        "e2e_s": e2e,
        "ingress_s": taken - arrival,
        "queue_s": columns["first_scheduled_s"] - taken,
    }


def number(value: float | np.floating) -> float | None:
    """A float that JSON can hold: None for NaN and infinity."""
    value = float(value)
    return value if np.isfinite(value) else None


def describe(values: Array) -> Distribution:
    """Count, mean, standard deviation, extremes and percentiles (linear interpolation) of the values that are not NaN."""
    values = values[~np.isnan(values)]
    if not values.size:
        return _NOTHING
    mean, std = float(values.mean()), float(values.std())
    least, *found, most = map(float, np.percentile(values, [0.0, *PERCENTILES.values(), 100.0], overwrite_input=True))
    return Distribution(int(values.size), mean, std, least, **dict(zip(PERCENTILES, found, strict=True)), max=most)


def describe_itl(hist: Array, totals: Mapping[str, float]) -> Distribution:
    """The same for inter-token latency, from its histogram and the recorder's exact sums; ``std`` and ``min`` are not kept."""
    count = float(totals.get("itl_count", hist.sum()))
    if count <= 0:
        return replace(_NOTHING, count=int(count))
    largest = float(totals["itl_max_s"])
    found = quantiles(hist, [q / 100 for q in PERCENTILES.values()], largest)
    mean = float(totals["itl_sum_s"]) / count
    return Distribution(int(count), mean, None, None, **dict(zip(PERCENTILES, found, strict=True)), max=largest)
