"""The ``faults`` of a scenario, planned and put into its world."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from itertools import count
from typing import TYPE_CHECKING, cast

from sim import registry
from sim.document import Table
from sim.errors import ConfigError
from sim.fleet.attempts import attempts_of
from sim.fleet.clock import Clock
from sim.fleet.faults import Faults
from sim.fleet.members import Members
from sim.fleet.outage import Front
from sim.fleet.routers import seats
from sim.fleet.station import Station
from sim.policy.client import Client
from sim.policy.clients.simple import Simple, SimpleParams
from sim.policy.fault import Fault, Unit
from sim.policy.startup import Startup
from sim.streams import stream

if TYPE_CHECKING:
    from sim.config.base import Fault as Section
    from sim.engine.recorder import Recorder
    from sim.engine.state import EngineState
    from sim.fleet.build import Plan
    from sim.fleet.by_model import ByModel
    from sim.fleet.client_side import ClientSide
    from sim.fleet.disaggregation import HandOvers
    from sim.fleet.dispatch import Dispatch
    from sim.fleet.engines import Engines
    from sim.fleet.hand_over_losses import FragileHandOvers
    from sim.fleet.scaling import Elastic
    from sim.policy.router import Router

    Choice = Dispatch | ByModel | HandOvers
    """Who chooses the replica."""
    Breakable = Dispatch | ByModel | FragileHandOvers
    """… where something may break."""

_IN_PLACE = ("weights", "warm-up")


def make_faults(sections: Sequence[Section]) -> list[Fault]:
    """The faults of a scenario's ``faults`` sections. Raises `ConfigError`, `UnknownNameError`."""
    from sim.config import settings

    out = []
    for i, section in enumerate(sections):
        field = f"faults[{i}]"
        cls: type[Fault] = registry.lookup("fault", section.name, f"{field}.name")
        fault = cls(settings(cls.Params, section.settings, field))
        p = fault.params
        if p.at is None and p.mtbf is None and cls.default_mtbf is None:
            raise ConfigError(f"{field}.at", None, "when it happens is missing", "at: 60s, or mtbf: 12h")
        out.append(fault)
    return out


def units_of(plans: Sequence[Plan]) -> list[Unit]:
    """All replicas, with the cold start of their engine."""
    units: list[Unit] = []
    for p in plans:
        phases = Startup().phases(float(p.model.weight_bytes()), p.scheduler.name)
        whole, in_place = (sum(f.seconds for f in phases if f.name in _IN_PLACE or every) for every in (True, False))
        each = p.accelerators // p.replicas
        units += [Unit(len(units) + k, each, in_place, whole) for k in range(p.replicas)]
    return units


def check_faults(faults: Sequence[Fault], plans: Sequence[Plan]) -> None:
    """Raises `ConfigError` for a replica that is not there, and for links where there are none."""
    units = units_of(plans) if faults else []
    for fault in faults:
        if fault.scope == "replica":
            fault.concerns(units)
        elif fault.touches == "link" and not plans[0].role:
            raise ConfigError(
                "faults.name", fault.name, "is about the links between prefill and decode pools, of which there are none"
            )
        elif fault.touches == "store" and not any(m.shared for p in plans if p.tiers is not None for m in p.tiers.media):
            raise ConfigError(
                "faults.name",
                fault.name,
                "is about a remote store of KV, of which there is none",
                hint="a vLLM with LMCache and a remote_url has one, an SGLang with hicache_storage_backend mooncake or hf3fs",
            )


def evidence_of(faults: Sequence[Fault], plans: Sequence[Plan]) -> list[Table]:
    """What rates and repairs rest on."""
    rows: list[Table] = []
    for fault in faults:
        if fault.params.at is None and fault.params.mtbf is None:
            what = f"fault {fault.name}: one per {fault.mtbf / 86400:,.0f} days of an accelerator"
            rows.append({"what": what, "grade": "measured", "source": fault.source})
        if fault.crashes and fault.params.for_ is None:
            unit = units_of(plans)[0]
            what = f"fault {fault.name}: {fault.lasts(unit):.0f} s until it serves again"
            rows.append({"what": what, "grade": "estimated", "source": "phases of a cold start, as of an autoscaler's"})
    return rows


def faults_of(
    clock: Clock,
    faults: Sequence[Fault],
    plans: Sequence[Plan],
    engines: Engines,
    routers: Sequence[Router],
    choice: Breakable,
    seed: int,
    elastic: Elastic | None,
) -> Faults:
    """The station. ``routers``: as `choice` (which dispatches) has them, one per side; ``elastic``: who scales, or None."""
    pools = [(p, k) for p in plans for k in range(p.replicas)]

    def new_engine(replica: int, recorder: Recorder) -> list[EngineState]:
        p, k = pools[replica]
        return p.processes(k, recorder)

    streams = [stream(seed, f"faults.{i}") for i in range(len(faults))] + [stream(seed, "faults.pauses")]
    station = Faults(clock, faults, units_of(plans), engines, streams, new_engine, routers[0].recovery)
    members = [r for r in routers if isinstance(r, Members)]
    if members:
        station.members = True
        if elastic is not None:
            elastic.out = station.out
            station.serves = elastic.serves
            station.changed = elastic.all_ready
        else:
            station.changed = _appoint(members, [seat.replicas(plans) for seat in seats(plans)], station.out)
    numbers = count()
    station.new_router = lambda: choice.renew(stream(seed, f"router.restart.{next(numbers)}"))
    if plans[0].role:
        from sim.fleet.hand_over_losses import FragileHandOvers

        assert isinstance(choice, FragileHandOvers)
        station.set_links = choice.set_links
        choice.refused_by = station.refused_by
    return station


def _appoint(routers: Sequence[Members], sides: Sequence[Sequence[int]], out: Container[int]) -> Callable[[], None]:
    """All serve; calling what this returns shows each router those that are not ``out``."""
    for router, side in zip(routers, sides, strict=True):
        router.appoint(range(len(side)))

    def appoint() -> None:
        for router, side in zip(routers, sides, strict=True):
            router.appoint([place for place, k in enumerate(side) if k not in out])
            router.look_at()

    return appoint


def in_front(
    clock: Clock,
    between: list[Station],
    client: Client | None,
    faults: Sequence[Fault],
    plans: Sequence[Plan],
    engines: Engines,
    routers: Sequence[Router],
    choice: Choice,
    elastic: Elastic | None,
    side: ClientSide | None,
    seed: int,
) -> list[Station]:
    """The stations between clients and engines, with those of clients that do more than wait and of faults."""
    breaks_requests = any(f.touches in ("process", "gateway") for f in faults)
    if client is None and not breaks_requests:
        attempts = None
    else:
        attempts = attempts_of(clock, client or Simple(SimpleParams()), plans, engines, side, seed)
    if not faults:
        return between if attempts is None else [attempts, *between]
    station = faults_of(clock, faults, plans, engines, routers, cast("Breakable", choice), seed, elastic)
    at = between.index(choice) + 1 if not plans[0].role else 0
    between = [*between[:at], station, *between[at:]]
    if attempts is None:
        return between
    station.attempts, station.front = attempts, Front(clock)
    attempts.recover = station.elsewhere
    return [attempts, station.front, *between]
