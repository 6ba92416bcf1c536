"""Day and night."""

from __future__ import annotations

from pydantic import Field

from sim.registry import register
from sim.workload.arrivals._daily import DayParams
from sim.workload.arrivals._shaped import Curve, Shaped


class DiurnalParams(DayParams):
    """The curve of a day and how many of them."""

    days: float = Field(
        default=1.0, gt=0, le=366, allow_inf_nan=False, description="how many days are played when no number of requests is given"
    )


@register("arrival")
class Diurnal(Shaped):
    """Poisson arrivals whose rate follows the hours of a day."""

    name = "diurnal"
    Params = DiurnalParams
    params: DiurnalParams
    stage = ""

    def curve(self) -> Curve:
        """One day from its beginning."""
        p = self.params
        return Curve.through(p.rate * p.quarters(), p.day).beginning(p.begins / 24 * p.day)

    @property
    def rounds(self) -> float:
        """Days."""
        return float(self.params.days)
