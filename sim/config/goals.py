"""What is asked of the run: targets, expectations, what to record."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from sim.config.section import Section
from sim.units import Seconds

Target = Annotated[Seconds, Field(gt=0)]


class Slo(Section):
    """Targets that a request must meet, all of them together."""

    ttft: Target | None = Field(None, description="time to first token, such as 1s")
    tpot: Target | None = Field(None, description="time per output token after the first, such as 50ms")
    e2e: Target | None = Field(None, description="time to the last token, such as 30s")
    attainment: float = Field(0.99, gt=0, le=1, description="share of requests that must meet the targets")


class Record(Section):
    """What is kept of a run besides the table of requests."""

    timeseries: bool = Field(True, description="keep time series of every replica")
    max_points: int = Field(2000, ge=16, le=100_000, description="most points per series; longer runs get wider ones")


class Expectation(Section):
    """A bound on one figure of the summary."""

    min: float | None = Field(None, allow_inf_nan=False, description="at least")
    max: float | None = Field(None, allow_inf_nan=False, description="at most")
    value: float | None = Field(None, allow_inf_nan=False, description="about this, within tolerance")
    tolerance: float | None = Field(None, ge=0, allow_inf_nan=False, description="relative, 0.05 is ±5 %")

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.value is None) != (self.tolerance is None):
            raise ValueError("value and tolerance go together")
        if self.value is None and self.min is None and self.max is None:
            raise ValueError("needs min, max, or value with tolerance")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min must not exceed max")
        return self
