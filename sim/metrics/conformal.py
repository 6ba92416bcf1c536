"""Ends between which a further sample will lie, from samples that are alike to different degrees, as far apart as left-out samples say.

Quantiles of few samples end at the samples themselves, and those that count most may be off together: what they say is too narrow, and by
how much depends on the figure. So every sample is judged by the others, and the ends are moved outwards by what was needed (conformalised quantile
regression, Romano, Patterson and Candès 2019, with weights as Tibshirani and others 2019 have them). Moved, not multiplied: where one sample is far
off the ends are wide already, and a factor that narrow ones needed would take them out of sight.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from sim.ledger import Values as Array

LEVEL: Final = 0.8
"""Share of further samples that lie between the ends."""
_SUREST: Final = 0.97
"""Largest share that is asked of the samples where few count."""


def ends(samples: Array, weights: Array) -> tuple[float, float]:
    """Low and high end by the samples' own quantiles. ``samples`` [n, q]: quantiles of n samples, each with one weight."""
    few = _alike(weights)
    tail = 0.5 * (1.0 - LEVEL) * few / (few + 1.0)  # as of one more sample beyond either end
    values, each = samples.ravel(), np.repeat(weights / samples.shape[1], samples.shape[1])
    order = np.argsort(values, kind="stable")
    at = np.cumsum(each[order]) - 0.5 * each[order]
    low, high = np.interp(np.array([tail, 1.0 - tail]) * weights.sum(), at, values[order])
    return float(low), float(high)


def moved(samples: Array, likeness: Array, weights: Array) -> tuple[float, float]:
    """Low and high end, moved by what left-out samples needed, and never without 0 between them.

    ``likeness`` [n, n]: weight of one sample for another; ``weights`` [n]: for what is asked about. A sample is judged by others that are no
    more like it than any is like what is asked about: a class of its own is predicted as other classes would be without their own members.
    Samples that are like it say most of how far, as well, but less so than of the ends: by the square roots, as there are few.
    """
    near = likeness * (likeness <= weights.max())
    needed = np.array([_beyond(samples, near[i] if near[i].any() else likeness[i], i) for i in range(len(samples))])
    counts = np.sqrt(weights)
    few = _alike(counts)
    share = min(LEVEL * (few + 1.0) / few, _SUREST)
    order = np.argsort(needed, axis=None, kind="stable")
    at = np.cumsum(np.repeat(counts / samples.shape[1], samples.shape[1])[order])
    by = float(needed.ravel()[order[min(int(np.searchsorted(at, share * at[-1])), len(order) - 1)]])
    low, high = ends(samples, weights)
    return min(low - by, 0.0), max(high + by, 0.0)


def _beyond(samples: Array, weights: Array, i: int) -> Array:
    """How far sample i lies outside the ends that all others give, negative: inside."""
    if len(samples) < 2:
        return np.zeros(samples.shape[1])
    low, high = ends(np.delete(samples, i, 0), np.delete(weights, i))
    out: Array = np.maximum(min(low, 0.0) - samples[i], samples[i] - max(high, 0.0))
    return out


def _alike(weights: Array) -> float:
    """How many samples of equal weight say as much (Kish)."""
    return float(weights.sum() ** 2 / (weights**2).sum())
