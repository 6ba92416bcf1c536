"""All points of some folders simulated: the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sim.errors import ConfigError, ServesimError, did_you_mean
from sim.hardware import load_accelerator
from sim.metrics import model_error
from sim.model import load_model
from sim.study.accuracy.deploy import Overrides, planned, profile_of
from sim.study.accuracy.errors import STEPS, TARGETS, Outcome, Row, check_group, rows, source, title
from sim.study.accuracy.left_out import without_family, without_layout, without_source
from sim.study.accuracy.point import QUALITIES, Point
from sim.study.accuracy.predict import predict
from sim.study.accuracy.saturation import OF_RATES, Capacity, capacities
from sim.study.kinds import kind_of, kind_of_plan

if TYPE_CHECKING:
    from sim.config.scenario import Scenario
    from sim.document import Json
    from sim.study.driver import Progress


@dataclass(frozen=True)
class AccuracyReport:
    """Predictions beside measurements. ``skipped`` points were left out by the choice of quality and overload."""

    outcomes: tuple[Outcome, ...]
    skipped: int = 0
    unmeasured: tuple[Outcome, ...] = ()
    """The same points as if their accelerators had never been measured; empty where that was not asked for."""
    even: tuple[Outcome, ...] = ()
    """Points with open arrivals at the load, relative to capacity, at which they were measured, and ``overloaded`` ones; see `saturation`."""
    overloaded: tuple[Outcome, ...] = ()
    by: tuple[str, ...] = ("engine",)
    """How errors are grouped where the report is shown, and ``show_worst``, how many of the largest are shown there."""
    show_worst: int = 0
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Option → file, for what is to be written besides the folder of the study."""
    warnings: tuple[str, ...] = ()

    @property
    def answered(self) -> bool:
        """Whether any point could be simulated."""
        return bool(self.simulated)

    @property
    def verdict(self) -> bool | None:
        """Whether every metric that has an aim reaches it; None without any."""
        reached = [ok for _, _, ok in self.targets()]
        return all(reached) if reached else None

    def sentence(self) -> str:
        """How far predictions are off."""
        done, known = len(self.simulated), len(self.outcomes)
        if not done:
            return f"None of {known} operating points could be simulated."
        text = ", ".join(f"{title(r.metric)} {100 * r.median:.1f} %" for r, _, _ in self.targets())
        off = f": the median prediction is off by {text}" if text else ": nothing was measured that has an aim"
        return f"{done} of {known} operating points simulated{off}."

    @property
    def simulated(self) -> list[Outcome]:
        """Points with a prediction."""
        return [o for o in self.outcomes if not o.reason]

    @property
    def refused(self) -> list[Outcome]:
        """Points that could not be simulated."""
        return [o for o in self.outcomes if o.reason]

    def rows(self, by: str | None = None, metrics: Sequence[str] | None = None) -> list[Row]:
        """Error table, see `errors.rows`."""
        if by is not None:
            check_group(by)
        return rows(self.simulated, by, metrics)

    def reasons(self) -> list[tuple[str, str, int]]:
        """(engine, reason, points) of what was not simulated, most first."""
        count = Counter((o.point.engine, o.reason) for o in self.refused)
        return [(engine, reason, n) for (engine, reason), n in count.most_common()]

    def ratios(self) -> list[model_error.Row]:
        """Measured / predicted of every figure that `sim.metrics.model_error` keeps a record of."""
        return _ratios(self.simulated)

    def entries(self) -> list[model_error.Entry]:
        """What the record keeps of these points, and, where accelerators were left out, of the same points without what was measured of them."""
        left_out = [
            (kind._replace(accelerator=model_error.UNMEASURED, kernels="other"), deployment, m, ratio)
            for kind, deployment, m, ratio in _ratios([o for o in self.unmeasured if not o.reason])
        ]
        sources = self.sources()
        return [*model_error.spread(self.ratios(), sources), *model_error.spread(left_out, sources)]

    def sources(self) -> dict[str, str]:
        """Deployment → who measured it."""
        return {o.point.deployment: source(o.point) for o in self.simulated}

    def coverage(self, whole: bool = False) -> dict[str, tuple[float, float, int]]:
        """Of the intervals of model error, one deployment, or the ``whole`` source, left out at a time: see `model_error.coverage`."""
        return model_error.coverage(self.ratios(), self.sources(), whole)

    def left_out(self, metrics: Sequence[str] | None = None) -> list[Row]:
        """Errors with the accelerator, the family of models or the source left out (see `left_out`), beside those of the same points."""
        done = self.simulated
        groups: list[tuple[str, list[Outcome]]] = [
            ("family left out", without_family(done)), ("source left out", without_source(done)), ("layout left out", without_layout(done))
        ]  # fmt: skip
        if self.unmeasured:
            again = [o for o in self.unmeasured if not o.reason]
            ids = {o.point.id for o in again}
            same = [o for o in self.simulated if o.point.id in ids]
            groups = [("these points", same), ("accelerator left out", again), *groups]
        return [replace(r, group=name) for name, found in groups for r in rows(found, None, metrics)]

    def at_equal_load(self, metrics: Sequence[str] | None = None) -> list[Row]:
        """Errors at equal load relative to capacity, beside the plain ones of the same points (see `saturation`)."""
        ids = {o.point.id for o in self.even if not o.reason}
        plain = [o for o in self.simulated if o.point.id in ids]
        groups = (("at equal rates", plain), ("at equal load", [o for o in self.even if not o.reason]))
        told = [(name, r) for name, found in groups if ids for r in rows(found, None, metrics)]
        return [replace(r, group=name) for name, r in told if r.metric not in OF_RATES]

    def capacities(self) -> list[Capacity]:
        """Highest throughput, measured and predicted, where a deployment was saturated (see `saturation`)."""
        return capacities([*self.simulated, *self.overloaded])

    def notes(self) -> list[tuple[str, int]]:
        """(what was assumed or left out in reading results, points) of what was simulated, most first."""
        return Counter(note for o in self.simulated for note in o.point.notes).most_common()

    def worst(self, n: int, metrics: Sequence[str] = tuple(TARGETS)) -> list[tuple[Outcome, str, float]]:
        """The ``n`` largest errors among ``metrics``: (outcome, metric, error)."""
        found = [(o, m, e) for o in self.simulated for m, e in o.errors().items() if m in metrics]
        return sorted(found, key=lambda x: -abs(x[2]))[:n]

    def targets(self) -> list[tuple[Row, float, bool]]:
        """(row, aim, reached) for every metric that has an aim."""
        return [(r, TARGETS[r.metric], r.median <= TARGETS[r.metric]) for r in self.rows() if r.metric in TARGETS]

    def as_dict(self) -> dict[str, Json]:
        """Plain data for a file."""
        return {
            "format": "servesim-accuracy/1",
            "sentence": self.sentence(),
            "points": len(self.outcomes),
            "simulated": len(self.simulated),
            "skipped": self.skipped,
            "errors": [r.as_dict() for r in self.rows()],
            **{
                f"by_{g}": [r.as_dict() for r in self.rows(g)]
                for g in ("engine", "version", "accelerator", "family", "source", "quality")
            },
            "left_out": [r.as_dict() for r in self.left_out((*TARGETS, *STEPS))],
            "equal_load": [r.as_dict() for r in self.at_equal_load(tuple(TARGETS))],
            "capacity": [asdict(c) | {"error": c.error} for c in self.capacities()],
            "notes": [{"note": note, "points": n} for note, n in self.notes()],
            "coverage": _covered(self.coverage()),
            "coverage_of_sources": _covered(self.coverage(whole=True)),
            "not_simulated": [{"engine": e, "reason": r, "points": n} for e, r, n in self.reasons()],
        }

    def table(self) -> Iterator[dict[str, Json]]:
        """One mapping per point and metric, for a CSV file."""
        for o in self.outcomes:
            p = o.point
            head: dict[str, Json] = {
                "id": p.id, "engine": p.engine, "version": p.version, "model": p.model, "weights": p.weights, "accelerator": p.accelerator,
                "tp": p.tp, "pp": p.pp, "dp": p.dp, "ep": p.ep, "traffic": p.traffic["kind"], "quality": p.quality, "overload": p.overload,
            }  # fmt: skip
            errors = o.errors()
            for metric, measured in p.measured.items():
                value = o.predicted.get(metric)
                yield head | {
                    "metric": metric, "measured": measured, "predicted": value, "error": errors.get(metric), "not_simulated": o.reason,
                }  # fmt: skip


def accuracy(
    paths: Iterable[str | Path],
    *,
    engine: str | None = None,
    accelerator: str | None = None,
    model: str | None = None,
    qualities: Sequence[str] = ("good", "fair"),
    overload: bool = False,
    on: Mapping[str, str] | None = None,
    scenario: Scenario | None = None,
    overrides: Overrides | None = None,
    leave_out: bool = False,
    seed: int = 0,
    out: str | Path | None = None,
    jobs: int | None = None,
    cluster: str | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
) -> AccuracyReport:
    """Simulate every operating point under ``paths`` and compare.

    ``on``: part of a deployment's name → accelerator to simulate it on instead of the one that is recorded.
    ``paths``: folders of points (``points.jsonl``), ``vllm bench serve --save-detailed`` JSON, per-request CSV; for the last two ``scenario``
    says what was deployed. ``engine``, ``accelerator``, ``model`` choose points by a part of the name. ``leave_out``: simulate each again as
    if its accelerator had never been measured. ``out``, ``jobs``, ``cluster``, ``fresh``, ``progress``: as in `sim.study.driver.run_study`.
    Raises `DataError` for files that cannot be read; points that cannot be simulated are in the report with the reason.
    """
    from sim.study.driver import run_study
    from sim.study.questions.accuracy import Accuracy

    params = Accuracy.Params(
        paths=tuple(str(p) for p in paths),
        engine=engine,
        accelerator=accelerator,
        model=model,
        quality=tuple(qualities),
        overload=overload,
        on=dict(on or {}),
        leave_out=leave_out,
        seed=seed,
    )
    study = Accuracy([] if scenario is None else [scenario], params, overrides)
    return cast(AccuracyReport, run_study(study, out=out, jobs=jobs, cluster=cluster, fresh=fresh, progress=progress))


def chosen(
    every: Sequence[Point],
    engine: str | None,
    accelerator: str | None,
    model: str | None,
    qualities: Sequence[str],
    overload: bool,
    on: Mapping[str, str],
) -> tuple[list[Point], int]:
    """The points that are wanted, where ``on`` says, and how many quality and overload left out. Raises `ConfigError`."""
    for q in qualities:
        if q not in QUALITIES:
            raise ConfigError("quality", q, "is no quality", ", ".join(QUALITIES), did_you_mean(q, QUALITIES))
    wanted = [p for p in _elsewhere(every, on) if _matches(p, engine, accelerator, model)]
    kept = [p for p in wanted if p.quality in qualities and (overload or not p.overload)]
    return kept, len(wanted) - len(kept)


def outcome(point: Point, overrides: Overrides | None = None, seed: int = 0) -> Outcome:
    """One point simulated, or the reason why not."""
    try:
        predicted = predict(point, overrides, seed)
    except ServesimError as error:
        return Outcome(point, {}, _short(error))
    return Outcome(point, predicted, "" if predicted else "nothing of what was measured is predicted")


def _covered(found: Mapping[str, tuple[float, float, int]]) -> dict[str, Json]:
    return {m: {"inside": c, "half_width": w, "deployments": n} for m, (c, w, n) in found.items()}


def _ratios(outcomes: Iterable[Outcome]) -> list[model_error.Row]:
    wanted = set(model_error.METRICS.values())
    kinds: dict[tuple[object, ...], model_error.Kind] = {}
    return [
        (_kind(o.point, kinds), o.point.deployment, m, o.point.measured[m] / v)
        for o in outcomes
        for m, v in o.predicted.items()
        if m in wanted and v > 0 and o.point.measured.get(m, 0.0) > 0
    ]


def kind_at(p: Point) -> model_error.Kind:
    """What kind of deployment a point belongs to."""
    return _kind(p, {})


def _kind(p: Point, known: dict[tuple[object, ...], model_error.Kind]) -> model_error.Kind:
    """What kind of deployment a point belongs to; ``known`` holds those found so far."""
    load = "burst" if p.traffic["kind"] == "burst" else "steady"
    key = (p.engine, p.version, p.assumed, p.model, p.weights, p.kv_cache, p.accelerator, id(p.scenario), load)
    if key not in known:
        if p.scenario is None:
            model, accelerator = load_model(p.model, p.weights, p.kv_cache), load_accelerator(p.accelerator)
            found = kind_of(p.engine, model, accelerator, profile_of(p))
        else:
            found = kind_of_plan(planned(p))
        known[key] = found._replace(load=load)
    return known[key]


def _elsewhere(points: Sequence[Point], on: Mapping[str, str]) -> list[Point]:
    """The points with the accelerators that the caller knows better."""
    moved = list(points)
    for text, accelerator in on.items():
        load_accelerator(accelerator, "--on")
        if not any(text in p.deployment for p in points):
            raise ConfigError("--on", text, "is in no deployment's name", hint=did_you_mean(text, {p.deployment for p in points}))
        moved = [replace(p, accelerator=accelerator) if text in p.deployment else p for p in moved]
    return moved


def _short(error: ServesimError) -> str:
    text = getattr(error, "problem", "") or str(error)
    field = getattr(error, "field", "") or getattr(error, "source", "")
    value = getattr(error, "value", None)
    shown = f" {value}" if isinstance(value, str | int | float) else ""
    return f"{field}{shown}: {text}"[:200] if field else text[:200]


def _matches(p: Point, engine: str | None, accelerator: str | None, model: str | None) -> bool:
    def part(wanted: str | None, name: str) -> bool:
        return wanted is None or wanted.lower().replace("_", "-") in name.lower().replace("_", "-")

    return (engine is None or p.engine == engine) and part(accelerator, p.accelerator) and part(model, p.model)
