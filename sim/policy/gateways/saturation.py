"""Whether a pool has enough: llm-d's detectors. Source: llm-d/llm-d-router pkg/epp @ ebab6879, names as in its configuration.

``utilization-detector`` reads metrics of the engines, as of the last scrape; ``concurrency-detector`` counts the router's own requests in flight.
"""

from __future__ import annotations

from math import inf
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sim.policy.admitting import AdmissionParams
from sim.policy.gateways import llmd
from sim.policy.router import Snapshot
from sim.units import Seconds


class SaturationParams(AdmissionParams):
    """Settings of a `Detector`."""

    detector: Literal["utilization-detector", "concurrency-detector"] = Field(
        "utilization-detector", description="by polled queue and KV use, or by own requests in flight"
    )
    queue_depth_threshold: float = Field(5.0, gt=0, le=1e9, description="waiting requests of an endpoint that has enough")
    kv_cache_util_threshold: float = Field(0.8, gt=0, le=1, description="share of KV memory of an endpoint that has enough")
    refresh_metrics_interval: Seconds = Field(0.05, ge=0, le=3600, description="time between two scrapes of an engine's metrics")
    max_concurrency: int = Field(100, ge=1, le=10**9, description="concurrency-detector: requests in flight of an endpoint")


class Detector:
    """1 and more: saturated."""

    def __init__(self, params: SaturationParams) -> None:
        self._p = params
        self._read_at = -inf
        self._gauges: NDArray[np.float64] = np.zeros((4, 0))
        self.in_flight = 0
        """Requests that went on and are not over, by the router's own count."""

    @property
    def polls(self) -> bool:
        """Whether it rests on metrics that are read now and then."""
        return bool(self._p.detector == "utilization-detector")

    def changes_at(self) -> float:
        """When it may change though no request comes or ends."""
        return self._read_at + self._p.refresh_metrics_interval if self.polls else inf

    def saturation(self, snapshot: Snapshot) -> float:
        """As of the last scrape, which takes place now if it is due. No endpoint: full."""
        p = self._p
        if not self.polls:
            n = len(snapshot.outstanding)
            return self.in_flight / (n * p.max_concurrency) if n else 1.0
        if snapshot.now >= self.changes_at() or self._gauges.shape[1] != len(snapshot.outstanding):
            self._gauges = np.array(snapshot.gauges()[:4], np.float64)
            interval = p.refresh_metrics_interval
            self._read_at = snapshot.now if interval == 0 else snapshot.now // interval * interval
        _, waiting, used, total = self._gauges
        kv = np.divide(used, total, out=np.zeros_like(used), where=total > 0)
        fresh = np.ones(len(kv), bool)
        return llmd.utilization(waiting, kv, fresh, p.queue_depth_threshold, p.kv_cache_util_threshold)
