"""How much does a deployment hold under its SLO: the highest rate, or the fewest replicas for a rate, and how sure is that?

Every probe is a whole run. Between the probes of one repetition only the load differs: the same requests, the same random numbers, closer
together or over more replicas. Each repetition is a search of its own under other random numbers; their answers make the interval.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sim.config.base import Count
from sim.document import number
from sim.errors import ConfigError
from sim.metrics.definitions import definition
from sim.registry import register
from sim.study.base import Interrupted, Outcome, Params, Steps, Study, Trial
from sim.study.options import Confidence
from sim.study.short import too_few, too_short
from sim.study.slower import slower, step_error
from sim.study.variants import check_replications, is_random, repeated
from sim.units import show_number, show_share

if TYPE_CHECKING:
    from sim.config.scenario import Scenario
    from sim.document import Json
    from sim.study.base import Load
    from sim.study.figures import Figures
    from sim.study.within import Held

_WIDEST = 20  # doublings from the scenario's own rate
_REPLICATIONS = 5


class CapacityParams(Params):
    """What is searched, and how sharply."""

    replicas: bool = Field(False, description="find the fewest replicas for the scenario's rate instead of the highest rate")
    tolerance: float = Field(0.02, gt=0, lt=1, description="relative distance of two probed rates")
    replications: Count | None = Field(
        None,
        description="searches, each under other random numbers (default: 5; 1 for recorded traffic)",
        json_schema_extra={"option": "-r"},
    )
    confidence: Confidence = 0.95
    max_replicas: Count = Field(4096, description="most replicas tried")
    model_error: bool = Field(
        True, description="search again with steps as short and as long as those of measured deployments like it"
    )


@dataclass(frozen=True)
class Probe:
    """One run of a search. ``value``: requests per second, or replicas; ``summary``: figures of its result."""

    value: float
    summary: Figures
    replication: int = 0

    @property
    def held(self) -> bool:
        """Whether the run met its SLO."""
        return bool(self.summary.slo.met)


@dataclass(frozen=True)
class CapacityAnswer:
    """``question``: the highest rate that a deployment holds, or the fewest replicas for a rate.

    ``answer``: the mean of what the repetitions found for a rate, the replicas that hold in every one of them; None when none was found.
    ``found``: what each repetition found. ``low, high``: interval of the rate. ``bound``: what was fixed, in words. ``tolerance``: relative
    distance of two probed rates. ``cards``: accelerators of one replica and their name. ``tested``: model, engine, accelerator, traffic.
    ``model_error``: what the deployment holds if its steps are as long, and as short, as 4 of 5 measured deployments like it had them, against
    the model's prediction; None where nothing is known.
    """

    name: str
    question: Literal["rate", "replicas"]
    answer: float | None
    probes: Sequence[Probe]
    bound: str = ""
    tolerance: float = 0.0
    warnings: Sequence[str] = field(default_factory=tuple)
    found: Sequence[float | None] = ()
    low: float | None = None
    high: float | None = None
    level: float = 0.95
    cards: tuple[int, str] | None = None
    tested: dict[str, Json] = field(default_factory=dict)
    model_error: Held | None = None

    @property
    def verdict(self) -> bool | None:
        """Whether an answer was found."""
        return self.answer is not None

    @property
    def answered(self) -> bool:
        """Whether an answer was found; the command exits with 1 without one."""
        return self.answer is not None

    @property
    def unbounded(self) -> bool:
        """No rate was too high: the answer is not known."""
        return self.question == "rate" and self.answer is None and bool(self.probes) and all(p.held for p in self.probes)

    @property
    def safe(self) -> float | None:
        """The rate that every repetition held; of replicas, the answer."""
        known = [f for f in self.found if f is not None]
        if self.question == "replicas" or len(known) < max(1, len(self.found)):
            return self.answer
        return min(known)

    def as_dict(self) -> dict[str, Json]:
        """Ready for JSON."""
        return {
            "name": self.name,
            "question": self.question,
            "answer": self.answer,
            "low": self.low,
            "high": self.high,
            "level": self.level,
            "found": list(self.found),
            "safe": self.safe,
            "accelerators": self.accelerators(self.answer) if self.question == "replicas" and self.answer else None,
            "bound": self.bound,
            "tolerance": self.tolerance,
            "model_error": {} if self.model_error is None else self.model_error.as_dict(),
            "sentence": self.sentence(),
            "limit": self.limit(),
            "tested": self.tested,
            "probes": [{"value": p.value, "replication": p.replication, "summary": p.summary.as_dict()} for p in self.probes],
            "warnings": list(self.warnings),
        }

    def accelerators(self, replicas: float) -> str:
        """``10 × H100``."""
        return "" if self.cards is None else f"{int(replicas) * self.cards[0]:,} × {self.cards[1]}"

    def sentence(self) -> str:
        """The answer in one sentence or two."""
        rate = self.question == "rate"
        over = f" with {self.bound}" if self.bound and rate else f" for {self.bound}" if self.bound else ""
        if self.unbounded:
            return f"{self.name} holds its SLO{over} {too_few(self.probes[0].summary)}"
        if self.answer is None:
            return f"{self.name} does not hold its SLO{over} at any probed {'rate' if rate else 'size'}."
        return (self._rate(over) if rate else self._replicas(over)) + self._error()

    def _error(self) -> str:
        """What the error of the model makes of it."""
        e = self.model_error
        if e is None:
            return ""
        ends = [e.low, e.high]
        text = " to ".join("none" if v is None else show_number(v) if self.question == "rate" else f"{v:.0f}" for v in ends)
        from sim.metrics.model_error import sentence

        return sentence(text, e.deployments, e.words, e.level)

    def _rate(self, over: str) -> str:
        assert self.answer is not None
        text = f"{self.name} holds its SLO up to {show_number(self.answer)} requests/s{over}"
        if self.low is not None and self.high is not None:
            text += f"; {self.level:.0%} interval {show_number(self.low)} to {show_number(self.high)}, from {len(self.found)} repetitions."
            return text + f" Every one of them held {show_number(self.safe, 4)}/s." if self.safe is not None else text
        within = f", to within {self.tolerance:.1%}" if self.tolerance else ""
        return text + (f" (one repetition{within}: another seed may give another answer)." if self.found else ".")

    def _replicas(self, over: str) -> str:
        assert self.answer is not None
        n = int(self.answer)
        cards = f" ({self.accelerators(n)})" if self.cards else ""
        text = f"{self.name} needs {n} replica{'s' * (n != 1)}{cards}{over}"
        if len(self.found) < 2:
            return text + " (one repetition: another seed may give another answer)." * bool(self.found) + "." * (not self.found)
        fewer = [f for f in self.found if f is not None and f < n]
        if not fewer:
            return text + f": so say all {len(self.found)} repetitions."
        less = int(max(fewer))
        return text + f" to hold in all {len(self.found)} repetitions; {less} hold in {len(fewer)} of them."

    def limit(self) -> str:
        """What breaks first: the sentence of the first probe beyond the answer that did not hold, of the repetition that is shown if any."""
        broken = [p for p in self.probes if not p.held]
        if not broken:
            return "No probe broke the SLO."
        rate = self.question == "rate"
        broken = [p for p in broken if rate and p.replication == 0] or broken
        if self.answer is not None:  # other repetitions, and noise, break below it too
            broken = [p for p in broken if (p.value > self.answer if rate else p.value < self.answer)] or broken
        first = min(broken, key=lambda p: (p.value if rate else -p.value, p.summary.slo.attainment.get("joint") or 0.0))
        slo = first.summary.slo
        attained = {k: v for k, v in slo.attainment.items() if v is not None}
        required = slo.required or 0.0
        single = {k: v for k, v in attained.items() if k != "joint" and v < required}
        what = f"{show_number(first.value, 4)} requests/s" if rate else f"{first.value:.0f} replica{'s' * (first.value != 1)}"
        missed = ""
        if single:
            worst = min(single, key=lambda k: single[k])
            missed = f"at {what} only {show_share(single[worst])} meet {definition(worst).title}. "
        elif attained.get("joint") is not None:
            missed = f"at {what} each target alone is met, but only {show_share(attained['joint'])} meet all of them. "
        return missed + first.summary.bottleneck.sentence.replace(
            "Nothing is saturated:", "No limit is hit, but steps have grown long:"
        )


Search = Generator[Sequence[Trial], list[Outcome], int | None]


@register("study")
class Capacity(Study[CapacityParams]):
    """Find the highest request rate a deployment holds under its SLO, or the fewest replicas for a given rate, and how sure that is.

    Exits with 1 when no probed load holds.
    """

    name = "capacity"
    examples = ("servesim capacity quickstart", "servesim capacity quickstart --replicas -s traffic.synthetic.arrival.rate=40/s")
    Params = CapacityParams
    report: ClassVar[str] = "sim.report.capacity"
    gate: ClassVar[str] = "when nothing holds the SLO (whether the rate found covers the scenario's own is not judged)"

    def __init__(self, scenarios: Sequence[Scenario], params: CapacityParams) -> None:
        from sim.metrics.slo import asked
        from sim.study.single import Prepared

        super().__init__(scenarios, params)
        (scenario,) = self.scenarios
        if not asked(scenario):
            raise ConfigError(
                "slo", None, "is needed: capacity is the load up to which it holds", "for example slo: {ttft: 1s, tpot: 50ms}"
            )
        prepared = Prepared(scenario)
        if prepared.traffic.closed_loop is not None:
            clients = prepared.traffic.closed_loop.concurrency
            raise ConfigError("traffic.closed_loop", clients, "has no rate to search for", "open-loop traffic")
        if params.replicas and len(prepared.plans) != 1:
            raise ConfigError("pools", len(prepared.plans), "cannot be scaled all at once", "one deployment")
        if params.replicas and scenario.scaling is not None:
            raise ConfigError(
                "scaling", scenario.scaling.name, "decides the replicas itself: their number cannot be set", "no scaling"
            )
        self.repetitions = params.replications or (_REPLICATIONS if is_random(scenario) else 1)
        check_replications(scenario, self.repetitions)
        self._offered = float(prepared.traffic.mean_rate)
        self._replicas = sum(p.replicas for p in prepared.plans)
        if prepared.scaling is not None:
            self._size = f"{prepared.scaling.params.min} to {prepared.scaling.most} replicas"
        else:
            self._size = f"{self._replicas} replica{'s' * (self._replicas != 1)}"
        one = {(p.accelerators // p.replicas, p.accelerator.title) for p in prepared.plans}
        self._cards = (
            one.pop() if len(one) == 1 and not prepared.plans[0].several else None
        )  # accelerators of a replica, their name
        if prepared.scaling is None and self._cards is not None:
            self._size += f" ({sum(p.accelerators for p in prepared.plans):,} × {self._cards[1]})"
        self._probes: list[Probe] = []
        self._error = step_error(prepared.plans) if params.model_error and prepared.scaling is None else None

    def run(self) -> Steps:
        """The first repetition alone, then the others side by side from where it ended."""
        from sim.study.plan.together import together

        found, ends, interrupted = list[int | None](), list[int | None](), False
        try:
            first = yield from self._search(0, None)
            found = [first]
            if self._unbroken():
                return self._answer([None], [], False)
            if self.repetitions > 1:
                found += yield from together([self._search(r, first) for r in range(1, self.repetitions)])
            if self._error is not None and first is not None:
                ends = yield from together([self._search(0, first, f) for f in (self._error.high, self._error.low)])
        except Interrupted as stopped:
            for outcome in stopped.outcomes:
                if "step_time" not in outcome.trial.settings:  # such probes are of another question
                    self._keep(outcome)
            if not self._probes:
                raise
            interrupted = True
        return self._answer(found, ends, interrupted)

    def _unbroken(self) -> bool:
        """Whether every rate holds: then none is the answer."""
        return not self.params.replicas and bool(self._probes) and all(p.held for p in self._probes)

    def _trial(self, replication: int, value: float, factor: float) -> Trial:
        what = "replicas" if self.params.replicas else "rate"
        scenario, settings = repeated(self.scenarios[0], replication), {"replication": replication, what: value}
        load: Load = {"rate": value * factor}
        if self.params.replicas:
            load = {"replicas": int(value)} if factor == 1.0 else {"replicas": int(value), "rate": self._offered * factor}
        if factor == 1.0:
            return Trial(scenario, settings, load)
        return Trial(slower(scenario, factor), settings | {"step_time": factor}, load)

    def _value(self, k: int) -> float:
        return k if self.params.replicas else float(f"{self._offered * (1.0 + self.params.tolerance) ** k:.6g}")

    def _keep(self, outcome: Outcome) -> Probe:
        told = outcome.trial.settings
        value = number(told["replicas" if self.params.replicas else "rate"])
        probe = Probe(value, outcome.figures, int(number(told["replication"])))
        self._probes.append(probe)
        return probe

    def _search(self, replication: int, near: int | None, factor: float = 1.0) -> Search:
        """The last step k at which load is held (rate: a power of 1 + tolerance), or the first number of replicas that holds.

        ``factor``: how much longer steps last; such probes are no probes of the answer.
        """
        rising = not self.params.replicas  # the load, with k
        start = near if near is not None else 0 if rising else self._replicas
        if rising:
            start -= round(math.log(factor) / math.log1p(self.params.tolerance))  # where it would be if targets did not matter
        low, high = (
            (-self._doubling() * _WIDEST, self._doubling() * _WIDEST) if rising else (1, max(self.params.max_replicas, start))
        )
        step = 1 if near is not None else self._doubling() if rising else start
        good: int | None = None
        bad: int | None = None
        k = start
        while True:
            (outcome,) = yield [self._trial(replication, self._value(k), factor)]
            held = self._keep(outcome).held if factor == 1.0 else bool(outcome.figures.slo.met)
            if held:
                good = k
            else:
                bad = k
            if good is not None and bad is not None:
                if abs(good - bad) <= 1:
                    return good
                k = (good + bad) // 2
                continue
            up = held == rising  # which way the border lies
            if (k >= high and up) or (k <= low and not up):
                return good
            k = min(k + step, high) if up else max(k - step, low)
            step *= 2

    def _doubling(self) -> int:
        return max(1, math.ceil(math.log(2.0) / math.log1p(self.params.tolerance)))

    def _band(self, ends: Sequence[int | None]) -> Held | None:
        if self._error is None or not ends:
            return None
        low, high = (None if k is None else self._value(k) for k in (ends if not self.params.replicas else reversed(ends)))
        e = self._error
        from sim.metrics.model_error import LEVEL
        from sim.study.within import Held

        return Held(low, high, LEVEL, e.deployments, e.words, e.low, e.high)

    def _answer(self, found: Sequence[int | None], ends: Sequence[int | None], interrupted: bool) -> CapacityAnswer:
        from sim.study.statistics.replications import replicated

        rate = not self.params.replicas
        values = [None if k is None else self._value(k) for k in found]
        known = [v for v in values if v is not None]
        warnings = list(dict.fromkeys(w for p in self._probes if p.held for w in p.summary.warnings))
        if interrupted:
            held = [p.value for p in self._probes if p.held]
            if not known and held:
                known = [max(held) if rate else min(held)]
                values = list(known)
            warnings.insert(0, "The search was interrupted: the answer is the best of the probes so far.")
        answer = None
        interval = None
        if known and len(known) == len(values):
            answer = sum(known) / len(known) if rate else max(known)
            interval = replicated(known, self.params.confidence) if rate else None
        elif known:
            warnings.insert(0, f"{len(values) - len(known)} of {len(values)} repetitions hold at no probed load.")
        if rate and answer is not None:
            warnings[:0] = too_short([p.summary for p in self._probes if p.held and p.replication == 0], answer)
        half = (answer or 0.0) * self.params.tolerance / 2.0 if rate else 0.0
        context = self._probes[0].summary.context if self._probes else {}
        return CapacityAnswer(
            self.scenarios[0].name,
            "rate" if rate else "replicas",
            answer,
            sorted(self._probes, key=lambda p: (p.value, p.replication)),
            self._size if rate else f"{show_number(self._offered, 4)} requests/s",
            self.params.tolerance if rate and not interrupted else 0.0,
            tuple(warnings),
            tuple(values),
            None if interval is None else interval.low - half,
            None if interval is None else interval.high + half,
            self.params.confidence,
            self._cards,
            {k: v for k, v in context.items() if k not in ("replicas", "accelerators")},
            self._band(ends),
        )
