"""What an autoscaler is to do to each pool, planned: everything that can be wrong with it is found here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sim import registry
from sim.errors import ConfigError, NotModelledError
from sim.fleet.routers import seats
from sim.policy.scaler import LifeParams, Scaler
from sim.policy.startup import Phase

if TYPE_CHECKING:
    from sim.config.scenario import Scenario
    from sim.engine.recorder import Recorder
    from sim.engine.state import EngineState
    from sim.fleet.build import Plan


@dataclass(frozen=True)
class PoolPlan:
    """One pool of a fleet that scales: settings, replicas at the start, the phases of a cold start."""

    name: str
    params: LifeParams
    start: int
    phases: tuple[Phase, ...]
    accelerators: int
    """Of one replica."""
    ranks: int
    role: str
    processes: Callable[[int, Recorder], Sequence[EngineState]]
    """The states of new processes in the place of a replica's (number, recorder)."""
    seed: int
    side: int = 0
    """Number of the router that chooses among its replicas."""


@dataclass(frozen=True)
class ScalingPlan:
    """An autoscaler ready to run: its class, and what it does to each pool."""

    scaler: type[Scaler]
    pools: tuple[PoolPlan, ...]

    @property
    def params(self) -> LifeParams:
        """Settings of the first pool."""
        return self.pools[0].params

    @property
    def most(self) -> int:
        """Replicas that can exist at once."""
        return sum(p.params.max for p in self.pools)

    def grown(self, plans: Sequence[Plan]) -> list[Plan]:
        """The planned pools with as many replicas as can exist at once."""
        return [replace(plan, replicas=pool.params.max) for plan, pool in zip(plans, self.pools, strict=True)]


def _of_pools(value: object) -> dict[str, dict[str, Any]]:
    """The ``pools`` of the section: by name, the settings of each that differ."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(of, Mapping) for of in value.values()):
        raise ConfigError(
            "scaling.pools", value, "must be a mapping of names of pools to the settings of each", "such as {decode: {max: 8}}"
        )
    return {str(name): dict(of) for name, of in value.items()}


def plan_scaling(scenario: Scenario, plans: Sequence[Plan]) -> ScalingPlan | None:
    """The ``scaling`` section of a scenario. Raises `ConfigError`, `NotModelledError` for what cannot be scaled."""
    if scenario.scaling is None:
        return None
    from sim.config import settings

    section = scenario.scaling
    cls: type[Scaler] = registry.lookup("scaler", section.name, "scaling.name")
    given = dict(section.settings)
    own = _of_pools(given.pop("pools", None))
    known = [p.name for p in plans]
    for name in own:
        if scenario.pools is None or name not in known:
            raise ConfigError(
                "scaling.pools", name, "is no pool of this scenario", ", ".join(known) if scenario.pools else "none"
            )
    pools: list[PoolPlan] = []
    seat_of = {g: i for i, seat in enumerate(seats(plans)) for g in seat.pools}
    for p in plans:
        field = f"scaling.pools.{p.name}" if p.name in own else "scaling"
        params = settings(cls.Params, given | own.get(p.name, {}), field)
        if not params.min <= p.replicas <= params.max:
            allowed = f"{params.min} to {params.max}"
            raise ConfigError(
                f"{p.field}.replicas", p.replicas, f"are there at the start: must lie in {field}.min to max", allowed
            )
        targets = getattr(params, "targets", None)
        if targets is not None and targets.kv is not None and p.budget is None:
            no = f"{p.scheduler.name} reports no KV use"
            raise NotModelledError(f"{field}.targets.kv", targets.kv, no, "qps, gpu, queue")
        phases = params.startup.phases(float(p.model.weight_bytes()), p.scheduler.name)
        pools.append(
            PoolPlan(
                p.name,
                params,
                p.replicas,
                phases,
                p.accelerators // p.replicas,
                p.rank_count,
                p.role,
                p.processes,
                scenario.seed,
                seat_of[len(pools)],
            )
        )
    return ScalingPlan(cls, tuple(pools))
