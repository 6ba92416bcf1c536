"""One scenario, one result."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from sim import __version__, plugins
from sim.config import as_scenario
from sim.cost.memory import Budget
from sim.document import Table
from sim.errors import ConfigError, LawViolation, PluginError
from sim.fleet.breakage import evidence_of, make_faults
from sim.fleet.build import Plan, accelerators, plan
from sim.fleet.by_model import models_of
from sim.fleet.run import Raw, execute, fitting
from sim.metrics import model_error
from sim.metrics.histogram import ITL_BINS, ITL_LO, ITL_SCALE
from sim.metrics.laws import check_laws
from sim.metrics.record import RunRecord
from sim.metrics.result import Result, summarise
from sim.metrics.slo import Slo
from sim.metrics.summary_laws import check_result
from sim.study import economics, headroom, in_step
from sim.study.idle import check_traffic
from sim.study.kinds import kind_of_plan
from sim.study.reasons import reasons
from sim.study.room import check_room
from sim.units import show_bytes, show_seconds
from sim.workload import build_traffic
from sim.workload.stretched import Course, Spike, stretched

if TYPE_CHECKING:
    from pathlib import Path

    from sim.config.scenario import Scenario
    from sim.config.traffic import Traffic as TrafficSection
    from sim.document import Json
    from sim.fleet.kv_links import Wire
    from sim.fleet.scaling_plan import ScalingPlan
    from sim.workload.base import Traffic

_SERIES_POINTS = 400_000  # of all replicas together

Progress = Callable[[int, int | None], object]


class Prepared:
    """A scenario made ready: pools planned, traffic built. `run` may be called many times, each from the same start.

    *Raises* `ConfigError` and its kin for everything that can be wrong with the scenario, before anything runs.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.plans = plan(scenario)
        economics.check(scenario, self.plans)
        traffic = build_traffic(scenario.traffic, scenario.seed)
        self.notes = list(traffic.notes)
        self.scaling = self._scaling()
        self.traffic = fitting(self.plans, traffic, scenario.traffic.too_long)
        more = ["faults"] if scenario.faults else []
        self.notes += check_traffic(self.plans, self.traffic, scenario.traffic.endpoint == "chat", more)

    def _scaling(self) -> ScalingPlan | None:
        """The planned autoscaler; None without one."""
        if self.scenario.scaling is None:
            return None
        from sim.fleet.scaling_plan import plan_scaling

        return plan_scaling(self.scenario, self.plans)

    def run(
        self,
        *,
        rate: float | None = None,
        replicas: int | None = None,
        units: int | None = None,
        lengths: float = 1.0,
        burst: float = 1.0,
        spike: tuple[float, float, float] | None = None,
        course: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
        classes: Mapping[str, float] | None = None,
        progress: Progress | None = None,
        multi_step: bool = True,
    ) -> Result:
        """One run; ``rate`` (requests/s) and ``replicas`` (of a single pool) replace the scenario's.

        ``units``: replicas of a single pool; of several pools, how many times the number that each has.
        ``lengths``: prompts and answers so many times as long; ``burst``: load in waves of this height; ``spike``: (factor, start,
        duration), so many times the load for a while; ``course``: (seconds, factors), load in steps (`workload.stretched`); ``classes``: the
        rates of some classes, so many times as high.
        ``progress(done, total)`` is called now and then; when it returns True the run stops early and the result says so.
        """
        s = self.scenario
        plans = self.plans
        if units is not None:
            replicas, plans = (
                (units, plans) if len(plans) == 1 else (None, [replace(p, replicas=units * p.replicas) for p in plans])
            )
        if (replicas is not None or units is not None) and self.scaling is not None:
            why = "decides the replicas itself: their number cannot be set"
            raise ConfigError("scaling", s.scaling.name if s.scaling is not None else "", why, "no scaling")
        if replicas is not None:
            plans = [replace(plans[0], replicas=replicas)]
        if self.scaling is not None:
            plans = self.scaling.grown(plans)
        traffic = self.traffic if rate is None else self.traffic.with_rate(rate)
        if classes is not None:
            traffic = traffic.scaled(classes)
        moved = Spike(*spike) if spike is not None else Course(*course) if course is not None else None
        if lengths != 1.0 or burst != 1.0 or moved is not None:
            worse = stretched(traffic, lengths=lengths, burst=burst, spike=moved)
            traffic = fitting(self.plans, worse, s.traffic.too_long)
        total = traffic.total
        held = s.clients is not None or any(p.role for p in plans)
        check_room(plans, traffic, inf if s.until is None else s.until, held)
        try:
            raw = execute(
                plans,
                traffic,
                s.router,
                s.seed,
                bins=_bins(s.record.max_points, sum(p.replicas * p.rank_count for p in plans)) if s.record.timeseries else 0,
                histogram=(ITL_BINS, ITL_LO, ITL_SCALE),
                until=inf if s.until is None else s.until,
                progress=(lambda sent, finished: progress(finished, total)) if progress else None,
                multi_step=multi_step,
                token_times=s.record.token_times,
                scaling=self.scaling,
                transfer=s.transfer,
                admission=s.admission,
                clients=s.clients,
                faults=s.faults,
            )
            raw.notes[:0] = self.notes
            record = _record(s, plans, raw, traffic)
            check_laws(record)
            result = summarise(record, s.warmup)
            check_result(result.columns, result.summary.as_dict())
        except LawViolation as error:
            from sim.config import to_yaml

            changed = {"rate": rate, "replicas": replicas, "units": units, "lengths": lengths, "burst": burst, "spike": spike}
            raise broken(error, to_yaml(s), plans, changed | {"course": course, "classes": classes}) from error
        costs = economics.section(result.summary, s, plans, record)
        if costs is not None:
            result.summary = replace(result.summary, economics=costs)
        return result


def _bins(wanted: int, replicas: int) -> int:
    """Points per replica: an even number, fewer where there are many replicas, as memory is replicas × points."""
    return max(2, min(wanted, max(_SERIES_POINTS // replicas, 50)) // 2 * 2)


def broken(error: LawViolation, scenario: str, plans: Sequence[Plan], changed: Mapping[str, object]) -> Exception:
    """What to raise for a law that does not hold: with what shows it again; a scheduler that is not ours is to blame itself."""
    for p in plans:
        file = plugins.file_name(p.scheduler.__module__)
        if file:
            return PluginError(file, 0, p.scheduler.__name__, f"breaks a law: {error}")
    how = ", ".join(f"{k}={v!r}" for k, v in changed.items() if v not in (None, 1.0))
    head = [f"law: {error}", f"servesim {__version__}", *([f"run with {how}"] if how else [])]
    return LawViolation(str(error), "".join(f"# {line}\n" for line in head) + scenario)


def simulate(scenario: Scenario | str | Path, *, progress: Progress | None = None) -> Result:
    """Run a scenario (`sim.load`; a file or a built-in name will do) and return its `Result`. Raises `ServesimError` for whatever is wrong with it."""
    scenario = as_scenario(scenario)
    prepared = Prepared(scenario)
    result = prepared.run(progress=progress)
    s = result.summary
    kinds = {kind_of_plan(p) for p in prepared.plans}
    if len(kinds) == 1:  # pools of unlike deployments have no record in common
        kind = kinds.pop()._replace(load="burst" if _at_once(scenario.traffic) else "steady")
        s = replace(s, model_error=model_error.section(kind, s.latency, s.throughput, prepared.plans[0].profile.band))
    if prepared.scaling is None and s.complete:
        s = replace(s, load=headroom.section(prepared.plans, prepared.traffic, scenario.seed, s.steady))
    if note := in_step.note(scenario.traffic, result.columns["arrival_s"]):
        s = replace(s, warnings=(*s.warnings, note))
    result.summary = s
    return result


def _at_once(traffic: TrafficSection) -> bool:
    """Whether all requests come at the same time, and none waits for another's answer."""
    arrival = getattr(traffic.synthetic, "arrival", None)
    return getattr(arrival, "process", "") == "burst" and traffic.closed_loop is None


def memory(scenario: Scenario) -> list[tuple[str, Budget | None]]:
    """Per pool: a heading, and the memory budget of one of its accelerators. Raises `ServesimError` for what `simulate` refuses."""
    plans = Prepared(as_scenario(scenario)).plans
    return [
        (
            f"{f'{p.name}: ' if len(plans) > 1 else ''}{p.model.name} under {p.scheduler.name} on {p.accelerator.title}",
            _budget(p),
        )
        for p in plans
    ]


def _budget(p: Plan) -> Budget | None:
    budget = p.budget
    if budget is None:
        return None
    if (blocks := getattr(p.params, "num_gpu_blocks_override", None)) is not None:
        budget = budget.pinned(blocks, "deployment.engine.num_gpu_blocks_override")
    return replace(budget, warnings=(*budget.warnings, *p.scheduler.cache_notes(p.params, p.site)))


def _record(scenario: Scenario, plans: Sequence[Plan], raw: Raw, traffic: Traffic) -> RunRecord:
    from sim.config import to_yaml

    names = _replica_names(plans)
    record = RunRecord(
        requests=raw.requests,
        totals=raw.totals | {"injected": raw.sent},
        itl_hist=raw.itl_hist,
        parts=raw.parts,
        series=raw.series,
        kv_total=raw.kv_total,
        kv_peak=raw.kv_peak,
        stations=raw.stations,
        token_times=raw.token_times,
        name=scenario.name,
        seed=scenario.seed,
        slo=(slo := Slo.of(scenario.slo)),
        class_slo={k: Slo.of(c.slo, slo) for k, c in enumerate(traffic.classes) if c.slo is not None},
        tenant_names=traffic.tenants,
        replica_names=names,
        accelerators=accelerators(plans),
        replicas=sum(p.replicas for p in plans),
        class_names=[c.name for c in traffic.classes]
        or ([p.name for p in plans] if plans[0].several else models_of(plans).names if plans[0].apart else ()),
        context=_context(plans) | _wire_fact(scenario, plans),
        scenario=to_yaml(scenario),
        evidence=_evidence(plans) + _wire_evidence(scenario, plans) + evidence_of(make_faults(scenario.faults), plans),
        warnings=_warnings(plans, raw),
        complete=raw.complete,
        scaling=raw.scaling,
    )
    return record if raw.scaling is None else _of_scaled(record)


def _wires(scenario: Scenario, plans: Sequence[Plan]) -> list[Wire]:
    """What KV travels over between pools with roles, each once."""
    if not plans[0].role:
        return []
    from sim.fleet.kv_links import Wire

    return list(dict.fromkeys(Wire.between(scenario.transfer, plans)))


def _wire_fact(scenario: Scenario, plans: Sequence[Plan]) -> dict[str, Json]:
    names = dict.fromkeys(wire.name for wire in _wires(scenario, plans))
    return {"KV transfer": f"KV over {', '.join(names)}"} if names else {}


def _wire_evidence(scenario: Scenario, plans: Sequence[Plan]) -> list[Table]:
    return [
        {"what": f"KV transfer over {wire.name}", "grade": wire.evidence, "source": wire.source}
        for wire in _wires(scenario, plans)
    ]


def _of_scaled(record: RunRecord) -> RunRecord:
    """Only the replicas that were, each for the time it was; and what a cold start rests on."""
    from sim.metrics.scaling import narrowed

    assert record.scaling is not None
    s = record.scaling
    rows = [
        {"what": f"cold start: {name}, {show_seconds(seconds)}", "grade": grade, "source": source}
        for name, seconds, grade, source in s.phases
    ]
    context = {k: _ranged(str(v), s.least, s.scaler) if k == "deployment" else v for k, v in record.context.items()}
    return narrowed(replace(record, evidence=[*record.evidence, *rows], context=context))


def _ranged(cards: str, least: int, scaler: str) -> str:
    """``8 replicas × 2 = 16 × NVIDIA H100`` of a fleet that an autoscaler changes → ``1 to 8 replicas of 2 × NVIDIA H100 (hpa)``."""
    found = re.fullmatch(r"(\d+ replicas)(?: × (\d+))? = \d+ × (.*)", cards)
    many = f"{found[1]} of {found[2] or 1} × {found[3]}" if found else cards
    return f"{least} to {many} ({scaler})"


def _replica_names(plans: Sequence[Plan]) -> list[str]:
    """One name for each replica, or for each of its data-parallel ranks: results are by rank."""
    names = []
    for p in plans:
        for i in range(p.replicas):
            name = f"{p.name if len(plans) > 1 else 'replica'} {i}"
            names += [name] if p.ranks is None else [f"{name} rank {k}" for k in range(p.ranks.n)]
    return names


def _context(plans: Sequence[Plan]) -> dict[str, Json]:
    """Facts for the head of a report."""
    facts: dict[str, Json] = {"model": ", ".join(dict.fromkeys(p.model.name for p in plans))}
    for p in plans:
        at = f" ({p.name})" if len(plans) > 1 else ""
        cut = ", ".join(f"{k} {v}" for k in ("tp", "pp", "dp", "ep") if (v := getattr(p.layout, k)) > 1)
        facts[f"deployment{at}"] = _cards(p) + (f" ({cut})" if cut else "")
        facts[f"engine{at}"] = _engine(p)
        if p.budget:
            kv = "pinned" if not p.budget.estimated else "estimated"
            kv += ", each rank" if p.ranks is not None else ""
            facts[f"KV cache{at}"] = f"{p.budget.kv_tokens:,} KV tokens ({kv})"
    return facts


def _cards(p: Plan) -> str:
    """``2 replicas × 4 = 8 × NVIDIA H100``: accelerators are counted as cards."""
    each = p.accelerators // p.replicas
    if p.replicas == 1:
        return f"{each} × {p.accelerator.title}"
    several = f"{p.replicas} replicas" + (f" × {each}" if each > 1 else "")
    return f"{several} = {p.accelerators} × {p.accelerator.title}"


def _engine(p: Plan) -> str:
    """Engine and the release that was asked for: its rules and defaults are those that apply."""
    asked = str(getattr(p.params, "version", None) or "")
    newest = p.scheduler.version
    shown = newest if not asked or newest == asked or newest.startswith(asked + ".") else asked
    own = plugins.file_name(p.scheduler.__module__)  # of a class that may bear the name of a built-in one
    return f"{p.scheduler.name} {shown}" + (f" (own file {own})" if own else "")


def _evidence(plans: Sequence[Plan]) -> list[Table]:
    """What every number rests on: the engine's rules, the operators of a step, the lines of the memory budget."""
    rows: list[Table] = []
    for p in plans:
        at = f" ({p.name})" if len(plans) > 1 else ""
        rows.append({"what": f"scheduler{at}: {_engine(p)}", "grade": "modelled", "source": p.scheduler.models})
        for o in p.evidence.operators:
            rows.append({"what": f"{o.name}{at}", "grade": o.grade, "source": o.source, "part": o.part, "share": o.share})
        if p.budget:
            for line in p.budget.lines:
                what = f"memory: {line.name}, {show_bytes(line.bytes)}{at}"
                rows.append({"what": what, "grade": line.evidence, "source": line.source})
    return rows


def _warnings(plans: Sequence[Plan], raw: Raw) -> list[str]:
    out: list[str] = [*reasons(plans, raw.requests, raw.totals), *raw.notes]
    for p in plans:
        out += p.scheduler.notes()
        out += p.evidence.notes
        if p.budget:
            out += p.budget.warnings
    if lost := int(raw.totals.get("unfound", 0)):
        out.append(
            f"vllm: {lost:,} preempted request{'' if lost == 1 else 's'} might have found the end of the own prompt still in the cache, "
            "and computed all of it again: what their windows had given back is not remembered request by request"
        )
    r = raw.requests
    if len(r["id"]):
        longest = float((r["prompt_tokens"].astype(np.int64) + r["output_tokens"]).max())
        for p in plans:
            out += p.evidence.warnings(context=longest, tokens=raw.totals["tokens_max"])
    return list(dict.fromkeys(out))
