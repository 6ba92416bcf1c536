"""How do the figures depend on the settings? One scenario over lists, ranges and samples of any setting; one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, JsonValue

from sim.config.base import Count
from sim.document import number
from sim.errors import ConfigError
from sim.registry import register
from sim.study.base import Interrupted, Outcome, Params, Steps, Study, Trial
from sim.study.domains import Domain, domains, grid, plain, sample
from sim.study.options import Replications
from sim.study.variants import check_replications, repeated, variants

if TYPE_CHECKING:
    from sim.config.scenario import Scenario
    from sim.document import Json


class SweepParams(Params):
    """What is varied, and how."""

    over: Annotated[tuple[Domain, ...], BeforeValidator(domains)] = Field(
        (),
        description="a setting and its values: a list A,B,… or LOW..HIGH:N, a range of N values; repeatable",
        json_schema_extra={"metavar": "PATH=VALUES", "list": True},
    )
    points: tuple[dict[str, JsonValue], ...] = Field(
        (), description="explicit combinations, instead of over", json_schema_extra={"hidden": True}
    )
    sample: Literal["grid", "latin-hypercube", "sobol", "random"] = Field(
        "grid", description="every combination, or so many points (--n) spread over the ranges"
    )
    n: Count = Field(64, description="points of a sample")
    replications: Replications = 1
    sensitivity: bool = Field(False, description="how much each setting matters to each figure (needs SALib, the extra search)")


@dataclass
class SweepAnswer:
    """``rows``: one per run, settings first, then the figures of its summary under dotted names; ``paths``: the settings varied.

    ``indices``: by figure and setting, the sensitivity indices of `sim.study.sensitivity` where they were asked for.
    """

    name: str
    paths: tuple[str, ...]
    rows: list[dict[str, Json]]
    missing: int = 0
    indices: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def failed(self) -> int:
        """Runs with an error."""
        return sum(1 for row in self.rows if row["error"])

    @property
    def verdict(self) -> bool | None:
        """Whether some setting holds the SLO; None without one."""
        met = [row.get("slo.met") for row in self.rows if row.get("slo.met") is not None]
        return any(met) if met else None

    def best(self, figure: str, largest: bool = True) -> dict[str, Json] | None:
        """The row with the largest (smallest) figure among those that hold the SLO, or among all without one."""
        rows = [r for r in self.rows if r.get(figure) is not None and r.get("slo.met") is not False]
        return (max if largest else min)(rows, key=lambda r: number(r[figure])) if rows else None

    def sentence(self) -> str:
        """What came out, in words."""
        runs = f"{len(self.rows):,} run{'s' * (len(self.rows) != 1)} over {', '.join(p.rpartition('.')[2] for p in self.paths)}"
        parts = [
            runs
            + (f", {self.failed} failed" if self.failed else "")
            + (f", {self.missing:,} still to run" if self.missing else "")
        ]
        judged = [r for r in self.rows if r.get("slo.met") is not None]
        if judged:
            parts.append(f"{sum(r['slo.met'] is True for r in judged):,} of {len(judged):,} hold the SLO")
        top = self.best(PER_CARD)
        if top is not None:
            parts.append(
                f"most output tokens/s per accelerator{' among them' if judged else ''}: {self.settings(top)} ({number(top[PER_CARD]):,.0f})"
            )
        return "; ".join(parts) + "."

    def settings(self, row: Mapping[str, Json]) -> str:
        """The settings of a row in words."""
        return ", ".join(f"{p.rpartition('.')[2]} {plain(row[p])}" for p in self.paths)

    def as_dict(self) -> dict[str, Json]:
        """Ready for JSON."""
        return {
            "name": self.name,
            "sentence": self.sentence(),
            "paths": list(self.paths),
            "runs": len(self.rows),
            "failed": self.failed,
            "missing": self.missing,
            "rows": self.rows,
            "sensitivity": self.indices,
            "warnings": list(self.warnings),
        }


PER_CARD = "throughput.output_tokens_per_s_per_accelerator"


@register("study")
class Sweep(Study[SweepParams]):
    """Run one scenario over many settings: grids, lists, Latin hypercube or Sobol points; one row per run."""

    name = "sweep"
    examples = (
        "servesim sweep quickstart --over deployment.engine.max_num_seqs=32,64,128 --over traffic.synthetic.arrival.rate=4/s..20/s:5",
    )
    Params = SweepParams
    report: ClassVar[str] = "sim.report.sweep"
    gate: ClassVar[str] = "when no setting holds the SLO"

    def __init__(self, scenarios: Sequence[Scenario], params: SweepParams) -> None:
        super().__init__(scenarios, params)
        if bool(params.over) == bool(params.points):
            raise ConfigError("over", None, "a sweep needs settings to vary", "--over deployment.tp=1,2,4")
        if params.points:
            for point in params.points:
                if set(point) != set(params.points[0]):
                    raise ConfigError(
                        "points", point, "does not name the settings of the first point", ", ".join(params.points[0])
                    )
            self._points: list[dict[str, Json]] = [dict(point) for point in params.points]
            self.paths, listed = tuple(params.points[0]), list(params.points[0])
        else:
            self.paths = tuple(d.path for d in params.over)
            if params.sample == "grid":
                self._points = grid(params.over)
                listed = list(self.paths)
            else:
                self._points = sample(params.over, params.sample, params.n, self.scenarios[0].seed)
                listed = [d.path for d in params.over if d.values]
        self._made = variants(self.scenarios[0], self._points, listed)
        if "seed" not in self.paths:
            check_replications(self.scenarios[0], params.replications)

    @property
    def expected(self) -> int:
        """Points times replications."""
        return len(self._points) * int(self.params.replications)

    def trials(self) -> list[Trial]:
        """All of them, in the order of the table."""
        out = []
        for point, made in zip(self._points, self._made, strict=True):
            for r in range(self.params.replications):
                settings = {**point, "replication": r}
                if isinstance(made, Exception):
                    out.append(Trial(self.scenarios[0], settings, problem=str(made)))
                else:
                    out.append(Trial(repeated(made, r), settings))
        return out

    def run(self) -> Steps:
        """All trials at once; whatever is finished when it is interrupted is the answer."""
        trials = self.trials()
        try:
            outcomes = yield trials
        except Interrupted as stopped:
            outcomes = stopped.outcomes
        if outcomes and not any(o.data for o in outcomes) and len(outcomes) == len(trials):
            outcomes[0].value()
        return self._answer(outcomes, len(trials) - len(outcomes))

    def _answer(self, outcomes: Sequence[Outcome], missing: int) -> SweepAnswer:
        from sim.study.table import flatten

        rows: list[dict[str, Json]] = []
        for o in outcomes:
            settings: dict[str, Json] = {**o.trial.settings, "seed": o.trial.scenario.seed, "error": o.error or None}
            rows.append(settings | flatten({k: v for k, v in (o.data or {}).items() if k not in settings}))
        warnings = dict.fromkeys(w for o in outcomes if o.data for w in o.figures.warnings)
        answer = SweepAnswer(self.scenarios[0].name, self.paths, rows, missing, warnings=tuple(warnings))
        if self.params.sensitivity:
            from sim.study.sensitivity import indices

            answer.indices = indices(rows, self.params.over)
        return answer
