"""Which serving system under this traffic? Figures by simulation, facts with their sources, advice in English and Chinese."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import BeforeValidator, Field, StrictInt

from sim.config.base import Count
from sim.errors import ConfigError, ServesimError
from sim.registry import register
from sim.study.base import Interrupted, Params, Steps, Study, figures
from sim.study.options import Confidence

if TYPE_CHECKING:
    from sim.config.scenario import Scenario
    from sim.document import Json
    from sim.metrics.result import Result
    from sim.study.base import Trial
    from sim.study.plan.candidate import Candidate
    from sim.study.plan.finals import Final
    from sim.study.plan.model_band import ModelBand
    from sim.study.selection.advice import Row


def _list(value: object) -> object:
    """``a,b`` or a list of such texts → a list of words."""
    if isinstance(value, str):
        value = [value]
    return (
        [word.strip() for text in value for word in str(text).split(",") if word.strip()]
        if isinstance(value, list | tuple)
        else value
    )


def _counts(value: object) -> object:
    """The same of whole numbers."""
    words = _list(value)
    return [int(word) if str(word).isdecimal() else word for word in words] if isinstance(words, list) else words


Names = Annotated[tuple[str, ...], BeforeValidator(_list)]


class SelectParams(Params):
    """What is compared."""

    engines: Names = Field(
        (), description="engines to compare (default: all that are known)", json_schema_extra={"metavar": "A,B,…", "list": True}
    )
    accelerators: Names = Field(
        (),
        description="accelerators to try (default: the scenario's, and what an engine needs)",
        json_schema_extra={"metavar": "A,B,…", "list": True},
    )
    tp: Annotated[tuple[Count, ...], BeforeValidator(_counts)] = Field(
        (1, 2, 4, 8), description="tensor-parallel widths to try", json_schema_extra={"metavar": "1,2,…", "list": True}
    )
    max_replicas: Count = Field(256, description="most replicas that are tried")
    screen: StrictInt = Field(2000, ge=100, le=2**31 - 1, description="requests of a run while deployments are compared roughly")
    replications: StrictInt = Field(
        3, ge=1, le=1000, description="runs of the best deployment of each engine", json_schema_extra={"option": "-r"}
    )
    confidence: Confidence = 0.95


@dataclass(frozen=True)
class SelectAnswer:
    """``rows``: the best deployment of each engine (`sim.study.selection.advice.Row`); ``english`` and ``chinese``: the advice."""

    name: str
    question: str
    currency: str
    rate: float
    rows: Sequence[Row]
    english: Sequence[str]
    chinese: Sequence[str]
    tried: Sequence[Mapping[str, Json]] = ()
    warnings: Sequence[str] = field(default_factory=tuple)

    @property
    def verdict(self) -> bool:
        """Whether some engine holds the SLO."""
        return any(r.holds for r in self.rows)

    def sentence(self) -> str:
        """The recommendation."""
        return self.english[0]

    def as_dict(self) -> dict[str, Json]:
        """Ready for JSON."""
        from sim.study.selection.facts import facts

        return {
            "name": self.name,
            "question": self.question,
            "sentence": self.sentence(),
            "verdict": self.verdict,
            "currency": self.currency,
            "rate": self.rate if math.isfinite(self.rate) else None,
            "rows": [_plain(r) for r in self.rows],
            "advice": {"en": list(self.english), "zh": list(self.chinese)},
            "facts": {r.engine: {k: asdict(f) for k, f in facts(r.engine).items()} for r in self.rows},
            "tried": [dict(t) for t in self.tried],
            "warnings": list(self.warnings),
        }


def _plain(row: Row) -> dict[str, Json]:
    model = None if row.model is None else asdict(row.model)
    return vars(row) | {"bands": {k: w.as_dict() for k, w in row.bands.items()}, "figures": dict(row.figures), "model": model}


@register("study")
class Select(Study[SelectParams]):
    """Compare serving systems under this traffic on hardware that each can use, and recommend one, with the facts beside the figures."""

    name = "select"
    examples = (
        "servesim select quickstart",
        "servesim select quickstart --engines vllm,sglang",
    )
    Params = SelectParams
    report: ClassVar[str] = "sim.report.select"
    gate: ClassVar[str] = "when no engine holds the SLO"

    def __init__(self, scenarios: Sequence[Scenario], params: SelectParams) -> None:
        super().__init__(scenarios, params)
        from sim.metrics.slo import asked
        from sim.study.selection.tries import made, tries

        s = self.scenarios[0]
        if not asked(s):
            raise ConfigError(
                "slo", None, "is needed: the engines are compared by what holds it", "for example slo: {ttft: 1s, tpot: 50ms}"
            )
        self._choices = tries(s, params.engines, params.accelerators, params.tp, params.replications)
        self._made = made(s, self._choices)

    @staticmethod
    def observe(result: Result, trial: Trial) -> dict[str, Json]:
        """The figures."""
        return figures(result)

    def run(self) -> Steps:
        """The fewest accelerators for each engine, then replications of the best deployment of each."""
        from sim.study.plan.candidate import Aim, examine, search
        from sim.study.plan.finals import confirm, model_band
        from sim.study.plan.together import together

        p = self.params
        aim = Aim("accelerators", p.max_replicas, p.screen)
        pairs = enumerate(zip(self._choices, self._made, strict=True))
        found = [examine(i, choice.point, made, aim) for i, (choice, made) in pairs]
        finals: dict[int, Final] = {}
        models: dict[int, ModelBand | None] = {}
        warnings: list[str] = []
        stopped = False
        try:
            open_ = [c for c in found if not c.refused]
            for lo in range(0, len(open_), 4):
                for c in (yield from together([search(aim, c) for c in open_[lo : lo + 4]])):
                    found[c.number] = c
            best = [b for name in self._engines() if (b := self._best(found, name)) is not None]
            for f in (yield from together([confirm(aim, c, p.replications, p.confidence) for c in best])):
                finals[f.candidate.number] = f
            sure = [f for f in finals.values() if f.held and f.attainment >= f.candidate.required]
            for f, m in zip(sure, (yield from together([model_band(f) for f in sure])), strict=True):
                models[f.candidate.number] = m
        except Interrupted:
            stopped = True
            warnings.append("The study was interrupted: engines that are missing were not reached.")
        return self._answer(found, finals, models, warnings, stopped)

    def _engines(self) -> list[str]:
        return list(dict.fromkeys(c.engine for c in self._choices))

    def _mine(self, found: Sequence[Candidate], engine: str) -> list[Candidate]:
        return [c for c in found if self._choices[c.number].engine == engine]

    def _best(self, found: Sequence[Candidate], engine: str) -> Candidate | None:
        """The deployment of an engine that holds with the least money, where prices are known, else the fewest accelerators."""
        able = [(self._price(c, c.size), c) for c in self._mine(found, engine) if c.size is not None]
        priced = all(price is not None for price, _ in able)
        return min(able, key=lambda x: (x[0] if priced else 0.0, x[1].cost, x[1].number), default=(None, None))[1]

    def _price(self, c: Candidate, size: int) -> float | None:
        """Price of an hour in the scenario's currency; None where it is not known."""
        from sim.hardware import load_accelerator
        from sim.study import economics

        e = self.scenarios[0].economics
        if e is None:
            return None
        try:
            name = load_accelerator(self._choices[c.number].accelerator).name
            return economics.expense_of(e, {name: [c.width] * size}, None).price_hour
        except ServesimError:
            return None

    def _answer(
        self,
        found: Sequence[Candidate],
        finals: Mapping[int, Final],
        models: Mapping[int, ModelBand | None],
        warnings: list[str],
        stopped: bool,
    ) -> SelectAnswer:
        from sim.study.selection.advice import advice

        s = self.scenarios[0]
        rows = [self._row(found, finals, models, engine) for engine in self._engines()]
        currency = s.economics.currency if s.economics is not None else ""
        if currency and any(r.holds and r.cost is None for r in rows):
            lacking = ", ".join(dict.fromkeys(r.accelerator for r in rows if r.holds and r.cost is None))
            warnings.append(
                f"No price of {lacking} is known: engines on it are compared by accelerators; give economics.accelerator_hour or purchase."
            )
        if len({r.accelerator for r in rows if r.holds}) > 1 and not currency:
            warnings.append(
                "The engines run on different accelerators and no prices are given: a count of accelerators is no measure of cost."
            )
        rate = next((c.rate for c in found if math.isfinite(c.rate)), math.nan)
        english, chinese = advice(rows, currency, rate, stopped)
        tried = [
            {
                "engine": self._choices[c.number].engine,
                "label": c.label,
                "size": c.size,
                "refused": c.refused,
                "note": c.note,
            }
            for c in found
        ]
        return SelectAnswer(s.name, s.question, currency, rate, rows, english, chinese, tried, warnings)

    def _row(
        self, found: Sequence[Candidate], finals: Mapping[int, Final], models: Mapping[int, ModelBand | None], engine: str
    ) -> Row:
        from sim.metrics.slo import several
        from sim.study.plan.model_band import figures as bands
        from sim.study.selection.advice import Row

        best = self._best(found, engine)
        final = None if best is None else finals.get(best.number)
        if best is None or final is None:
            mine = self._mine(found, engine)
            tried = [c for c in mine if c.probes]
            near = max(tried, key=lambda c: max(p.attainment for p in c.probes), default=mine[0])
            reached = max((p.attainment for p in near.probes), default=0.0)
            why = near.refused + (f": {near.note}" if near.note else "")
            tried_at = self._choices[near.number]
            return Row(engine, near.label, tried_at.accelerator, tried_at.tp, False, None, None, None, {}, reached, reached, why)
        card, tp = self._choices[best.number].accelerator, self._choices[best.number].tp
        cost = self._price(best, final.size)
        shown = {k: v[0] for k, v in final.figures.items()}
        why = final.error or ("" if final.sure else f"holds in {final.held} of {final.runs} runs, but not surely")
        return Row(
            engine, best.label, card, tp, final.held > 0 and final.attainment >= best.required, final.size, final.accelerators, cost, shown,
            final.attainment, final.attainment_low, why, bands(best.planned, final.figures), models.get(best.number), several(self.scenarios[0]),
        )  # fmt: skip
