"""The routers of a run."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from sim import plugins, registry
from sim.document import is_number
from sim.errors import ConfigError
from sim.fleet.by_model import models_of
from sim.streams import stream

if TYPE_CHECKING:
    from sim.config.base import Router as Section
    from sim.fleet.build import Plan
    from sim.fleet.engines import Engines
    from sim.fleet.view import View
    from sim.policy.router import Router


class Seat(NamedTuple):
    """A router in front of the pools numbered ``pools``: of one side, where there are two, of one model, where there are several."""

    model: int
    role: str
    pools: list[int]

    def replicas(self, plans: Sequence[Plan]) -> list[int]:
        """The numbers of those among which it chooses."""
        pool_of = [g for g, p in enumerate(plans) for _ in range(p.replicas)]
        return [k for k, g in enumerate(pool_of) if g in self.pools]


def seats(plans: Sequence[Plan]) -> list[Seat]:
    """Model by model, prefill before decode. Not for pools that share cards, nor for a router that chooses for both sides."""
    of_pool = models_of(plans).of_pool if plans[0].apart else [0] * len(plans)
    roles = ("prefill", "decode") if plans[0].role else ("",)
    return [
        Seat(model, role, [g for g, p in enumerate(plans) if of_pool[g] == model and p.role == role])
        for model in dict.fromkeys(of_pool)
        for role in roles
    ]


def make_router(section: Section, replicas: int, seed: int, name: str = "router") -> Router:
    """The router of a scenario's ``router`` section; ``name`` of its substream. Raises `ConfigError`."""
    from sim.config import settings

    cls: type[Router] = registry.lookup("router", section.name, "router.name")
    made = cls(settings(cls.Params, section.settings, "router"), replicas, stream(seed, name))
    if not plugins.is_own(cls.__module__):
        _check(made, section.name)
    return made


def _check(router: Router, name: str) -> None:
    """Raises `ConfigError` for a router of one's own that says what it cannot be."""
    from sim.policy.router import SHORTEST_POLL
    from sim.policy.router import Router as Base

    if router.stateless and type(router).route is Base.route:
        raise ConfigError("router.name", name, "says that it is stateless, but defines no `route`")
    each = router.interval
    if each is not None and not (is_number(each) and SHORTEST_POLL <= each < inf):
        raise ConfigError(
            "router.name",
            name,
            f"has the `interval` {each!r}, which is no time between two looks",
            f"None, or at least {SHORTEST_POLL:g} s",
        )


def make_routers(plans: Sequence[Plan], section: Section, seed: int) -> list[Router]:
    """One router, or in a disaggregated deployment one for each side unless it chooses for both; and of each model, where there are several.

    Of models that share cards: one of the hosts.
    """
    if plans[0].several:
        return [make_router(section, plans[0].replicas, seed)]
    if plans[0].role and registry.lookup("router", section.name, "router.name").whole:
        return [make_router(section, sum(p.replicas for p in plans), seed)]
    names = models_of(plans).names if plans[0].apart else [""]
    found = []
    for seat in seats(plans):
        parts = ("router", names[seat.model] if seat.model else "", "decode" if seat.role == "decode" else "")
        found.append(make_router(section, len(seat.replicas(plans)), seed, ".".join(part for part in parts if part)))
    return found


def part_view(engines: Engines, plans: Sequence[Plan], some: Sequence[int]) -> View:
    """What a router sees that is in front of ``some`` of the pools."""
    return engines.part([engines.groups[g] for g in some], [plans[g].facts for g in some for _ in range(plans[g].replicas)])
