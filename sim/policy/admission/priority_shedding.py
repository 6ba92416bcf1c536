"""Shedding by priority: llm-d without flow control refuses requests of negative priority while the pool is saturated, and lets all others pass.

*Source*: llm-d/llm-d-router ``pkg/epp/requestcontrol/admission.go`` @ ebab6879 (LegacyAdmissionController); the refusal is a 429.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from sim.policy.admitting import Admission, Seen, Ticket
from sim.policy.gateways.saturation import Detector, SaturationParams
from sim.registry import register


class PrioritySheddingParams(SaturationParams):
    """Settings of `PriorityShedding`."""

    below: int = Field(0, ge=-(2**31), le=2**31 - 1, description="priorities below this one can be shed (llm-d: negative ones)")
    ceiling: float = Field(1.0, gt=0, le=1e6, description="saturation from which on they are")


@register("admission")
class PriorityShedding(Admission):
    """Nobody waits. A higher number is more important."""

    name = "priority_shedding"
    Params = PrioritySheddingParams
    params: PrioritySheddingParams

    def __init__(self, params: PrioritySheddingParams, replicas: int, rng: np.random.Generator) -> None:
        super().__init__(params, replicas, rng)
        self._detector = Detector(params)
        self._through: list[int] = []

    def offer(self, ticket: Ticket, snapshot: Seen) -> bool:
        """Whether it is important enough now."""
        if ticket.priority < self.params.below and self._detector.saturation(snapshot) >= self.params.ceiling:
            return False
        self._detector.in_flight += 1
        self._through.append(ticket.number)
        return True

    def release(self, snapshot: Seen) -> Sequence[int]:
        """All that were let in."""
        out, self._through = self._through, []
        return out

    def ended(self, ticket: Ticket, now: float, output_tokens: int) -> None:
        """One less in flight."""
        self._detector.in_flight -= 1
