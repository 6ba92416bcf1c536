"""SimPy's clock, with events at a time instead of after a delay, tasks that repeat, and an end beyond which seconds in float64 are too coarse."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappush
from math import inf
from typing import Final

import simpy
from simpy.events import NORMAL

from sim.errors import DataError

LATEST: Final = 1e8
"""Seconds (three years) that a run may reach: times are resolved to 15 ns there, a step of an engine to some parts in a million."""
_MANY: Final = 1e6


class Clock(simpy.Environment):
    """Time in seconds. `timeout` counts from now and rounds; `at` is exact."""

    def __init__(self) -> None:
        super().__init__()
        self.resting: Callable[[], bool] = lambda: True
        """Whether nothing will happen any more unless an event of the clock makes it."""
        self.sleepers: list[Callable[[], int]] = []
        """Each says how many of the events to come do nothing, or happen only if anything else does."""
        self._repeating = 0

    def at(self, time: float) -> simpy.Event:
        """An event at ``time``, or now if that has passed."""
        event = simpy.Event(self)
        event._ok, event._value = True, None
        now = self._now
        heappush(self._queue, (time if time > now else now, NORMAL, next(self._eid), event))
        return event

    def call(self, time: float, what: Callable[[], object]) -> None:
        """``what()`` at ``time``, or now if that has passed."""

        def happen(_: object) -> None:
            what()

        self.at(time).callbacks.append(happen)

    @property
    def over(self) -> bool:
        """Whether nothing will happen any more but what repeats itself."""
        asleep = sum(count() for count in self.sleepers)
        return len(self._queue) - asleep == self._repeating and self.resting()

    def repeat(self, task: Callable[[], float]) -> None:
        """``task()`` now and at the time that it answers each time, as long as anything else can still happen."""
        again = task()
        if again == inf or self.over:
            return

        def next_time(_: object) -> None:
            self._repeating -= 1
            self.repeat(task)

        self._repeating += 1
        self.at(again).callbacks.append(next_time)

    def next_look(self, interval: float) -> tuple[float, int]:
        """Of whoever looks at the world every ``interval``, asked while he does: when to look again, and how many looks are left out until then.

        Where nothing happens until the next event of the clock, only the last look before it is worth its time: all others would see the same.
        """
        again, left_out = self._now + interval, 0
        if not self.resting():
            return again, 0
        until = self.peek()
        if until == inf:
            return again, 0
        if (until - again) / interval > _MANY:
            left_out = int((until - again) / interval) - 1
            return again + left_out * interval, left_out
        while again + interval < until:  # as one look after the other would add up
            again += interval
            left_out += 1
        return again, left_out


def too_late(time: float) -> DataError:
    """The error for traffic that goes on for too long."""
    return DataError(
        "traffic",
        f"something happens at {time:,.12g} s; times are float64 seconds from the start of the traffic, too coarse for steps of an engine then",
        f"at most {LATEST:,.0f} s: check the unit of the times, or cut the traffic (traffic.trace.window, rate)",
    )
