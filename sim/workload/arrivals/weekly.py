"""A week: days of different load, each with its hours."""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from sim.registry import register
from sim.workload.arrivals._daily import DayParams, Weight
from sim.workload.arrivals._shaped import Curve, Shaped


class WeeklyParams(DayParams):
    """The load of each day beside the others, and the curve that each day follows."""

    days: tuple[Weight, ...] = Field(
        min_length=7, max_length=7, description="load of each of the seven days beside the others, the first one first"
    )
    weeks: float = Field(
        default=1.0,
        gt=0,
        le=104,
        allow_inf_nan=False,
        description="how many weeks are played when no number of requests is given",
    )

    @model_validator(mode="after")
    def _some_day(self) -> WeeklyParams:
        if not sum(self.days):
            raise ValueError("some day must have load")
        return self


@register("arrival")
class Weekly(Shaped):
    """Poisson arrivals whose rate follows the days of a week and the hours of each day; ``begins`` is an hour of the first day."""

    name = "weekly"
    Params = WeeklyParams
    params: WeeklyParams
    stage = ""

    def curve(self) -> Curve:
        """One week; between the last quarter of a day and midnight the load goes to the next day's in a straight line."""
        p = self.params
        loads = np.outer(p.days, p.quarters()).ravel()
        return Curve.through(p.rate * loads / loads.mean(), 7 * p.day).beginning(p.begins / 24 * p.day)

    @property
    def rounds(self) -> float:
        """Weeks."""
        return float(self.params.weeks)
