"""Steady load with a spike in it."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from sim.registry import register
from sim.units import Seconds
from sim.workload.arrivals._base import ArrivalParams
from sim.workload.arrivals._shaped import Curve, Shaped


class SpikeParams(ArrivalParams):
    """When the spike comes, how high it is, how long it lasts, what comes after it. ``rate`` is that beside the spike."""

    factor: float = Field(gt=0, le=10_000, allow_inf_nan=False, description="so many times the rate in the spike; below 1: a dip")
    duration: Seconds = Field(ge=1e-6, le=1e9, description="how long the spike lasts")
    before: Seconds = Field(default=60.0, le=1e9, description="seconds at `rate` before the spike")
    after: Seconds = Field(
        default=240.0, le=1e9, description="seconds at `rate` after the spike, in which the fleet is to come back"
    )
    rise: Seconds = Field(
        default=0.0, le=1e9, description="seconds in which the load goes up to the spike, and down from it again"
    )


@register("arrival")
class Spike(Shaped):
    """Poisson arrivals with a spike, played to its end."""

    name = "spike"
    Params = SpikeParams
    params: SpikeParams

    def curve(self) -> Curve:
        """Before, (rise,) spike, (fall,) after."""
        p = self.params
        low, high = p.rate, p.rate * p.factor
        rows = [
            (low, low, p.before),
            (low, high, p.rise),
            (high, high, p.duration),
            (high, low, p.rise),
            (low, low, p.after),
        ]
        return Curve(*(np.array(x, float) for x in zip(*(row for row in rows if row[2] > 0), strict=True)))
