"""The stations of a run, one behind the other: clients, what stands between, engines. A new station is a line here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING

from sim.fleet.breakage import in_front
from sim.fleet.by_model import ByModel, mix_of, models_of
from sim.fleet.client_side import ClientSide
from sim.fleet.clients import clients_of
from sim.fleet.clock import Clock
from sim.fleet.coordinator import Queue
from sim.fleet.dispatch import Dispatch
from sim.fleet.door import doors
from sim.fleet.engines import Engines, JoinedEngines
from sim.fleet.gateway import Gateway
from sim.fleet.kv_links import Wire
from sim.fleet.members import Members
from sim.fleet.migration import Migrator
from sim.fleet.routers import part_view, seats
from sim.fleet.station import Station
from sim.fleet.world import World
from sim.policy.coordinator import Coordinator
from sim.policy.router import ReplicaFacts, Router

if TYPE_CHECKING:
    from sim.config.base import Admission
    from sim.config.deployment import Transfer
    from sim.engine.group import EngineGroup
    from sim.fleet.breakage import Choice
    from sim.fleet.build import Plan
    from sim.fleet.disaggregation import HandOvers
    from sim.fleet.hosts import Hosts
    from sim.fleet.scaling import Elastic
    from sim.fleet.scaling_plan import ScalingPlan
    from sim.fleet.view import Sight, View
    from sim.policy.client import Client
    from sim.policy.fault import Fault
    from sim.workload.base import Traffic


def wire(
    groups: Sequence[EngineGroup],
    routers: Sequence[Router],
    traffic: Traffic,
    *,
    plans: Sequence[Plan] = (),
    facts: Sequence[ReplicaFacts] | None = None,
    seed: int = 0,
    until: float = inf,
    progress: Callable[[int, int], object] | None = None,
    scaling: ScalingPlan | None = None,
    transfer: Transfer | None = None,
    admission: Sequence[Admission] = (),
    client: Client | None = None,
    faults: Sequence[Fault] = (),
) -> World:
    """The world of a run: clients, what stands between, engines. Without ``plans``: one kind of engine, and clients who see nothing else."""
    clock = Clock()
    roles, several = bool(plans and plans[0].role), bool(plans and plans[0].several)
    if plans:
        facts = [p.facts for p in plans for _ in range(p.replicas)]
    engines: Engines = (JoinedEngines if roles else Engines)(clock, groups, facts)
    models = models_of(plans) if plans and plans[0].apart else None
    parts = _views(engines, plans, routers[0].whole)
    hosts = _hosts(clock, plans, engines) if several else None
    views: Sequence[Sight] = parts if hosts is None else [hosts.view]
    if scaling is not None or (any(f.crashes for f in faults) and routers[0].elastic):
        routers = [Members(router, view) for router, view in zip(routers, views, strict=True)]
    fragile = client is not None or bool(faults) or scaling is not None
    sides = _sides(clock, engines, parts, plans, routers, Wire.between(transfer, plans), fragile) if roles else None
    choice: Choice
    if sides is not None:
        choice = sides
    elif models is not None:
        choice = ByModel(clock, routers, views, models.pools(plans), models.replicas(plans))
    else:
        choice = Dispatch(clock, routers[0], views[0])
    between: list[Station] = [choice]
    if routers[0].migration is not None:
        migrator = Migrator(clock, engines.view, routers[0].migration)
        if isinstance(choice, Dispatch):
            choice.moves = migrator.move
        between.append(migrator)
    if hosts is not None:
        between.append(hosts)
    elastic = None
    if scaling is not None:
        elastic = _elastic(clock, scaling, engines, routers, between, 1 if models is None else len(models.names))
        if sides is not None:
            sides.use.asked, elastic.opened, elastic.stranded = True, sides.go_on, sides.stranded_of
    if isinstance(routers[0], Coordinator):
        between.insert(0, Queue(clock, routers[0], engines.view))
    if routers[0].gateway is not None:
        between.insert(0, Gateway(clock, routers[0].gateway))
    if admission:
        scaled = routers[0] if scaling is not None else None  # only there replicas are more or fewer: one that died still counts
        seen = engines.view if roles or models is not None else scaled.seen if isinstance(scaled, Members) else views[0]
        between[:0] = doors(clock, admission, seed, seen)
    side = ClientSide.of(plans) if plans else None
    between = in_front(clock, between, client, faults, plans, engines, routers, choice, elastic, side, seed)
    mix = mix_of(plans, traffic, models, seed) if several or models is not None else None
    clients = clients_of(clock, traffic, until, mix, side)
    world = World(clock, clients, between, engines, until=until, progress=progress, side=side)
    if elastic is not None:
        elastic.waiting = lambda: world.waiting + (0 if sides is None else sides.stranded)
        elastic.sent = lambda: clients.sent
        world.record = elastic.record
    return world


def _views(engines: Engines, plans: Sequence[Plan], whole: bool) -> list[View]:
    """What each router sees: all, or the replicas of its side and of its model."""
    if not plans or not (plans[0].apart or (plans[0].role and not whole)):
        return [engines.view]
    return [part_view(engines, plans, seat.pools) for seat in seats(plans)]


def _hosts(clock: Clock, plans: Sequence[Plan], engines: Engines) -> Hosts:
    """Servers whose models share a card."""
    from sim.fleet.hosts import Hosts

    return Hosts(clock, plans, engines, plans[0].replicas)


def _sides(
    clock: Clock,
    engines: Engines,
    views: Sequence[View],
    plans: Sequence[Plan],
    routers: Sequence[Router],
    links: Sequence[Wire],
    fragile: bool,
) -> HandOvers:
    """Who chooses prefill and decode replicas. ``fragile``: replicas may die, or clients leave."""
    from sim.fleet.disaggregation import HandOvers

    assert isinstance(engines, JoinedEngines)
    if fragile:
        from sim.fleet.hand_over_losses import FragileHandOvers

        return FragileHandOvers(clock, engines, views, plans, routers, links)
    return HandOvers(clock, engines, views, plans, routers, links)


def _elastic(
    clock: Clock, scaling: ScalingPlan, engines: Engines, routers: Sequence[Router], between: list[Station], models: int
) -> Elastic:
    """The autoscaler, which goes in front of those ``between``."""
    from sim.fleet.scaling import Elastic

    members = [router for router in routers if isinstance(router, Members)]
    elastic = Elastic(clock, scaling, engines, members, room=routers[0].gateway is None, models=models)
    elastic.in_use = [station.in_use for station in between if hasattr(station, "in_use")]
    elastic.begin()
    between.insert(0, elastic)
    return elastic
