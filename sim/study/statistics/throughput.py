"""What is finished per second, in steady state: counted between the first and the last arrival, without filling and draining."""

from __future__ import annotations

import numpy as np

from sim.ledger import Values
from sim.study.statistics.batches import BATCHES, skewness_adjusted
from sim.study.statistics.interval import Interval


def throughput_interval(
    arrival_s: Values, finish_s: Values, weight: Values | None = None, level: float = 0.95
) -> Interval | None:
    """Requests (or what ``weight`` counts of each) per second, from equal stretches of time. None for fewer than 100 that finish in it.

    The first twentieth of the time, in which the system fills, is left out.
    """
    if len(arrival_s) == 0:
        return None
    start, end = float(np.min(arrival_s)), float(np.max(arrival_s))
    if not end > start:
        return None
    edges = np.linspace(start + (end - start) / (BATCHES + 1), end, BATCHES + 1)
    done = np.isfinite(finish_s)
    if np.count_nonzero((finish_s[done] >= edges[0]) & (finish_s[done] <= end)) < 5 * BATCHES:
        return None
    counts, _ = np.histogram(finish_s[done], edges, weights=None if weight is None else np.asarray(weight, float)[done])
    rates = counts / np.diff(edges)
    low, high = skewness_adjusted(rates, level)
    value = float(rates.mean())
    return Interval(value, max(0.0, min(low, value)), max(high, value), level, f"{BATCHES} stretches of time", float(BATCHES))
