"""The horizontal pod autoscaler of Kubernetes.

*Source*: kubernetes.io "Horizontal Pod Autoscaling" (autoscaling/v2): the same formula and tolerance as EAS, which took them from it; by default
no stabilisation of scaling out, 300 s of scaling in; at most 4 pods or 100 % more (whichever is more) within 15 s, any number fewer. It does not
scale to zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import Field, model_validator

from sim.policy.scaler import ScalerParams
from sim.policy.scaling.eas import EasScaler, EasScalerParams
from sim.registry import register
from sim.units import Seconds


class HpaParams(ScalerParams):
    """Settings: the ``behavior`` of the autoscaler."""

    scale_up_stabilization: Seconds = Field(0.0, ge=0, description="how long more must be wanted before replicas are added")
    scale_down_stabilization: Seconds = Field(300.0, ge=0, description="replicas go when fewer were wanted for so long")
    scale_up_pods: int = Field(4, ge=1, description="so many more per evaluation …")
    scale_up_percent: float = Field(100.0, gt=0, description="… or so many percent more, whichever is more")

    @model_validator(mode="after")
    def _not_to_zero(self) -> Self:
        if self.min == 0:
            raise ValueError("min must be at least 1: the autoscaler does not scale to zero (eas does)")
        return self


@register("scaler")
class Hpa(EasScaler):
    """The formula of EAS with a bound on how fast replicas are added."""

    name = "hpa"
    Params = HpaParams

    def __init__(self, params: HpaParams) -> None:
        super().__init__(
            EasScalerParams(
                min=params.min,
                max=params.max,
                targets=params.targets,
                interval=params.interval,
                window=params.window,
                startup=params.startup,
                scale_out_delay=params.scale_up_stabilization,
                scale_in_stabilization=params.scale_down_stabilization,
            )
        )
        self._most_more = params.scale_up_pods, params.scale_up_percent / 100.0

    def decide(self, now: float, current: int, metrics: Mapping[str, float]) -> int:
        """Replicas to have from now on."""
        pods, share = self._most_more
        return min(super().decide(now, current, metrics), current + max(pods, int(current * share)))
