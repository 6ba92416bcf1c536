"""Load that grows (or falls) in a straight line."""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from sim.registry import register
from sim.units import Seconds
from sim.workload.arrivals._base import SLOWEST
from sim.workload.arrivals._shaped import Curve, RateOrNone, Shaped
from sim.workload.settings import Params


class RampParams(Params):
    """From one rate to another."""

    rate: RateOrNone = Field(description="mean arrivals per second at the beginning")
    to: RateOrNone = Field(description="mean arrivals per second at the end of the ramp")
    duration: Seconds = Field(ge=1e-6, le=1e9, description="how long the ramp lasts")
    before: Seconds = Field(default=0.0, le=1e9, description="seconds at `rate` before the ramp begins")
    after: Seconds = Field(default=0.0, le=1e9, description="seconds at the rate `to` after the ramp")

    @model_validator(mode="after")
    def _something_comes(self) -> RampParams:
        if max(self.rate, self.to) < SLOWEST:
            raise ValueError(f"rate or to must be at least {SLOWEST:g}/s")
        return self


@register("arrival")
class Ramp(Shaped):
    """Poisson arrivals whose rate goes from one value to another in a straight line (``vllm bench serve --ramp-up-strategy linear``)."""

    name = "ramp"
    Params = RampParams
    params: RampParams

    def curve(self) -> Curve:
        """Before, ramp, after."""
        p = self.params
        rows = [(p.rate, p.rate, p.before), (p.rate, p.to, p.duration), (p.to, p.to, p.after)]
        return Curve(*(np.array(x, float) for x in zip(*(row for row in rows if row[2] > 0), strict=True)))
