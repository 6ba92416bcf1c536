"""Which deployment is the cheapest that holds the SLO, how sure is that, and what breaks first?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, StrictInt

from sim.config.base import Count
from sim.errors import ConfigError, ServesimError
from sim.registry import register
from sim.study.base import Interrupted, Params, Steps, Study, figures
from sim.study.domains import Domain, domains, grid
from sim.study.options import Confidence
from sim.study.variants import variants

if TYPE_CHECKING:
    from sim.config.scenario import Scenario
    from sim.document import Json
    from sim.metrics.result import Result
    from sim.study.base import Trial
    from sim.study.plan.candidate import Aim, Candidate
    from sim.study.plan.finals import Final, Limits
    from sim.study.plan.together import Part

MOST_CANDIDATES = 1_000_000
EXHAUSTIVE = 2_000
"""Up to so many combinations are all examined; of more a search chooses."""
_WAVE = 4  # candidates searched side by side; fixed, so that the answer does not depend on the number of processes

Factor = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]


def _grids(given: object) -> object:
    """One mapping of domains, a list of mappings, or the texts of the command line."""
    if isinstance(given, list | tuple) and given and all(isinstance(g, Mapping) for g in given):
        return tuple(domains(g, "candidates") for g in given)
    return (domains(given, "candidates"),) if given and isinstance(given, Mapping | str | Iterable) else given or ()


class PlanParams(Params):
    """The candidates, and what counts as an answer."""

    candidates: Annotated[tuple[tuple[Domain, ...], ...], BeforeValidator(_grids)] = Field(
        (),
        description="a setting and the values it may take; all combinations are candidates; repeatable",
        json_schema_extra={"metavar": "PATH=A,B,…", "list": True, "option": "-c"},
    )
    objective: Literal["cost", "accelerators", "energy", "carbon"] = Field("cost", description="what the best one has least of")
    confidence: Confidence = 0.95
    replications: StrictInt = Field(
        5, ge=1, le=1000, description="runs of each finalist, each under other random numbers", json_schema_extra={"option": "-r"}
    )
    max_replicas: Count = Field(
        1024, description="most replicas that are tried; of several pools, multiples of their own numbers"
    )
    screen: StrictInt = Field(2000, ge=100, le=2**31 - 1, description="requests of a run while candidates are compared roughly")
    finalists: StrictInt = Field(3, ge=1, le=100, description="how many of the best are confirmed at least")
    search: Literal["auto", "all", "optuna"] = Field(
        "auto", description="examine all combinations, or let Optuna choose (auto: above 2,000 of them; needs servesim[search])"
    )
    trials: StrictInt = Field(200, ge=1, le=100_000, description="candidates that Optuna may look at")
    storage: str | None = Field(
        None,
        description="also keep Optuna's trials in this database (sqlite:///plan.db, any URL it knows), for its dashboard",
        json_schema_extra={"metavar": "URL"},
    )
    lengths: Factor = Field(1.2, description="a worse world: prompts and answers longer by this factor; 1: not tried")
    burst: Factor = Field(2.0, ge=1, description="a worse world: load in waves of this height; 1: not tried")
    rate: Factor = Field(1.2, description="a worse world: so many times the requests; 1: not tried")
    step_time: Factor | None = Field(
        None,
        description="a worse world: every step so many times as long; 1: not tried (default: by how much measured deployments of this kind "
        "were slower than predicted)",
    )


def _best(finals: Mapping[int, Final]) -> float:
    """What the cheapest that surely holds costs; infinite while none does."""
    return min((f.cost for f in finals.values() if f.sure), default=math.inf)


@register("study")
class Plan(Study[PlanParams]):
    """Find the cheapest deployment that holds the SLO, with confidence; say what breaks first and what if the world is worse."""

    name = "plan"
    examples = (
        "servesim plan quickstart -c deployment.accelerator=h100-sxm,l40s -c deployment.tp=1,2 -s economics.provider=aws",
    )
    Params = PlanParams
    report: ClassVar[str] = "sim.report.plan"
    gate: ClassVar[str] = "when nothing holds the SLO"

    def __init__(self, scenarios: Sequence[Scenario], params: PlanParams) -> None:
        super().__init__(scenarios, params)
        base = self.scenarios[0]
        if not params.candidates:
            raise ConfigError("candidates", None, "a plan needs settings to choose from", "--candidates deployment.tp=1,2,4")
        self._space = [{d.path: d.grid() for d in given} for given in params.candidates]
        count = sum(math.prod(len(v) for v in g.values()) for g in self._space)
        if count > MOST_CANDIDATES:
            raise ConfigError("candidates", count, "are too many combinations", f"at most {MOST_CANDIDATES:,}")
        self._choices = [point for given in params.candidates for point in grid(given)]
        self.sampled = params.search == "optuna" or (params.search == "auto" and count > EXHAUSTIVE)
        if params.storage is not None and not self.sampled:
            raise ConfigError(
                "storage",
                params.storage,
                "is where Optuna keeps its trials, and all combinations are examined",
                hint="--search optuna",
            )
        self._made: dict[int, Scenario | ServesimError] = {}
        if self.sampled:
            self._try_each_value(base)
        else:
            made: list[Scenario | ServesimError] = []
            for given in params.candidates:
                made += variants(base, grid(given), [d.path for d in given])
            self._made = dict(enumerate(made))
        self._check(base)

    def _try_each_value(self, base: Scenario) -> None:
        """A value that is wrong by itself is an error of the study; all combinations are too many to try."""
        for space in self._space:
            first = {path: values[0] for path, values in space.items()}
            for path, values in space.items():
                variants(base, [{**first, path: v} for v in values], [path])

    def _scenario(self, number: int) -> Scenario | ServesimError:
        if number not in self._made:
            try:
                (self._made[number],) = variants(self.scenarios[0], [self._choices[number]])
            except ServesimError as error:
                self._made[number] = error
        return self._made[number]

    def _check(self, base: Scenario) -> None:
        from sim.metrics.slo import asked

        if not asked(base):
            raise ConfigError("slo", None, "is needed: a plan holds it", "for example slo: {ttft: 1s, tpot: 50ms}")
        if base.scaling is not None:
            raise ConfigError(
                "scaling", base.scaling.name, "decides the replicas itself: a plan needs a fixed fleet", "no scaling"
            )
        if self.params.objective == "accelerators":
            return
        if base.economics is None:
            self._check_names()  # a name that nobody knows has no price either
            hint = "economics.accelerator_hour, economics.provider …, or --objective accelerators"
            raise ConfigError("economics", None, "is needed: what does an hour of each accelerator cost?", hint=hint)
        if self.params.objective == "carbon" and base.economics.grid is None:
            raise ConfigError(
                "economics.grid", None, "is needed for the objective carbon", "a zone such as FRA, or gCO2e per kWh"
            )

    def _check_names(self) -> None:
        """Raise `UnknownNameError` for an accelerator among the candidates that is unknown."""
        from sim.hardware import load_accelerator

        for space in self._space:
            for path in (p for p in space if p.endswith(".accelerator")):
                for name in space[path]:
                    load_accelerator(str(name), path)

    @staticmethod
    def observe(result: Result, trial: Trial) -> dict[str, Json]:
        """The figures, and the money."""
        kept = figures(result)
        if result.summary.economics is not None:
            kept["economics"] = {k: v for k, v in result.summary.economics.as_dict().items() if k != "lines"}
        return kept

    def run(self) -> Steps:
        """Screen, confirm, find the winner's limits; interrupted, the best answer so far."""
        from sim.study.plan.answer import answer
        from sim.study.plan.candidate import Aim, examine

        p = self.params
        aim = Aim(p.objective, p.max_replicas, p.screen)
        found: dict[int, Candidate] = {}
        finals: dict[int, Final] = {}
        limits, interrupted = None, False
        try:
            if self.sampled:
                yield from self._explore(aim, found)
                yield from self._confirm(aim, found, finals)
            else:
                found |= {i: examine(i, choice, self._scenario(i), aim) for i, choice in enumerate(self._choices)}
                yield from self._screen(aim, found, finals)
            limits = yield from self._limits(finals)
        except Interrupted:
            interrupted = True
        seen = [found[n] for n in sorted(found)]
        return answer(self.scenarios[0], p, seen, finals, limits, interrupted, len(self._choices))

    def _explore(self, aim: Aim, found: dict[int, Candidate]) -> Part[None]:
        """Candidates that Optuna asks for, each searched for its fewest replicas."""
        from sim.study.plan.candidate import examine, search
        from sim.study.plan.explore import explore
        from sim.study.plan.together import together

        def evaluate(numbers: Sequence[int]) -> Part[list[Candidate]]:
            new = [examine(n, self._choices[n], self._scenario(n), aim) for n in numbers]
            for c in (yield from together([search(aim, c) for c in new if not c.refused])):
                found[c.number] = c
            for c in new:
                found.setdefault(c.number, c)
            return [found[n] for n in numbers]

        p = self.params
        yield from explore(self._space, p.trials, 2 * _WAVE, self.scenarios[0].seed, evaluate, p.storage)

    def _screen(self, aim: Aim, found: dict[int, Candidate], finals: dict[int, Final]) -> Part[None]:
        """Search in order of the least cost, and confirm, until no other candidate can cost less than the best confirmed one."""
        from sim.study.plan.candidate import search
        from sim.study.plan.together import together

        waiting = sorted((c for c in found.values() if not c.refused), key=lambda c: (c.least_cost, c.number))
        while True:
            costs = sorted(c.cost for c in found.values() if c.size is not None)
            limit = costs[self.params.finalists - 1] if len(costs) >= self.params.finalists else math.inf
            wave = [c for c in waiting[:_WAVE] if c.least_cost <= limit]
            if not wave:  # none of them can be among the finalists, which may turn out to need more than they seemed to
                yield from self._confirm(aim, found, finals)
                wave = [c for c in waiting[:_WAVE] if c.least_cost < _best(finals)]
            if not wave:
                break
            for c in (yield from together([search(aim, c) for c in wave])):
                found[c.number] = c
            waiting = waiting[len(wave) :]
        for c in waiting:
            found[c.number] = replace(c, skipped=True)

    def _confirm(self, aim: Aim, found: Mapping[int, Candidate], finals: dict[int, Final]) -> Part[None]:
        """Replicate the cheapest until the best confirmed one costs no more than any that is not confirmed."""
        from sim.study.plan.finals import confirm
        from sim.study.plan.together import together

        p = self.params
        while True:
            ranked = sorted((c for c in found.values() if c.size is not None), key=lambda c: (c.cost_near, c.cost, c.number))
            waiting = [c for c in ranked if c.number not in finals]
            if finals:
                waiting = [c for c in waiting if c.cost_near < _best(finals)]
            if not waiting:
                return
            for f in (yield from together([confirm(aim, c, p.replications, p.confidence) for c in waiting[: p.finalists]])):
                finals[f.candidate.number] = f

    def _limits(self, finals: Mapping[int, Final]) -> Part[Limits | None]:
        """Head-room of the winner, and worse worlds."""
        from sim.study.plan.answer import winner
        from sim.study.plan.finals import HeadRoom, Limits, WorseWorld, head_room, known_error, model_band, worse_world
        from sim.study.plan.model_band import ModelBand
        from sim.study.plan.together import together

        best = winner(finals)
        if best is None:
            return None
        if not math.isfinite(best.candidate.rate):
            return Limits(best.candidate.rate, None, "")
        factor, why = (self.params.step_time, "") if self.params.step_time is not None else known_error(best)
        asked = [(what, float(getattr(self.params, what)), "") for what in ("lengths", "burst", "rate")]
        asked.append(("step_time", float(factor), why))
        worse = [worse_world(best, what, f, because) for what, f, because in asked if f != 1.0]
        parts: list[Part[HeadRoom | ModelBand | WorseWorld | None]] = [head_room(best), model_band(best), *worse]
        found = yield from together(parts)
        (room,) = (x for x in found if isinstance(x, HeadRoom))
        model = next((x for x in found if isinstance(x, ModelBand)), None)
        worlds = tuple(x for x in found if isinstance(x, WorseWorld))
        return Limits(best.candidate.rate, room.rate, room.breaks, worlds, model)
