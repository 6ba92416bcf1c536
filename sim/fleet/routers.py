"""The routers of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sim import registry
from sim.fleet.by_model import models_of
from sim.streams import stream

if TYPE_CHECKING:
    from sim.config.base import Router as Section
    from sim.fleet.build import Plan
    from sim.fleet.engines import Engines
    from sim.fleet.view import View
    from sim.policy.router import Router


def make_router(section: Section, replicas: int, seed: int, name: str = "router") -> Router:
    """The router of a scenario's ``router`` section; ``name`` of its substream. Raises `ConfigError`."""
    from sim.config import settings

    cls: type[Router] = registry.lookup("router", section.name, "router.name")
    return cls(settings(cls.Params, section.settings, "router"), replicas, stream(seed, name))


def make_routers(plans: Sequence[Plan], section: Section, seed: int) -> list[Router]:
    """One router, or in a disaggregated deployment one for each side unless it chooses for both; or one for each model.

    Of models that share cards: one of the hosts.
    """
    replicas = {role: sum(p.replicas for p in plans if p.role == role) for role in ("", "prefill", "decode")}
    if plans and plans[0].apart:
        models = models_of(plans)
        names = ["router", *(f"router.{name}" for name in models.names[1:])]
        counts = [len(found) for found in models.replicas(plans)]
        return [make_router(section, n, seed, name) for n, name in zip(counts, names, strict=True)]
    if plans[0].several:
        return [make_router(section, plans[0].replicas, seed)]
    if not plans[0].role:
        return [make_router(section, replicas[""], seed)]
    if registry.lookup("router", section.name, "router.name").whole:
        return [make_router(section, sum(replicas.values()), seed)]
    return [
        make_router(section, replicas["prefill"], seed),
        make_router(section, replicas["decode"], seed, "router.decode"),
    ]


def part_view(engines: Engines, plans: Sequence[Plan], mine: Sequence[bool]) -> View:
    """What a router sees that is in front of some of the pools, which are ``mine``."""
    some = [g for g, it_is in enumerate(mine) if it_is]
    return engines.part([engines.groups[g] for g in some], [plans[g].facts for g in some for _ in range(plans[g].replicas)])
