"""Every request alike."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from sim.registry import register
from sim.workload.lengths._base import Length, LengthParams, Pairs
from sim.workload.table import MAX_TOKENS


class FixedParams(LengthParams):
    """Settings of fixed lengths."""

    prompt_tokens: int = Field(ge=1, le=MAX_TOKENS, description="tokens of every prompt")
    output_tokens: int = Field(ge=1, le=MAX_TOKENS, description="tokens of every output")


@register("length")
class Fixed(Length):
    """Every request has the same prompt and output length."""

    name = "fixed"
    Params = FixedParams
    params: FixedParams

    @property
    def bounds(self) -> tuple[int, int]:
        """The lengths."""
        return self.params.prompt_tokens, self.params.output_tokens

    def draw(self, rng: np.random.Generator, n: int) -> Pairs:
        """``n`` equal pairs."""
        return np.full(n, self.params.prompt_tokens, np.int64), np.full(n, self.params.output_tokens, np.int64)
