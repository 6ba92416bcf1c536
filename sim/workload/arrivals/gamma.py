"""Gamma-distributed gaps: traffic that is burstier or smoother than Poisson."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sim.registry import register
from sim.workload.arrivals._base import ArrivalParams, Renewal


class GammaParams(ArrivalParams):
    """Settings of gamma arrivals."""

    cv: float = Field(
        ge=0.001,
        le=1000,
        description="coefficient of variation of the gaps: 1 is Poisson, above 1 bursty, below 1 smooth; "
        "vLLM's --burstiness is 1/cv²",
    )


@register("arrival")
class Gamma(Renewal):
    """Independent gamma gaps of shape 1/cv² (the process of ``vllm bench serve --burstiness``)."""

    name = "gamma"
    Params = GammaParams
    params: GammaParams

    def gaps(self, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        """``n`` gamma gaps of mean 1."""
        shape = 1.0 / self.params.cv**2
        gaps: NDArray[np.float64] = rng.standard_gamma(shape, n) / shape
        return gaps
