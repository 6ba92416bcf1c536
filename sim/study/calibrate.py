"""Calibration: the few numbers that are a user's own (host overheads, efficiency of kernels), fitted to measured operating points.

Every engine version line on every accelerator gets a set of figures, none a point or a model of its own (`sim.study.fitting`). A figure is
called fitted only where something measured depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sim import output
from sim.errors import ConfigError, DataError, did_you_mean
from sim.hardware import load_accelerator
from sim.study.accuracy import AccuracyReport, Outcome, Point, accuracy
from sim.study.accuracy.deploy import Overrides, profile_of
from sim.study.accuracy.report import outcome
from sim.study.fitting import FIGURES, WEIGHTS, Key, Problem

Progress = Callable[[int, int | None], Any]


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
    unmoved: tuple[str, ...] = ()
    """Figures that were asked for, and on which nothing that was measured depends: they stay as they are."""


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
        target = Path(path)
        if target.suffix not in (".yaml", ".yml"):
            raise ConfigError("--out", str(path), "must be a YAML file", "*.yaml")
        base, own = engine, Path(engine).expanduser()
        if own.suffix in (".yaml", ".yml"):
            if own.resolve() == target.resolve():
                raise ConfigError("--out", str(path), "is the profile that the fit started from: choose another file")
            base = str(own.resolve())
        lines: dict[str, dict[str, Any]] = {}
        for f in (f for f in self.fits if f.engine == engine):
            source = f"servesim calibrate: {f.points} operating points"
            entry = lines.setdefault(f.line, {"from": f.line, "accelerators": {}})
            entry["accelerators"][f.accelerator] = {
                name: {"value": float(f"{value:.4g}"), "source": source, "evidence": "fitted"}
                for name, value in f.figures.items()
            }
        title = f"{own.stem if base != engine else engine}, calibrated"
        text = yaml.safe_dump({"title": title, "base": base, "lines": list(lines.values())}, sort_keys=False)
        try:
            output.write_file(target, lambda to: _write(to, text), "--out")
        except OSError as error:
            raise DataError(str(target), f"cannot be written: {error.strerror or error}") from None
        return target


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


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
    paths = list(paths)
    before = accuracy(paths, scenario=scenario, seed=seed, **choose)
    groups: dict[Key, list[Point]] = {}
    for o in before.simulated:
        if any(m in WEIGHTS for m in o.predicted):
            profile = profile_of(o.point)
            groups.setdefault((profile.engine, profile.line, load_accelerator(o.point.accelerator).name), []).append(o.point)
    if not groups:
        reasons = "; ".join(f"{reason} ({n})" for _, reason, n in before.reasons()[:3])
        why = f": {reasons}" if reasons else ""
        raise ConfigError("paths", [str(p) for p in paths], f"no point could be simulated, so there is nothing to fit{why}")
    fits = []
    for i, (key, points) in enumerate(groups.items()):
        fits.append(fit(key, points, figures, seed))
        if progress and progress(i + 1, len(groups)):
            break
    if not any(f.figures for f in fits):
        raise ConfigError("figures", list(figures), "nothing in these files depends on any figure", ", ".join(FIGURES))
    done = Calibration(tuple(fits), before, before)
    after = tuple(o if o.reason else outcome(o.point, done.overrides, seed) for o in before.outcomes)
    return Calibration(done.fits, before, AccuracyReport(after, before.skipped))


def fit(key: Key, points: Sequence[Point], figures: Sequence[str], seed: int = 0) -> Fit:
    """Fit one line on one accelerator."""
    found = Problem(key, points, figures, profile_of(points[0]), seed).fit()
    return Fit(*key, len(points), found.figures, found.before, found.after, found.held_out, found.folds, found.unmoved)


__all__ = ["FIGURES", "Calibration", "Fit", "Outcome", "calibrate", "fit"]
