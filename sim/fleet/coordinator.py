"""In front of the replicas: the queue of a router that dispatches in rounds (`sim.policy.coordinator`).

A round takes place when a request has come, when one has its first token or is over while others wait, and every ``period`` while any waits.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import simpy

Request = tuple[Any, int, int, int]


class Queue:
    """``send(request, replica, decode)`` hands a request to the engines; ``fail(request)`` gives it up. ``view``: what the router sees."""

    def __init__(
        self,
        env: simpy.Environment,
        router: Any,
        view: Any,
        send: Callable[[Request, int, int], None],
        fail: Callable[[Request], None],
    ) -> None:
        self._env, self._router, self._view = env, router, view
        self._send, self._fail = send, fail
        self._held: dict[int, Request] = {}
        self._alive: set[int] = set()
        self._ticking = False
        self.waited = 0
        """Requests that were not sent at once."""

    def arrive(self, request: Request) -> None:
        """A request has come, now."""
        number = request[2]
        if len(self._alive) >= self._router.capacity:
            self._fail(request)
            return
        self._alive.add(number)
        self._held[number] = request
        self._router.arrive(self._view, number, request[0], request[1])
        self._round()
        if number in self._held:
            self.waited += 1
            if self._router.patience < float("inf"):
                self._env.timeout(self._router.patience).callbacks.append(lambda _: self._give_up(number))

    def prompt_computed(self, number: int, time: float) -> None:
        """A request has its first token at ``time``, which may lie ahead."""
        self._at(time, lambda: self._router.prompt_computed(number))

    def ended(self, number: int, time: float) -> None:
        """A request that was sent is over at ``time``, which may lie ahead."""
        if number in self._alive:
            self._alive.remove(number)
            self._at(time, lambda: self._router.ended(number))

    def _at(self, time: float, tell: Callable[[], None]) -> None:
        def happen(_: Any) -> None:
            tell()
            if self._held:
                self._round()

        self._env.timeout(max(0.0, time - self._env.now)).callbacks.append(happen)

    def _round(self) -> None:
        for number, replica, decode in self._router.dispatch(self._view):
            self._send(self._held.pop(number), replica, decode)
        if self._held and not self._ticking:
            self._ticking = True
            self._env.process(self._tick())

    def _tick(self) -> Generator[simpy.Event, Any, None]:
        while self._held:
            yield self._env.timeout(self._router.period)
            if self._held:
                self._round()
        self._ticking = False

    def _give_up(self, number: int) -> None:
        request = self._held.pop(number, None)
        if request is not None:
            self._alive.discard(number)
            self._router.withdraw(number)
            self._fail(request)
