"""Lognormal lengths: many short requests and a long tail, described by mean and spread."""

from __future__ import annotations

import math
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from sim.registry import register
from sim.workload.lengths._base import Length, LengthParams, Pairs
from sim.workload.settings import Params
from sim.workload.table import MAX_TOKENS


class Spread(Params):
    """One lognormal length."""

    mean: float = Field(ge=1, le=MAX_TOKENS, allow_inf_nan=False, description="mean in tokens, before rounding and the limits")
    cv: float = Field(ge=0, le=100, allow_inf_nan=False, description="standard deviation divided by the mean")
    min: int = Field(default=1, ge=1, le=MAX_TOKENS, description="shorter draws are raised to this")
    max: int = Field(default=MAX_TOKENS, ge=1, le=MAX_TOKENS, description="longer draws are cut to this")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) must not exceed max ({self.max})")
        return self

    def draw(self, rng: np.random.Generator, n: int) -> NDArray[np.int64]:
        """``n`` lengths."""
        variance = math.log1p(self.cv**2)
        x = rng.standard_normal(n) * math.sqrt(variance) + (math.log(self.mean) - variance / 2)
        clipped: NDArray[np.int64] = np.rint(np.exp(np.minimum(x, 30.0)).clip(self.min, self.max)).astype(np.int64)
        return clipped


class LognormalParams(LengthParams):
    """Settings of lognormal lengths."""

    prompt_tokens: Spread = Field(description="distribution of prompt lengths")
    output_tokens: Spread = Field(description="distribution of output lengths")


@register("length")
class Lognormal(Length):
    """Prompt and output lengths lognormal, independent of each other."""

    name = "lognormal"
    Params = LognormalParams
    params: LognormalParams

    @property
    def bounds(self) -> tuple[int, int]:
        """The ``max`` settings."""
        return self.params.prompt_tokens.max, self.params.output_tokens.max

    def draw(self, rng: np.random.Generator, n: int) -> Pairs:
        """``n`` pairs."""
        return self.params.prompt_tokens.draw(rng, n), self.params.output_tokens.draw(rng, n)
