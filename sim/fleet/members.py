"""A router before a fleet that scales: it sees, and chooses among, the replicas that serve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sim.policy.requests import Requests
from sim.policy.router import Relocation, ReplicaFacts, Router, Snapshot

if TYPE_CHECKING:
    from sim.fleet.view import Sight


class Serving:
    """What the router sees (`sim.policy.router.Snapshot`): of all replicas of ``view`` those that serve, place i being number ``numbers[i]``."""

    def __init__(self, view: Sight) -> None:
        self._view = view
        self.numbers = np.zeros(0, np.int64)

    @property
    def now(self) -> float:
        """Simulated time."""
        return float(self._view.now)

    @property
    def outstanding(self) -> NDArray[np.int64]:
        """i8[place]."""
        found: NDArray[np.int64] = self._view.outstanding[self.numbers]
        return found

    def gauges(self) -> NDArray[np.float64]:
        """f8[5, place]."""
        found: NDArray[np.float64] = self._view.gauges()[:, self.numbers]
        return found

    def look(self) -> dict[str, NDArray[np.float64]]:
        """f8[place] by name."""
        return {name: values[self.numbers] for name, values in self._view.look().items()}

    def delivered(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of all replicas, also those that drain."""
        found: tuple[NDArray[np.int64], NDArray[np.int64]] = self._view.delivered()
        return found

    def cached(self, block: Requests, row: int) -> NDArray[np.float64]:
        """f8[place]."""
        found: NDArray[np.float64] = self._view.cached(block, row)[self.numbers]
        return found

    def running(self, replica: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Running requests of the replica at a place."""
        rows: tuple[NDArray[np.int64], NDArray[np.float64]] = self._view.running(int(self.numbers[replica]))
        return rows


class Members(Router):
    """``router`` among those of the replicas of ``view`` that serve; to the fleet it speaks of replicas by their numbers."""

    name = "members"

    def __init__(self, router: Router, view: Sight) -> None:
        super().__init__(router.params, router.replicas, router.rng)
        self._router = router
        self._seen = Serving(view)
        self._facts: Sequence[ReplicaFacts] = ()
        self._role = ""
        self.numbers: list[int] = []
        """Those that serve, ascending."""
        self.interval = router.interval
        self.hears, self.decides = router.hears, router.decides
        self.gateway, self.migration, self.recovery = router.gateway, router.migration, router.recovery

    @property
    def inner(self) -> Router:
        """Who chooses among them."""
        return self._router

    @property
    def seen(self) -> Serving:
        """What the router sees: those that serve."""
        return self._seen

    @property
    def pairs(self) -> bool:
        """As the router says, and is told."""
        return self._router.pairs

    @pairs.setter
    def pairs(self, on: bool) -> None:
        self._router.pairs = on

    def appoint(self, numbers: Sequence[int]) -> None:
        """These serve from now on."""
        self.numbers = list(numbers)
        self._seen.numbers = np.array(self.numbers, np.int64)
        facts = [self._facts[k] for k in numbers]
        if len(set(self._facts)) > 1:  # places change their meaning
            self._router.setup(facts)
        self._router.members(self.numbers)

    def renew(self, rng: np.random.Generator) -> None:
        """The router is started anew: it knows nothing."""
        self._router = _fresh(self._router, rng, self._facts, self._role)
        self.appoint(self.numbers)
        self.look_at()

    def look_at(self) -> None:
        """A replica has begun to serve: whoever polls looks at once."""
        if self._router.interval is not None and self.numbers:
            self._router.poll(self._seen)

    def on_sent(self, number: int, replica: int, block: Requests, row: int, now: float) -> None:
        """Passed on."""
        self._router.on_sent(number, replica, block, row, now)

    def on_first_token(self, number: int, now: float) -> None:
        """Passed on."""
        self._router.on_first_token(number, now)

    def on_end(self, number: int, now: float) -> None:
        """Passed on."""
        self._router.on_end(number, now)

    def rested(self, polls: int) -> None:
        """Passed on."""
        self._router.rested(polls)

    def setup(self, facts: Sequence[ReplicaFacts]) -> None:
        """Of all replicas that can be."""
        self._facts = facts
        self._router.setup(facts)
        self.interval = self._router.interval

    def plays(self, role: str) -> None:
        """Passed on."""
        self._role = role
        self._router.plays(role)

    def revert(self) -> None:
        """Passed on."""
        self._router.revert()

    def reached(self, choice: int, now: float) -> None:
        """Passed on."""
        self._router.reached(choice, now)

    def choose(self, snapshot: Snapshot, block: Requests, row: int) -> int:
        """The router's choice among the replicas that serve; −1 while none does."""
        if not self.numbers:
            return -1
        place = self._router.choose(self._seen, block, row)
        return self.numbers[place] if place >= 0 else -1

    def hands_over(self, snapshot: Snapshot, block: Requests, row: int) -> bool:
        """Passed on."""
        return self._router.hands_over(self._seen, block, row)

    def poll(self, snapshot: Snapshot) -> Sequence[Relocation]:
        """The router's look at the replicas, and the moves that it wants."""
        if not self.numbers:
            return ()
        moves = self._router.poll(self._seen)
        self.interval = self._router.interval
        return [replace(m, source=self.numbers[m.source], destination=self.numbers[m.destination]) for m in moves]


def anew(router: Router, rng: np.random.Generator, view: Sight, role: str = "") -> Router:
    """The router that is started in place of this one, knowing nothing but the ``role`` it plays; who polls has looked at the replicas of ``view``."""
    if isinstance(router, Members):
        router.renew(rng)
        return router
    fresh = _fresh(router, rng, view.facts, role)
    if fresh.interval is not None:
        fresh.poll(view)
    return fresh


def _fresh(old: Router, rng: np.random.Generator, facts: Sequence[ReplicaFacts], role: str) -> Router:
    router = old.renewed(rng)
    if role:
        router.plays(role)
    router.setup(facts)
    router.pairs = old.pairs
    return router
