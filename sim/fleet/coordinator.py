"""In front of the replicas: the queue of a router that dispatches in rounds (`sim.policy.coordinator`).

A round takes place when a request has come, when one has its first token or is over while others wait, and every ``period`` while any waits.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

import simpy

from sim.fleet.clock import Clock
from sim.fleet.request import Request
from sim.fleet.station import Station

if TYPE_CHECKING:
    from sim.fleet.view import View
    from sim.policy.coordinator import Coordinator


class Queue(Station):
    """``view``: what the router sees."""

    watches = 1 | 2  # ends and first tokens

    def __init__(self, clock: Clock, router: Coordinator, view: View) -> None:
        super().__init__()
        self._env, self._router, self._view = clock, router, view
        self._alive: set[int] = set()
        self._ticking = False
        self.waited = 0
        """Requests that were not sent at once."""

    def arrive(self, request: Request) -> bool:
        """A request has come, now. Above the capacity it is refused."""
        number = request.number
        if len(self._alive) >= self._router.capacity:
            return False
        self._alive.add(number)
        self.held[number] = request
        self._router.arrive(self._view, number, request.block, request.row)
        self._round()
        if number in self.held:
            self.waited += 1
            if self._router.patience < float("inf"):
                self._env.timeout(self._router.patience).callbacks.append(lambda _: self._give_up(number))
        return True

    def first_token(self, request: Request, time: float) -> None:
        """Its prompt is computed."""
        self._at(time, lambda: self._router.prompt_computed(request.number))
        self.before.first_token(request, time)

    def ended(self, request: Request, time: float, replica: int) -> None:
        """A request that was sent is over."""
        if request.number in self._alive:
            self._alive.remove(request.number)
            self._at(time, lambda: self._router.ended(request.number))
        self.before.ended(request, time, replica)

    def refused(self, request: Request, time: float, busy: bool = False) -> None:
        """A request that was sent has come to nobody."""
        if request.number in self._alive:
            self._alive.remove(request.number)
            self._at(time, lambda: self._router.ended(request.number))
        self.before.refused(request, time, busy)

    def _at(self, time: float, tell: Callable[[], None]) -> None:
        def happen(_: object) -> None:
            tell()
            if self.held:
                self._round()

        self._env.at(time).callbacks.append(happen)

    def _round(self) -> None:
        for number, replica, decode in self._router.dispatch(self._view):
            self.then.send(self.held.pop(number), replica, decode)
        if self.held and not self._ticking:
            self._ticking = True
            self._env.process(self._tick())

    def _tick(self) -> Generator[simpy.Event, object, None]:
        while self.held:
            yield self._env.timeout(self._router.period)
            if self.held:
                self._round()
        self._ticking = False

    def withdraw(self, request: Request) -> bool:
        """Out of the queue."""
        number = request.number
        if self.held.pop(number, None) is None:
            return self.then.withdraw(request)
        self._alive.discard(number)
        self._router.withdraw(number)
        return True

    def _give_up(self, number: int) -> None:
        request = self.held.pop(number, None)
        if request is not None:
            self._alive.discard(number)
            self._router.withdraw(number)
            self.before.refused(request, self._env.now)

    def totals(self) -> dict[str, float]:
        """Requests that waited, and that failed unless somebody says otherwise."""
        return {"fleet_gateway_waited": float(self.waited), "fleet_gateway_failed": 0.0}
