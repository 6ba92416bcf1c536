"""One run: plan the pools, feed them, take the raw arrays out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, isfinite
from typing import TYPE_CHECKING, cast

import numpy as np

from sim import guard, registry
from sim.errors import ConfigError, DataError, LawViolation, NotModelledError
from sim.fleet.attempts import client_of
from sim.fleet.breakage import make_faults
from sim.fleet.build import Plan
from sim.fleet.clock import LATEST, too_late
from sim.fleet.garbage import rarely_collected
from sim.fleet.routers import make_routers
from sim.fleet.stuck import watched
from sim.fleet.wiring import wire
from sim.ledger import Values as Array
from sim.metrics.record import collect
from sim.metrics.sections.kv_pools import KvUse
from sim.workload.base import Traffic

if TYPE_CHECKING:
    from sim.config.base import Admission, Clients, Fault, Router
    from sim.config.deployment import Transfer
    from sim.engine.group import EngineGroup
    from sim.fleet.scaling_plan import ScalingPlan
    from sim.ledger import Series
    from sim.metrics.scaling import Scaling


@dataclass
class Raw:
    """What a run leaves, all pools together: request columns by id, and what `sim.metrics.record.collect` found."""

    requests: Mapping[str, Array]
    series: Series
    itl_hist: Array
    parts: Array
    kv_total: Array
    kv_peak: Array
    totals: dict[str, float]
    sent: int
    complete: bool
    notes: list[str]
    scaling: Scaling | None = None
    """What an autoscaler did."""
    stations: Mapping[str, object] = field(default_factory=dict)
    """What stations left for sections of the summary."""
    token_times: Sequence[tuple[Array, Array]] = ()
    """Of each pool, where it was asked for: whose tokens came when."""


@guard.engines
def execute(
    plans: Sequence[Plan],
    traffic: Traffic,
    router: Router,
    seed: int,
    *,
    bins: int,
    token_times: bool = False,
    histogram: tuple[int, float, float],
    until: float = inf,
    progress: Callable[[int, int], object] | None = None,
    multi_step: bool = True,
    scaling: ScalingPlan | None = None,
    transfer: Transfer | None = None,
    admission: Sequence[Admission] = (),
    clients: Clients | None = None,
    faults: Sequence[Fault] = (),
) -> Raw:
    """Run the traffic through the pools. ``router``: section with ``name`` and settings; ``transfer``: the section of that name;
    ``clients``: likewise; ``faults``, ``admission``: sections with ``name`` and settings, outermost first.

    With ``scaling`` (a `sim.fleet.scaling.ScalingPlan`) the pools are planned with as many replicas as can exist at once.

    Raises `ConfigError`, `DataError`.
    """
    notes = _encoders(plans, traffic) if traffic.images else []
    groups = engines_of(plans, bins, _first_width(traffic, bins), histogram)
    for group in groups:
        group.set_multi_step(multi_step)
        if token_times:
            group.record_tokens()
    _scatter(groups, plans, seed)
    world = wire(
        groups,
        make_routers(plans, router, seed),
        traffic,
        plans=plans,
        seed=seed,
        until=until,
        progress=progress,
        scaling=scaling,
        transfer=transfer,
        admission=admission,
        client=client_of(clients),
        faults=make_faults(faults),
    )
    with rarely_collected(), watched(plans, groups):
        world.run()
    requests = world.requests()
    if len(requests["id"]) != world.sent:
        raise LawViolation(f"{world.sent} requests were sent, {len(requests['id'])} are accounted for")
    found = collect(groups)
    if found["totals"]["last_s"] > LATEST:
        raise too_late(found["totals"]["last_s"])
    return Raw(
        requests,
        found["series"] if bins else {},
        found["itl_hist"],
        found["parts"],
        found["kv_total"],
        found["kv_peak"],
        found["totals"] | world.totals(),
        world.sent,
        not world.stopped,
        [*notes, *world.notes()],
        world.record,
        {**world.leaves(), **pools_of(groups, plans)},
        [group.token_times() for group in groups] if token_times else (),
    )


def _scatter(groups: Sequence[EngineGroup], plans: Sequence[Plan], seed: int) -> None:
    """Let the steps of pools scatter of whose machines it is known how much they do."""
    if len(groups) != len(plans):  # models that share cards
        return
    for group, p in zip(groups, plans, strict=True):
        if p.profile.step_scatter > 0.0:
            from sim.engine.scatter import scatter_steps

            scatter_steps(group._states, p.profile.step_scatter, seed, p.name)


def pools_of(groups: Sequence[EngineGroup], plans: Sequence[Plan]) -> dict[str, list[KvUse]]:
    """For the section ``kv_pools``: pools within the replicas, or what shares one, where an engine tells them apart."""
    found = []
    for group, p in zip(groups, plans, strict=False):
        if not hasattr(group, "pool_use"):
            continue
        kinds = group.kv_kinds()
        apart = [(q.name, q.size, q.unit) for q in p.budget.pools] if p.budget is not None else []
        if kinds or apart:
            use, series, width = group.pool_use()
            found.append(KvUse(p.name, kinds or apart, use, series, width, shared=bool(kinds)))
    return {"kv_pools": found} if found else {}


def engines_of(plans: Sequence[Plan], bins: int, width: float, histogram: tuple[int, float, float]) -> list[EngineGroup]:
    """A group of engines per pool; models that share cards have one per host."""
    groups: list[EngineGroup] = []
    for p in plans:
        each = [replace(p, replicas=1)] * p.replicas if p.several else [p]
        groups += [cast("EngineGroup", one.build(bins, width, histogram)) for one in each]
    return groups


def _encoders(plans: Sequence[Plan], traffic: Traffic) -> list[str]:
    """Raise where requests have images and a pool cannot encode them; what is not modelled of pools that can.

    vLLM encodes images whole, and in one step no more of them than ``max_num_batched_tokens`` (``v1/core/encoder_cache_manager.py:
    compute_mm_encoder_budget``): an image beyond it is not reached by that step's chunk. That binds only where prompts are longer than a step.
    """
    notes = []
    longest = traffic.max_prompt_tokens
    for plan in plans:
        name = plan.scheduler.name
        if not plan.scheduler.encodes:
            able = ", ".join(n for n in registry.names("engine") if registry.lookup("engine", n).encodes)
            raise NotModelledError("traffic.images", name, "encoders are not modelled in this engine", able)
        if plan.role:
            why = "encoding images on one side of prefill and decode pools is not modelled"
            raise NotModelledError("traffic.images", plan.role, why, "pools without roles")
        if not plan.model.images.params:
            why = "has no encoder of images whose size is known, and the requests have images"
            raise ConfigError("model", plan.model.name, why, "a vision-language model")
        budget = getattr(plan.params, "max_num_batched_tokens", None)
        if budget and (longest is None or longest > budget):
            most = "any length" if longest is None else f"up to {longest:,} tokens"
            notes.append(
                f"{name}: its encoder budget of {budget:,} tokens of images a step (max_num_batched_tokens) is not modelled: prompts of {most} "
                "are cut into chunks by tokens alone, and an image that such a cut divides is encoded in shares, not whole in that step or the next"
            )
    return notes


def fitting(plans: Sequence[Plan], traffic: Traffic, too_long: str) -> Traffic:
    """The traffic cut to what the engines accept (``too_long`` ``"skip"``), or a `DataError` with the first request that is too long."""
    tightest = min(plans, key=lambda p: p.max_context)
    limit = tightest.max_context
    if traffic.max_tokens is not None and traffic.max_tokens <= limit:
        return traffic
    if too_long == "skip":
        return traffic.up_to(limit)
    at = 0
    for block in traffic.blocks():
        tokens = block.prompt_tokens.astype(np.int64) + block.output_tokens
        if (tokens > limit).any():
            row = int(np.argmax(tokens > limit))
            setting = tightest.scheduler.context_setting if limit < tightest.model.max_position else ""
            raise DataError(
                "traffic",
                f"request {at + row} has {block.prompt_tokens[row]} prompt + {block.output_tokens[row]} output tokens; "
                f"{tightest.scheduler.name} accepts {limit} (model context {tightest.model.max_position})",
                f"{f'raise the {setting} of the engine' if setting else 'use a model with a longer context'}, or traffic.too_long=skip",
            )
        at += len(block)
    return traffic


def _first_width(traffic: Traffic, bins: int) -> float:
    """Seconds per bin such that the expected run fills about half of the bins; a power of two, so that pools can be joined."""
    rate = traffic.mean_rate
    if bins == 0 or traffic.total is None or not isfinite(rate) or rate <= 0:
        return 0.125
    return float(2.0 ** max(np.floor(np.log2(traffic.total / rate / bins)), -7))
