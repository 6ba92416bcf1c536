"""Ends between which a further sample will lie, from samples that are alike to different degrees, as far apart as left-out samples say.

How far samples like it are off says how far it will be, but few of them say it badly, and those of one source may be off together. So every sample is
put in relation to what those of other sources let expect of it, and the ends are where these relations say, one quantile on either side, in units of what
is expected here (conformal prediction normalised by difficulty, Papadopoulos, Gammerman and Vovk 2008, with weights as Tibshirani and others 2019 have
them). What is expected is a geometric mean: one sample that is a hundred times off makes it hardly larger, and counts as one of many that lie beyond.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from sim.ledger import Values as Array

LEVEL: Final = 0.8
"""Share of further samples that lie between the ends."""
_LEAST: Final = 0.03
"""What is always expected: measurements are no better repeatable."""
_FAR: Final = 2.0
"""What is further off says no more of how far others are."""


def ends(samples: Array, apart: Array, weights: Array) -> tuple[float, float]:
    """Low and high end for what ``weights`` [n] says is how much like each sample; 0 lies between them.

    ``samples`` [n, q]: quantiles of n samples. ``apart`` [n, n]: weight of one sample for another, 0 where they are of one source. A sample is
    judged by others that are no more like it than any is like what is asked about: a class of its own is predicted as other classes would be
    without their own members. Relations count by the square roots of their weights, as there are few.
    """
    near = apart * (apart <= weights.max())
    near = np.where(near.any(axis=1, keepdims=True), near, apart)
    near[~near.any(axis=1)] = weights  # of one source all
    size = np.log(np.minimum(np.abs(samples), _FAR) + _LEAST).mean(axis=1)
    expected = np.exp(near @ size / near.sum(axis=1))
    here = float(np.exp(weights @ size / weights.sum()))
    counts = np.sqrt(weights)
    few = float(counts.sum() ** 2 / (counts**2).sum())  # so many of equal weight would say as much (Kish)
    share = 1.0 - 0.5 * (1.0 - LEVEL) * few / (few + 1.0)  # as of one more sample beyond either end
    relations = (samples / expected[:, None]).ravel()
    each = np.repeat(counts, samples.shape[1])
    most = 2.0 * float(np.abs(samples).max())
    low, high = (min(max(_quantile(side, each, share), 0.0) * here, most) for side in (-relations, relations))
    return -low, high


def _quantile(values: Array, weights: Array, share: float) -> float:
    """The least value to which so large a share of the weights belongs."""
    order = np.argsort(values, kind="stable")
    at = np.cumsum(weights[order])
    return float(values[order[min(int(np.searchsorted(at, share * at[-1])), len(order) - 1)]])
