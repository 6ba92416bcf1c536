"""Autoscaling of PAI-EAS services.

*Source*: Alibaba Cloud help pages of EAS "horizontal autoscaling", "elastic resource pool": desired = ceil(current × metric / target), the
largest of several metrics, nothing within 10 %; scale-out after 0 s (1 s in an older page), scale-in after 300 s of stabilisation; at
most 1000 instances (older: 3000). That the stabilisation keeps the highest wish of the window is assumed, as Kubernetes does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sim.units import Seconds

TOLERANCE: Final = 0.1
_MOST: Final = 1000
_EPSILON: Final = 1e-9


class EasScalerParams(BaseModel):
    """Settings of the scaler. ``targets`` by metric: ``qps``, ``cpu``, ``gpu``, queue length, or a metric of your own, per instance."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: int = Field(1, ge=0, le=_MOST, description="fewest replicas; 0 allows scaling to zero")
    max: int = Field(_MOST, ge=1, le=_MOST, description="most replicas")
    targets: dict[str, float] = Field(description="wanted value per replica, by metric")
    scale_out_delay: Seconds = Field(0.0, ge=0, description="how long more must be wanted before replicas are added")
    scale_in_stabilization: Seconds = Field(300.0, ge=0, description="replicas go when fewer were wanted for so long")

    @model_validator(mode="after")
    def _possible(self) -> EasScalerParams:
        if self.min > self.max:
            raise ValueError("min must not exceed max")
        if not self.targets or any(not t > 0 for t in self.targets.values()):
            raise ValueError("targets must be above 0, at least one")
        return self


def desired(current: int, metrics: Mapping[str, float], targets: Mapping[str, float]) -> int:
    """Replicas wanted for mean ``metrics`` per replica; ``current`` itself within 10 % of every target.

    From zero replicas, one as soon as a metric is above 0.
    """
    known = {name: metrics[name] for name in targets if name in metrics}
    if current == 0:
        return int(any(v > 0 for v in known.values()))
    wishes = []
    for name, value in known.items():
        ratio = value / targets[name]
        wishes.append(current if abs(ratio - 1) <= TOLERANCE + _EPSILON else ceil(current * ratio - _EPSILON))
    return max(wishes, default=current)


class EasScaler:
    """The rule over time: call `decide` at every evaluation, in order of time."""

    def __init__(self, params: EasScalerParams) -> None:
        self._p = params
        self._wishes: deque[tuple[float, int]] = deque()
        self._more_since: float | None = None

    def decide(self, now: float, current: int, metrics: Mapping[str, float]) -> int:
        """Replicas to have from now on."""
        p = self._p
        wish = min(max(desired(current, metrics, p.targets), p.min), p.max)
        if not self._wishes:
            self._wishes.append((now, current))  # what is there was wanted once
        while self._wishes and self._wishes[0][0] <= now - p.scale_in_stabilization:
            self._wishes.popleft()
        self._wishes.append((now, wish))
        if wish > current:
            self._more_since = now if self._more_since is None else self._more_since
            return wish if now - self._more_since >= p.scale_out_delay else current
        self._more_since = None
        return min(current, max(w for _, w in self._wishes))


@dataclass(frozen=True, slots=True)
class PoolSplit:
    """Replicas in the dedicated group and in the public pay-as-you-go pool."""

    dedicated: int
    public: int


def burst(replicas: int, dedicated_capacity: int, burstable: bool = True) -> PoolSplit:
    """``resource_burstable``: the dedicated group first, the rest in the public pool; scaling in removes public ones first."""
    inside = min(replicas, dedicated_capacity)
    return PoolSplit(inside, replicas - inside if burstable else 0)
