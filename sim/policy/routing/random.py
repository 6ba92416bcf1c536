"""Random: each request to a replica drawn with equal probability."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.policy.requests import Requests
from sim.policy.router import Fewest, Router, Snapshot
from sim.registry import register


@register("router")
class Random(Router):
    """A replica drawn uniformly."""

    name = "random"
    stateless = True
    elastic = True

    def route(self, block: Requests) -> NDArray[np.int32]:
        """``len(block)`` independent draws."""
        return self.rng.integers(0, self.replicas, len(block), dtype=np.int32)

    def fewest(self, rows: int) -> Fewest:
        """One candidate each."""
        drawn = self.rng.integers(0, self.replicas, (rows, 1), dtype=np.int32)
        return Fewest(drawn.astype(np.int64), np.zeros(1, np.int64))

    def choose(self, snapshot: Snapshot, block: Requests, row: int) -> int:
        """One draw."""
        return int(self.rng.integers(0, self.replicas, dtype=np.int32))
