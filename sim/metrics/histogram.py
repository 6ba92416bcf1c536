"""Inter-token latency in log-spaced bins: a run has too many gaps to keep, and 0.5 % is finer than any model of a step.

Bin of a gap: ``0`` for gap ≤ ITL_LO, else ``min(int(log(gap / ITL_LO) * ITL_SCALE), ITL_BINS - 1)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from sim.ledger import Values as Array

ITL_LO: Final = 1e-5
"""Upper edge (s) of what falls into bin 0 without a logarithm."""
ITL_SCALE: Final = 200.0
"""Bins per factor e: each is 0.5 % wide."""
ITL_BINS: Final = 3800
"""Reaches 1,785 s."""
_ANY: Final = 1e-300
"""Less than any count: the quantile 0 lies in the first bin that holds something."""


def bin_of(gap: float) -> int:
    """Bin of one gap (s): the plain twin of the recorder's formula."""
    return min(int(math.log(gap / ITL_LO) * ITL_SCALE), ITL_BINS - 1) if gap > ITL_LO else 0


def edges(bins: int = ITL_BINS) -> Array:
    """f8[bins + 1], seconds; bin ``k`` holds gaps in [edges[k], edges[k + 1]), bin 0 also everything below."""
    return np.asarray(ITL_LO * np.exp(np.arange(bins + 1) / ITL_SCALE))


def quantiles(hist: Array, qs: Sequence[float], largest: float = math.inf) -> list[float]:
    """Quantiles (0…1) in seconds, geometric interpolation within a bin; NaN when the histogram is empty.

    ``largest``: the largest gap seen, an upper bound of every quantile. Error: at most one bin, 0.5 %.
    """
    total = float(hist.sum())
    if total <= 0:
        return [math.nan] * len(qs)
    below = np.cumsum(hist)
    out = []
    for q in qs:
        want = q * total
        k = int(np.searchsorted(below, max(want, _ANY)))
        inside = (want - (below[k] - hist[k])) / hist[k]
        out.append(min(ITL_LO * math.exp((k + inside) / ITL_SCALE), largest))
    return out


def cdf(hist: Array) -> tuple[Array, Array]:
    """(upper edges in seconds, share of gaps at or below) of the bins that hold something."""
    used = np.flatnonzero(hist)
    if used.size == 0:
        return np.empty(0), np.empty(0)
    return edges(hist.size)[used + 1], np.cumsum(hist[used]) / hist.sum()
