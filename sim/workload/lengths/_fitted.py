"""Lengths fitted to a public trace; the tables are in ``profiles/traffic/<name>.yaml`` with their source."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sim.resources import path, read_yaml
from sim.workload.lengths._base import Length, LengthParams, Pairs
from sim.workload.lengths._quantiles import QuantileTable

if TYPE_CHECKING:
    from sim.document import Json


class Fitted(Length):
    """A built-in distribution: a subclass needs no more than its ``name``, which is also the name of its profile."""

    def __init__(self, params: LengthParams) -> None:
        super().__init__(params)
        self.profile = load_profile(self.name)
        self._table = QuantileTable.model_validate(self.profile["quantiles"])

    @property
    def bounds(self) -> tuple[int, int]:
        """The longest in the trace."""
        return self._table.bounds

    def draw(self, rng: np.random.Generator, n: int) -> Pairs:
        """``n`` pairs."""
        return self._table.draw(rng, n)


def load_profile(name: str) -> dict[str, Json]:
    """A file of ``profiles/traffic``: name, source, licence, facts about the arrivals, quantiles."""
    file = path("profiles", "traffic", f"{name}.yaml")
    stat = file.stat()
    return _read(file, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=16)
def _read(file: Path, size: int, changed: int) -> dict[str, Json]:
    """Kept by its size and time: reading one takes longer than a short run."""
    loaded: dict[str, Json] = read_yaml(file)
    return loaded
