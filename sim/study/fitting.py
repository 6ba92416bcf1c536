"""Least squares behind `sim.study.calibrate`: figures of one version line on one accelerator against everything that was measured there.

A figure moves by a factor from the profile's value (one that is zero grows from zero). Residuals are logarithms of predicted / measured over
the error that is expected of the model; a prior keeps a figure where it is unless the measurements say otherwise. Both count linearly, not
squared, beyond two standard deviations (``soft_l1``), so that outliers do not pull and a figure may go as far as the data say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from sim.cost.profile import EngineProfile
from sim.study.accuracy import Point
from sim.study.accuracy.deploy import Overrides, planned
from sim.study.accuracy.errors import family
from sim.study.accuracy.report import outcome
from sim.study.accuracy.step_log import Kinds, kinds, step_seconds

Floats = NDArray[np.float64]
Key = tuple[str, str, str]
Label = tuple[str, Point]

FIGURES: Final[Mapping[str, float]] = {
    "gemm_scale": 0.2, "attention_scale": 0.3, "comms_scale": 0.4, "host_step": 0.5, "overlap_gap": 0.7, "host_row": 0.7,
    "sampler_row": 0.7, "mixed_factor": 0.3, "eager_layer": 0.4, "eager_expert_layer": 0.5, "client_request": 0.7,
    "expert_token": 0.7, "overlap_gap_ranks": 0.7, "expert_scale": 0.4, "recurrent_layer": 0.5,
}  # fmt: skip
"""What may be fitted, and how far (standard deviation of the logarithm) it may be expected to be from the profile's value."""

WEIGHTS: Final[Mapping[str, float]] = {
    "tpot_s.mean": 0.05, "e2e_s.mean": 0.05, "output_tokens_per_s": 0.05, "step_s.decode": 0.05, "step_s.prefill": 0.12, "ttft_s.mean": 0.12,
}  # fmt: skip
"""Metrics that are fitted, and the error expected of a well calibrated model in each."""

_UNIT: Final[Mapping[str, float]] = {
    "host_step": 1e-3, "overlap_gap": 1e-4, "host_row": 1e-5, "sampler_row": 1e-5, "eager_layer": 1e-4, "eager_expert_layer": 1e-4,
    "client_request": 1e-3, "expert_token": 1e-8, "overlap_gap_ranks": 1e-4, "recurrent_layer": 1e-4,
}  # fmt: skip
_MOST = 36  # operating points that are simulated in a fit
_DELTA, _FACTOR = 0.1, 1e4  # step of the numerical derivative; a figure moves at most by this factor
_INSIDE = 0.1  # standard deviations by which a search begins within its bounds
_SCALE = 2.0  # standard deviations within which a residual counts squared
_WORTH = 200  # figures of operating points that all logged steps together weigh at most
_LOST = 20.0  # residual of a point that the simulation refuses under the figures tried
_FAR = 0.3  # median error beyond which the start is looked for in powers of ten
_BLIND = 0.95  # a figure whose uncertainty the data narrow by less than 5 % is not fitted


@dataclass(frozen=True)
class Found:
    """Figures fitted, those on which nothing depends, errors by metric before, after and cross-validated, and what was left out for that."""

    figures: dict[str, float]
    unmoved: tuple[str, ...]
    before: dict[str, float]
    after: dict[str, float]
    held_out: dict[str, float]
    folds: str
    left: dict[str, tuple[float, ...]]
    """Logarithms of measured / predicted of operating points that the fit did not see, by metric."""


class Problem:
    """Residuals of ``points`` (operating points and step logs) as a function of the logarithms of ``names``."""

    def __init__(self, key: Key, points: Sequence[Point], names: Sequence[str], profile: EngineProfile, seed: int = 0) -> None:
        self.key, self.names, self.seed = key, list(names), seed
        loads = [p for p in points if p.traffic["kind"] != "steps"]
        self.loads = loads if len(loads) <= _MOST else [loads[int(i)] for i in np.linspace(0, len(loads) - 1, _MOST)]
        self.logged = [p for p in points if p.traffic["kind"] == "steps"]
        self.steps: Kinds | None = None
        if self.logged:
            self.steps = kinds([log for p in self.logged for log in p.logs])
        self.start = {name: float(getattr(profile, name)) for name in names}
        self.prior = np.array([FIGURES[name] for name in names])
        top = np.log(_FACTOR)
        lowest = {
            "client_request": profile.client_serial
        }  # a request is never in the queue of the API server longer than outside the engine
        self.low = np.array(
            [
                max(-top, np.log(lowest[n] / self.start[n]) if lowest.get(n) and self.start[n] else -top)
                if self.start[n]
                else 0.0
                for n in names
            ]
        )
        self.high = np.full(len(names), top)
        self.labels: list[Label] = []
        self.weights: Floats = np.zeros(0)

    def figures(self, x: Floats) -> dict[str, float]:
        """The values that ``x`` stands for."""
        return {
            n: self.start[n] * float(np.exp(v)) if self.start[n] else _UNIT.get(n, 1.0) * float(np.expm1(v))
            for n, v in zip(self.names, x, strict=True)
        }

    def residuals(self, x: Floats, steps_only: bool = False) -> Floats:
        """One row a fitted metric of a point, one a kind of logged steps; the same rows whatever ``x``."""
        override: Overrides = {self.key: self.figures(x)}
        labels: list[Label] = []
        weights: list[float] = []
        logs: list[float] = []
        for point in () if steps_only else self.loads:
            predicted = outcome(point, override, self.seed).predicted
            for metric, weight in WEIGHTS.items():
                measured = point.measured.get(metric, 0.0)
                if measured > 0:
                    labels.append((metric, point))
                    weights.append(weight)
                    value = predicted.get(metric, 0.0)
                    logs.append(np.log(value / measured) if value > 0 else _LOST * weight)
        if self.steps is not None:
            seconds = step_seconds(planned(self.logged[0], override), self.steps)
            logs += np.log(seconds / self.steps.seconds).tolist()
            labels += [("step_s.prefill" if p else "step_s.decode", self.logged[0]) for p in self.steps.prompt]
            expected = np.where(self.steps.prompt, WEIGHTS["step_s.prefill"], WEIGHTS["step_s.decode"])
            errors = np.sqrt(expected**2 + self.steps.spread**2 / self.steps.count)
            weights += (errors * max(1.0, float(np.sum((expected / errors) ** 2)) / _WORTH) ** 0.5).tolist()
        self.labels, self.weights = labels, np.array(weights)
        return np.array(logs) / self.weights

    def far(self, x: Floats, steps_only: bool = False) -> Floats:
        """A better start among powers of ten. Beside a large figure the slope of a small one says nothing of what it would be worth."""
        best, least = x, self.loss(x, steps_only)
        for j in (i for i, n in enumerate(self.names) if n in _UNIT):
            for power in np.arange(0.0, 4.1, 0.5):
                trial = best.copy()
                trial[j] = np.clip(power * np.log(10.0), self.low[j], self.high[j])
                loss = self.loss(trial, steps_only)
                if loss < least:
                    best, least = trial, loss
        return best

    def loss(self, x: Floats, steps_only: bool = False) -> float:
        """What `solve` makes small."""
        rows = np.concatenate([self.residuals(x, steps_only), x / self.prior]) / _SCALE
        return float(np.sum(np.sqrt(1.0 + rows**2) - 1.0))

    def solve(self, x: Floats, evaluations: int, steps_only: bool = False) -> Floats:
        """The best figures from ``x`` on."""
        return _minimise(
            lambda v: self.residuals(v, steps_only), x, self.low, self.high, self.prior, evaluations, _slopes(self, steps_only)
        )

    def fit(self) -> Found:
        """Fit, and say what the data could not tell."""
        x = np.clip(np.zeros(len(self.names)), self.low, self.high)
        first = self.residuals(x)
        before = medians(first, self.labels, self.weights)
        if self.steps is not None:  # cheap: no simulation
            for _ in range(2):
                x = self.solve(self.far(x, steps_only=True), 40, steps_only=True)
        elif max(before.values(), default=0.0) > _FAR or not all(self.start.values()):
            for _ in range(2):
                x = self.solve(self.far(x), 8)
        if self.loads:
            x = self.solve(x, 8)
        slope = _slopes(self)(x)
        blind = _blind(slope, self.prior)
        x = np.where(blind, np.clip(0.0, self.low, self.high), x)
        best = self.residuals(x)
        held, folds = _cross_validated(best, slope, x, self)
        return Found(
            {n: v for (n, v), b in zip(self.figures(x).items(), blind, strict=True) if not b},
            tuple(n for n, b in zip(self.names, blind, strict=True) if b),
            before,
            medians(best, self.labels, self.weights),
            medians(held, self.labels, self.weights),
            folds,
            _logs(held, self.labels, self.weights),
        )


def _slopes(problem: Problem, steps_only: bool = False) -> Callable[[Floats], Floats]:
    """Numerical derivatives, with steps wide enough for a simulation that counts whole steps."""

    def slopes(x: Floats) -> Floats:
        here = problem.residuals(x, steps_only)
        out = np.zeros((len(here), len(x)))
        for j in range(len(x)):
            moved = x.copy()
            moved[j] += _DELTA if x[j] + _DELTA <= problem.high[j] else -_DELTA
            out[:, j] = (problem.residuals(moved, steps_only) - here) / (moved[j] - x[j])
        return out

    return slopes


def _minimise(
    residuals: Callable[[Floats], Floats],
    x: Floats,
    low: Floats,
    high: Floats,
    prior: Floats,
    evaluations: int,
    slopes: Callable[[Floats], Floats],
) -> Floats:
    # the first step is as long as the start is far from zero and from its bounds: from a figure that lies on one, nothing would ever move
    room = np.minimum(_INSIDE * prior, (high - low) / 2.0)
    found = least_squares(
        lambda v: np.concatenate([residuals(v), v / prior]),
        np.clip(x, low + room, high - room),
        jac=lambda v: np.vstack([slopes(v), np.diag(1.0 / prior)]),
        bounds=(low, high),
        loss="soft_l1",
        f_scale=_SCALE,
        max_nfev=evaluations,
        xtol=1e-3,
        ftol=1e-3,
    )
    out: Floats = found.x
    return out


def _blind(slope: Floats, prior: Floats) -> NDArray[np.bool_]:
    """Which figures the data leave as uncertain as they were."""
    moves = np.abs(slope).max(axis=0) * prior > 1e-3
    precision = np.square(slope).sum(axis=0) + 1.0 / prior**2
    return np.asarray(~moves | (1.0 / np.sqrt(precision) > _BLIND * prior))


def _cross_validated(residual: Floats, slope: Floats, x: Floats, problem: Problem) -> tuple[Floats, str]:
    """Residuals of points that a fit without them predicts (linearised around the fit): one model left out, or one deployment."""
    labels = problem.labels
    folds, what = [family(p.model) + p.weights for _, p in labels], "model"
    if len(set(folds)) < 2:
        folds, what = [p.deployment for _, p in labels], "deployment"
    if len(set(folds)) < 2:
        folds, what = [p.id for _, p in labels], "point"
    out = residual.copy()
    for name in set(folds):
        mine = np.array([f == name for f in folds])

        moved = _without(~mine, residual, slope, x, problem)
        out[mine] += slope[mine] @ (moved - x)
    return out, what


def _without(rest: NDArray[np.bool_], residual: Floats, slope: Floats, x: Floats, problem: Problem) -> Floats:
    """The fit to the rows ``rest`` of the linearised problem."""

    def linear(v: Floats) -> Floats:
        return np.asarray(residual[rest] + slope[rest] @ (v - x))

    return _minimise(linear, x, problem.low, problem.high, problem.prior, 40, lambda _: slope[rest])


def _logs(residual: Floats, labels: Sequence[Label], weights: Floats) -> dict[str, tuple[float, ...]]:
    """Of operating points, not of logged steps."""
    out: dict[str, list[float]] = {}
    for (metric, point), r, w in zip(labels, residual.tolist(), weights.tolist(), strict=True):
        if point.traffic["kind"] != "steps" and not metric.startswith("step_s"):
            out.setdefault(metric, []).append(-r * w)
    return {metric: tuple(logs) for metric, logs in out.items()}


def medians(residual: Floats, labels: Sequence[Label], weights: Floats) -> dict[str, float]:
    """Median absolute relative error by metric."""
    out = {}
    for metric in dict.fromkeys(m for m, _ in labels):
        mine = np.array([m == metric for m, _ in labels])
        out[metric] = float(np.median(np.abs(np.exp(residual[mine] * weights[mine]) - 1.0)))
    return out
