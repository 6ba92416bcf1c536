"""Load up in steps, briefly beyond what can be served, and down the same steps: is a load served as well after an overload as before it?

A queue that an overload leaves is no hysteresis: it is worked off. So each step is judged by its second half, and the overload is short
enough that the first half of the next step is more than the queue takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import numpy as np

from sim.study.base import Load, Trial
from sim.study.plan.together import Part
from sim.study.statistics.replications import bounds
from sim.study.variants import is_random, repeated
from sim.units import show_number, show_share

if TYPE_CHECKING:
    from sim.config.scenario import Scenario
    from sim.ledger import Values

LEVELS: Final = (0.5, 0.7, 0.85)
"""Loads as shares of the capacity, on the way up and on the way down."""
OVERLOAD: Final = 1.15
_PART: Final = 0.25  # the overload lasts so many times a step: its queue takes a quarter of the next step
_FEWEST: Final = 400  # requests of the lowest step
_STEP_S: Final = 60.0
_TELLS: Final = 0.01  # of attainment: less is not worth saying

Steps = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Level:
    """One load (requests/s): the share of requests that met the SLO on the way ``up`` and ``down``, each (mean, low, high) over the runs, and
    their difference.
    """

    rate: float
    up: tuple[float, float, float]
    down: tuple[float, float, float]
    lost: tuple[float, float, float]

    @property
    def worse(self) -> bool:
        """Surely worse after the overload than before it, and by enough to matter."""
        return self.lost[1] > 0.0 and self.lost[0] > _TELLS


@dataclass(frozen=True)
class Hysteresis:
    """``levels`` by load; ``overload_s`` long at ``overload`` requests/s in between."""

    levels: Sequence[Level]
    overload: float
    overload_s: float

    def sentence(self) -> str:
        """What was found, in words."""
        head = f"After {show_number(self.overload_s)} s at {show_number(self.overload, 4)} requests/s, more than can be served,"
        if not self.levels:
            return f"{head} the traffic ended before the same loads came again: nothing is known."
        bad = [level for level in self.levels if level.worse]
        if not bad:
            return f"{head} every load is served as well as before: no hysteresis."
        worst = max(bad, key=lambda level: level.lost[0])
        return (
            f"{head} hysteresis: at {show_number(worst.rate, 4)} requests/s {show_share(worst.down[0])} of requests meet the SLO, "
            f"{show_share(worst.up[0])} did before, though the queue had time to be worked off."
        )


def course(capacity: float) -> Steps:
    """(seconds, factors of ``capacity``) of every step."""
    step = max(_STEP_S, _FEWEST / (LEVELS[0] * capacity))
    factors = (*LEVELS, OVERLOAD, *reversed(LEVELS))
    return tuple(step * _PART if f == OVERLOAD else step for f in factors), factors


def measure(scenario: Scenario, capacity: float, replications: int, confidence: float) -> Part[Hysteresis]:
    """``replications`` runs of the course."""
    seconds, factors = course(capacity)
    s = scenario
    if s.traffic.so_many is not None:
        n = math.ceil(capacity * sum(w * f for w, f in zip(seconds, factors, strict=True)))
        s = s.model_copy(update={"traffic": s.traffic.with_requests(n)})
    runs = replications if is_random(s) else 1
    load: Load = {"rate": capacity, "course": (seconds, factors)}
    outcomes = yield [Trial(repeated(s, r), {"hysteresis": capacity, "replication": r}, load) for r in range(runs)]
    return _found([cast("list[float | None]", o.value()["met_at_step"]) for o in outcomes], capacity, seconds, confidence)


def judge(columns: Mapping[str, Values], steps: Steps) -> list[float | None]:
    """The share of requests of the second half of each step (by arrival) that met the SLO; None: nobody came."""
    seconds, _ = steps
    ends = np.cumsum(seconds)
    arrival, ok = columns["arrival_s"], columns["slo_met"]
    out: list[float | None] = []
    for end, width in zip(ends, seconds, strict=True):
        seen = ok[(arrival >= end - width / 2) & (arrival < end)]
        out.append(float(seen.mean()) if seen.size else None)
    return out


def _found(runs: Sequence[Sequence[float | None]], capacity: float, seconds: Sequence[float], confidence: float) -> Hysteresis:
    levels = []
    for i, share in enumerate(LEVELS):
        pairs = [(up, down) for run in runs if (up := run[i]) is not None and (down := run[-1 - i]) is not None]
        if pairs:
            ups, downs = [a for a, _ in pairs], [b for _, b in pairs]
            lost = [a - b for a, b in pairs]
            levels.append(Level(share * capacity, bounds(ups, confidence), bounds(downs, confidence), bounds(lost, confidence)))
    return Hysteresis(levels, OVERLOAD * capacity, seconds[len(LEVELS)])
