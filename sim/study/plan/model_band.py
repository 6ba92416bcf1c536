"""What the error of the model makes of a finalist: bands of its figures, and how many replicas if real steps are as short, or as long, as may be.

As on `run` and `capacity`: the interval that 4 of 5 measured deployments like this one kept to (`sim.metrics.model_error`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sim.document import number_at
from sim.fleet.build import plan
from sim.metrics import model_error
from sim.study.base import Trial
from sim.study.kinds import kind_of_plan
from sim.study.plan.together import Part
from sim.study.slower import slower, step_error
from sim.study.within import Within
from sim.units import show_number

if TYPE_CHECKING:
    from sim.config.scenario import Scenario
    from sim.document import Json

METRICS: Final = {"ttft_p50_s": "ttft_s.p50", "ttft_p99_s": "ttft_s.p99", "tpot_p50_s": "tpot_s.p50", "tpot_p99_s": "tpot_s.p99"}
"""Figure of a finalist → figure of a run."""
_STEP: Final = 0.1  # of the size, or one


@dataclass(frozen=True)
class ModelBand:
    """Fewest units that hold with steps as short (``low``) and as long (``high``) as measured deployments had them, and their cost an hour.

    ``high`` None: not even twice as many hold. ``step_time``: the two factors; ``level``: share of the ``deployments`` on record, of what ``words``.
    """

    low: int
    high: int | None
    step_time: tuple[float, float]
    deployments: int
    words: str
    level: float = model_error.LEVEL
    cost_low: float | None = None
    cost_high: float | None = None


def figures(scenario: Scenario, values: Mapping[str, tuple[float, float, float]]) -> dict[str, Within]:
    """Figure → where 4 of 5 real deployments like the scenario's (its first pool's) would be; without what nothing is known of."""
    first = plan(scenario)[0]
    kind = kind_of_plan(first)
    out: dict[str, Within] = {}
    for name, metric in METRICS.items():
        found = model_error.known(kind, model_error.METRICS[metric], first.profile.band)
        if name in values and found is not None:
            mean = values[name][0]
            out[name] = Within(mean * found.low, mean * found.high, model_error.LEVEL, found.deployments, found.words)
    return out


def band(scenario: Scenario, rate: float, size: int, required: float, settings: Mapping[str, Json]) -> Part[ModelBand | None]:
    """Of a scenario that holds with ``size`` units at ``rate``; None where no deployment is on record. One run at each size that is tried."""
    error = step_error(plan(scenario)[:1])
    if error is None:
        return None
    ends: list[tuple[int | None, float | None]] = []
    for factor in (error.low, error.high):
        ends.append(
            (
                yield from _fewest(
                    slower(scenario, factor),
                    rate * factor,
                    size,
                    required,
                    dict(settings) | {"stage": f"step_time ×{show_number(factor)}"},
                )
            )
        )
    low, high = ends[0][0] or size, ends[1][0]
    at_least, at_most = min(low, size), None if high is None else max(high, size)  # one run may want less than several
    cost_low, cost_high = _of(ends[0][1], low, at_least), _of(ends[1][1], high, at_most)
    return ModelBand(
        at_least, at_most, (error.low, error.high), error.deployments, error.words, cost_low=cost_low, cost_high=cost_high
    )


def _of(cost: float | None, units: int | None, others: int | None) -> float | None:
    """What so many other units cost."""
    return cost if cost is None or units == others or not units or not others else cost / units * others


def _fewest(
    scenario: Scenario, rate: float, size: int, required: float, settings: Mapping[str, Json]
) -> Part[tuple[int | None, float | None]]:
    """(units, cost an hour) of the fewest that hold: down from ``size`` while it holds, else up to twice as many."""
    held: tuple[int | None, float | None] = (None, None)
    down = True
    for n in (size, *_down(size)):
        now = yield from _try(scenario, rate, n, required, settings)
        if now is None:
            down = n != size
            break
        held = (n, now[0])
    if down:
        return held
    for n in _up(size):
        now = yield from _try(scenario, rate, n, required, settings)
        if now is not None:
            return n, now[0]
    return None, None


def _try(
    scenario: Scenario, rate: float, n: int, required: float, settings: Mapping[str, Json]
) -> Part[tuple[float | None] | None]:
    """(cost an hour,) where ``n`` units hold."""
    (outcome,) = yield [Trial(scenario, settings, {"units": n, "rate": rate})]
    if float(outcome.figures.slo.effective or 0.0) < required:
        return None
    return (number_at(outcome.value(), "economics.per_hour"),)


def _down(size: int) -> Iterator[int]:
    while size > 1:
        size -= max(1, round(size * _STEP))
        yield size


def _up(size: int) -> Iterator[int]:
    most = 2 * size
    while size < most:
        size = min(size + max(1, round(size * _STEP)), most)
        yield size
