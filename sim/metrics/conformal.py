"""Ends between which a further sample will lie, from samples that are alike to different degrees, as far apart as left-out samples say.

Quantiles of few samples end at the samples themselves, and those that count most may be off together: what they say is too narrow, and by
how much depends on the figure. So every sample is judged by the others, and quantiles are stretched by what was needed (conformalised quantile
regression, Romano, Patterson and Candès 2019, with weights as Tibshirani and others 2019 have them).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from sim.ledger import Values as Array

LEVEL: Final = 0.8
"""Share of further samples that lie between the ends."""
_NARROWEST: Final = 0.02
"""Distance of an end from the middle below which distances are not compared: measurements repeat no better."""
_SUREST: Final = 0.97
"""Largest share that is asked of the samples where few count."""


def ends(samples: Array, weights: Array) -> tuple[float, float, float]:
    """Low end, middle and high end by the samples' own quantiles. ``samples`` [n, q]: quantiles of n samples, each with one weight."""
    few = _alike(weights)
    tail = 0.5 * (1.0 - LEVEL) * few / (few + 1.0)  # as of one more sample beyond either end
    values, each = samples.ravel(), np.repeat(weights / samples.shape[1], samples.shape[1])
    order = np.argsort(values, kind="stable")
    at = np.cumsum(each[order]) - 0.5 * each[order]
    low, middle, high = np.interp(np.array([tail, 0.5, 1.0 - tail]) * weights.sum(), at, values[order])
    return float(low), float(middle), float(high)


def stretched(samples: Array, likeness: Array, weights: Array) -> tuple[float, float]:
    """Low and high end, stretched about the middle by what left-out samples needed, and never without 0 between them.

    ``likeness`` [n, n]: weight of one sample for another; ``weights`` [n]: for what is asked about. A sample is judged by others that are no
    more like it than any is like what is asked about: a class of its own is predicted as other classes would be without their own members.
    Samples that are like it say most of the stretch as well, but less so than of the ends: by the square roots, as there are few.
    """
    near = likeness * (likeness <= weights.max())
    needed, short = zip(
        *(_needed(samples, near[i] if near[i].any() else likeness[i], i) for i in range(len(samples))), strict=True
    )
    counts = np.sqrt(weights)
    few = _alike(counts)
    share = min(LEVEL * (few + 1.0) / few, _SUREST)
    stretches = np.array(needed)
    order = np.argsort(stretches, axis=None, kind="stable")
    at = np.cumsum(np.repeat(counts / samples.shape[1], samples.shape[1])[order])
    stretch = float(stretches.ravel()[order[min(int(np.searchsorted(at, share * at[-1])), len(order) - 1)]])
    low, middle, high = ends(samples, weights)
    most = max(short)  # a wide interval need not grow by the factor that a narrow one had to
    return (
        min(max(middle - stretch * max(middle - low, _NARROWEST), low - most), 0.0),
        max(min(middle + stretch * max(high - middle, _NARROWEST), high + most), 0.0),
    )


def _needed(samples: Array, weights: Array, i: int) -> tuple[Array, float]:
    """By how much the ends that all others give must be stretched to hold sample i, and how far beyond them it lies at most.

    Nothing is needed between their middle and 0, which is always held.
    """
    if len(samples) < 2:
        return np.ones(samples.shape[1]), 0.0
    low, middle, high = ends(np.delete(samples, i, 0), np.delete(weights, i))
    x = samples[i]
    off = np.where(x > middle, (x - middle) / max(high - middle, _NARROWEST), (middle - x) / max(middle - low, _NARROWEST))
    beyond = max(0.0, float(np.max(x - max(high, 0.0))), float(np.max(min(low, 0.0) - x)))
    return np.where((x - middle) * x <= 0.0, 0.0, off), beyond


def _alike(weights: Array) -> float:
    """How many samples of equal weight say as much (Kish)."""
    return float(weights.sum() ** 2 / (weights**2).sum())
