"""The answer of a plan: the cheapest deployment that surely holds, its rivals, and everything that was tried."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from sim.config import to_yaml
from sim.document import finite
from sim.errors import ServesimError
from sim.metrics import model_error
from sim.metrics.slo import attained, several
from sim.study.plan.candidate import Candidate, Probe
from sim.study.plan.finals import Final, Limits
from sim.study.plan.model_band import figures
from sim.units import show_number, show_share

if TYPE_CHECKING:
    from sim.config.economics import Economics
    from sim.config.scenario import Scenario
    from sim.document import Json
    from sim.study.questions.plan import PlanParams
    from sim.study.within import Within

_UNITS = {"accelerators": "accelerators", "energy": "kW", "carbon": "gCO2e per hour"}


@dataclass(frozen=True)
class Tried(Probe):
    """A run of the search with the label of its candidate: a row of a table (``pandas.DataFrame(plan.tried())``)."""

    label: str


@dataclass(frozen=True)
class PlanAnswer:
    """``winner``: None when nothing surely holds; ``finals``: by cost, the winner first; ``candidates``: all, in the order written.

    ``scenarios``: YAML of every finalist at its size, by label, ready to run. ``prices``: where the amounts come from.
    """

    name: str
    question: str
    objective: str
    unit: str
    slo: Mapping[str, Json]
    rate: float
    confidence: float
    winner: Final | None
    finals: Sequence[Final]
    candidates: Sequence[Candidate]
    limits: Limits | None
    prices: Sequence[Mapping[str, Json]] = ()
    scenarios: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    bands: Mapping[str, Mapping[str, Within]] = field(default_factory=dict)
    """Finalist → figure → its interval of model error (`sim.study.plan.model_band.figures`)."""
    several: bool = False
    """Whether the SLO demands several things apart (classes, percentiles): shares are then effective ones (`SloFigures.effective`)."""

    @property
    def verdict(self) -> bool:
        """Whether something holds."""
        return self.winner is not None

    def front(self) -> list[Tried]:
        """Deployments that hold the SLO and that no other beats in both cost and TTFT p99 (of the screening runs), cheapest first."""
        out: list[Tried] = []
        best = math.inf
        for row in sorted(self.tried(), key=lambda r: (r.cost, r.ttft_p99_s or math.inf)):
            latency = row.ttft_p99_s or math.inf
            if row.met and (not out or latency < best):
                out.append(row)
                best = latency
        return out

    def tried(self) -> list[Tried]:
        """Every deployment that was simulated."""
        return [Tried(**vars(p), label=c.label) for c in self.candidates for p in c.probes]

    def nearest(self) -> Candidate | None:
        """The candidate that came nearest to the SLO."""
        tried = [c for c in self.candidates if c.probes]
        return max(tried, key=lambda c: max(p.attainment for p in c.probes), default=None)

    def amount(self, f: Final) -> str:
        """``10.00 USD per hour``."""
        return f"{f.accelerators:,} accelerators" if self.objective == "accelerators" else f"{f.cost:,.2f} {self.unit}"

    def sentence(self) -> str:
        """The decision in one sentence."""
        if self.winner is None:
            return self._none()
        w = self.winner
        cards = f"{w.accelerators:,} accelerator" + ("s" if w.accelerators != 1 else "")
        amount = "" if self.objective == "accelerators" else f", {self.amount(w)}"
        at = f" at {show_number(self.rate, 4)} requests/s" if math.isfinite(self.rate) else ""
        sure = attained(show_share(w.attainment), self.several)
        if w.runs > 1:
            met = "all" if w.held == w.runs else f"{w.held}"
            of = f"{w.runs}" if w.held == w.runs else f"of {w.runs}"
            least = attained(f"at least {show_share(w.attainment_low)}", self.several)
            sure = f"{met} {of} runs met it, and {least} ({self.confidence:.0%} confidence)"
        best = {"cost": "cheapest", "accelerators": "smallest"}.get(self.objective, "best")
        return f"{size_of(w)} ({cards}{amount}) is the {best} that holds the SLO{at}: {sure}.{self._model()}"

    def _model(self) -> str:
        """What the error of the model makes of the size."""
        m = None if self.limits is None else self.limits.model
        if m is None:
            return ""
        high = "more than twice as many" if m.high is None else f"{m.high:,}"
        size = f"{m.low:,} replica{'s' * (m.low != 1)} at either end" if m.low == m.high else f"{m.low:,} to {high} replicas"
        cost = ""
        if self.objective == "cost" and m.cost_low is not None and m.cost_high is not None and m.low != m.high:
            cost = f", {m.cost_low:,.2f} to {m.cost_high:,.2f} {self.unit}"
        return model_error.sentence(f"{size}{cost}", m.deployments, m.words, m.level)

    def _none(self) -> str:
        near = self.nearest()
        if near is None:
            refused = [c for c in self.candidates if c.refused]
            if not refused:
                return "Nothing can be said yet: the plan was stopped before its first candidate was searched to the end."
            more = f" ({len(refused)} refused, the first because {refused[0].refused})"
            return "No candidate can be deployed so that it may hold the SLO" + more + "."
        best = max(near.probes, key=lambda p: (p.attainment, -p.size))
        return (
            f"No candidate surely holds the SLO. The nearest is {best.size:,} × {near.label}: "
            f"{attained(show_share(best.attainment), self.several)}, {near.required:.2%} is required."
        )

    def as_dict(self) -> dict[str, Json]:
        """Ready for JSON."""
        own = {k: getattr(self, k) for k in ("name", "question", "objective", "unit", "slo", "rate", "confidence")}
        own |= {
            "sentence": self.sentence(),
            "verdict": self.verdict,
            "winner": None if self.winner is None else _plain(self.winner),
            "finals": [_plain(f) for f in self.finals],
            "limits": None if self.limits is None else asdict(self.limits),
            "bands": {k: {name: w.as_dict() for name, w in v.items()} for k, v in self.bands.items()},
            "front": [{"label": row.label} | asdict(row) for row in self.front()],
            "candidates": [_row(c) for c in self.candidates],
            "prices": [dict(p) for p in self.prices],
            "scenarios": dict(self.scenarios),
            "warnings": list(self.warnings),
        }
        return {k: finite(v) for k, v in own.items()}


def size_of(f: Final) -> str:
    """``4 × h100-sxm, tp 1, vllm``."""
    return f"{f.size:,} × {f.candidate.label}"


def winner(finals: Mapping[int, Final]) -> Final | None:
    """The cheapest that surely holds; of equal ones the one with the most requests within the SLO."""
    sure = [f for f in finals.values() if f.sure]
    return min(sure, key=lambda f: (f.cost, -f.attainment, f.candidate.number), default=None)


def answer(
    base: Scenario,
    params: PlanParams,
    found: Sequence[Candidate],
    finals: Mapping[int, Final],
    limits: Limits | None,
    interrupted: bool,
    combinations: int,
) -> PlanAnswer:
    """Everything that is known, as an answer."""
    from sim.study.variants import is_random

    best = winner(finals)
    ranked = sorted(finals.values(), key=lambda f: (f is not best, not f.sure, f.cost, -f.attainment, f.candidate.number))
    warnings = ["The plan was interrupted: this is the best of what was tried."] if interrupted else []
    if len(found) < combinations:
        warnings.append(
            f"Of {combinations:,} combinations a search looked at {len(found):,}: a better one may be among the others."
        )
    if not is_random(base):
        warnings.append("The traffic is a recording: every run has the same arrivals, so nothing is said of other days.")
    for missing in dict.fromkeys(c.refused for c in found if c.unpriced):
        warnings.append(f"Left out for want of a price: {missing}.")
    tied = [f for f in ranked[1:] if best is not None and f.sure and f.cost == best.cost]
    if best is not None and tied:
        warnings.append(f"As good by {params.objective}: {'; '.join(size_of(f) for f in tied)}.")
    e = base.economics
    return PlanAnswer(
        name=base.name,
        question=base.question,
        objective=params.objective,
        unit=f"{e.currency} per hour" if e is not None and params.objective == "cost" else _UNITS[params.objective],
        slo=base.slo.model_dump(),
        rate=next((c.rate for c in found if math.isfinite(c.rate)), math.nan),
        confidence=params.confidence,
        winner=best,
        finals=ranked,
        candidates=list(found),
        limits=limits,
        prices=_prices(e, params.objective, ranked),
        scenarios={size_of(f): _ready(f) for f in ranked},
        warnings=warnings,
        bands={size_of(f): figures(f.candidate.planned, f.figures) for f in ranked},
        several=several(base),
    )


def _prices(e: Economics | None, objective: str, finals: Sequence[Final]) -> list[dict[str, Json]]:
    """Where the amounts of the finalists come from, each once, however many servers one or the other has."""
    from sim.study import economics
    from sim.study.single import Prepared

    out: dict[str, dict[str, Json]] = {}
    if objective != "cost" or e is None:
        return []
    for f in finals:
        try:
            plans = Prepared(_sized(f)).plans
            for line in economics.expense_of(e, economics.replica_widths(plans), None).lines:
                what = economics.of_one(str(line["what"]))
                out.setdefault(what, {k: v for k, v in line.items() if k != "amount_hour"} | {"what": what})
        except ServesimError:
            continue
    return list(out.values())


def _sized(f: Final) -> Scenario:
    scenario = f.candidate.planned
    if scenario.deployment is not None:
        return scenario.model_copy(update={"deployment": scenario.deployment.model_copy(update={"replicas": f.size})})
    pools = tuple(
        p.model_copy(update={"replicas": p.replicas * (f.size if f.candidate.pools > 1 else 1)}) for p in scenario.pools or ()
    )
    if f.candidate.pools == 1:
        pools = (pools[0].model_copy(update={"replicas": f.size}),)
    return scenario.model_copy(update={"pools": pools})


def _ready(f: Final) -> str:
    """YAML of the finalist at its size."""
    return to_yaml(_sized(f))


def _plain(f: Final) -> dict[str, Json]:
    own = {k: v for k, v in vars(f).items() if k != "candidate"}
    return {"label": f.candidate.label, "choice": dict(f.candidate.choice)} | own


def _row(c: Candidate) -> dict[str, Json]:
    row = {k: v for k, v in vars(c).items() if k not in ("scenario", "bound", "probes")}
    bound = None if c.bound is None else asdict(c.bound)
    return row | {"choice": dict(c.choice), "bound": bound, "probes": [asdict(p) for p in c.probes]}
