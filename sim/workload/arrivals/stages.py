"""A rate that changes with time: stages of constant or linearly changing rate, over and over (spikes, ramps, days)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from sim.registry import register
from sim.units import Seconds, parse_rate
from sim.workload.arrivals._base import FASTEST, SLOWEST, Arrival
from sim.workload.settings import Params
from sim.workload.table import BLOCK_ROWS

RateOrNone = Annotated[
    float, BeforeValidator(parse_rate), Field(ge=0, le=FASTEST, json_schema_extra={"type": ["number", "string"]})
]


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
    """The stages; after the last one the first begins again."""

    stages: tuple[Stage, ...] = Field(min_length=1, max_length=10_000, description="what the rate is, one stage after the other")

    @model_validator(mode="after")
    def _something_comes(self) -> Self:
        mean = sum(s.arrivals for s in self.stages) / sum(s.duration for s in self.stages)
        if not SLOWEST <= mean <= FASTEST:
            raise ValueError(f"the mean rate must be in [{SLOWEST:g}/s, {FASTEST:g}/s]")
        return self


@register("arrival")
class Stages(Arrival):
    """Poisson arrivals whose rate follows stages (a non-homogeneous Poisson process): spike, ramp, day and night."""

    name = "stages"
    Params = StagesParams

    @property
    def rate(self) -> float:
        """Mean arrivals per second over all stages."""
        stages = self.params.stages
        return float(sum(s.arrivals for s in stages) / sum(s.duration for s in stages))

    def with_rate(self, rate: float) -> Self:
        """The same requests at another mean rate: rates grow, durations shrink."""
        k = rate / self.rate
        stages = tuple(
            s.model_copy(update={"rate": s.rate * k, "to": None if s.to is None else s.to * k, "duration": s.duration / k})
            for s in self.params.stages
        )
        return type(self)(self.params.model_copy(update={"stages": stages}))

    def times(self, rng: np.random.Generator) -> Iterator[NDArray[np.float64]]:
        """Endless chunks of arrival times in seconds: arrivals of rate 1, their times changed by the inverse of the mean count."""
        last = 0.0
        while True:
            counts = last + np.cumsum(rng.standard_exponential(BLOCK_ROWS))
            last = float(counts[-1])
            yield self._when(counts)

    def whole(self, rng: np.random.Generator) -> int:
        """Arrivals until the last stage ends."""
        expected = sum(s.arrivals for s in self.params.stages)
        last, found = 0.0, 0
        while last < expected:
            counts = last + np.cumsum(rng.standard_exponential(BLOCK_ROWS))
            found += int(np.searchsorted(counts, expected))
            last = float(counts[-1])
        return max(found, 1)

    def cut(self, fresh: Callable[[], np.random.Generator], requests: int) -> str:
        """The stage that is cut, and those that do not come at all."""
        stages = self.params.stages
        lacking = self.whole(fresh()) - requests
        if lacking <= 0:
            return ""
        seen, last = 0, 0.0
        for times in self.times(fresh()):
            if seen + len(times) >= requests:
                last = float(times[requests - seen - 1])
                break
            seen += len(times)
        starts = np.cumsum([0.0, *(s.duration for s in stages)])
        at = min(int(np.searchsorted(starts, last, side="right")) - 1, len(stages) - 1)
        missing = len(stages) - at - 1
        rest = f" and {missing} later {'stage does' if missing == 1 else 'stages do'} not come" if missing else ""
        return (
            f"traffic ends after {requests:,} requests, {last:.4g} s into {starts[-1]:.4g} s of stages: stage {at + 1} of {len(stages)} is cut"
            f"{rest}; without `requests` all {requests + lacking:,} arrivals are played"
        )

    def _when(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Seconds until so many arrivals are to be expected."""
        stages = self.params.stages
        expected = np.cumsum([0.0, *(s.arrivals for s in stages)])
        starts = np.cumsum([0.0, *(s.duration for s in stages)])
        rounds = np.floor(counts / expected[-1])
        rest = np.clip(counts - rounds * expected[-1], 0.0, expected[-1])
        at = np.minimum(np.searchsorted(expected, rest, side="right") - 1, len(stages) - 1)
        first, slope = np.array([[s.rate, (s.end - s.rate) / s.duration] for s in stages]).T
        rest, first, slope = rest - expected[at], first[at], slope[at]
        # of count = rate·t + slope·t²/2, in the form that stays exact for small slopes
        root = np.sqrt(np.maximum(first * first + 2.0 * slope * rest, 0.0))
        below = first + root
        inside = np.divide(2.0 * rest, below, out=np.zeros_like(rest), where=below > 0)
        durations = np.array([s.duration for s in stages])[at]
        times: NDArray[np.float64] = rounds * starts[-1] + starts[at] + np.minimum(inside, durations)
        return np.maximum.accumulate(times)
