"""A rate that changes with time: stages of constant or linearly changing rate."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field, model_validator

from sim.registry import register
from sim.units import Seconds
from sim.workload.arrivals._base import FASTEST, SLOWEST
from sim.workload.arrivals._shaped import Curve, RateOrNone, Shaped
from sim.workload.settings import Params


class Stage(Params):
    """One stage."""

    rate: RateOrNone = Field(description="mean arrivals per second, at the beginning where `to` is given")
    to: RateOrNone | None = Field(None, description="arrivals per second at the end, reached in a straight line; null: as `rate`")
    duration: Seconds = Field(ge=1e-6, le=1e9, description="how long the stage lasts")

    @property
    def end(self) -> float:
        """Arrivals per second at the end."""
        return self.rate if self.to is None else self.to

    @property
    def arrivals(self) -> float:
        """Mean number of arrivals."""
        return 0.5 * (self.rate + self.end) * self.duration


class StagesParams(Params):
    """The stages; where more requests are asked for than they bring, the first begins again after the last."""

    stages: tuple[Stage, ...] = Field(min_length=1, max_length=10_000, description="what the rate is, one stage after the other")

    @model_validator(mode="after")
    def _something_comes(self) -> StagesParams:
        mean = sum(s.arrivals for s in self.stages) / sum(s.duration for s in self.stages)
        if not SLOWEST <= mean <= FASTEST:
            raise ValueError(f"the mean rate must be in [{SLOWEST:g}/s, {FASTEST:g}/s]")
        return self


@register("arrival")
class Stages(Shaped):
    """Poisson arrivals whose rate follows stages, each played to its end."""

    name = "stages"
    aliases: ClassVar[tuple[str, ...]] = ("piecewise",)
    Params = StagesParams
    params: StagesParams

    def curve(self) -> Curve:
        """The stages."""
        stages = self.params.stages
        return Curve(*(np.array(x, float) for x in zip(*((s.rate, s.end, s.duration) for s in stages), strict=True)))
