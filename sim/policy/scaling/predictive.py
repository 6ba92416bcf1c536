"""A predictive autoscaler: replicas for the load that will be there when a replica that is asked for now serves.

The forecast is Holt's: level and trend of the arrivals per evaluation, both smoothed exponentially (C. C. Holt, 1957); its horizon is the cold start unless
set. Of the same kind is the throughput scaling of Dynamo's planner (ai-dynamo 1.6.1: predicted requests over what an engine serves within the
SLO, every 180 s), with another forecast; set ``interval: 180s``, ``max_step: 8`` for its rhythm.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import ClassVar

from pydantic import Field

from sim.policy.scaler import Fleet, LifeParams, PoolScaler, Wishes
from sim.registry import register
from sim.units import Rate, Seconds


class PredictiveParams(LifeParams):
    """Settings of `Predictive`."""

    qps: Rate = Field(le=1e9, description="requests per second that a replica is meant for, such as 12/s")
    horizon: Seconds = Field(120.0, gt=0, le=1e6, description="how far ahead: as long as a cold start takes")
    level: float = Field(0.5, gt=0, le=1, description="weight of the latest arrivals in the level")
    trend: float = Field(0.3, ge=0, le=1, description="weight of the latest change in the trend; 0: no trend")
    margin: float = Field(0.0, ge=0, le=10, description="share by which more is provided than forecast")
    max_step: int = Field(1000, ge=1, le=1000, description="most replicas more or fewer per evaluation")
    scale_in_stabilization: Seconds = Field(300.0, ge=0, le=1e6, description="replicas go when fewer were wanted for so long")


@register("scaler")
class Predictive(PoolScaler):
    """Level and trend."""

    name = "predictive"
    Params: ClassVar[type[LifeParams]] = PredictiveParams
    params: PredictiveParams

    def __init__(self, params: PredictiveParams) -> None:
        super().__init__(params)
        self._before: tuple[float, int] | None = None
        self._level: float | None = None
        self._trend = 0.0
        self._wishes = Wishes(params.scale_in_stabilization)

    def forecast(self, now: float, arrived: int) -> float | None:
        """Requests per second at the horizon; None at the first look."""
        before, self._before = self._before, (now, arrived)
        if before is None or now <= before[0]:
            return None
        seconds = now - before[0]
        rate = (arrived - before[1]) / seconds
        p = self.params
        if self._level is None:
            self._level = rate
        else:
            old = self._level
            self._level = p.level * rate + (1 - p.level) * (old + self._trend * seconds)
            self._trend = p.trend * (self._level - old) / seconds + (1 - p.trend) * self._trend
        return max(float(self._level + self._trend * p.horizon), 0.0)

    def size(self, now: float, fleet: Fleet, metrics: Mapping[str, float]) -> int:
        """Replicas to have from now on."""
        p, current = self.params, fleet.current
        ahead = self.forecast(now, fleet.arrived)
        if ahead is None:
            return current
        wish = ceil(ahead * (1.0 + p.margin) / p.qps - 1e-9)
        wish = min(max(wish, current - p.max_step), current + p.max_step)
        most = self._wishes.most(now, wish, current)
        return wish if wish >= current else min(current, most)
