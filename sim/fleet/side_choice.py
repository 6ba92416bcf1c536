"""Who chooses the replicas of a request that is prefilled by one pool and decoded by another: a router for each side, or one for both.

Several models have routers of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from sim.fleet.clock import Clock
from sim.fleet.dispatch import in_service
from sim.fleet.members import anew
from sim.fleet.request import Request
from sim.fleet.routers import seats
from sim.fleet.view import View
from sim.policy.router import Router
from sim.workload.table import RequestBlock

if TYPE_CHECKING:
    from sim.fleet.build import Plan


class SideChoice:
    """Of one model. ``views``: what each router sees, or what one for both does (`Router.whole`). ``members``: the replicas of either side.

    ``together``: P and D have to be chosen at once, at arrival; else as the router likes.
    """

    def __init__(
        self, views: Sequence[View], routers: Sequence[Router], members: Sequence[Sequence[int]], together: bool
    ) -> None:
        self._views, self._members = list(views), members
        self.routers = routers
        self.whole = routers[0].whole
        self._seats = list(zip(("",) if self.whole else ("prefill", "decode"), self._views, strict=True))
        """Of each router the role that it plays, and what it sees."""
        for router, (role, seen) in zip(routers, self._seats, strict=True):
            if role:
                router.plays(role)
            router.setup(seen.facts)
        self._decides = not self.whole and routers[-1].decides
        self.pairs = together or self._decides or routers[0].pairs
        """Whether P and D are chosen together."""
        for router in routers:
            router.pairs = self.pairs
        self.count = 0
        """Pairs that the routers have chosen."""
        self._turns = [0, 0]

    def poll(self) -> None:
        """The routers look at their replicas."""
        for router, (_, seen) in zip(self.routers, self._seats, strict=True):
            router.poll(seen)

    def renew(self, rng: np.random.Generator) -> None:
        """The routers are started anew, knowing nothing."""
        self.count = 0
        self.routers = [anew(router, rng, seen, role) for router, (role, seen) in zip(self.routers, self._seats, strict=True)]

    def choose(self, block: RequestBlock, row: int) -> tuple[int, int]:
        """Prefill replica, and the decode replica where both are chosen at arrival; −1: none (of P alone: D computes the prompt)."""
        routers = self.routers
        if self.whole:
            return routers[0].choose_pair(self._views[0], block, row)
        if self._decides:
            return self._decode_first(block, row)
        p = routers[0].choose(self._views[0], block, row)
        if p < 0:
            return -1, -1
        if not self.pairs:
            return self._members[0][p], -1
        d = routers[1].choose(self._views[1], block, row)
        if d < 0:
            routers[0].revert()
            return -1, -1
        self.count += 1
        return self._members[0][p], self._members[1][d]

    def _decode_first(self, block: RequestBlock, row: int) -> tuple[int, int]:
        prefill, decode = self.routers
        d = decode.choose(self._views[1], block, row)
        if d < 0:
            return -1, -1
        self.count += 1
        p = prefill.choose(self._views[0], block, row) if decode.hands_over(self._views[1], block, row) else -1
        return self._members[0][p] if p >= 0 else -1, self._members[1][d]

    def choose_decode(self, block: RequestBlock, row: int, p: int, t: float) -> int:
        """The decode replica of what ``p`` has computed by ``t``; −1: none."""
        router = self.routers[-1]
        if self.whole:
            self._views[0].moment = t
            return router.choose_decode(self._views[0], block, row, p)
        self._views[1].moment = t
        d = router.choose(self._views[1], block, row)
        return self._members[1][d] if d >= 0 else -1

    def reached(self, choice: int, t: float) -> None:
        """The request of the so manyeth choice goes to its decode replica."""
        if self.pairs and not self.whole:
            self.routers[1].reached(choice, t)

    def in_turn(self) -> tuple[int, int]:
        """Round robin on either side, where the scheduler is out of reach; −1: a side has nobody."""
        chosen = []
        for side, members in enumerate(self._members):
            serving = in_service(self.routers[0 if self.whole else side], len(members))
            if not serving:
                return -1, -1
            chosen.append(members[serving[self._turns[side] % len(serving)]])
            self._turns[side] += 1
        return chosen[0], chosen[1]


class Choices:
    """Those of all models. ``routers`` and ``views``: in the order of `sim.fleet.routers.seats`, or of the one router for both sides."""

    def __init__(self, plans: Sequence[Plan], views: Sequence[View], routers: Sequence[Router], together: bool) -> None:
        self.members = [seat.replicas(plans) for seat in seats(plans)]
        """The replicas of each side of each model."""
        self.each = [
            SideChoice(views[at : at + 2], routers[at : at + 2], self.members[at : at + 2], together)
            for at in range(0, len(self.members), 2)
        ]
        """By model."""

    def of(self, request: Request) -> SideChoice:
        """Of its model."""
        return self.each[request.model]

    def router(self, request: Request, side: int) -> Router:
        """Of one side of its model."""
        return self.each[request.model].routers[side]

    def start(self, clock: Clock, looked: Callable[[], None]) -> None:
        """Routers that poll do so from now on; ``looked`` is called after each time."""

        def poll() -> float:
            for choice in self.each:
                choice.poll()
            looked()
            again, left_out = clock.next_look(self.each[0].routers[0].interval or inf)
            for choice in self.each:
                for router in choice.routers:
                    router.rested(left_out)
            return again

        if self.each[0].routers[0].interval is not None:
            clock.repeat(poll)

    def renew(self, rng: np.random.Generator) -> None:
        """All routers are started anew, knowing nothing."""
        for choice in self.each:
            choice.renew(rng)
