"""Evenly spaced arrivals."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sim.registry import register
from sim.workload.arrivals._base import Arrival
from sim.workload.table import BLOCK_ROWS


@register("arrival")
class Constant(Arrival):
    """One arrival every 1/rate seconds, the first at 0."""

    name = "constant"

    def times(self, rng: np.random.Generator) -> Iterator[NDArray[np.float64]]:
        """Endless chunks of arrival times in seconds."""
        first = 0
        while True:
            yield np.arange(first, first + BLOCK_ROWS) / self.rate
            first += BLOCK_ROWS
