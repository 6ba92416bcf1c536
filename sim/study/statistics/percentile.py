"""Percentiles of one run, by order statistics: as many as independent requests would give, not as there are requests.

The share of requests below the estimate is a mean, so batch means say how many independent requests it is worth; order statistics of
that many bound the percentile. Where fewer than 25 of them lie beyond it, the skewness of bursts is added; where fewer than 4, nothing
bounds it from above, and the interval says so: it is open.
"""

from __future__ import annotations

import numpy as np

from sim.ledger import Values
from sim.study.statistics.batches import BATCHES, batch_means, skewness_adjusted, spread
from sim.study.statistics.interval import Interval
from sim.study.statistics.quantiles import beta, normal, student

ENOUGH, LEAST = 25.0, 4.0
"""Independent requests beyond a percentile from which it is bounded well, and at all."""


def percentile_interval(values: Values, p: float, level: float = 0.95) -> Interval | None:
    """The ``p`` quantile (0.99 for p99) of dependent observations in order of arrival; None for fewer than 5 in a batch."""
    n = len(values)
    if n < 5 * BATCHES:
        return None
    x = np.asarray(values, float)
    value = float(np.quantile(x, p))
    below = batch_means((x <= value).astype(float))
    error = spread(below)
    worth = float(n) if error <= 0 else min(float(n), p * (1.0 - p) / error**2)
    beyond = worth * min(p, 1.0 - p)
    counted = worth * (normal(level) / student(level, BATCHES - 1)) ** 2
    low = beta(counted * p, counted * (1.0 - p) + 1.0, (1.0 - level) / 2.0)
    high = beta(counted * p + 1.0, counted * (1.0 - p), (1.0 + level) / 2.0)
    if beyond < ENOUGH:
        least, most = skewness_adjusted(below, level)
        low, high = min(low, 2.0 * p - most), max(high, 2.0 * p - least)
    ends = np.quantile(x, [max(low, 0.0), min(high, 1.0)])
    top = float("inf") if beyond < LEAST and p > 0.5 else float(ends[1])
    return Interval(value, float(min(ends[0], value)), max(top, value), level, "order statistics of the effective sample", worth)
