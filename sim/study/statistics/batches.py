"""The mean of one long run whose observations depend on each other: batch means, adjusted for skewness and what dependence is left.

Tafazzoli, Wilson, Lada and Steiger (2011), "Performance of Skart": Student's t with Willink's skewness adjustment, widened by the
first-order autocorrelation of the batch means.
"""

from __future__ import annotations

from math import sqrt

import numpy as np
import numpy.typing as npt

from sim.ledger import Values
from sim.study.statistics.interval import Interval
from sim.study.statistics.quantiles import student

BATCHES = 20
"""Few and long: batch means are then nearly independent, and Student's t knows how few they are."""


def batch_means(values: Values, batches: int = BATCHES) -> npt.NDArray[np.float64]:
    """f8[batches]: means of equal parts; what does not fill them is left out at the start."""
    size = len(values) // batches
    whole = np.asarray(values[len(values) - size * batches :], np.float64).reshape(batches, size)
    means: npt.NDArray[np.float64] = whole.mean(axis=1)
    return means


def spread(means: npt.NDArray[np.float64]) -> float:
    """Standard error of the mean of correlated batch means: σ/√k widened by (1+φ)/(1−φ), φ their correlation, where positive."""
    d = means - means.mean()
    total = float((d * d).sum())
    if total <= 0.0:
        return 0.0
    phi = min(max(float((d[1:] * d[:-1]).sum()) / total, 0.0), 0.9)
    k = len(means)
    return sqrt(total / (k - 1) / k * (1.0 + phi) / (1.0 - phi))


def skewness_adjusted(means: npt.NDArray[np.float64], level: float) -> tuple[float, float]:
    """(low, high) around the mean of batch means."""
    k, middle, error = len(means), float(means.mean()), spread(means)
    t = student(level, k - 1)
    d = means - middle
    deviation = sqrt(float((d * d).mean()))
    skew = float((d**3).mean()) / deviation**3 * sqrt(k * (k - 1)) / (k - 2) if deviation > 0 else 0.0
    beta = skew / (6.0 * sqrt(k))

    def bent(z: float) -> float:
        return z if abs(beta) < 1e-3 else float((np.cbrt(1.0 + 6.0 * beta * (z - beta)) - 1.0) / (2.0 * beta))

    ends = middle - bent(t) * error, middle - bent(-t) * error
    return min(ends), max(ends)


def mean_interval(values: Values, level: float = 0.95) -> Interval | None:
    """The mean of dependent observations in order; None for fewer than 5 in a batch."""
    if len(values) < 5 * BATCHES:
        return None
    means = batch_means(values)
    low, high = skewness_adjusted(means, level)
    value = float(np.mean(values))
    return Interval(
        value, min(low, value), max(high, value), level, f"{BATCHES} batch means, adjusted for skewness", worth_of(values)
    )


def worth_of(values: Values) -> float:
    """How many independent observations would give as sharp a mean: variance over squared standard error, at most all of them."""
    error = spread(batch_means(values))
    n = len(values)
    return min(float(n), float(np.var(values)) / error**2) if error > 0 else float(n)
