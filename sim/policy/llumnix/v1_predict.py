"""Predictions of the v1 scheduler: TTFT and TPOT from profiled times (``pkg/scheduler/predictor``, ``policy/slo*.go``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_TOKENS = 8
"""Tokens per request are floored at this where TPOT is looked up."""


@dataclass(frozen=True)
class Profile:
    """Profiled medians: prefill ms [tokens]; decode ms [batch, tokens per request]. Linear and bilinear between points, clamped outside."""

    prefill_tokens: Sequence[float]
    prefill_ms: Sequence[float]
    batch: Sequence[float]
    tokens: Sequence[float]
    decode_ms: NDArray[np.float64]

    def prefill(self, tokens: float) -> float:
        """Milliseconds of one prefill step."""
        return float(np.interp(tokens, self.prefill_tokens, self.prefill_ms))

    def decode(self, batch: float, tokens: float) -> float:
        """Milliseconds of one decode step."""
        rows = [float(np.interp(tokens, self.tokens, row)) for row in self.decode_ms]
        return float(np.interp(batch, self.batch, rows))

    def ttft(self, uncomputed: float, chunk: int, batch: float, tokens: float) -> float:
        """Milliseconds until ``uncomputed`` tokens are through: per chunk a prefill step and a decode step."""
        total, left = 0.0, uncomputed
        decode = self.decode(batch, max(tokens, LEAST_TOKENS)) if batch > 0 else 0.0
        while left > 0:
            n = min(left, chunk)
            total += self.prefill(n) + decode
            left -= n
        return total

    def tpot(self, batch: float, tokens_in_use: float) -> float:
        """Milliseconds per token with one more request in the batch."""
        b = batch + 1
        return self.decode(b, max(tokens_in_use / b, LEAST_TOKENS))
