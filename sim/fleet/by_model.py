"""Several models in one fleet, each on replicas of its own: a request goes to the router of its model, which sees the replicas that serve it.

So do llm-d (an `InferencePool` and an endpoint picker for each), vLLM's production-stack (endpoints filtered by model before the routing logic),
SGLang's router (a policy for each model), Dynamo and Ray Serve (a router for each deployment). What several models on *one* card do is `hosts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sim.fleet.clock import Clock
from sim.fleet.dispatch import Dispatch
from sim.fleet.mix import Mix
from sim.fleet.request import Request
from sim.fleet.station import Station
from sim.streams import stream

if TYPE_CHECKING:
    from sim.fleet.build import Plan
    from sim.fleet.view import Sight
    from sim.policy.router import Router
    from sim.workload.base import Traffic


class Models(NamedTuple):
    """The models of a fleet. ``of_pool``: the number of each pool's; ``shares``: weight of each among the requests that name none."""

    names: list[str]
    of_pool: list[int]
    shares: list[float]

    def replicas(self, plans: Sequence[Plan]) -> list[list[int]]:
        """The replicas that serve each."""
        of = [model for model, p in zip(self.of_pool, plans, strict=True) for _ in range(p.replicas)]
        return [[k for k, model in enumerate(of) if model == mine] for mine in range(len(self.names))]

    def pools(self, plans: Sequence[Plan]) -> dict[str, list[str]]:
        """The names of the pools that serve each."""
        return {name: [p.name for p in plans if p.model.name == name] for name in self.names}

    def number(self, plans: Sequence[Plan], name: str) -> int:
        """Of a model by its name, or by that of a pool which serves it."""
        pools = [p.name for p in plans]
        return self.names.index(name) if name in self.names else self.of_pool[pools.index(name)]


def models_of(plans: Sequence[Plan]) -> Models:
    """Pools of one name of model serve the same."""
    names = list(dict.fromkeys(p.model.name for p in plans))
    of_pool = [names.index(p.model.name) for p in plans]
    return Models(names, of_pool, [sum(p.share for p in plans if p.model.name == name) for name in names])


def mix_of(plans: Sequence[Plan], traffic: Traffic, models: Models | None, seed: int) -> Mix:
    """Which model a request names: that of its class, else drawn by share. Without ``models`` each pool is a model (`hosts`)."""
    names = [p.name for p in plans]
    number = names.index if models is None else lambda name: models.number(plans, name)
    of_class = [-1 if c.model is None else number(c.model) for c in traffic.classes]
    shares = [p.share for p in plans] if models is None else models.shares
    return Mix(shares, stream(seed, "models"), of_class, models is not None)


class _Ends(Station):
    """Where a model's own road begins and ends: replica i of it is number ``numbers[i]`` of the fleet."""

    def __init__(self, owner: Station, numbers: Sequence[int]) -> None:
        super().__init__()
        self._owner, self._numbers = owner, numbers

    def submit(self, request: Request, replica: int) -> None:
        self._owner.then.submit(request, self._numbers[replica])

    def ended(self, request: Request, time: float, replica: int) -> None:
        self._owner.before.ended(request, time, replica)

    def first_token(self, request: Request, time: float) -> None:
        self._owner.before.first_token(request, time)

    def refused(self, request: Request, time: float, busy: bool = False) -> None:
        self._owner.before.refused(request, time, busy)


class ByModel(Station):
    """``routers`` and ``views``: of each model; ``pools``, by its name, and ``replicas``, numbers: who serves it."""

    def __init__(
        self,
        clock: Clock,
        routers: Sequence[Router],
        views: Sequence[Sight],
        pools: dict[str, list[str]],
        replicas: Sequence[Sequence[int]],
    ) -> None:
        super().__init__()
        self._of = [Dispatch(clock, router, view) for router, view in zip(routers, views, strict=True)]
        for choice, numbers in zip(self._of, replicas, strict=True):
            choice.then = choice.before = _Ends(self, numbers)
            self.watches |= choice.watches
        self._pools = pools

    def start(self) -> None:
        """Each router looks at its replicas."""
        for choice in self._of:
            choice.start()

    def renew(self, rng: np.random.Generator) -> None:
        """All routers are started anew."""
        for choice in self._of:
            choice.renew(rng)

    def arrive(self, request: Request) -> bool:
        """To the router of its model."""
        return self._of[request.model].arrive(request)

    def in_turn(self, request: Request) -> bool:
        """Among the replicas of its model."""
        return self._of[request.model].in_turn(request)

    def first_token(self, request: Request, time: float) -> None:
        """The model's router hears of it."""
        self._of[request.model].first_token(request, time)

    def ended(self, request: Request, time: float, replica: int) -> None:
        """Likewise."""
        self._of[request.model].ended(request, time, replica)

    def refused(self, request: Request, time: float, busy: bool = False) -> None:
        """Likewise."""
        self._of[request.model].refused(request, time, busy)

    def leaves(self) -> Mapping[str, object]:
        """Which pools serve which model."""
        return {"models": self._pools}
