"""Which deployment is better, by how much, and how sure is that? Several scenarios, or one over several settings, under the same traffic.

Every deployment meets the same requests and random numbers in each repetition, so that what differs is the deployment alone; differences
are taken pair by pair. A single repetition (recorded traffic has no other) is compared in twenty stretches of the same requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypedDict, cast

from pydantic import BeforeValidator, Field

from sim.config.base import Count
from sim.document import number_at
from sim.errors import ConfigError, ServesimError
from sim.registry import register
from sim.study.against import BESIDE, FIGURES, Against, against
from sim.study.base import Outcome, Params, Steps, Study, Trial, figures
from sim.study.domains import Domain, domains, grid, plain
from sim.study.options import Confidence, Precision
from sim.study.variants import check_replications, is_random, repeated, variants
from sim.units import show_number

if TYPE_CHECKING:
    from sim.config.scenario import Scenario
    from sim.document import Json
    from sim.metrics.result import Result
    from sim.study.figures import Figures
    from sim.study.statistics.interval import Interval

_REPLICATIONS = 5
PARTS = 20


class Observed(TypedDict):
    """What is kept of a run beside its figures: what settles it, and the warm-up that MSER-5 finds."""

    stationary: str
    warmup_s: float | None


class First(Observed):
    """… of the first repetition: the scenario, intervals by figure from this run alone, curves of latencies, figures of its stretches."""

    scenario: str
    alone: dict[str, dict[str, Json]]
    curves: dict[str, list[float]]
    parts: dict[str, list[float]]


class CompareParams(Params):
    """What is compared, and how often."""

    over: Annotated[tuple[Domain, ...], BeforeValidator(domains)] = Field(
        (),
        description="compare one scenario over these values of a setting; repeatable",
        json_schema_extra={"metavar": "PATH=A,B,…", "list": True},
    )
    own_traffic: bool = Field(False, description="let each scenario keep its own traffic instead of the first one's")
    replications: Count | None = Field(
        None,
        description="runs of each deployment, each under other random numbers (default: 5; 1 for recorded traffic)",
        json_schema_extra={"option": "-r"},
    )
    precision: Precision = None
    confidence: Confidence = 0.95
    warmup: Literal["scenario", "auto"] = Field(
        "scenario", description="leave out the scenario's own warm-up, or the one that MSER-5 finds in the first runs"
    )


@dataclass
class Deployment:
    """``values``: by figure, one for each repetition; ``intervals``: their means; ``summary``: of the first repetition.

    ``means``: of figures beside those, over the repetitions.
    """

    name: str
    summary: Figures
    values: dict[str, list[float]]
    intervals: dict[str, Interval]
    scenario: str = ""
    curves: dict[str, list[float]] = field(default_factory=dict)
    stationary: str = ""
    warmup_s: float | None = None
    effective: list[float] = field(default_factory=list)
    """Attainment against all that is asked, for each repetition."""
    means: dict[str, float] = field(default_factory=dict)


@dataclass
class CompareAnswer:
    """``deployments`` in the order given, ``comparisons`` of each further one with the first; ``failed``: name → error."""

    name: str
    deployments: list[Deployment]
    comparisons: list[Against]
    replications: int
    level: float
    same_traffic: bool = True
    failed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: tuple[str, ...] = ()

    @property
    def verdict(self) -> bool | None:
        """False when something is shown to be worse than the first deployment or misses its SLO; True when something is shown better."""
        last = self.held(self.deployments[-1])
        if self.failed or last is False or any(c.worse for c in self.comparisons):
            return False
        return True if any(c.better for c in self.comparisons) else None

    def held(self, deployment: Deployment) -> bool | None:
        """Whether every repetition met the SLO, not only the first; None without one."""
        slo = deployment.summary.slo
        if slo.met is None or slo.required is None:
            return None
        return slo.met and (self.replications < 2 or min(deployment.effective, default=1.0) >= slo.required)

    def cautions(self) -> list[str]:
        """What speaks against comparing means at all: deployments that never settle."""
        return [f"{d.name}: {d.stationary}" for d in self.deployments if d.stationary]

    def headline(self) -> str:
        """The verdict of one comparison, of several a word on each."""
        told = [c for c in self.comparisons if c.verdict]
        if len(told) < 2:
            return told[0].verdict if told else ""
        return f"Against {told[0].first}: {'; '.join(f'{c.second} is {c.mood}' for c in told)}."

    def sentence(self) -> str:
        """The verdicts, one sentence for each."""
        text = " ".join(c.verdict for c in self.comparisons)
        if not self.same_traffic:
            text = "Each deployment had its own traffic: differences are those of traffic and deployment together. " + text
        return " ".join([*(f"{name} failed: {error}." for name, error in self.failed.items()), text]).strip()

    def as_dict(self) -> dict[str, Json]:
        """Ready for JSON."""
        return {
            "name": self.name,
            "sentence": self.sentence(),
            "replications": self.replications,
            "level": self.level,
            "same_traffic": self.same_traffic,
            "results": {d.name: d.summary.as_dict() for d in self.deployments},
            "intervals": {d.name: {k: i.as_dict() for k, i in d.intervals.items()} for d in self.deployments},
            "comparisons": [
                {
                    "first": c.first,
                    "second": c.second,
                    "verdict": c.verdict,
                    "differences": {k: d.as_dict() for k, d in c.differences.items()},
                }
                for c in self.comparisons
            ],
            "stationary": {d.name: d.stationary for d in self.deployments},
            "failed": self.failed,
            "notes": self.notes,
            "warnings": list(self.warnings),
        }


@register("study")
class Compare(Study[CompareParams]):
    """Run several scenarios, or one over several settings, under the same traffic and say what differs, by how much and how surely."""

    name = "compare"
    examples = (
        "servesim compare quickstart quickstart-a100",
        "servesim compare fleet --over router=least_outstanding,sglang_router,llm_d -r 10",
    )
    Params = CompareParams
    takes: ClassVar[Literal["one", "many"]] = "many"
    report: ClassVar[str] = "sim.report.compare"
    gate: ClassVar[str] = "when something is worse than the first deployment or misses its SLO"

    def __init__(self, scenarios: Sequence[Scenario], params: CompareParams) -> None:
        super().__init__(scenarios, params)
        self.made: list[Scenario | ServesimError] = list(self.scenarios)
        if params.over:
            if len(scenarios) != 1:
                raise ConfigError(
                    "scenarios", len(scenarios), "with --over it is one scenario that is compared over settings", "1"
                )
            self.made = self._varied()
        if len(self.made) < 2:
            raise ConfigError(
                "scenarios", len(self.made), "are too few to compare", "at least 2, or one with --over deployment.tp=1,2"
            )
        names = [m.name for m in self.made if not isinstance(m, Exception)]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError("name", name, "is the name of two of the scenarios", "a name of its own for each")
        first = next(m for m in self.made if not isinstance(m, Exception))
        if not params.own_traffic:
            same = {"traffic": first.traffic, "seed": first.seed}
            keep = [p.path for p in params.over if p.path.partition(".")[0] == "traffic"] if params.over else []
            if not keep:
                self.made = [m if isinstance(m, Exception) or m is first else m.model_copy(update=same) for m in self.made]
        random = all(is_random(m) for m in self.made if not isinstance(m, Exception))
        self.replications = params.replications or (_REPLICATIONS if random else 1)
        check_replications(first, self.replications)
        if params.precision is not None and not random:
            raise ConfigError(
                "precision", params.precision, "needs repetitions, and recorded traffic has none", hint="leave it out"
            )
        self._total = len(self.made) * self.replications

    def _varied(self) -> list[Scenario | ServesimError]:
        points = grid(self.params.over)
        made = variants(self.scenarios[0], points, [d.path for d in self.params.over if d.values])
        self._labels = [", ".join(_label(k, v, len(point) == 1) for k, v in point.items()) for point in points]
        return [
            m if isinstance(m, Exception) else m.model_copy(update={"name": _fit(label)})
            for m, label in zip(made, self._labels, strict=True)
        ]

    @property
    def title(self) -> str:
        """Name of the output folder."""
        return f"compare-{'-'.join(s.name for s in self.scenarios)[:80]}"

    @property
    def expected(self) -> int:
        """Deployments times repetitions, as far as known."""
        return self._total

    def _trials(self, replications: range, warmup: float | None) -> list[Trial]:
        out = []
        for i, made in enumerate(self.made):
            for r in replications:
                if isinstance(made, Exception):
                    out.append(Trial(self.scenarios[0], {"deployment": self._labels[i], "replication": r}, problem=str(made)))
                    continue
                scenario = repeated(made, r)
                if warmup is not None:
                    scenario = scenario.model_copy(update={"warmup": max(warmup, scenario.warmup)})
                out.append(Trial(scenario, {"deployment": made.name, "replication": r}))
        return out

    def run(self) -> Steps:
        """A first round, then more until the intervals are as small as asked."""
        warmup = None
        notes = []
        if self.params.warmup == "auto":
            first = yield self._trials(range(1), None)
            found = [_observed(o)["warmup_s"] for o in first if o.data]
            ends = [f for f in found if f is not None]
            if len(ends) < len(found):
                notes.append("MSER-5 finds no end of the warm-up in some deployment: nothing is cut.")
            else:
                warmup = float(show_number(max(ends, default=0.0), 4))
                notes.append(f"The first {show_number(warmup)} s are warm-up (MSER-5) and left out.")
        outcomes: list[list[Outcome]] = [[] for _ in self.made]
        done, wanted = 0, self.replications
        while True:
            flat = yield self._trials(range(done, wanted), warmup)
            for i in range(len(self.made)):
                outcomes[i] += flat[i * (wanted - done) : (i + 1) * (wanted - done)]
            done = wanted
            wanted = self._needed(outcomes, done)
            if wanted <= done:
                break
            self._total = len(self.made) * wanted
        return self._answer(outcomes, done, notes)

    def _needed(self, outcomes: list[list[Outcome]], done: int) -> int:
        if self.params.precision is None:
            return done
        from sim.study.statistics.replications import needed

        most = done
        for runs in outcomes:
            for path, (_, _, primary) in FIGURES.items():
                values = [number_at(o.data, path) for o in runs if o.data]
                known = [float(v) for v in values if v is not None]
                if primary and len(known) == len(values) > 1:
                    most = max(most, needed(known, self.params.precision, self.params.confidence))
        return most

    @staticmethod
    def observe(result: Result, trial: Trial) -> dict[str, Json]:
        """Figures; of the first repetition also the curves, and the figures of twenty stretches of requests."""
        import numpy as np

        from sim.study.statistics.worth import worth
        from sim.study.stretches import curve_grid, stretches

        found = worth(result)
        data = figures(result) | {"stationary": found.stationary, "warmup_s": found.warmup_s}
        if trial.settings["replication"] == 0:
            curves: dict[str, list[float]] = {}
            for key in ("ttft_s", "tpot_s", "e2e_s"):
                values = result.columns[key]
                values = values[~np.isnan(values)]
                curves[key] = [float(show_number(v, 5)) for v in np.quantile(values, curve_grid())] if values.size else []
            data |= {
                "scenario": result.scenario,
                "alone": {k: i.as_dict() for k, i in found.intervals.items() if k in FIGURES},
                "curves": curves,
                "parts": stretches(result, FIGURES, PARTS),
            }
        return data

    def _answer(self, outcomes: list[list[Outcome]], replications: int, notes: list[str]) -> CompareAnswer:
        from sim.study.statistics.interval import Interval
        from sim.study.statistics.replications import replicated

        level = self.params.confidence
        deployments, parts, failed = [], [], {}
        for runs in outcomes:
            bad = next((o for o in runs if not o.data), None)
            name = str(runs[0].trial.settings["deployment"])
            if bad is not None:
                failed[name] = bad.error
                continue
            first = cast("First", runs[0].value())
            values = {k: [float(v) for o in runs if (v := number_at(o.value(), k)) is not None] for k in FIGURES}
            values = {k: v for k, v in values.items() if len(v) == len(runs)}
            intervals = {k: replicated(v, level) for k, v in values.items()}
            alone = {k: Interval.from_dict(v) for k, v in first["alone"].items()}
            shown = {k: i if i is not None else alone.get(k) for k, i in intervals.items()}
            parts.append(first["parts"])
            deployments.append(
                Deployment(
                    name,
                    runs[0].figures,
                    values,
                    {k: i for k, i in shown.items() if i is not None},
                    first["scenario"],
                    first["curves"],
                    next((s for o in runs if (s := _observed(o)["stationary"])), ""),
                    first["warmup_s"],
                    [float(o.figures.slo.effective or 0.0) for o in runs],
                    _means([o.value() for o in runs], BESIDE),
                )
            )
        if len(deployments) < 2:
            next(o for runs in outcomes for o in runs if not o.data).value()
        single = replications == 1
        pairs = [{k: v for k, v in p.items() if v} for p in parts] if single else [d.values for d in deployments]
        warnings = tuple(dict.fromkeys(w for d in deployments for w in d.summary.warnings))
        if single:
            notes.append(f"One repetition: differences are those of {PARTS} stretches of the same requests.")
        found = against([d.name for d in deployments], pairs, level)
        name = " · ".join(s.name for s in self.scenarios)
        return CompareAnswer(name, deployments, found, replications, level, not self.params.own_traffic, failed, notes, warnings)


def _means(runs: Sequence[Mapping[str, object]], paths: Sequence[str]) -> dict[str, float]:
    """Of the figures that every run has."""
    found = {path: [v for run in runs if (v := number_at(run, path)) is not None] for path in paths}
    return {path: sum(values) / len(runs) for path, values in found.items() if len(values) == len(runs)}


def _observed(outcome: Outcome) -> Observed:
    return cast("Observed", outcome.value())


def _label(path: str, value: Json, alone: bool) -> str:
    """A value as a name; with that of its setting beside others, and where it says nothing by itself (``true``, ``null``)."""
    return plain(value) if alone and not isinstance(value, bool | None) else f"{path.rpartition('.')[2]} {plain(value)}"


def _fit(label: str) -> str:
    import re

    return re.sub(r"[/\\\x00-\x1f]", "-", label).lstrip(".")[:80] or "none"
