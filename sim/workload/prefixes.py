"""System prompts that many requests have in common."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sim.workload import content
from sim.workload.settings import Params
from sim.workload.table import MAX_TOKENS


class PrefixParams(Params):
    """Shared prefixes of synthetic traffic."""

    groups: int = Field(default=1, ge=1, le=10_000_000, description="how many different shared prefixes there are")
    shared_tokens: int = Field(ge=1, le=MAX_TOKENS, description="tokens of a shared prefix, put in front of the drawn prompt")
    name: str | None = Field(
        default=None, min_length=1, max_length=200, description="classes of clients with the same name here share these prefixes"
    )
    zipf: float = Field(
        default=0.0,
        ge=0,
        le=20,
        allow_inf_nan=False,
        description="popularity: group k is drawn with weight 1/k^zipf; 0: all alike",
    )


class Prefixes:
    """Draws a group for each request (or session)."""

    def __init__(self, params: PrefixParams) -> None:
        self.params = params
        weights = np.arange(1, params.groups + 1, dtype=np.float64) ** -params.zipf
        self._cdf = np.cumsum(weights) / weights.sum()

    def draw(self, rng: np.random.Generator, n: int) -> NDArray[np.int64]:
        """``n`` group numbers from 0, the most popular first."""
        group = np.searchsorted(self._cdf, rng.random(n), side="right")
        return np.minimum(group, self.params.groups - 1).astype(np.int64)


def prefixed_spans(
    group: NDArray[np.int64], shared: int, prompt: NDArray[np.int64], first: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Spans of prompts: a shared prefix, then ``prompt`` tokens of their own; ``first`` numbers the first request."""
    n = len(group)
    ids = np.column_stack([content.SHARED + group, content.PROMPT + first + np.arange(n)]).ravel()
    length = np.column_stack([np.full(n, shared), prompt]).ravel()
    return 2 * np.arange(n + 1), ids, np.zeros(2 * n, np.int64), length
