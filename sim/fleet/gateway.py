"""A gateway in front of the replicas: a buffer, a few workers that ask for an instance, retries, and failing after a while.

*Source*: llumnix-project/llumnix 8a693b46 ``pkg/gateway/service/gateway_service.go`` (HandleOpenAIRequest), ``pkg/gateway/load-balancer``. The
hosted gateway of PAI-EAS behaves alike (its page gives other numbers: queue 512, wait 10 s, try period 1 s, retry 2).
"""

from __future__ import annotations

from collections.abc import Generator
from heapq import heapify, heappop, heappush

import simpy

from sim.fleet.clock import Clock
from sim.fleet.request import Request
from sim.fleet.station import Station
from sim.policy.gateway import GatewayParams


class Gateway(Station):
    """Asks the scheduler after it for an instance; while that cannot be reached it goes round robin.

    Requests of one priority are served first come, first served; the lower number goes first.
    """

    def __init__(self, clock: Clock, params: GatewayParams) -> None:
        super().__init__()
        self._env = clock
        self._p = params
        self._idle = params.wait_queue_threads
        self._buffer: list[tuple[int, int, Request]] = []
        self._count = 0
        self.knocking = 0
        """Requests before a full buffer."""
        self.waited = 0
        """Requests that did not get an instance at once."""

    def arrive(self, request: Request) -> bool:
        """A request has come. Never refused here: with a full buffer it tries again later."""
        self.held[request.number] = request
        priority = request.priority
        if len(self._buffer) >= self._p.max_queue_size:
            self.knocking += 1
            self._env.process(self._knock(request, priority))
        else:
            self._push(request, priority)
        return True

    def _knock(self, request: Request, priority: int) -> Generator[simpy.Event, object, None]:
        while len(self._buffer) >= self._p.max_queue_size:
            yield self._env.timeout(self._p.wait_queue_interval)
        self.knocking -= 1
        if request.number in self.held:
            self._push(request, priority)

    def withdraw(self, request: Request) -> bool:
        """Out of the buffer; a worker that tries for it is free at its next try."""
        if self.held.pop(request.number, None) is None:
            return self.then.withdraw(request)
        self._buffer = [entry for entry in self._buffer if entry[2] is not request]
        heapify(self._buffer)
        return True

    def _push(self, request: Request, priority: int) -> None:
        heappush(self._buffer, (priority, self._count, request))
        self._count += 1
        self._serve()

    def _serve(self) -> None:
        while self._idle and self._buffer:
            request = heappop(self._buffer)[2]
            if not self._ask(request):
                self._idle -= 1
                self.waited += 1
                self._env.process(self._retry(request))

    def _ask(self, request: Request) -> bool:
        if request.number not in self.held:
            return True  # its client has gone
        outage = self._p.scheduler_outage
        away = outage is not None and outage[0] <= self._env.now < outage[1]
        if not (self.then.in_turn(request) if away else self.then.arrive(request)):
            return False
        del self.held[request.number]
        return True

    def _retry(self, request: Request) -> Generator[simpy.Event, object, None]:
        start = self._env.now
        while self._env.now - start < self._p.wait_scheduling_timeout:
            yield self._env.timeout(self._p.wait_scheduling_retry_interval)
            if self._ask(request):
                break
        else:
            if self.held.pop(request.number, None) is not None:
                self.refused(request, self._env.now)
        self._idle += 1
        self._serve()

    def totals(self) -> dict[str, float]:
        """Requests that waited, and that failed unless somebody says otherwise."""
        return {"fleet_gateway_waited": float(self.waited), "fleet_gateway_failed": 0.0}
