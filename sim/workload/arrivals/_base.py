"""What an arrival process is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, Self, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from sim.guard import Guard
from sim.units import Rate
from sim.workload import answers
from sim.workload.settings import Params
from sim.workload.table import BLOCK_ROWS

SLOWEST, FASTEST = 1e-9, 1e9  # arrivals per second between which no time overflows


class ArrivalParams(Params):
    """Settings that every process with a rate has."""

    rate: Rate = Field(ge=SLOWEST, le=FASTEST, description="mean arrivals per second over the whole traffic, such as 8/s")


class Arrival:
    """When requests arrive. Subclasses are registered with ``@register("arrival")`` and carry ``name`` and ``Params``.

    A process is an endless stream: `times` yields sorted chunks of seconds from 0, drawn from ``rng`` alone. Changing the rate
    keeps the order and the shape of the arrivals and stretches time, so that a search over rates sees the same requests; where times
    mean something by themselves (a spike of a minute, a day), they stay and more requests come.
    """

    name: ClassVar[str]
    Params: ClassVar[type[Params]] = ArrivalParams
    ends: ClassVar[bool] = False
    """Whether the process ends by itself, so that nobody has to say how many requests there are; it has `whole` and `to_the_end` then."""

    guards: ClassVar[Mapping[str, Guard]] = {"times": Guard(answers.times, limited=True, each=True)}
    """How a process of one's own is watched (`sim.guard`)."""

    def __init__(self, params: BaseModel) -> None:
        self.params = params

    @property
    def rate(self) -> float:
        """Mean arrivals per second."""
        return float(cast("ArrivalParams", self.params).rate)

    def with_rate(self, rate: float) -> Self:
        """The same process at another mean rate."""
        return type(self)(self.params.model_copy(update={"rate": float(rate)}))

    def times(self, rng: np.random.Generator) -> Iterator[NDArray[np.float64]]:
        """Endless chunks of arrival times in seconds, sorted within and across chunks."""
        raise NotImplementedError

    def whole(self, rng: np.random.Generator) -> int | None:
        """How many requests arrive in all when the process ends by itself; None when it goes on for ever."""
        return None

    def to_the_end(self, fresh: Callable[[], np.random.Generator], requests: int) -> tuple[int, str]:
        """How many requests come where ``requests`` are asked for, and a note on that. ``fresh`` starts the stream again."""
        return requests, ""


class Renewal(Arrival):
    """A process of independent gaps; the first arrival comes one gap after 0."""

    guards: ClassVar[Mapping[str, Guard]] = {"gaps": Guard(answers.gaps, limited=True)}

    def gaps(self, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        """``n`` gaps of mean 1."""
        raise NotImplementedError

    def times(self, rng: np.random.Generator) -> Iterator[NDArray[np.float64]]:
        """Endless chunks of arrival times in seconds."""
        last = 0.0
        while True:
            units = last + np.cumsum(self.gaps(rng, BLOCK_ROWS))
            last = float(units[-1])
            yield units / self.rate
