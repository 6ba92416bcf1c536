"""Calibration: the few numbers that are a user's own (host overheads, efficiency of kernels), fitted to measured operating points.

Every engine version line on every accelerator gets a set of figures, none a point or a model of its own (`sim.study.fitting`). A figure is
called fitted only where something measured depends on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import yaml
from pydantic import TypeAdapter

from sim import output
from sim.errors import ConfigError, DataError, did_you_mean
from sim.hardware import load_accelerator
from sim.metrics import model_error
from sim.places import expanded
from sim.study.accuracy import AccuracyReport, Outcome, Point, title
from sim.study.accuracy.deploy import Overrides, profile_of
from sim.study.accuracy.report import kind_at
from sim.study.accuracy.work import plain
from sim.study.fitting import FIGURES, WEIGHTS, Key, Problem

if TYPE_CHECKING:
    from sim.config.scenario import Scenario
    from sim.document import Json
    from sim.study import driver
    from sim.study.base import Progress


class Band(NamedTuple):
    """The interval of measured / predicted of one metric: from the record of other deployments (None: it has none), and from one's own points,
    each predicted by a fit that did not see it; how many of those lie in the band of all others (None: too few to say), and how many there are.
    """

    before: tuple[float, float] | None
    after: tuple[float, float]
    inside: float | None
    points: int


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
    bands: Mapping[str, Band] = field(default_factory=dict)
    unmoved: tuple[str, ...] = ()
    """Figures that were asked for, and on which nothing that was measured depends: they stay as they are."""


@dataclass(frozen=True)
class Calibration:
    """All fits, and the error tables over all points before and after."""

    fits: tuple[Fit, ...]
    before: AccuracyReport
    after: AccuracyReport
    notes: tuple[str, ...] = field(default=())
    wanted: str | None = None
    """Where the profile is to be written besides the folder of the study, and of which ``engine``."""
    engine: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def verdict(self) -> bool | None:
        """Whether the fit brings the median of the errors it minimises down; None where nothing was fitted."""
        changes = [f.after[m] - f.before[m] for f in self.fits for m in f.before]
        return sum(changes) <= 0.0 if changes else None

    def sentence(self) -> str:
        """What was fitted, and how far predictions are off before and after."""
        told = [f"{f.engine} {f.line} on {f.accelerator} ({f.points} points): {_moves(f)}" for f in self.fits]
        return f"Fitted {'; '.join(told)}." if told else "Nothing was fitted."

    def as_dict(self) -> dict[str, Json]:
        """Ready for JSON."""
        return {
            "format": "servesim-calibration/1",
            "sentence": self.sentence(),
            "fits": [asdict(f) for f in self.fits],
            "before": [r.as_dict() for r in self.before.rows()],
            "after": [r.as_dict() for r in self.after.rows()],
            "not_simulated": [{"engine": e, "reason": r, "points": n} for e, r, n in self.before.reasons()],
            "warnings": list(self.warnings),
        }

    @property
    def overrides(self) -> Overrides:
        """For `accuracy`."""
        return {(f.engine, f.line, f.accelerator): f.figures for f in self.fits}

    @property
    def engines(self) -> list[str]:
        """Those whose profiles were fitted."""
        return sorted({f.engine for f in self.fits})

    def save(self, path: str | Path, engine: str | None = None) -> Path:
        """Write a profile that ``deployment.profile`` can name. Raises `ConfigError` where fits of several engines need a choice."""
        if engine is None:
            engine = self.engines[0] if len(self.engines) == 1 else self.engine
        if engine not in self.engines:
            raise ConfigError(
                "--engine", engine, "choose the engine whose profile is written", ", ".join(self.engines) or "none was fitted"
            )
        target = Path(path)
        check_profile(path)
        own = expanded(engine)
        if own.suffix in (".yaml", ".yml") and own.resolve() == target.resolve():
            raise ConfigError("--profile", str(path), "is the profile that the fit started from: choose another file")
        text = self.text(engine)
        try:
            output.write_file(target, lambda to: _write(to, text), "--profile")
        except OSError as error:
            raise DataError(str(target), f"cannot be written: {error.strerror or error}") from None
        return target

    def text(self, engine: str) -> str:
        """The profile of an engine, as YAML."""
        own = expanded(engine)
        base = str(own.resolve()) if own.suffix in (".yaml", ".yml") else engine
        lines: dict[str, dict[str, dict[str, Json]]] = {}  # line → accelerator → figures
        for f in (f for f in self.fits if f.engine == engine):
            source = f"servesim calibrate: {f.points} operating points"
            entry = lines.setdefault(f.line, {}).setdefault(f.accelerator, {})
            for name, value in f.figures.items():
                entry[name] = {"value": float(f"{value:.4g}"), "source": source, "evidence": "fitted"}
            if f.bands:
                entry["band"] = {
                    m: [float(f"{b.after[0]:.4g}"), float(f"{b.after[1]:.4g}"), b.points] for m, b in f.bands.items()
                }
        name = f"{own.stem if base != engine else engine}, calibrated"
        return str(
            yaml.safe_dump(
                {"title": name, "base": base, "lines": [{"from": k, "accelerators": v} for k, v in lines.items()]},
                sort_keys=False,
            )
        )


def check_profile(path: str | Path) -> None:
    """Raise `ConfigError` for what is no name of a profile."""
    if Path(path).suffix not in (".yaml", ".yml"):
        raise ConfigError("--profile", str(path), "must be a YAML file", "*.yaml")


def _moves(f: Fit) -> str:
    return ", ".join(f"{title(m)} off by {100 * f.before[m]:.1f} → {100 * f.after[m]:.1f} %" for m in f.before)


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


DEFAULT: Final = ("gemm_scale", "attention_scale", "overlap_gap", "host_step", "sampler_row", "client_request")
"""Figures that are fitted where nobody says which."""


def calibrate(
    paths: Iterable[str | Path],
    *,
    figures: Sequence[str] = DEFAULT,
    scenario: Scenario | None = None,
    seed: int = 0,
    progress: driver.Progress | None = None,
    out: str | Path | None = None,
    jobs: int | None = None,
    cluster: str | None = None,
    fresh: bool = False,
    **choose: object,
) -> Calibration:
    """Fit ``figures`` (names of `FIGURES`) for every engine line and accelerator among the points; ``choose`` as in `accuracy`.

    ``progress``, ``out``, ``jobs``, ``cluster``, ``fresh`` are those of `sim.study.driver.run_study`. Raises `ConfigError` for an unknown figure, or when no
    point can be simulated.
    """
    from sim.study.driver import run_study
    from sim.study.questions.calibrate import Calibrate

    params = Calibrate.Params(
        paths=tuple(str(p) for p in paths), figures=tuple(figures), seed=seed, **{_SPELT.get(k, k): v for k, v in choose.items()}
    )
    study = Calibrate([] if scenario is None else [scenario], params)
    return cast(Calibration, run_study(study, out=out, jobs=jobs, cluster=cluster, fresh=fresh, progress=progress))


_SPELT: Final = {"qualities": "quality"}


def check_figures(figures: Sequence[str]) -> None:
    """Raise `ConfigError` for a figure that cannot be calibrated."""
    for name in figures:
        if name not in FIGURES:
            raise ConfigError("figures", name, "cannot be calibrated", ", ".join(FIGURES), did_you_mean(name, FIGURES))


def grouped(report: AccuracyReport, paths: Sequence[str]) -> dict[Key, list[Point]]:
    """What is fitted together: points of one line on one accelerator. Raises `ConfigError` where nothing can be."""
    groups: dict[Key, list[Point]] = {}
    for o in report.simulated:
        if any(m in WEIGHTS for m in o.predicted):
            profile = profile_of(o.point)
            groups.setdefault((profile.engine, profile.line, load_accelerator(o.point.accelerator).name), []).append(o.point)
    if not groups:
        reasons = "; ".join(f"{reason} ({n})" for _, reason, n in report.reasons()[:3])
        why = f": {reasons}" if reasons else ""
        raise ConfigError("paths", list(paths), f"no point could be simulated, so there is nothing to fit{why}")
    return groups


def useful(fits: Sequence[Fit], figures: Sequence[str]) -> None:
    """Raise `ConfigError` where nothing that was measured tells of any figure."""
    if not any(f.figures for f in fits):
        raise ConfigError("figures", list(figures), "nothing in these files depends on any figure", ", ".join(FIGURES))


@dataclass(frozen=True)
class Fitting:
    """One fit as the work of a trial."""

    key: Key
    points: tuple[Point, ...]
    figures: tuple[str, ...]
    seed: int = 0

    def identity(self) -> Json:
        """See `Work`."""
        return {"key": self.key, "points": [plain(p) for p in self.points], "figures": self.figures, "seed": self.seed}

    def perform(self, progress: Progress | None) -> Mapping[str, Json]:
        """The fields of the `Fit`."""
        return asdict(fit(self.key, self.points, self.figures, self.seed))


def fit_of(data: Mapping[str, object]) -> Fit:
    """The fit that `Fitting.perform` gave."""
    return TypeAdapter(Fit).validate_python(data)


def fit(key: Key, points: Sequence[Point], figures: Sequence[str], seed: int = 0) -> Fit:
    """Fit one line on one accelerator."""
    found = Problem(key, points, figures, profile_of(points[0]), seed).fit()
    bands = bands_of(points[0], found.left)
    return Fit(*key, len(points), found.figures, found.before, found.after, found.held_out, found.folds, bands, found.unmoved)


def bands_of(point: Point, left: Mapping[str, Sequence[float]]) -> dict[str, Band]:
    """The bands of metrics that runs print one of; ``left``: logarithms of measured / predicted that remain."""
    kind = kind_at(point)
    out = {}
    for metric in dict.fromkeys(model_error.METRICS.values()):
        after = model_error.band(left.get(metric, ()))
        if after is None:
            continue
        known = model_error.interval(model_error.record(), kind, metric)
        before = None if known is None else (known.low, known.high)
        out[metric] = Band(before, after, model_error.inside_of_others(left[metric]), len(left[metric]))
    return out


__all__ = ["FIGURES", "Calibration", "Fit", "Outcome", "calibrate", "fit"]
