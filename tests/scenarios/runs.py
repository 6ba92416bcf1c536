"""Each built-in scenario is run once, whoever asks."""

from __future__ import annotations

from functools import cache

import sim
from sim.metrics.result import Result


@cache
def result(name: str) -> Result:
    """What the built-in scenario ``name`` gives."""
    return sim.run(sim.load(name))
