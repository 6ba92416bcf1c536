"""Autoscaling of PAI-EAS services.

*Source*: Alibaba Cloud help pages of EAS "horizontal autoscaling", "elastic resource pool", ``UpdateServiceAutoScaler``: desired =
ceil(current × metric / target), the largest of several metrics, nothing within 10 %; scale-out after 0 s (1 s in an older page), scale-in
after 300 s of stabilisation, to zero after 600 s; from zero to 1 replica; at most 1000 instances (older: 3000). That the stabilisation
keeps the highest wish of the window is assumed, as Kubernetes does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import ClassVar, Final, Self

from pydantic import Field, model_validator

from sim.policy.scaler import MOST, Scaler, ScalerParams, Wishes
from sim.registry import register
from sim.units import Seconds

TOLERANCE: Final = 0.1
_EPSILON: Final = 1e-9


class EasScalerParams(ScalerParams):
    """Settings of the scaler; ``dedicated`` and ``resource_burstable`` are those of an elastic resource pool."""

    scale_out_delay: Seconds = Field(0.0, ge=0, description="how long more must be wanted before replicas are added")
    scale_in_stabilization: Seconds = Field(300.0, ge=0, description="replicas go when fewer were wanted for so long")
    scale_to_zero_grace: Seconds = Field(600.0, ge=0, description="the last replica goes when none was wanted for so long")
    from_zero: int = Field(1, ge=1, le=MOST, description="replicas started when the first request finds none")
    dedicated: int | None = Field(
        None, ge=0, le=MOST, description="replicas that the dedicated resource group holds; null: no public resources are meant"
    )
    resource_burstable: bool = Field(
        False, description="replicas beyond the dedicated group run on public pay-as-you-go resources"
    )

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.resource_burstable and self.dedicated is None:
            raise ValueError("resource_burstable needs dedicated: how many replicas the dedicated resource group holds")
        if self.dedicated is not None and not self.resource_burstable and self.max > self.dedicated:
            raise ValueError("max is more than the dedicated group holds; set resource_burstable, or max to at most dedicated")
        return self


def desired(current: int, metrics: Mapping[str, float], targets: Mapping[str, float], from_zero: int = 1) -> int:
    """Replicas wanted for mean ``metrics`` per replica; ``current`` itself within 10 % of every target.

    From zero replicas, ``from_zero`` as soon as a metric is above 0.
    """
    known = {name: metrics[name] for name in targets if name in metrics}
    if current == 0:
        return from_zero if any(v > 0 for v in known.values()) else 0
    wishes = []
    for name, value in known.items():
        ratio = value / targets[name]
        wishes.append(current if abs(ratio - 1) <= TOLERANCE + _EPSILON else ceil(current * ratio - _EPSILON))
    return max(wishes, default=current)


@register("scaler")
class EasScaler(Scaler):
    """The rule over time."""

    name = "eas"
    Params: ClassVar[type[ScalerParams]] = EasScalerParams
    params: EasScalerParams

    def __init__(self, params: EasScalerParams) -> None:
        super().__init__(params)
        self.dedicated = params.dedicated
        self._targets = params.targets.given
        self._wishes = Wishes(params.scale_in_stabilization, open=True)
        self._more_since: float | None = None
        self._wanted_at = 0.0

    def decide(self, now: float, current: int, metrics: Mapping[str, float]) -> int:
        """Replicas to have from now on."""
        p = self.params
        wish = min(max(desired(current, metrics, self._targets, p.from_zero), p.min), p.max)
        if wish > 0:
            self._wanted_at = now
        most = self._wishes.most(now, wish, current)
        if wish > current:
            self._more_since = now if self._more_since is None else self._more_since
            return wish if now - self._more_since >= p.scale_out_delay else current
        self._more_since = None
        fewer = min(current, most)
        return min(current, 1) if fewer == 0 and now - self._wanted_at < p.scale_to_zero_grace else fewer


@dataclass(frozen=True, slots=True)
class PoolSplit:
    """Replicas in the dedicated group and in the public pay-as-you-go pool."""

    dedicated: int
    public: int


def burst(replicas: int, dedicated_capacity: int, burstable: bool = True) -> PoolSplit:
    """``resource_burstable``: the dedicated group first, the rest in the public pool; scaling in removes public ones first."""
    inside = min(replicas, dedicated_capacity)
    return PoolSplit(inside, replicas - inside if burstable else 0)
