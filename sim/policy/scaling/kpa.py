"""Knative's pod autoscaler (KPA). Source: knative/serving @ 98e5ef90 ``pkg/autoscaler/scaling/autoscaler.go``, ``config-autoscaler``; upstream's unit rows are

matched (`servesim conformance router`).

Every 2 s: concurrency on average over a stable window (60 s) and a panic window (a tenth of it). *Assumed*: a sample per evaluation, of the requests in
flight and those that wait before the fleet, stands for the averages that queue proxies report every second.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor, nan
from typing import ClassVar

from pydantic import Field

from sim.policy.scaler import Fleet, LifeParams, PoolScaler, Wishes
from sim.registry import register
from sim.units import Seconds


@dataclass
class Panic:
    """The rule over time. ``since``: NaN: no panic."""

    threshold: float = 2.0
    max_up: float = 1000.0
    max_down: float = 2.0
    window: float = 60.0
    since: float = nan
    pods: int = 0

    def wanted(self, now: float, target: float, stable: float, panic: float, ready: int) -> int:
        """Pods to have, for a metric summed over all pods on average over either window, and a target per pod."""
        ready = max(ready, 1)
        most, least = ceil(self.max_up * ready), floor(ready / self.max_down)
        raw = ceil(panic / target)
        for_stable = min(max(ceil(stable / target), least), most)
        for_panic = min(max(raw, least), most)
        over = raw / ready >= self.threshold
        if over:
            self.since = now
        elif self.since == self.since and self.since + self.window < now:
            self.since, self.pods = nan, 0
        if self.since != self.since:
            return for_stable
        self.pods = max(self.pods, for_stable, for_panic)
        return self.pods


class KpaParams(LifeParams):
    """Settings of `Kpa`, spelled as in ``config-autoscaler``, with underscores."""

    interval: Seconds = Field(2.0, ge=0.1, le=1e6, description="time between two evaluations (tick-interval)")
    container_concurrency_target_default: float = Field(
        100.0, gt=0, le=1e9, description="requests in flight that a pod is meant for"
    )
    container_concurrency_target_percentage: float = Field(70.0, gt=0, le=100, description="share of them that is aimed at")
    stable_window: Seconds = Field(60.0, ge=6, le=3600, description="window of the usual average")
    panic_window_percentage: float = Field(10.0, ge=1, le=100, description="share of it that the panic window is long")
    panic_threshold_percentage: float = Field(200.0, ge=110, le=1000, description="load over capacity from which on it panics")
    max_scale_up_rate: float = Field(1000.0, gt=1, le=1e6, description="most pods per ready pod")
    max_scale_down_rate: float = Field(2.0, gt=1, le=1e6, description="pods per pod that remains")
    scale_down_delay: Seconds = Field(0.0, le=3600, description="fewer pods only when fewer were wanted for so long")
    scale_to_zero_grace_period: Seconds = Field(
        30.0, le=1e6, description="the last pod stays for so long after nothing was wanted"
    )


@register("scaler")
class Kpa(PoolScaler):
    """Holds concurrency at a target, and panics."""

    name = "kpa"
    Params: ClassVar[type[LifeParams]] = KpaParams
    params: KpaParams

    def __init__(self, params: KpaParams) -> None:
        super().__init__(params)
        p = params
        self._target = p.container_concurrency_target_default * p.container_concurrency_target_percentage / 100.0
        self._panic = Panic(p.panic_threshold_percentage / 100.0, p.max_scale_up_rate, p.max_scale_down_rate, p.stable_window)
        self._samples: deque[tuple[float, float]] = deque()
        self._wishes = Wishes(p.scale_down_delay)
        self._wanted_at = 0.0

    def _mean(self, now: float, window: float) -> float:
        values = [v for t, v in self._samples if t > now - window]
        return sum(values) / len(values)

    def size(self, now: float, fleet: Fleet, metrics: Mapping[str, float]) -> int:
        """Replicas to have from now on."""
        p = self.params
        self._samples.append((now, fleet.in_flight))
        while self._samples[0][0] <= now - p.stable_window:
            self._samples.popleft()
        panic = p.stable_window * p.panic_window_percentage / 100.0
        wish = self._panic.wanted(now, self._target, self._mean(now, p.stable_window), self._mean(now, panic), fleet.ready)
        wish = self._wishes.most(now, wish)
        if wish > 0:
            self._wanted_at = now
        return 1 if wish == 0 and fleet.current > 0 and now - self._wanted_at < p.scale_to_zero_grace_period else wish
