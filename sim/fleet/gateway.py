"""A gateway in front of the replicas: a buffer, a few workers that ask for an instance, retries, and failing after a while.

*Source*: llumnix-project/llumnix 8a693b46 ``pkg/gateway/service/gateway_service.go`` (HandleOpenAIRequest), ``pkg/gateway/load-balancer``. The
hosted gateway of PAI-EAS behaves alike (its page gives other numbers: queue 512, wait 10 s, try period 1 s, retry 2).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from heapq import heappop, heappush
from typing import Any

import simpy

from sim.policy.gateway import GatewayParams

Ask = Callable[[Any], bool]
"""Ask the scheduler for an instance and send the request there; False if there is none."""


class Gateway:
    """``schedule(request)`` sends it or says no; ``fallback(request)`` sends it round robin; ``fail(request)`` gives it up.

    Normal requests are one class and served first come, first served; ``priority`` orders classes, lower first.
    """

    def __init__(
        self, env: simpy.Environment, params: GatewayParams, schedule: Ask, fallback: Ask, fail: Callable[[Any], None]
    ) -> None:
        self._env = env
        self._p = params
        self._schedule, self._fallback, self._fail = schedule, fallback, fail
        self._idle = params.wait_queue_threads
        self._buffer: list[tuple[int, int, Any]] = []
        self._count = 0
        self.knocking = 0
        """Requests before a full buffer."""
        self.waited = 0
        """Requests that did not get an instance at once."""

    @property
    def held(self) -> int:
        """Requests in the gateway."""
        return len(self._buffer) + self.knocking + self._p.wait_queue_threads - self._idle

    def arrive(self, request: Any, priority: int = 0) -> None:
        """A request has come. Never refused here: with a full buffer it tries again later."""
        if len(self._buffer) >= self._p.max_queue_size:
            self.knocking += 1
            self._env.process(self._knock(request, priority))
        else:
            self._push(request, priority)

    def _knock(self, request: Any, priority: int) -> Generator[simpy.Event, Any, None]:
        while len(self._buffer) >= self._p.max_queue_size:
            yield self._env.timeout(self._p.wait_queue_interval)
        self.knocking -= 1
        self._push(request, priority)

    def _push(self, request: Any, priority: int) -> None:
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

    def _ask(self, request: Any) -> bool:
        outage = self._p.scheduler_outage
        if outage is not None and outage[0] <= self._env.now < outage[1]:
            return self._fallback(request)
        return self._schedule(request)

    def _retry(self, request: Any) -> Generator[simpy.Event, Any, None]:
        start = self._env.now
        while self._env.now - start < self._p.wait_scheduling_timeout:
            yield self._env.timeout(self._p.wait_scheduling_retry_interval)
            if self._ask(request):
                break
        else:
            self._fail(request)
        self._idle += 1
        self._serve()
