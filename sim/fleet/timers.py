"""Alarms of which most never ring: one heap of its own and one event of the clock for the next of them."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from typing import Generic, TypeVar

from sim.fleet.clock import Clock

Subject = TypeVar("Subject")


class Timers(Generic[Subject]):
    """``ring(kind, subject)`` at each time. Alarms at one time ring in the order of setting.

    ``idle``: whether no alarm means anything any more; ``dead(kind, subject)``: whether this one does not.
    """

    def __init__(
        self,
        clock: Clock,
        ring: Callable[[int, Subject], None],
        idle: Callable[[], bool],
        dead: Callable[[int, Subject], bool] = lambda kind, subject: False,
    ) -> None:
        self._clock, self._ring, self._dead = clock, ring, dead
        self._heap: list[tuple[float, int, int, Subject]] = []
        self._set = 0
        self._armed = inf
        self._pending = 0
        clock.sleepers.append(lambda: self._pending if idle() else 0)

    def at(self, time: float, kind: int, subject: Subject) -> None:
        """Ring at ``time`` (infinity: never)."""
        if time == inf:
            return
        heappush(self._heap, (time, self._set, kind, subject))
        self._set += 1
        self._arm()

    def _arm(self) -> None:
        while self._heap and self._dead(*self._heap[0][2:]):
            heappop(self._heap)
        if self._heap and self._heap[0][0] < self._armed:
            self._armed = self._heap[0][0]
            self._pending += 1
            self._clock.call(self._armed, self._wake)

    def _wake(self) -> None:
        self._pending -= 1
        self._armed = inf
        now = self._clock.now
        while self._heap and self._heap[0][0] <= now:
            _, _, kind, subject = heappop(self._heap)
            self._ring(kind, subject)
        self._arm()
