"""KEDA with the autoscaler that it drives. Source: keda.sh documentation (ScaledObject), production-stack's ``helm/values.yaml`` for the trigger.

KEDA itself acts between 0 and 1 replica; from there on the horizontal pod autoscaler follows the external metric, by default as AverageValue:
desired = ceil(metric / threshold), whatever the present number. The signal is as old as Prometheus' scrape and KEDA's poll together.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, inf
from typing import ClassVar, Literal

from pydantic import Field

from sim.policy.scaler import Fleet, LifeParams, PoolScaler, Wishes
from sim.registry import register
from sim.units import Seconds


class KedaParams(LifeParams):
    """Settings of `Keda`."""

    interval: Seconds = Field(15.0, ge=0.1, le=1e6, description="time between two evaluations of the autoscaler")
    trigger: Literal["num_requests_waiting", "num_requests_running", "num_requests"] = Field(
        "num_requests_waiting", description="what is summed over all engines: vllm:num_requests_waiting, _running, or both"
    )
    threshold: float = Field(5.0, gt=0, le=1e9, description="of the metric, for each replica")
    activation_threshold: float = Field(0.0, ge=0, le=1e9, description="value above which the first replica comes")
    scrape_interval: Seconds = Field(15.0, ge=0, le=3600, description="time between two scrapes of Prometheus")
    polling_interval: Seconds = Field(30.0, gt=0, le=3600, description="time between two polls of KEDA")
    cooldown_period: Seconds = Field(
        300.0, ge=0, le=1e6, description="time without a value above the activation after which the last replica goes"
    )
    tolerance: float = Field(0.1, ge=0, le=1, description="difference to the wanted value that changes nothing")
    scale_down_stabilization: Seconds = Field(300.0, ge=0, le=1e6, description="replicas go when fewer were wanted for so long")
    scale_up_pods: int = Field(4, ge=1, le=1000, description="so many more per evaluation …")
    scale_up_percent: float = Field(100.0, gt=0, le=1e6, description="… or so many percent more, whichever is more")


@register("scaler")
class Keda(PoolScaler):
    """External metrics, read with delay."""

    name = "keda"
    Params: ClassVar[type[LifeParams]] = KedaParams
    params: KedaParams

    def __init__(self, params: KedaParams) -> None:
        super().__init__(params)
        self._scraped = self._polled = 0.0
        self._scrape_at = self._poll_at = 0.0
        self._active_at = -inf
        self._wishes = Wishes(params.scale_down_stabilization)

    def _read(self, now: float, fleet: Fleet) -> None:
        """The value as KEDA has it. Requests before the fleet are in no engine's metrics; while there is none KEDA sees those that wait."""
        p = self.params
        if now >= self._scrape_at:
            running, waiting = float(fleet.running.sum()), float(fleet.waiting.sum())
            value = {"num_requests_waiting": waiting, "num_requests_running": running, "num_requests": running + waiting}[
                p.trigger
            ]
            self._scraped = value if fleet.ready else float(fleet.outside)
            self._scrape_at = now + p.scrape_interval
        if now >= self._poll_at:
            self._polled = self._scraped
            self._poll_at = now + p.polling_interval

    def size(self, now: float, fleet: Fleet, metrics: Mapping[str, float]) -> int:
        """Replicas to have from now on."""
        p, current = self.params, fleet.current
        self._read(now, fleet)
        if self._polled > p.activation_threshold:
            self._active_at = now
        if current == 0:
            return int(self._polled > p.activation_threshold)
        if p.min == 0 and now - self._active_at > p.cooldown_period:
            return 0
        wish = max(ceil(self._polled / p.threshold - 1e-9), 1)
        if abs(self._polled / p.threshold / current - 1.0) <= p.tolerance:
            wish = current
        wish = min(wish, current + max(p.scale_up_pods, int(current * p.scale_up_percent / 100.0)))
        most = self._wishes.most(now, wish, current)
        return wish if wish >= current else min(current, most)
