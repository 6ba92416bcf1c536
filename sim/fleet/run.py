"""One run: plan the pools, feed them, take the raw arrays out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim import guard, registry
from sim.errors import DataError, LawViolation
from sim.fleet.build import Plan
from sim.fleet.client_side import ClientSide
from sim.fleet.clock import LATEST, too_late
from sim.fleet.world import World
from sim.metrics.record import collect
from sim.streams import stream
from sim.workload.base import Traffic

Array = NDArray[Any]


@dataclass
class Raw:
    """What a run leaves, all pools together: request columns by id, and what `sim.metrics.record.collect` found."""

    requests: dict[str, Array]
    series: dict[str, Any]
    itl_hist: Array
    parts: Array
    kv_total: Array
    kv_peak: Array
    totals: dict[str, float]
    sent: int
    complete: bool
    notes: list[str]
    scaling: Any = None
    """What an autoscaler did (`sim.metrics.scaling.Scaling`)."""


@guard.engines
def execute(
    plans: Sequence[Plan],
    traffic: Traffic,
    router: Any,
    seed: int,
    *,
    bins: int,
    histogram: tuple[int, float, float],
    until: float = inf,
    progress: Callable[[int, int], Any] | None = None,
    multi_step: bool = True,
    scaling: Any = None,
    transfer: Any = None,
) -> Raw:
    """Run the traffic through the pools. ``router``: section with ``name`` and settings; ``transfer``: the section of that name.

    With ``scaling`` (a `sim.fleet.scaling.ScalingPlan`) the one pool is planned with as many replicas as can exist at once.

    Raises `ConfigError`, `DataError`.
    """
    groups = [p.build(bins, _first_width(traffic, bins), histogram) for p in plans]
    for group in groups:
        group.set_multi_step(multi_step)
    facts = [p.facts for p in plans for _ in range(p.replicas)]
    routers = make_routers(plans, router, seed)
    world = World(
        groups,
        routers[0],
        traffic,
        until=until,
        progress=progress,
        facts=facts,
        host=_host(plans, seed),
        elastic=scaling.before(routers[0]) if scaling is not None else None,
        hand_overs=_hand_overs(plans, routers, transfer),
        client_side=ClientSide.of(plans),
    )
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
        world.notes(),
        world.elastic.record if scaling is not None else None,
    )


def _host(plans: Sequence[Plan], seed: int) -> Callable[[World], Any] | None:
    """Makes what stands before the engines where several models share one accelerator."""
    if not plans[0].several:
        return None
    from sim.fleet.ollama_host import OllamaHost

    return lambda world: OllamaHost(world, plans, stream(seed, "models"))


def _hand_overs(plans: Sequence[Plan], routers: Sequence[Any], transfer: Any) -> Callable[[World], Any] | None:
    """Makes what takes requests from prefill to decode pools."""
    if not plans[0].role:
        return None
    from sim.fleet.disaggregation import HandOvers
    from sim.fleet.kv_links import Wire

    prefill = next(p for p in plans if p.role == "prefill")
    wire = Wire.of(transfer, prefill.accelerator, prefill.layout)
    return lambda world: HandOvers(world, plans, routers, wire)


def make_router(section: Any, replicas: int, seed: int, name: str = "router") -> Any:
    """The router of a scenario's ``router`` section; ``name`` of its substream. Raises `ConfigError`."""
    from sim.config import settings

    cls = registry.lookup("router", section.name, "router.name")
    return cls(settings(cls.Params, section.settings, "router"), replicas, stream(seed, name))


def make_routers(plans: Sequence[Plan], section: Any, seed: int) -> list[Any]:
    """One router, or in a disaggregated deployment one for each side unless it chooses for both."""
    replicas = {role: sum(p.replicas for p in plans if p.role == role) for role in ("", "prefill", "decode")}
    if not plans[0].role:
        return [make_router(section, replicas[""], seed)]
    if registry.lookup("router", section.name, "router.name").whole:
        return [make_router(section, sum(replicas.values()), seed)]
    return [
        make_router(section, replicas["prefill"], seed),
        make_router(section, replicas["decode"], seed, "router.decode"),
    ]


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
            raise DataError(
                "traffic",
                f"request {at + row} has {block.prompt_tokens[row]} prompt + {block.output_tokens[row]} output tokens; "
                f"{tightest.scheduler.name} accepts {limit} (model context {tightest.model.max_position})",
                f"{'use a model with a longer context' if limit >= tightest.model.max_position else 'raise the limit of the engine'}"
                ", or traffic.too_long=skip",
            )
        at += len(block)
    return traffic


def _first_width(traffic: Traffic, bins: int) -> float:
    """Seconds per bin such that the expected run fills about half of the bins; a power of two, so that pools can be joined."""
    rate = traffic.mean_rate
    if bins == 0 or traffic.total is None or not isfinite(rate) or rate <= 0:
        return 0.125
    return float(2.0 ** max(np.floor(np.log2(traffic.total / rate / bins)), -7))
