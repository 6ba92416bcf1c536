"""Round robin: replicas in turn, whatever they are doing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.policy.requests import Requests
from sim.policy.router import Fewest, Router, Snapshot
from sim.registry import register


@register("router")
class RoundRobin(Router):
    """Each request to the next replica."""

    name = "round_robin"
    stateless = True
    elastic = True
    _next = 0

    def route(self, block: Requests) -> NDArray[np.int32]:
        """The next ``len(block)`` replicas in turn."""
        turns = (self._next + np.arange(len(block))) % self.replicas
        self._next = (self._next + len(block)) % self.replicas
        return turns.astype(np.int32)

    def fewest(self, rows: int) -> Fewest:
        """One candidate each."""
        turns = (self._next + np.arange(rows)) % self.replicas
        self._next = (self._next + rows) % self.replicas
        return Fewest(turns.reshape(-1, 1), np.zeros(1, np.int64))

    def choose(self, snapshot: Snapshot, block: Requests, row: int) -> int:
        """The next replica."""
        turn = self._next % self.replicas
        self._next = (turn + 1) % self.replicas
        return turn
