"""SimPy's clock, with events at a time instead of after a delay, and an end beyond which seconds in float64 are too coarse."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappush
from typing import Any, Final

import simpy
from simpy.events import NORMAL

from sim.errors import DataError

LATEST: Final = 1e8
"""Seconds (three years) that a run may reach: times are resolved to 15 ns there, a step of an engine to some parts in a million."""


class Clock(simpy.Environment):
    """Time in seconds. `timeout` counts from now and rounds; `at` is exact."""

    def at(self, time: float) -> simpy.Event:
        """An event at ``time``, or now if that has passed."""
        event = simpy.Event(self)
        event._ok, event._value = True, None
        heappush(self._queue, (max(time, self._now), NORMAL, next(self._eid), event))
        return event

    def call(self, time: float, what: Callable[[], Any]) -> None:
        """``what()`` at ``time``, or now if that has passed."""
        self.at(time).callbacks.append(lambda _: what())


def too_late(time: float) -> DataError:
    """The error for traffic that goes on for too long."""
    return DataError(
        "traffic",
        f"something happens at {time:.4g} s; times are float64 seconds from the start of the traffic, too coarse for steps of an engine then",
        f"at most {LATEST:g} s: check the unit of the times, or cut the traffic (traffic.trace.window, rate)",
    )
