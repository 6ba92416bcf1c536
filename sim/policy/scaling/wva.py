"""llm-d's workload variant autoscaler (WVA), saturation analyser V1. Source: llm-d/llm-d-workload-variant-autoscaler @ b08b1c77

``docs/saturation-analyzer.md``, ``config/manager/configmap-saturation-scaling.yaml``.

Every 60 s, on the maxima of the last minute: a replica is saturated at 80 % of its KV memory or five waiting requests. One more replica when those that are
not saturated have little to spare on average; one fewer when the rest could carry the load of all and still would. Which variant is cheapest is a
question for several pools; here each pool is one variant and is scaled by itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sim.policy.scaler import Fleet, LifeParams, PoolScaler
from sim.registry import register
from sim.units import Seconds


class WvaParams(LifeParams):
    """Settings of `Wva`."""

    interval: Seconds = Field(60.0, ge=0.1, le=1e6, description="time between two evaluations (GLOBAL_OPT_INTERVAL)")
    sample_interval: Seconds = Field(
        15.0, ge=0.1, le=3600, description="time between two scrapes, of which the maximum counts (assumed)"
    )
    kv_cache_threshold: float = Field(0.80, gt=0, le=1, description="share of KV memory from which on a replica is saturated")
    queue_length_threshold: float = Field(5.0, gt=0, le=1e9, description="waiting requests from which on a replica is saturated")
    kv_spare_trigger: float = Field(0.1, ge=0, le=1, description="mean spare KV share below which one more comes")
    queue_spare_trigger: float = Field(3.0, ge=0, le=1e9, description="mean spare queue below which one more comes")

    @property
    def looks(self) -> float:
        """Scrapes come between evaluations."""
        return min(self.interval, self.sample_interval)


def wanted(p: WvaParams, kv: NDArray[np.float64], queue: NDArray[np.float64], current: int) -> int:
    """For the maxima of each replica that serves; while replicas are starting the number stays."""
    if len(kv) == 0 or current != len(kv):
        return current
    free = (kv < p.kv_cache_threshold) & (queue < p.queue_length_threshold)
    n = int(free.sum())
    if n == 0:
        return current + 1
    spare_kv, spare_queue = p.kv_cache_threshold - kv[free].mean(), p.queue_length_threshold - queue[free].mean()
    if spare_kv < p.kv_spare_trigger or spare_queue < p.queue_spare_trigger:
        return current + 1
    if n >= 2:
        more_kv, more_queue = kv[free].sum() / (n - 1), queue[free].sum() / (n - 1)
        if (
            p.kv_cache_threshold - more_kv >= p.kv_spare_trigger
            and p.queue_length_threshold - more_queue >= p.queue_spare_trigger
        ):
            return current - 1
    return current


@register("scaler")
class Wva(PoolScaler):
    """By what replicas have to spare, one at a time."""

    name = "wva"
    Params: ClassVar[type[LifeParams]] = WvaParams
    params: WvaParams

    def __init__(self, params: WvaParams) -> None:
        super().__init__(params)
        self._seen: deque[tuple[float, Fleet]] = deque()
        self._at = 0.0

    def size(self, now: float, fleet: Fleet, metrics: Mapping[str, float]) -> int:
        """Replicas to have from now on."""
        p = self.params
        self._seen.append((now, fleet))
        while self._seen[0][0] <= now - p.interval - 1e-9:
            self._seen.popleft()
        if now < self._at - 1e-9:
            return fleet.current
        self._at = now + p.interval
        if fleet.current == 0:
            return int(fleet.outside > 0)
        same = [f for _, f in self._seen if f.ready == fleet.ready]
        kv, queue = np.max([f.kv for f in same], axis=0), np.max([f.waiting for f in same], axis=0)
        return max(wanted(p, kv, queue, fleet.current), 1)
