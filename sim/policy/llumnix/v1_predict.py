"""Predictions of the v1 scheduler: prefill progress since the last status, TTFT and TPOT (``pkg/scheduler/predictor``, ``policy/slo*.go``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SAMPLES = 20
"""Prefill steps seen before the predictor is used."""
MAX_NUM_BATCHED_TOKENS = 65536
LEAST_TOKENS = 8
"""Tokens per request are floored at this where TPOT is looked up."""


class PrefillPredictor:
    """Milliseconds of a prefill step of x tokens as a·x² + b·x + c, fitted by least squares."""

    def __init__(self) -> None:
        self._x: list[float] = []
        self._ms: list[float] = []
        self._fit: tuple[float, float, float] | None = None

    def observe(self, tokens: float, ms: float) -> None:
        """One prefill step."""
        self._x.append(tokens)
        self._ms.append(ms)
        self._fit = None

    @property
    def ready(self) -> bool:
        """Whether there are samples enough, at three token counts or more."""
        return len(self._x) >= SAMPLES and len(set(self._x)) >= 3

    def step_ms(self, tokens: float) -> float:
        """Predicted milliseconds, not negative."""
        if self._fit is None:
            a, b, c = np.polynomial.polynomial.polyfit(self._x, self._ms, 2)[::-1]
            self._fit = (float(a), float(b), float(c))
        a, b, c = self._fit
        return max(a * tokens * tokens + b * tokens + c, 0.0)

    def computed(self, waiting_tokens: float, elapsed_ms: float) -> float:
        """Tokens of ``waiting_tokens`` whose steps have ended ``elapsed_ms`` after the status; 0 before it is `ready`."""
        if not self.ready:
            return 0.0
        done = 0.0
        while done < waiting_tokens:
            step = min(waiting_tokens - done, MAX_NUM_BATCHED_TOKENS)
            elapsed_ms -= self.step_ms(step)
            if elapsed_ms < 0:
                break
            done += step
        return done


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
