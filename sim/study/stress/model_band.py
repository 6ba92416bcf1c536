"""Up to which load the SLO holds if real steps are as long, and as short, as measured deployments had them against the model's prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sim.metrics.model_error import LEVEL
from sim.study.base import Load, Trial
from sim.study.plan.together import Part, together
from sim.study.slower import slower, step_error
from sim.study.stress.curve import worse

if TYPE_CHECKING:
    from sim.config.scenario import Scenario
    from sim.fleet.build import Plan

ALONG: Final = ("rate", "lengths", "burst")
"""What may grow: failures and one class's rate do not stretch with the steps."""
_STEP, _FINE, _MOST = 1.25, 1.03, 64.0


@dataclass(frozen=True)
class Band:
    """Highest factors of the load that hold, with steps as long (``low``) and as short (``high``) as they may be; None: no load holds.

    ``step_time``: the two factors; ``level``: share of the ``deployments`` on record, of what ``words``. One run at each load.
    """

    low: float | None
    high: float | None
    step_time: tuple[float, float]
    deployments: int
    words: str
    level: float = LEVEL


def band(
    scenario: Scenario, plans: Sequence[Plan], offered: float, along: str, good: float, required: float
) -> Part[Band | None]:
    """Of a scenario that holds ``good`` times its load; None where no measured deployment is on record, or the load is of another kind."""
    error = step_error(plans)
    if error is None or along not in ALONG or math.isnan(good):
        return None
    ends = [_highest(slower(scenario, f), offered, along, f, good, required) for f in (error.high, error.low)]
    low, high = yield from together(ends)
    return Band(
        None if low is None else min(low, good),
        None if high is None else max(high, good),
        (error.low, error.high),
        error.deployments,
        error.words,
    )


def _highest(scenario: Scenario, offered: float, along: str, slow: float, good: float, required: float) -> Part[float | None]:
    """The last load that holds, to 3 %."""
    low, high, at = 0.0, math.inf, good / slow if along == "rate" else good
    at = max(at, 1.0) if along != "rate" else at
    while high / max(low, 1e-12) > _FINE:
        at = round(at, 6)
        load: Load = {"rate": offered * at * slow} if along == "rate" else {"rate": offered * slow}
        if along != "rate" and at != 1.0:
            load |= worse(along, at)
        (outcome,) = yield [Trial(scenario, {along: at, "step_time": slow}, load)]
        if float(outcome.figures.slo.effective or 0.0) >= required:
            low = at
            if math.isinf(high):
                if at >= _MOST * good:
                    return at
                at *= _STEP
                continue
        else:
            high = at
            if low == 0.0:
                if at <= (1.0 if along != "rate" else good / _MOST):
                    return None
                at = at / _STEP if along == "rate" else max(at / _STEP, 1.0)
                continue
        at = math.sqrt(low * high)
    return low
