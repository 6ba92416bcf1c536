"""Where the router chooses the replica of each request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from sim.errors import ConfigError
from sim.fleet.clock import Clock
from sim.fleet.members import Members, anew
from sim.fleet.request import Request
from sim.fleet.station import Station
from sim.policy.router import Relocation, Router
from sim.workload.table import RequestBlock

if TYPE_CHECKING:
    from sim.fleet.ahead import Choice
    from sim.fleet.view import Sight
    from sim.rules import Rule


class Dispatch(Station):
    """``view``: what the router sees. ``moves`` is told which running requests it wants elsewhere."""

    moves: Callable[[Sequence[Relocation]], None] | None = None

    def __init__(self, clock: Clock, router: Router, view: Sight) -> None:
        super().__init__()
        self._clock, self._router, self._view = clock, router, view
        self._turn = 0
        self._choice: Choice | None = None
        self.watches = (1 | 2) if router.hears else 0  # ends and first tokens
        router.setup(view.facts)

    @property
    def by_blocks(self) -> bool:
        """A router that does not look knows the future."""
        return self._router.stateless and self.then.by_blocks

    @property
    def ahead(self) -> bool:
        """A router with a rule in compiled code, and engines that compiled code runs."""
        if self.watches or not self.then.ahead:
            return False
        rule = rule_of(self._router)
        if rule is None:
            return False
        if self._choice is None:
            from sim.fleet.ahead import Choice

            everybody = range(self._view.replicas)
            self._choice = Choice(
                rule, self._router.rng, lambda: getattr(self._router, "numbers", everybody), lambda: self._view.outstanding
            )
        return True

    def renew(self, rng: np.random.Generator) -> None:
        """The router is started anew: it knows nothing."""
        self._router = anew(self._router, rng, self._view)

    def start(self) -> None:
        """The router looks at the replicas at its interval."""
        if self._router.interval is not None:
            self._clock.repeat(self._poll)

    def _poll(self) -> float:
        moves = self._router.poll(self._view)
        if self.moves is not None:
            self.moves(moves)
        again, left_out = self._clock.next_look(self._router.interval or inf)
        self._router.rested(left_out)
        return again

    def arrive(self, request: Request) -> bool:
        """To the router's choice; False if it has none."""
        if self._choice is not None:
            if not in_service(self._router, self._view.replicas):
                return False
            replica = self._choice.one(request.block, request.row, self._view.now)
        else:
            replica = self._router.choose(self._view, request.block, request.row)
        if replica < 0:
            return False
        self._submit(request, replica)
        return True

    def _submit(self, request: Request, replica: int) -> None:
        if self.watches:
            self._router.on_sent(request.number, replica, request.block, request.row, self._view.now)
        self.then.submit(request, replica)

    def send(self, request: Request, replica: int, decode: int = -1) -> None:
        """Somebody else has chosen."""
        self._submit(request, replica)

    def in_turn(self, request: Request) -> bool:
        """Round robin among those who serve."""
        serving = in_service(self._router, self._view.replicas)
        if not serving:
            return False
        replica = serving[self._turn % len(serving)]
        self._turn = (self._turn + 1) % len(serving)
        self._submit(request, replica)
        return True

    def arrive_ahead(self, block: RequestBlock, lo: int, hi: int, first: int) -> None:
        """By the router's rule."""
        assert self._choice is not None, "who is not `ahead` is not asked"
        self.then.submit_ahead(block, lo, hi, first, self._choice)

    def arrive_block(self, block: RequestBlock, first: int) -> None:
        """The router says where each row goes."""
        self.then.submit_block(block, self._router.route(block), first)

    # -- what the router hears, each at its time

    def first_token(self, request: Request, time: float) -> None:
        """Of a request that it has sent."""
        if self.watches:
            self._clock.call(time, lambda: self._router.on_first_token(request.number, time))
        self.before.first_token(request, time)

    def ended(self, request: Request, time: float, replica: int) -> None:
        """Likewise."""
        if self.watches:
            self._clock.call(time, lambda: self._router.on_end(request.number, time))
        self.before.ended(request, time, replica)

    def refused(self, request: Request, time: float, busy: bool = False) -> None:
        """Somebody behind has given it up."""
        if self.watches:
            self._clock.call(time, lambda: self._router.on_end(request.number, time))
        self.before.refused(request, time, busy)


def in_service(router: Router, replicas: int) -> Sequence[int]:
    """The replicas that a router may choose: all, unless it stands before a fleet that scales (`sim.fleet.members.Members`)."""
    numbers: Sequence[int] | None = getattr(router, "numbers", None)
    return range(replicas) if numbers is None else numbers


def rule_of(router: Router) -> Rule | None:
    """The router's rule, of the class that also has its `choose`, as who overrides that alone wants to be asked; None: there is none."""
    router = router.inner if isinstance(router, Members) else router
    of = type(router)
    owner = next(c for c in of.__mro__ if "rule" in vars(c))
    if "choose" not in vars(owner) or next(c for c in of.__mro__ if "choose" in vars(c)) is not owner:
        return None
    from sim import rules  # and with it the compiler

    rule = router.rule()
    if rule is not None and not isinstance(rule, rules.Rule):
        raise ConfigError("router.name", router.name, f"has a `rule` that answers {repr(rule)[:80]}", "a sim.rules.Rule, or None")
    return rule
