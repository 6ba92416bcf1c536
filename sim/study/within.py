"""Where a figure would be within the error of the model: as 4 of 5 measured deployments had it against what was predicted of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from sim.metrics.section import Section, keyed


@dataclass(frozen=True)
class Within(Section):
    """A figure's ends; ``level``: share of the ``deployments`` on record, of what ``words``."""

    low: float
    high: float
    level: float
    deployments: int
    words: str = field(metadata=keyed("class"))


@dataclass(frozen=True)
class Held(Section):
    """The load that is held with steps as long (``low``) and as short (``high``) as they may be; None: none is. ``step_time``: the two factors."""

    low: float | None
    high: float | None
    level: float
    deployments: int
    words: str = field(metadata=keyed("class"))
    step_time_low: float
    step_time_high: float
