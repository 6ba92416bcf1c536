"""Least outstanding requests (LOR): what nginx calls ``least_conn`` and Envoy ``LEAST_REQUEST`` over all hosts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim.policy.requests import Requests
from sim.policy.router import Fewest, Router, RouterParams, Snapshot
from sim.registry import register


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

    def fewest(self, rows: int) -> Fewest:
        """All replicas, in turn."""
        return Fewest(np.zeros((rows, 0), np.int64), self._turn)

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
