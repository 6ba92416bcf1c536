"""Weibull-distributed gaps."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from sim.registry import register
from sim.workload.arrivals._base import ArrivalParams, Renewal


class WeibullParams(ArrivalParams):
    """Settings of Weibull arrivals: the shape itself, or the coefficient of variation that it gives."""

    cv: float | None = Field(
        default=None, ge=0.02, le=100, allow_inf_nan=False, description="coefficient of variation of the gaps: 1 is Poisson"
    )
    shape: float | None = Field(
        default=None,
        ge=0.15,
        le=60,
        allow_inf_nan=False,
        description="instead of cv: shape k; below 1 bursty, 1 Poisson, above 1 smooth",
    )

    @model_validator(mode="after")
    def _one(self) -> WeibullParams:
        if (self.cv is None) == (self.shape is None):
            raise ValueError("needs exactly one of cv and shape")
        return self

    @cached_property
    def k(self) -> float:
        """The shape."""
        if self.shape is not None:
            return self.shape
        assert self.cv is not None
        low, high = math.log(0.1), math.log(100.0)
        for _ in range(80):  # the cv falls with the shape
            middle = 0.5 * (low + high)
            low, high = (middle, high) if _cv(math.exp(middle)) > self.cv else (low, middle)
        return math.exp(0.5 * (low + high))


def _cv(k: float) -> float:
    """√(Γ(1+2/k)/Γ(1+1/k)² − 1)."""
    return math.sqrt(max(math.expm1(math.lgamma(1 + 2 / k) - 2 * math.lgamma(1 + 1 / k)), 0.0))


@register("arrival")
class Weibull(Renewal):
    """Independent Weibull gaps: the fit of bursty production traffic beside the gamma one (ServeGen, NSDI 2026)."""

    name = "weibull"
    Params = WeibullParams
    params: WeibullParams

    def gaps(self, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        """``n`` Weibull gaps of mean 1."""
        k = self.params.k
        gaps: NDArray[np.float64] = rng.weibull(k, n) / math.gamma(1 + 1 / k)
        return gaps
