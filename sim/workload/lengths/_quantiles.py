"""Lengths described by two quantile tables and how strongly they go together."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Self

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from sim.workload.lengths._base import Pairs
from sim.workload.settings import Params
from sim.workload.table import MAX_TOKENS


def _rising(values: tuple[float, ...]) -> tuple[float, ...]:
    if any(not math.isfinite(x) for x in values) or any(b < a for a, b in pairwise(values)):
        raise ValueError("must be finite and must not fall")
    return values


def _tokens(values: tuple[float, ...]) -> tuple[float, ...]:
    if values and not 1 <= values[0] <= values[-1] <= MAX_TOKENS:
        raise ValueError(f"must be within [1, {MAX_TOKENS}]")
    return values


Quantiles = Annotated[tuple[float, ...], AfterValidator(_rising)]
TokenQuantiles = Annotated[Quantiles, AfterValidator(_tokens)]


class QuantileTable(Params):
    """Two inverse distribution functions, linear between the given points, joined by a Gaussian copula."""

    p: Quantiles = Field(min_length=2, description="probabilities from 0 to 1")
    prompt_tokens: TokenQuantiles = Field(description="prompt tokens at these probabilities")
    output_tokens: TokenQuantiles = Field(description="output tokens at these probabilities")
    rank_correlation: float = Field(default=0.0, ge=-1, le=1, description="Spearman rank correlation of prompt and output tokens")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.p[0] != 0 or self.p[-1] != 1:
            raise ValueError("p must start with 0 and end with 1")
        if not len(self.p) == len(self.prompt_tokens) == len(self.output_tokens):
            raise ValueError("p, prompt_tokens and output_tokens must be equally long")
        return self

    @property
    def bounds(self) -> tuple[int, int]:
        """Largest prompt and output."""
        return round(self.prompt_tokens[-1]), round(self.output_tokens[-1])

    def draw(self, rng: np.random.Generator, n: int) -> Pairs:
        """``n`` pairs. The normal correlation that gives a rank correlation s is 2·sin(π·s/6) (Kruskal 1958)."""
        from scipy.special import ndtr

        rho = 2.0 * math.sin(math.pi * self.rank_correlation / 6.0)
        z = rng.standard_normal((2, n))
        u = ndtr(z[0]), ndtr(rho * z[0] + math.sqrt(max(0.0, 1.0 - rho * rho)) * z[1])
        prompt = np.rint(np.interp(u[0], self.p, self.prompt_tokens)).astype(np.int64)
        return prompt, np.rint(np.interp(u[1], self.p, self.output_tokens)).astype(np.int64)
