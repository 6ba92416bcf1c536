"""Calibration: the few numbers that are a user's own (host overheads, efficiency of kernels), fitted to measured operating points.

Every engine version line on every accelerator gets a set of figures, none a point or a model of its own. A figure moves by a factor from
the profile's value, with a prior that keeps it there unless the measurements say otherwise (least squares on logarithms of
predicted / measured, robust against outliers, Gauss-Newton with numerical derivatives).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from sim.errors import ConfigError, DataError, did_you_mean
from sim.hardware import load_accelerator
from sim.study.accuracy import AccuracyReport, Outcome, Point, accuracy
from sim.study.accuracy.deploy import Overrides, profile_of
from sim.study.accuracy.errors import family
from sim.study.accuracy.report import outcome

Key = tuple[str, str, str]
Progress = Callable[[int, int | None], Any]

FIGURES: Final[Mapping[str, float]] = {
    "gemm_scale": 0.2, "attention_scale": 0.3, "comms_scale": 0.4, "host_step": 0.5, "overlap_gap": 0.7, "host_row": 0.7,
    "sampler_row": 0.7, "mixed_factor": 0.3, "eager_layer": 0.4, "eager_expert_layer": 0.5, "client_request": 0.7,
    "expert_token": 0.7, "overlap_gap_ranks": 0.7,
}  # fmt: skip
"""What may be fitted, and how far (standard deviation of the logarithm) it may be expected to be from the profile's value."""

_WEIGHTS: Final[Mapping[str, float]] = {
    "tpot_s.mean": 0.05, "e2e_s.mean": 0.05, "output_tokens_per_s": 0.05, "step_s.decode": 0.05, "ttft_s.mean": 0.12, "step_s.prefill": 0.12,
}  # fmt: skip
_STEP, _ROUNDS, _MOST = 0.15, 3, 36
_HUBER = 2.0


@dataclass(frozen=True)
class Fit:
    """One line on one accelerator: ``figures`` found, errors of the metrics ``before`` and ``after``, and ``held_out`` (cross-validated)."""

    engine: str
    line: str
    accelerator: str
    points: int
    figures: Mapping[str, float]
    before: Mapping[str, float]
    after: Mapping[str, float]
    held_out: Mapping[str, float]
    folds: str


@dataclass(frozen=True)
class Calibration:
    """All fits, and the error tables over all points before and after."""

    fits: tuple[Fit, ...]
    before: AccuracyReport
    after: AccuracyReport
    notes: tuple[str, ...] = field(default=())

    @property
    def overrides(self) -> Overrides:
        """For `accuracy`."""
        return {(f.engine, f.line, f.accelerator): f.figures for f in self.fits}

    def save(self, path: str | Path, engine: str | None = None) -> Path:
        """Write a profile that ``deployment.profile`` can name. Raises `ConfigError` where fits of several engines need a choice."""
        engines = sorted({f.engine for f in self.fits})
        if engine is None and len(engines) == 1:
            engine = engines[0]
        if engine not in engines:
            raise ConfigError(
                "--engine", engine, "choose the engine whose profile is written", ", ".join(engines) or "none was fitted"
            )
        lines: dict[str, dict[str, Any]] = {}
        for f in (f for f in self.fits if f.engine == engine):
            source = f"servesim calibrate: {f.points} operating points"
            entry = lines.setdefault(f.line, {"from": f.line, "accelerators": {}})
            entry["accelerators"][f.accelerator] = {
                name: {"value": float(f"{value:.4g}"), "source": source, "evidence": "fitted"}
                for name, value in f.figures.items()
            }
        target = Path(path)
        if target.suffix not in (".yaml", ".yml"):
            raise ConfigError("--out", str(path), "must be a YAML file", "*.yaml")
        text = yaml.safe_dump({"title": f"{engine}, calibrated", "base": engine, "lines": list(lines.values())}, sort_keys=False)
        try:
            target.write_text(text, encoding="utf-8")
        except OSError as error:
            raise DataError(str(target), f"cannot be written: {error.strerror or error}") from None
        return target


def calibrate(
    paths: Iterable[str | Path],
    *,
    figures: Sequence[str] = ("gemm_scale", "attention_scale", "overlap_gap", "host_step", "sampler_row", "client_request"),
    scenario: Any = None,
    seed: int = 0,
    progress: Progress | None = None,
    **choose: Any,
) -> Calibration:
    """Fit ``figures`` (names of `FIGURES`) for every engine line and accelerator among the points; ``choose`` as in `accuracy`.

    Raises `ConfigError` for an unknown figure, or when no point can be simulated.
    """
    for name in figures:
        if name not in FIGURES:
            raise ConfigError("figures", name, "cannot be calibrated", ", ".join(FIGURES), did_you_mean(name, FIGURES))
    before = accuracy(paths, scenario=scenario, seed=seed, **choose)
    groups: dict[Key, list[Point]] = {}
    for o in before.simulated:
        if any(m in _WEIGHTS for m in o.predicted):
            profile = profile_of(o.point)
            groups.setdefault((profile.engine, profile.line, load_accelerator(o.point.accelerator).name), []).append(o.point)
    if not groups:
        raise ConfigError("paths", [str(p) for p in paths], "no point could be simulated, so there is nothing to fit")
    fits = []
    for i, (key, points) in enumerate(groups.items()):
        fits.append(fit(key, points, figures, seed))
        if progress and progress(i + 1, len(groups)):
            break
    done = Calibration(tuple(fits), before, before)
    after = tuple(o if o.reason else outcome(o.point, done.overrides, seed) for o in before.outcomes)
    return Calibration(done.fits, before, AccuracyReport(after, before.skipped))


def fit(key: Key, points: Sequence[Point], figures: Sequence[str], seed: int = 0) -> Fit:
    """Fit one line on one accelerator."""
    chosen = list(points) if len(points) <= _MOST else [points[int(i)] for i in np.linspace(0, len(points) - 1, _MOST)]
    start = {name: getattr(profile_of(chosen[0]), name) for name in figures}
    names = [name for name in figures if start[name] > 0.0]
    if not names:
        raise ConfigError("figures", list(figures), f"are all zero in line {key[1]} of {key[0]}: there is nothing to scale")
    prior = np.array([FIGURES[name] for name in names])

    def residuals(x: Any) -> tuple[Any, list[tuple[str, Point]]]:
        override = {key: {n: start[n] * float(np.exp(v)) for n, v in zip(names, x, strict=True)}}
        rows, labels = [], []
        for o in (outcome(p, override, seed) for p in chosen):
            for metric, value in o.predicted.items():
                if metric in _WEIGHTS and value > 0 and o.point.measured[metric] > 0:
                    rows.append(np.log(value / o.point.measured[metric]) / _WEIGHTS[metric])
                    labels.append((metric, o.point))
        return np.array(rows), labels

    x = np.zeros(len(names))
    best, labels = residuals(x)
    first, slope = best, np.zeros((len(best), len(names)))
    for _ in range(_ROUNDS):
        for j in range(len(names)):
            moved = x.copy()
            moved[j] += _STEP
            slope[:, j] = (residuals(moved)[0] - best) / _STEP
        trial = _solve(best, slope, x, prior)
        found, _ = residuals(trial)
        if _loss(found, trial, prior) >= _loss(best, x, prior) - 1e-3 * len(best):
            break
        x, best = trial, found
    held, folds = _cross_validated(best, slope, x, prior, labels)
    values = {n: float(start[n] * np.exp(v)) for n, v in zip(names, x, strict=True)}
    return Fit(*key, len(points), values, _medians(first, labels), _medians(best, labels), _medians(held, labels), folds)


def _solve(residual: Any, slope: Any, x: Any, prior: Any, keep: Any = None) -> Any:
    """One Gauss-Newton step with Huber weights and a Gaussian prior around zero, at most half an e-fold a figure."""
    weight = np.minimum(1.0, _HUBER / np.maximum(np.abs(residual), 1e-9))
    if keep is not None:
        weight = weight * keep
    a = slope.T @ (slope * weight[:, None]) + np.diag(1.0 / prior**2)
    b = -slope.T @ (weight * residual) - x / prior**2
    return x + np.clip(np.linalg.solve(a, b), -0.5, 0.5)


def _loss(residual: Any, x: Any, prior: Any) -> float:
    size = np.abs(residual)
    return float(np.where(size < _HUBER, 0.5 * size**2, _HUBER * (size - 0.5 * _HUBER)).sum() + 0.5 * ((x / prior) ** 2).sum())


def _cross_validated(residual: Any, slope: Any, x: Any, prior: Any, labels: Sequence[tuple[str, Point]]) -> tuple[Any, str]:
    """Residuals of points that a fit without them predicts (linearised around the fit): one model left out, or one deployment."""
    folds, what = [family(p.model) + p.weights for _, p in labels], "model"
    if len(set(folds)) < 2:
        folds, what = [p.deployment for _, p in labels], "deployment"
    if len(set(folds)) < 2:
        folds, what = [p.id for _, p in labels], "point"
    out = residual.copy()
    for name in set(folds):
        mine = np.array([f == name for f in folds])
        moved = x
        for _ in range(3):
            moved = _solve(residual + slope @ (moved - x), slope, moved, prior, ~mine)
        out[mine] += slope[mine] @ (moved - x)
    return out, what


def _medians(residual: Any, labels: Sequence[tuple[str, Point]]) -> dict[str, float]:
    """Median absolute relative error by metric."""
    out = {}
    for metric in dict.fromkeys(m for m, _ in labels):
        mine = np.array([m == metric for m, _ in labels])
        out[metric] = float(np.median(np.abs(np.exp(residual[mine] * _WEIGHTS[metric]) - 1.0)))
    return out


__all__ = ["FIGURES", "Calibration", "Fit", "Outcome", "calibrate", "fit"]
