"""Uniform lengths."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

from sim.registry import register
from sim.workload.lengths._base import Length, LengthParams, Pairs
from sim.workload.table import MAX_TOKENS


def _ordered(bounds: tuple[int, int]) -> tuple[int, int]:
    if not 1 <= bounds[0] <= bounds[1] <= MAX_TOKENS:
        raise ValueError(f"must be [low, high] with 1 <= low <= high <= {MAX_TOKENS}")
    return bounds


Bounds = Annotated[tuple[int, int], AfterValidator(_ordered)]


class UniformParams(LengthParams):
    """Settings of uniform lengths."""

    prompt_tokens: Bounds = Field(description="[shortest, longest] prompt, both included")
    output_tokens: Bounds = Field(description="[shortest, longest] output, both included")


@register("length")
class Uniform(Length):
    """Prompt and output lengths uniform between bounds, independent of each other."""

    name = "uniform"
    Params = UniformParams
    params: UniformParams

    @property
    def bounds(self) -> tuple[int, int]:
        """The upper ends."""
        return self.params.prompt_tokens[1], self.params.output_tokens[1]

    def draw(self, rng: np.random.Generator, n: int) -> Pairs:
        """``n`` pairs."""
        (shortest, longest), (fewest, most) = self.params.prompt_tokens, self.params.output_tokens
        return rng.integers(shortest, longest, n, endpoint=True), rng.integers(fewest, most, n, endpoint=True)
