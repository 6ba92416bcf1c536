"""Least outstanding requests (LOR): what nginx calls ``least_conn`` and Envoy ``LEAST_REQUEST`` over all hosts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sim.policy.requests import Requests
from sim.policy.router import Router, RouterParams, Snapshot
from sim.registry import register

if TYPE_CHECKING:
    from sim.rules import Rule


@register("router")
class LeastOutstanding(Router):
    """The replica with the fewest requests sent and not yet finished; of equals the one next in turn after the last choice."""

    name = "least_outstanding"
    aliases = ("lor",)
    elastic = True

    def __init__(self, params: RouterParams, replicas: int, rng: np.random.Generator) -> None:
        super().__init__(params, replicas, rng)
        self._turn = np.zeros(1, np.int64)

    def members(self, numbers: Sequence[int]) -> None:
        """The turn begins anew."""
        super().members(numbers)
        self._turn[0] = 0

    def rule(self) -> Rule:
        """The same turn."""
        if self._compiled is None:
            from sim.policy.rules.fewest import of_all
            from sim.policy.rules.in_turn import Turn
            from sim.rules import Rule

            self._compiled = Rule(of_all, Turn(self._turn))
        return self._compiled

    def choose(self, snapshot: Snapshot, block: Requests, row: int) -> int:
        """O(replicas), vectorised."""
        load = snapshot.outstanding
        after = int(self._turn[0])
        best = int(load[after:].argmin()) + after
        if after > 0:
            first = int(load[:after].argmin())
            if load[first] < load[best]:
                best = first
        self._turn[0] = best + 1 if best + 1 < self.replicas else 0
        return best
