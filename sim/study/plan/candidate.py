"""One candidate: whether it can be deployed at all, the least it can cost, and the fewest replicas that hold the SLO."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sim.config.scenario import Scenario
from sim.document import number, number_at
from sim.errors import ServesimError, UnknownNameError
from sim.metrics.slo import Slo, attained, several
from sim.study import economics
from sim.study.base import Interrupted, Outcome, Trial
from sim.study.plan.bound import Bound, of_scenario
from sim.study.plan.together import Part
from sim.study.single import Prepared
from sim.units import show_share

if TYPE_CHECKING:
    from sim.config.traffic import Synthetic
    from sim.document import Json

NEAR = 0.03
"""How far below the required attainment a short run may lie while a longer one may still hold."""
_STATIONARY = ("poisson", "gamma", "weibull", "constant")


@dataclass(frozen=True)
class Aim:
    """What is looked for: least of ``objective``, with at most ``max_replicas``; ``screen`` requests in a rough run."""

    objective: str
    max_replicas: int
    screen: int


@dataclass(frozen=True)
class Probe:
    """One run of ``size`` units: whether the SLO was met, and what is shown of it. Seconds, tokens per second; ``cost``: the objective."""

    size: int
    met: bool
    attainment: float
    ttft_p99_s: float | None
    tpot_p50_s: float | None
    tpot_p99_s: float | None
    e2e_p99_s: float | None
    per_accelerator: float
    per_user: float | None
    cost: float
    limit: str


@dataclass(frozen=True)
class Candidate:
    """A deployment with its ``choice`` of settings.

    ``refused``: why it cannot be deployed or never holds the SLO. ``bound``: of one replica. ``least``: no smaller size is possible;
    ``least_cost``: what that costs. ``size``: fewest units (replicas; of pools, multiples of their own numbers) that held in the screening.
    ``skipped``: not simulated, since ``least_cost`` is above the cost of the finalists, and not below that of the best once it is confirmed.
    ``width``: accelerators of one unit.
    """

    number: int
    choice: Mapping[str, Json]
    label: str
    scenario: Scenario | None = None
    refused: str = ""
    bound: Bound | None = None
    rate: float = math.nan
    width: int = 0
    pools: int = 1
    least: int = 1
    least_cost: float = 0.0
    size: int | None = None
    cost: float = math.inf
    cost_near: float = math.inf
    """Cost of one unit less where that missed the SLO so narrowly that longer runs may say otherwise; else ``cost``."""
    probes: tuple[Probe, ...] = field(default_factory=tuple)
    skipped: bool = False
    note: str = ""
    unpriced: bool = False
    """Whether it is ``refused`` because nobody says what its accelerators cost."""

    @property
    def planned(self) -> Scenario:
        """The scenario of a candidate that is not refused."""
        assert self.scenario is not None
        return self.scenario

    @property
    def required(self) -> float:
        """Share of requests that must meet the SLO."""
        return Slo.of(self.planned.slo).required


def label(choice: Mapping[str, Json]) -> str:
    """``h100-sxm, tp 2, vllm``: the values that make a candidate."""
    words = []
    for key, value in choice.items():
        if isinstance(value, Mapping):
            rest = "".join(f" {k}={v}" for k, v in value.items() if k != "name")
            words.append(f"{value.get('name', json.dumps(value, default=str))}{rest}")
        elif isinstance(value, str):
            words.append(value)
        else:
            words.append(f"{key.rsplit('.', 1)[-1]} {value}")
    return ", ".join(words)


def examine(number: int, choice: Mapping[str, Json], scenario: Scenario | ServesimError, aim: Aim) -> Candidate:
    """Plan the candidate and bound it from below. What cannot be deployed is its ``refused``; a name nobody knows raises `UnknownNameError`."""
    base = Candidate(number, choice, label(choice))
    if isinstance(scenario, ServesimError):
        return replace(base, refused=str(scenario))
    base = replace(base, scenario=scenario)
    try:
        prepared = Prepared(scenario)
        rate = float(prepared.traffic.mean_rate) if prepared.traffic.closed_loop is None else math.nan
        widths = economics.replica_widths(prepared.plans)
        base = replace(base, rate=rate, width=sum(sum(w) for w in widths.values()) // _size(prepared), pools=len(prepared.plans))
        found = of_scenario(prepared)
        if found is not None and found.hopeless:
            return replace(base, refused=f"cannot hold the SLO: {found.hopeless}")
        least = 1 if found is None else max(1, math.ceil(rate / found.rate * (1 - 1e-9)))
        if least > aim.max_replicas:
            return replace(base, refused=f"needs at least {least:,} replicas; {aim.max_replicas:,} are allowed", bound=found)
        return replace(base, bound=found, least=least, least_cost=_least_cost(aim, prepared, least))
    except UnknownNameError:
        raise
    except ServesimError as error:
        return replace(base, refused=str(error), unpriced="no price" in getattr(error, "problem", ""))


def _size(prepared: Prepared) -> int:
    """Units that the scenario has as written: replicas of a single pool are counted one by one."""
    return prepared.plans[0].replicas if len(prepared.plans) == 1 else 1


def _least_cost(aim: Aim, prepared: Prepared, units: int) -> float:
    """The objective before any run: exact for money and accelerators, a lower bound (idle power) for energy and carbon."""
    scale = units / _size(prepared)
    widths = {name: w[:1] * round(len(w) * scale) if len(prepared.plans) == 1 else w * units
              for name, w in economics.replica_widths(prepared.plans).items()}  # fmt: skip
    if aim.objective == "accelerators":
        return float(sum(sum(w) for w in widths.values()))
    e = prepared.scenario.economics
    assert e is not None
    if aim.objective == "cost":
        return economics.expense_of(e, widths, None).price_hour
    idle = sum(p.accelerators * scale * p.accelerator.idle_watts for p in prepared.plans) / 1000.0
    return idle * (1.0 if aim.objective == "energy" else economics.carbon_intensity(e) or 0.0)


def probe_of(aim: Aim, candidate: Candidate, outcome: Outcome) -> Probe:
    """What is kept of a run. Raises `TrialError`."""
    s = outcome.figures
    size = outcome.trial.load["units"]
    tpot = s.latency.tpot.p50
    key = {"cost": "per_hour", "energy": "kilowatts", "carbon": "g_co2e_per_hour"}
    if aim.objective == "accelerators":
        cost = float(size * candidate.width)
    else:
        cost = float(number(number_at(outcome.value(), f"economics.{key[aim.objective]}")))
    return Probe(
        size=size,
        met=bool(s.slo.met),
        attainment=float(s.slo.effective or 0.0),
        ttft_p99_s=s.latency.ttft.p99,
        tpot_p50_s=tpot,
        tpot_p99_s=s.latency.tpot.p99,
        e2e_p99_s=s.latency.e2e.p99,
        per_accelerator=float(s.throughput.output_tokens_per_s or 0.0) / (size * candidate.width),
        per_user=1.0 / tpot if tpot else None,
        cost=cost,
        limit=s.bottleneck.sentence,
    )


def search(aim: Aim, found: Candidate) -> Part[Candidate]:
    """The fewest units that hold the SLO, by bracketing and bisection with the screening traffic."""
    scenario = screened(found.planned, aim.screen)
    probes: dict[int, Probe] = {}
    good, bad = None, found.least - 1
    size = found.least
    if found.bound is not None and found.bound.guess > 0:
        size = min(max(size, math.ceil(found.rate / found.bound.guess)), aim.max_replicas)
    try:
        while good is None or good - bad > 1:
            (outcome,) = yield [Trial(scenario, {"candidate": found.label, "stage": "screening"}, {"units": size})]
            probes[size] = probe_of(aim, found, outcome)
            if probes[size].met:
                good = size
            else:
                bad = size
                if good is None and (size >= aim.max_replicas or _stalled(probes)):
                    break
            size = (good + bad) // 2 if good is not None else min(max(size + 1, math.ceil(size * 1.6)), aim.max_replicas)
    except Interrupted:
        raise
    except ServesimError as error:
        return replace(found, refused=str(error))
    out = replace(found, probes=tuple(probes[n] for n in sorted(probes)))
    if good is None:
        best = max(probes.values(), key=lambda p: (p.attainment, -p.size))
        reached = attained(show_share(best.attainment), several(found.planned), "the SLO")
        note = f"the best of {len(probes)} sizes is {best.size:,}: {reached}"
        return replace(out, refused="no size holds the SLO", note=note)
    below = probes.get(good - 1)
    near = below.cost if below is not None and below.attainment >= found.required - NEAR else probes[good].cost
    return replace(out, size=good, cost=probes[good].cost, cost_near=near)


def _stalled(probes: Mapping[int, Probe]) -> bool:
    """Whether more replicas have stopped helping: over the last four sizes, a factor of three, nobody gained."""
    tried = sorted(probes)[-4:]
    return len(tried) == 4 and tried[-1] >= 3 * tried[0] and probes[tried[-1]].attainment <= probes[tried[0]].attainment + 1e-3


def screened(scenario: Scenario, requests: int) -> Scenario:
    """The scenario with fewer requests where its traffic is the same from start to end; else as it is."""
    now = scenario.traffic.so_many
    if not all(_steady(source.synthetic) for source in scenario.traffic.sources().values()) or now is None or now <= requests:
        return scenario
    return scenario.model_copy(update={"traffic": scenario.traffic.with_requests(requests)})


def _steady(synthetic: Synthetic | None) -> bool:
    return synthetic is not None and synthetic.arrival.process in _STATIONARY
