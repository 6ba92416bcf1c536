"""The difference of two deployments under the same random numbers: its interval, its size, and the verdict in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtr

from sim.study.statistics.interval import Interval
from sim.study.statistics.replications import replicated
from sim.units import show_number

if TYPE_CHECKING:
    from sim.document import Json

_FOLD = 3.0  # from here on a ratio says more than percent
SAME = 0.005
"""A relative difference below this is called none, where the interval is that sharp."""


@dataclass(frozen=True)
class Difference:
    """``change``: of the second against the first, as it is measured; ``relative``: as a share of the first's mean.

    ``effect``: Cohen's d of the pairs: mean difference over its standard deviation. ``p``: two-sided, of no difference, by the paired
    t-test (1 where there is nothing to test); ``holm``: adjusted for all comparisons made together.
    """

    change: Interval
    relative: Interval
    effect: float
    p: float
    holm: float | None = None

    @property
    def significant(self) -> bool:
        """Whether a difference is shown, all comparisons of the study considered."""
        return (self.p if self.holm is None else self.holm) <= 1.0 - self.change.level

    def verdict(self, what: str, *, points: bool = False) -> str:
        """``lowers p99 TTFT by 18 % ± 3 %``; ``points``: a share, whose change is told in percentage points."""
        share, half = self.relative.value, self.relative.half
        if points:
            size, reach = (show_number(round(100 * abs(v), 4), 2) for v in (self.change.value, self.change.half))
            size += " points"
            near = 100 * (abs(self.change.value) + self.change.half) <= 0.5
        else:
            size, reach = percent(abs(share)), percent(half)
            near = half + abs(share) <= 0.02 or (abs(share) < SAME and half < 2 * SAME)
        if self.significant:
            if not points and share > _FOLD - 1.0:
                low, high = 1.0 + self.relative.low, 1.0 + self.relative.high
                return f"raises {what} to {show_number(share + 1.0)} times ({show_number(low)} to {show_number(high)})"
            return f"{'lowers' if self.change.value < 0 else 'raises'} {what} by {size} ± {reach}"
        if near:
            return f"{what} unchanged (± {reach}{' points' * points})"
        return f"{what} not shown to differ ({'−' if self.change.value < 0 else '+'}{size} ± {reach})"

    def as_dict(self) -> dict[str, Json]:
        """Ready for JSON."""
        return {
            "change": self.change.as_dict(),
            "relative": self.relative.as_dict(),
            "effect": self.effect if abs(self.effect) < inf else None,
            "p": self.p,
            "holm": self.holm,
            "significant": self.significant,
        }


def percent(share: float, *, sign: bool = False) -> str:
    """Two digits, as one would say it."""
    value = 100.0 * share
    places = 0 if abs(value) >= 9.95 else 1 if abs(value) >= 0.095 else 2
    return f"{value:{'+' if sign else ''},.{places}f} %".replace("-", "−")


def paired_difference(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> Difference | None:
    """Of the same repetitions (or the same batches of requests) of two deployments; None for fewer than two pairs.

    The relative change is the mean of the pairs' logarithmic ratios where all are positive, as ratios of latencies are.
    """
    a, b = np.asarray(first, float), np.asarray(second, float)
    if len(a) != len(b):
        raise ValueError("pairs are needed")
    change = replicated(list(b - a), level)
    if change is None:
        return None
    if (a > 0).all() and (b > 0).all():
        log = replicated(list(np.log(b / a)), level)
        assert log is not None
        value, low, high = (float(np.expm1(v)) for v in (log.value, log.low, log.high))
        relative = Interval(value, low, high, level, change.method, change.n)
    else:
        scale = abs(float(a.mean()))
        relative = (
            Interval(change.value / scale, change.low / scale, change.high / scale, level, change.method, change.n)
            if scale > 0
            else Interval(0.0, 0.0, 0.0, level, change.method, change.n)
        )
    d = b - a
    deviation = float(d.std(ddof=1))
    if deviation <= 1e-12 * max(abs(float(a.mean())), abs(float(b.mean())), 1e-300):
        same = abs(change.value) <= 1e-12 * max(abs(float(a.mean())), 1e-300)
        return Difference(change, relative, 0.0 if same else float(np.copysign(inf, change.value)), 1.0 if same else 0.0)
    t = float(d.mean()) / (deviation / sqrt(len(d)))
    return Difference(change, relative, float(d.mean()) / deviation, float(2.0 * stdtr(len(d) - 1, -abs(t))))
