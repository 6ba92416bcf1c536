"""Everything at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sim.errors import ConfigError
from sim.registry import register
from sim.workload.arrivals._base import Arrival
from sim.workload.settings import Params
from sim.workload.table import BLOCK_ROWS


class BurstParams(Params):
    """A burst has no settings."""


@register("arrival")
class Burst(Arrival):
    """All requests at time 0: an offline batch, or a benchmark run with an infinite request rate."""

    name = "burst"
    Params = BurstParams
    params: BurstParams

    @property
    def rate(self) -> float:
        """Infinite."""
        return float("inf")

    def with_rate(self, rate: float) -> Self:
        """Refused: a burst has no rate to scale."""
        raise ConfigError("traffic.synthetic.arrival.process", self.name, "has no rate to set", "constant, gamma, poisson")

    def times(self, rng: np.random.Generator) -> Iterator[NDArray[np.float64]]:
        """Endless chunks of zeros."""
        while True:
            yield np.zeros(BLOCK_ROWS)
