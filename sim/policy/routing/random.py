"""Random: each request to a replica drawn with equal probability."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sim.policy.requests import Requests
from sim.policy.router import Router, Snapshot
from sim.registry import register

if TYPE_CHECKING:
    from sim.rules import Rule


@register("router")
class Random(Router):
    """A replica drawn uniformly."""

    name = "random"
    stateless = True
    elastic = True

    def route(self, block: Requests) -> NDArray[np.int32]:
        """``len(block)`` independent draws."""
        return self.rng.integers(0, self.replicas, len(block), dtype=np.int32)

    def rule(self) -> Rule:
        """The same draws."""
        if self._compiled is None:
            from sim.policy.rules.random import uniform

            self._compiled = uniform()
        return self._compiled

    def choose(self, snapshot: Snapshot, block: Requests, row: int) -> int:
        """One draw."""
        return int(self.rng.integers(0, self.replicas, dtype=np.int32))
