"""Least outstanding requests (LOR): what nginx calls ``least_conn`` and Envoy ``LEAST_REQUEST`` over all hosts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sim.policy.router import Router, Snapshot
from sim.registry import register


@register("router")
class LeastOutstanding(Router):
    """The replica with the fewest requests sent and not yet finished; of equals the one next in turn after the last choice."""

    name = "least_outstanding"
    aliases = ("lor",)
    elastic = True
    _next = 0

    def members(self, numbers: Sequence[int]) -> None:
        """The turn begins anew."""
        super().members(numbers)
        self._next = 0

    def choose(self, snapshot: Snapshot, block: Any, row: int) -> int:
        """O(replicas), vectorised."""
        load = snapshot.outstanding
        after = self._next
        best = int(load[after:].argmin()) + after
        if after > 0:
            first = int(load[:after].argmin())
            if load[first] < load[best]:
                best = first
        self._next = best + 1 if best + 1 < self.replicas else 0
        return best
