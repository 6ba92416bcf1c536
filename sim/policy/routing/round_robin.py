"""Round robin: replicas in turn, whatever they are doing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sim.policy.requests import Requests
from sim.policy.router import Router, RouterParams, Snapshot
from sim.registry import register

if TYPE_CHECKING:
    from sim.rules import Rule


@register("router")
class RoundRobin(Router):
    """Each request to the next replica."""

    name = "round_robin"
    stateless = True
    elastic = True

    def __init__(self, params: RouterParams, replicas: int, rng: np.random.Generator) -> None:
        super().__init__(params, replicas, rng)
        self._turn = np.zeros(1, np.int64)

    def route(self, block: Requests) -> NDArray[np.int32]:
        """The next ``len(block)`` replicas in turn."""
        turns = (int(self._turn[0]) + np.arange(len(block))) % self.replicas
        self._turn[0] = (self._turn[0] + len(block)) % self.replicas
        return turns.astype(np.int32)

    def rule(self) -> Rule:
        """The same turn."""
        if self._compiled is None:
            from sim.policy.rules.in_turn import Turn, next_place
            from sim.rules import Rule

            self._compiled = Rule(next_place, Turn(self._turn))
        return self._compiled

    def choose(self, snapshot: Snapshot, block: Requests, row: int) -> int:
        """The next replica."""
        turn = int(self._turn[0]) % self.replicas
        self._turn[0] = (turn + 1) % self.replicas
        return turn
