"""llm-d's flow control: a queue per tenant and priority before the scheduler, emptied one request at a time while the pool is not saturated.

*Source*: llm-d/llm-d-router ``pkg/epp/flowcontrol`` @ ebab6879. A dispatch cycle takes place at every arrival and every millisecond and sends at most
one request: bands of priority from high to low; at or above the ceiling it stops, so that whoever is first blocks the lower bands too. Within a
band the fairness policy picks the flow, first come, first served the request. Not modelled: limits in bytes, eviction of requests in flight,
other ordering policies, collection of idle flows (which changes nothing here).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, inf
from typing import Final, Literal

import numpy as np
from pydantic import Field

from sim.policy.admitting import Admission, Line, Seen, Ticket
from sim.policy.gateways.saturation import Detector, SaturationParams
from sim.registry import register
from sim.units import Seconds

_TICK: Final = 1e-3
_SCAN: Final = 1.0
"""Seconds between two looks at who has waited for too long."""


class FlowControlParams(SaturationParams):
    """Settings of `FlowControl`."""

    fairness: Literal["global-strict-fairness-policy", "round-robin-fairness-policy"] = Field(
        "global-strict-fairness-policy", description="the earliest request of a band over all tenants, or tenants in turn"
    )
    ceiling: float = Field(1.0, gt=0, le=1e6, description="saturation from which on nothing is dispatched")
    max_requests: int = Field(5000, ge=1, le=10**9, description="waiting requests of a priority; others are refused (429)")
    default_request_ttl: Seconds = Field(60.0, gt=0, le=1e9, description="time after which a waiting request is refused")


@register("admission")
class FlowControl(Admission):
    """A higher number is more important. The flow of a request is its tenant."""

    name = "flow_control"
    Params = FlowControlParams
    params: FlowControlParams

    def __init__(self, params: FlowControlParams, replicas: int, rng: np.random.Generator) -> None:
        super().__init__(params, replicas, rng)
        self._detector = Detector(params)
        self._bands: dict[int, dict[int, Line]] = {}
        self._last: dict[int, int] = {}
        self._tick = 0.0
        self._arrived = False
        self._stuck = False

    def offer(self, ticket: Ticket, snapshot: Seen) -> bool:
        """Refused where the band is full."""
        band = self._bands.setdefault(ticket.priority, {})
        if sum(len(line) for line in band.values()) >= self.params.max_requests:
            return False
        band.setdefault(ticket.tenant, Line(inf, self.params.default_request_ttl)).put(ticket)
        self._arrived = True
        return True

    def release(self, snapshot: Seen) -> Sequence[int]:
        """One cycle, if one is due."""
        now = snapshot.now
        if not self._arrived and now < self._tick:
            return []
        self._arrived = False
        self._tick = (floor(now / _TICK + 1e-6) + 1) * _TICK
        found = self._next()
        self._stuck = found is not None and self._detector.saturation(snapshot) >= self.params.ceiling
        if found is None or self._stuck:
            return []
        priority, tenant = found
        self._last[priority] = tenant
        self._detector.in_flight += 1
        return [self._bands[priority][tenant].take().number]

    def _next(self) -> tuple[int, int] | None:
        """Priority and tenant of the flow whose head is next."""
        for priority in sorted(self._bands, reverse=True):
            heads = {tenant: head for tenant, line in self._bands[priority].items() if (head := line.head) is not None}
            if not heads:
                continue
            if self.params.fairness == "global-strict-fairness-policy":
                return priority, min(heads, key=lambda t: (heads[t].came, heads[t].number))
            after = self._last.get(priority, -1)
            return priority, min(heads, key=lambda t: (t <= after, t))
        return None

    def _lines(self) -> list[Line]:
        return [line for band in self._bands.values() for line in band.values()]

    def expired(self, now: float) -> Sequence[int]:
        """Who has waited for too long, as the last scan saw it."""
        scan = floor(now / _SCAN + 1e-9) * _SCAN
        return [number for line in self._lines() for number in line.late(scan)]

    def wake(self, now: float) -> float:
        """The next cycle that can do something, or the scan that ends somebody's patience."""
        due = min((line.due() for line in self._lines()), default=inf)
        if due == inf:
            return inf
        cycle = max(self._tick, self._detector.changes_at()) if self._stuck else self._tick
        return min(cycle, ceil(due / _SCAN - 1e-9) * _SCAN)

    def ended(self, ticket: Ticket, now: float, output_tokens: int) -> None:
        """One less in flight: the next cycle may find room."""
        self._detector.in_flight -= 1
        self._stuck = self._stuck and self._detector.polls

    def withdraw(self, ticket: Ticket, now: float) -> None:
        """Out of its queue."""
        self._bands[ticket.priority][ticket.tenant].drop(ticket.number)
