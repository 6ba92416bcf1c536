"""What routers and scalers see of the engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import simpy
from numpy.typing import NDArray

from sim.ledger import LOOK, LOOK_TOTAL_BLOCKS, LOOK_USED_BLOCKS
from sim.policy.requests import Requests
from sim.policy.router import ReplicaFacts, Snapshot

if TYPE_CHECKING:
    from sim.engine.group import EngineGroup
    from sim.engine.inside import Inside


class Sight(Snapshot, Protocol):
    """What the fleet hands to routers: replicas by number, and what is known of each."""

    replicas: int
    facts: list[ReplicaFacts]

    def delivered(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Numbers and tokens delivered so far of the requests in flight."""


class View:
    """What routers see (`sim.policy.router.Snapshot`)."""

    def __init__(self, groups: list[EngineGroup], env: simpy.Environment, facts: Sequence[ReplicaFacts] | None = None) -> None:
        self._groups = groups
        self._env = env
        self.replicas = sum(g.n for g in groups)
        self.facts = list(facts) if facts is not None else [ReplicaFacts()] * self.replicas
        self._insides: list[Inside] = []
        self._place = [(g, k) for g, group in enumerate(groups) for k in range(group.n)]
        self.moment = 0.0
        """Time of the outcome that is being handled, which may be ahead of SimPy's clock."""
        self.as_seen: Callable[[int, Requests, int], tuple[Requests, int]] = lambda replica, block, row: (block, row)
        """A request as a replica sees it, which may have been restarted."""
        self.looks = 0
        """Times that a router brought engines up to now."""

    @property
    def now(self) -> float:
        """Simulated time."""
        return max(float(self._env.now), self.moment)

    def insides(self) -> list[Inside]:
        """One `sim.engine.inside.Inside` per pool."""
        if not self._insides:
            from sim.engine.inside import Inside

            first = np.cumsum([0, *(g.n for g in self._groups)])
            self._insides = [Inside(g, self.facts[i].block_size) for g, i in zip(self._groups, first, strict=False)]
        return self._insides

    def movable(self) -> None:
        """Raise `NotModelledError` where running requests cannot be taken out of an engine."""
        first = 0
        for inside, group in zip(self.insides(), self._groups, strict=True):
            inside.movable(self.facts[first].engine)
            first += group.n

    def inside(self, replica: int) -> tuple[Inside, int]:
        """The inside of a replica's pool and its number there."""
        group, k = self._place[replica]
        return self.insides()[group], k

    def sync(self, replica: int) -> None:
        """Bring the pool of a replica up to now."""
        self.looks += 1
        self.inside(replica)[0].sync(self.now)

    def look(self) -> dict[str, NDArray[np.float64]]:
        """Queue and memory of all replicas as of now."""
        self.looks += 1
        for inside in self.insides():
            inside.sync(self.now)
        rows = np.concatenate([inside.look() for inside in self.insides()])
        return {name: rows[:, j] for j, name in enumerate(LOOK)}

    def running(self, replica: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Running requests of a replica as of now."""
        self.sync(replica)
        inside, k = self.inside(replica)
        rows: tuple[NDArray[np.int64], NDArray[np.float64]] = inside.requests(k)
        return rows

    def delivered(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """i8[m], i8[m]: number of each request in the engines, and the tokens of its answer so far. Costs O(requests in flight)."""
        from sim.fleet.delivered import delivered

        for inside in self.insides():
            inside.sync(self.now)
        self.looks += 1
        found: tuple[NDArray[np.int64], NDArray[np.int64]] = delivered(self._groups)
        return found

    def cached(self, block: Requests, row: int) -> NDArray[np.float64]:
        """f8[n]: KV blocks of a prompt in the prefix cache of each replica as of now. Raises `NotModelledError` for engines that cannot be asked."""
        from sim.fleet.cached import cached_blocks

        for inside in self.insides():
            inside.sync(self.now)
        self.looks += 1
        found: NDArray[np.float64] = cached_blocks(
            self._groups, block, row, lambda k: self.as_seen(k, block, row), self.facts[0].engine
        )
        return found

    def free_blocks(self, replica: int) -> float:
        """KV blocks of a replica that nobody holds."""
        inside, k = self.inside(replica)
        row = inside.look()[k]
        return float(row[LOOK_TOTAL_BLOCKS] - row[LOOK_USED_BLOCKS])

    @property
    def outstanding(self) -> NDArray[np.int64]:
        """Live for one pool, joined for several."""
        if len(self._groups) == 1:
            return self._groups[0].outstanding
        return np.concatenate([g.outstanding for g in self._groups])

    def gauges(self) -> NDArray[np.float64]:
        """Of all pools, side by side, as of now."""
        self.looks += 1
        for group in self._groups:
            group.catch_up(self.now)
        return np.concatenate([g.gauges() for g in self._groups], axis=1)
