"""Quantiles of the distributions that intervals are made of. scipy.special, as scipy.stats takes half a second to load."""

from __future__ import annotations

from scipy.special import betaincinv, ndtri, stdtrit


def normal(level: float) -> float:
    """Z with ``level`` of the standard normal between −z and z."""
    return float(ndtri(0.5 + level / 2.0))


def student(level: float, freedom: float) -> float:
    """T with ``level`` of Student's distribution between −t and t."""
    return float(stdtrit(freedom, 0.5 + level / 2.0))


def beta(a: float, b: float, p: float) -> float:
    """The ``p`` quantile of the beta distribution."""
    return float(betaincinv(a, b, p))
