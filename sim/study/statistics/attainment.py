"""The share of requests that meet a target: Wilson's interval, with the effective sample size of dependent requests."""

from __future__ import annotations

from math import sqrt

import numpy as np

from sim.ledger import Values
from sim.study.statistics.batches import BATCHES, worth_of
from sim.study.statistics.interval import Interval
from sim.study.statistics.quantiles import normal, student


def wilson(share: float, n: float, level: float = 0.95, z: float | None = None) -> tuple[float, float]:
    """Wilson's (1927) score interval of a share seen in ``n`` independent trials; never outside 0 to 1, and right at both ends."""
    z = normal(level) if z is None else z
    middle = (share + z * z / (2.0 * n)) / (1.0 + z * z / n)
    half = z / (1.0 + z * z / n) * sqrt(share * (1.0 - share) / n + z * z / (4.0 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def attainment_interval(met: Values, level: float = 0.95) -> Interval | None:
    """b1[n] in order of arrival. None for fewer than 5 in a batch. Where all (or none) meet it, the requests count as independent."""
    if len(met) < 5 * BATCHES:
        return None
    share = float(np.mean(met))
    worth = worth_of(np.asarray(met, float))
    low, high = wilson(share, worth, level, student(level, BATCHES - 1) if 0.0 < share < 1.0 else None)
    return Interval(share, min(low, share), max(high, share), level, "Wilson, effective sample size", worth)
