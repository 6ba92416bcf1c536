"""The stations of a run, one behind the other: clients, what stands between, engines. A new station is a line here."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Any

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
from sim.fleet.routers import part_view
from sim.fleet.station import Station
from sim.fleet.world import World
from sim.policy.router import ReplicaFacts

if TYPE_CHECKING:
    from sim.engine.group import EngineGroup
    from sim.fleet.build import Plan
    from sim.workload.base import Traffic


def wire(
    groups: Sequence[EngineGroup],
    routers: Sequence[Any],
    traffic: Traffic,
    *,
    plans: Sequence[Plan] = (),
    facts: Sequence[ReplicaFacts] | None = None,
    seed: int = 0,
    until: float = inf,
    progress: Any = None,
    scaling: Any = None,
    transfer: Any = None,
    admission: Sequence[Any] = (),
    client: Any = None,
    faults: Sequence[Any] = (),
) -> World:
    """The world of a run: clients, what stands between, engines. Without ``plans``: one kind of engine, and clients who see nothing else."""
    clock = Clock()
    roles, several = bool(plans and plans[0].role), bool(plans and plans[0].several)
    if plans:
        facts = [p.facts for p in plans for _ in range(p.replicas)]
    engines: Engines = (JoinedEngines if roles else Engines)(clock, groups, facts)
    hosts: Any = None
    views: list[Any] = [engines.view]
    if several:
        from sim.fleet.hosts import Hosts

        hosts = Hosts(clock, plans, engines, plans[0].replicas)
        views = [hosts.view]
    if roles:
        views = [part_view(engines, plans, [p.role == role for p in plans]) for role in ("prefill", "decode")]
    models = models_of(plans) if plans and plans[0].apart else None
    if models is not None:
        views = [part_view(engines, plans, [of == k for of in models.of_pool]) for k in range(len(models.names))]
    if scaling is not None or (any(f.crashes for f in faults) and routers[0].elastic):
        routers = [Members(router, view) for router, view in zip(routers, views, strict=True)]
    choice: Any
    if roles:
        assert isinstance(engines, JoinedEngines)
        if client is not None or faults or scaling is not None:
            from sim.fleet.hand_over_losses import FragileHandOvers as HandOvers
        else:
            from sim.fleet.disaggregation import HandOvers  # type: ignore[assignment]
        choice = HandOvers(clock, engines, views, plans, routers, Wire.between(transfer, plans))
    elif models is not None:
        choice = ByModel(clock, routers, views, models.pools(plans), models.replicas(plans))
    else:
        choice = Dispatch(clock, routers[0], views[0])
    between: list[Station] = [choice]
    if routers[0].migration is not None:
        migrator = Migrator(clock, engines.view, routers[0].migration)
        choice.moves = migrator.move
        between.append(migrator)
    if hosts is not None:
        between.append(hosts)
    elastic: Any = None
    if scaling is not None:
        from sim.fleet.scaling import Elastic

        elastic = Elastic(clock, scaling, engines, routers, room=routers[0].gateway is None, by_model=models is not None)
        elastic.in_use = [station.in_use for station in between if hasattr(station, "in_use")]
        elastic.begin()
        between.insert(0, elastic)
        if roles:
            choice.counting, elastic.opened = True, choice.go_on
    if routers[0].coordinates:
        between.insert(0, Queue(clock, routers[0], engines.view))
    if routers[0].gateway is not None:
        between.insert(0, Gateway(clock, routers[0].gateway))
    if admission:
        seen = engines.view if roles or models is not None else routers[0].seen if scaling is not None else views[0]
        between[:0] = doors(clock, admission, seed, seen)
    side = ClientSide.of(plans) if plans else None
    between = in_front(clock, between, client, faults, plans, engines, routers, choice, elastic, side, seed)
    mix = mix_of(plans, traffic, models, seed) if several or models is not None else None
    clients = clients_of(clock, traffic, until, mix, side)
    world = World(clock, clients, between, engines, until=until, progress=progress, side=side)
    if elastic is not None:
        elastic.waiting = (lambda: world.waiting + choice.stranded) if roles else (lambda: world.waiting)
        elastic.sent = lambda: clients.sent
        world.record = elastic.record
    return world
