"""Figures of independent repetitions of a run, and how many repetitions a wanted precision takes."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt

import numpy as np

from sim.study.statistics.interval import Interval
from sim.study.statistics.quantiles import student

MOST = 200
"""Repetitions after which a precision that was not reached is given up."""


def replicated(values: Sequence[float], level: float = 0.95) -> Interval | None:
    """The mean over repetitions by Student's t; None for fewer than two."""
    n = len(values)
    if n < 2:
        return None
    x = np.asarray(values, float)
    half = student(level, n - 1) * float(x.std(ddof=1)) / sqrt(n)
    value = float(x.mean())
    return Interval(value, value - half, value + half, level, f"{n} replications", float(n))


def bounds(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """(mean, low, high) over repetitions; all three the same for a single one."""
    found = replicated(values, level)
    if found is None:
        mean = float(np.mean(values))
        return mean, mean, mean
    return found.value, found.low, found.high


def needed(values: Sequence[float], precision: float, level: float = 0.95) -> int:
    """How many repetitions would bring the half-width below ``precision`` × mean, judged by those there are; at most `MOST`."""
    found = replicated(values, level)
    if found is None or found.value == 0:
        return len(values)
    if found.relative <= precision:
        return len(values)
    return min(MOST, max(len(values) + 1, ceil(len(values) * (found.relative / precision) ** 2)))
