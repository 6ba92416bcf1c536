"""Ray Serve's autoscaling. Source: ray 2.60.0 ``serve/autoscaling_policy.py``, ``config.py``; recorded steps of the real functions are matched.

Ongoing requests (running and queued at handles) are pushed every 10 s and averaged over a look-back of 30 s; the number changes only when the same
direction was wanted without a break for a delay, to what is wanted at that moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import ClassVar, Final

from pydantic import Field

from sim.policy.scaler import Fleet, LifeParams, PoolScaler
from sim.registry import register
from sim.units import Seconds

_EPSILON: Final = 1e-6
"""Seconds by which a delay may fall short."""


@dataclass
class QueueLength:
    """The policy over time."""

    target: float = 2.0
    up: float = 1.0
    down: float = 1.0
    up_delay: float = 30.0
    down_delay: float = 600.0
    zero_delay: float | None = None
    _direction: int = 0
    _since: float = 0.0

    def desired(self, total: float, running: int) -> int:
        """For ``total`` ongoing requests on so many replicas, before any delay."""
        ratio = total / running / self.target
        factor = self.up if ratio > 1 else self.down
        wanted = ceil(running * (1 + (ratio - 1) * factor))
        if ceil(running * ratio) < running and wanted == running:
            wanted -= 1
        return wanted

    def wanted(self, now: float, total: float, running: int, aim: int) -> int:
        """The next number to aim for, before the bounds; ``aim``: the present one."""
        if running == 0:
            return max(ceil(self.up), aim) if total > 0 else aim
        found = self.desired(total, running)
        if found > aim:
            return found if self._lasting(now, 1, self.up_delay) else aim
        if found == aim:
            self._direction = 0
            return aim
        to_zero = aim == 1
        delay = self.zero_delay if to_zero and self.zero_delay is not None else self.down_delay
        if not self._lasting(now, -1, delay):
            return aim
        return 0 if to_zero else max(found, 1)

    def _lasting(self, now: float, direction: int, delay: float) -> bool:
        if self._direction != direction:
            self._direction, self._since = direction, now
        if now - self._since < delay - _EPSILON:
            return False
        self._direction = 0
        return True


class RayServeParams(LifeParams):
    """Settings of `RayServe`, spelled as in ``AutoscalingConfig``; ``min`` and ``max`` are its min_replicas and max_replicas."""

    interval: Seconds = Field(0.1, ge=0.05, le=1e6, description="time between two rounds of the controller")
    target_ongoing_requests: float = Field(2.0, gt=0, le=1e9, description="ongoing requests that a replica is meant for")
    upscaling_factor: float = Field(1.0, gt=0, le=1e3, description="share of the difference upwards that is made up")
    downscaling_factor: float = Field(1.0, gt=0, le=1e3, description="share of the difference downwards that is made up")
    upscale_delay_s: float = Field(30.0, ge=0, le=1e6, description="seconds for which more must be wanted")
    downscale_delay_s: float = Field(600.0, ge=0, le=1e6, description="seconds for which fewer must be wanted")
    downscale_to_zero_delay_s: float | None = Field(
        None, ge=0, le=1e6, description="the same for the last replica; null: as the others"
    )
    metrics_interval_s: float = Field(10.0, gt=0, le=1e6, description="seconds between two pushes of the number of requests")
    look_back_period_s: float = Field(30.0, gt=0, le=1e6, description="seconds over which they are averaged")


@register("scaler")
class RayServe(PoolScaler):
    """Holds ongoing requests per replica at a target."""

    name = "ray_serve"
    Params: ClassVar[type[LifeParams]] = RayServeParams
    params: RayServeParams

    def __init__(self, params: RayServeParams) -> None:
        super().__init__(params)
        p = params
        self._rule = QueueLength(
            p.target_ongoing_requests, p.upscaling_factor, p.downscaling_factor,
            p.upscale_delay_s, p.downscale_delay_s, p.downscale_to_zero_delay_s,
        )  # fmt: skip
        self._pushed: deque[tuple[float, float]] = deque()
        self._push_at = 0.0

    def size(self, now: float, fleet: Fleet, metrics: Mapping[str, float]) -> int:
        """Replicas to have from now on."""
        p = self.params
        if now >= self._push_at - _EPSILON:
            self._pushed.append((now, fleet.in_flight))
            self._push_at = now + p.metrics_interval_s
        while self._pushed[0][0] < now - p.look_back_period_s and len(self._pushed) > 1:
            self._pushed.popleft()
        total = sum(v for _, v in self._pushed) / len(self._pushed)
        if fleet.ready == 0 and fleet.outside:  # handles tell at once when there is no replica
            total = max(total, float(fleet.outside))
        return int(min(max(self._rule.wanted(now, total, fleet.ready, fleet.current), p.min), p.max))
