"""SGLang's router (sglang_router 0.3.2) and its successor smg, over HTTP.

Own counters only: requests in flight through this gateway, which is what ``outstanding`` counts. The tree is fed by routing and never told what
the engines evict. Recorded decisions of sglang_router 0.3.2 and smg 1.13.0 are matched (`servesim conformance router`). Sizes are given in
characters, as on the command line; a token counts as ``characters_per_token`` of them.

Not modelled: ``prefix_hash`` and ``consistent_hashing`` (their rings hash texts and headers that simulated requests do not have), ``bucket``,
overload protection and the priority scheduler of smg 1.13, circuit breakers and retries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from sim.policy.gateways.cache_aware import CacheAware, Settings
from sim.policy.gateways.prompts import Pieces
from sim.policy.router import Router, RouterParams, Snapshot
from sim.policy.routing._spans import spans_of
from sim.registry import register

Version = Literal["0.3", "smg-1.8", "smg-1.13"]
_EVICTION_S = {"0.3": 60.0, "smg-1.8": 120.0, "smg-1.13": 120.0}


class SglangRouterParams(RouterParams):
    """Settings of `SglangRouter`, spelled as on its command line."""

    version: Version = Field("0.3", description="sglang_router 0.3, or smg at 1.8 or 1.13: the rules of cache_aware differ")
    policy: Literal["cache_aware", "round_robin", "random", "power_of_two", "manual"] = Field(
        "cache_aware", description="how a worker is chosen"
    )
    cache_threshold: float = Field(0.3, ge=0, le=1, description="share of the prompt that must match for a hit (strictly more)")
    balance_abs_threshold: int = Field(
        64, ge=0, le=10**9, description="requests in flight by which workers must differ to be out of balance"
    )
    balance_rel_threshold: float = Field(
        1.5, ge=0, le=1e9, allow_inf_nan=False, description="and the factor (smg 1.13: against the mean)"
    )
    eviction_interval: float | None = Field(
        None, gt=0, le=1e9, description="seconds between evictions; null: 60 for 0.3, 120 for smg"
    )
    max_tree_size: int = Field(
        2**26, ge=1, le=2**40, description="characters that one worker may hold in the tree after an eviction"
    )
    characters_per_token: float = Field(4.0, gt=0, le=100, description="how long a token is in characters")
    assignment_mode: Literal["random", "min_load", "min_group"] = Field(
        "random", description="manual: where a new routing key (here: session) goes"
    )


@register("router")
class SglangRouter(Router):
    """A gateway of SGLang: prefix-aware by default, else the simple policies."""

    name = "sglang_router"
    aliases = ("smg",)
    Params = SglangRouterParams
    elastic: ClassVar[bool] = True

    def __init__(self, params: Any, replicas: int, rng: np.random.Generator) -> None:
        super().__init__(params, replicas, rng)
        self._numbers: list[int] = list(range(replicas))
        thresholds = params.cache_threshold, params.balance_abs_threshold, params.balance_rel_threshold
        self._core = CacheAware(Settings(params.version, *thresholds), self._numbers)
        self._interval = params.eviction_interval or _EVICTION_S[params.version]
        self._evicts_at = self._interval
        self._most = int(params.max_tree_size / params.characters_per_token)
        self._turn = 0
        self._sticky: dict[int, int] = {}

    def members(self, numbers: Sequence[int]) -> None:
        """Workers that left lose their keys; what the tree does with them depends on the version."""
        super().members(numbers)
        self._numbers = list(numbers)
        self._core.workers(self._numbers)
        self._sticky = {k: w for k, w in self._sticky.items() if w in self._numbers}

    def choose(self, snapshot: Snapshot, block: Any, row: int) -> int:
        """One decision by ``policy``."""
        policy = self.params.policy
        if policy == "cache_aware":
            return self._cache_aware(snapshot, block, row)
        if policy == "round_robin":
            self._turn += 1
            return (self._turn - 1) % self.replicas
        if policy == "random" or self.replicas == 1:
            return int(self.rng.integers(0, self.replicas))
        if policy == "manual":
            return self._manual(snapshot, int(block.session[row]))
        # over HTTP nobody counts the load of power_of_two and no engine reports it: both are 0, and the first drawn wins the tie
        first = int(self.rng.integers(0, self.replicas))
        self.rng.integers(0, self.replicas - 1)
        return first

    def _cache_aware(self, snapshot: Snapshot, block: Any, row: int) -> int:
        if snapshot.now >= self._evicts_at:
            self._core.tree.evict(self._most)
            self._evicts_at = (snapshot.now // self._interval + 1.0) * self._interval
        prompt = Pieces(spans_of(block, row), int(block.prompt_tokens[row]))
        loads = _by_number(self._numbers, snapshot.outstanding)
        decision = self._core.decide(prompt, loads)
        allowed = decision.allowed
        number = allowed[0] if len(allowed) == 1 else allowed[int(self.rng.integers(0, len(allowed)))]
        self._core.chosen(number, prompt, decision)
        return self._numbers.index(number)

    def _manual(self, snapshot: Snapshot, session: int) -> int:
        if session < 0:
            return int(self.rng.integers(0, self.replicas))
        if session not in self._sticky:
            groups = [0] * self.replicas
            for number in self._sticky.values():
                groups[self._numbers.index(number)] += 1
            by = {"random": np.zeros(self.replicas), "min_load": snapshot.outstanding, "min_group": np.array(groups)}
            costs = np.asarray(by[self.params.assignment_mode])
            ties = np.flatnonzero(costs == costs.min())
            self._sticky[session] = self._numbers[int(ties[int(self.rng.integers(0, ties.size))])]
        return self._numbers.index(self._sticky[session])


def _by_number(numbers: Sequence[int], outstanding: Any) -> Any:
    """Loads by the number of a replica, whatever places the router sees."""
    if list(numbers) == list(range(len(numbers))):
        return outstanding
    loads = np.zeros(max(numbers) + 1, np.int64)
    loads[list(numbers)] = outstanding
    return loads
