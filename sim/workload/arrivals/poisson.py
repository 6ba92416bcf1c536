"""Poisson arrivals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.registry import register
from sim.workload.arrivals._base import Renewal


@register("arrival")
class Poisson(Renewal):
    """Independent users: exponential gaps (coefficient of variation 1)."""

    name = "poisson"

    def gaps(self, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        """``n`` exponential gaps of mean 1."""
        return rng.standard_exponential(n)
