"""The curve of a day, for processes that repeat it."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from sim.units import Seconds
from sim.workload.arrivals._base import ArrivalParams

Weight = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
_KNOTS = 96  # quarters of an hour
_HOURS = 24


class DayParams(ArrivalParams):
    """A day: a wave with one peak, or a weight for each hour. ``rate`` is the mean."""

    swing: float | None = Field(
        default=None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="wave: peak = rate·(1 + swing), trough = rate·(1 − swing); peak to trough 3:1 is 0.5",
    )
    peak_at: float = Field(default=15.0, ge=0, lt=24, allow_inf_nan=False, description="wave: hour of the peak, 0 to 24")
    hours: tuple[Weight, ...] | None = Field(
        default=None,
        min_length=_HOURS,
        max_length=_HOURS,
        description="instead of a wave: load of each of the 24 hours beside the others, in the middle of the hour; straight lines between",
    )
    day: Seconds = Field(
        default=86_400.0, ge=1.0, le=1e7, description="length of a day; a shorter one plays the same curve in less time"
    )
    begins: float = Field(
        default=0.0, ge=0, lt=24, allow_inf_nan=False, description="hour of the day at which the traffic begins"
    )

    @model_validator(mode="after")
    def _one_shape(self) -> DayParams:
        if (self.swing is None) == (self.hours is None):
            raise ValueError("needs exactly one of swing and hours")
        if self.hours is not None and not sum(self.hours):
            raise ValueError("some hour must have load")
        return self

    def quarters(self) -> NDArray[np.float64]:
        """f8[96]: load at the beginning of each quarter of an hour, from midnight; mean 1 along straight lines."""
        at = np.arange(_KNOTS) * (_HOURS / _KNOTS)
        if self.hours is None:
            assert self.swing is not None
            wave: NDArray[np.float64] = 1.0 + self.swing * np.cos(2 * np.pi * (at - self.peak_at) / _HOURS)
            return wave
        loads = np.array(self.hours)
        curve: NDArray[np.float64] = np.interp(at, np.arange(_HOURS) + 0.5, loads, period=_HOURS)
        curve /= curve.mean()
        return curve
