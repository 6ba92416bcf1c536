"""Ray Serve's routers for LLM deployments (ray 2.60.0): power of two choices, and the prefix-cache-affinity router over it.

Queue lengths are those of this router's cache, updated by every dispatch and response: what ``outstanding`` counts. The tree's decisions are
matched against the real class (`servesim conformance router`). The LLM builder sets ``max_ongoing_requests`` to 10^9, so replicas never refuse.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sim.policy.gateways.owner_tree import OwnerTree
from sim.policy.gateways.prompts import Pieces
from sim.policy.recovery import RAY
from sim.policy.requests import Requests
from sim.policy.router import CharactersPerToken, Router, RouterParams, Snapshot
from sim.policy.routing._spans import spans_of
from sim.registry import register


class RayServeParams(RouterParams):
    """Settings of `RayServe`, spelled as in Ray (`PrefixCacheAffinityRouter`)."""

    prefix_aware: bool = Field(True, description="PrefixCacheAffinityRouter; false: PowerOfTwoChoicesRequestRouter")
    imbalanced_threshold: float = Field(
        float("inf"), ge=0, description="spread of queue lengths beyond which the prefix is ignored"
    )
    match_rate_threshold: float = Field(0.1, ge=0, le=1, description="share of the prompt that must match")
    do_eviction: bool = Field(False, description="bound the tree")
    eviction_threshold_chars: int = Field(400_000, ge=1, le=2**40, description="characters of a replica at which it is evicted")
    eviction_target_chars: int = Field(360_000, ge=0, le=2**40, description="and down to which")
    eviction_interval_secs: float = Field(10.0, gt=0, le=1e9, description="seconds between evictions")
    characters_per_token: CharactersPerToken = 4.0


@register("router")
class RayServe(Router):
    """Ray Serve: the less loaded of two candidates, candidates by prefix where that matches."""

    name = "ray_serve"
    recovery = RAY
    Params = RayServeParams
    params: RayServeParams
    elastic = True

    def __init__(self, params: RayServeParams, replicas: int, rng: np.random.Generator) -> None:
        super().__init__(params, replicas, rng)
        self._names = [_name(i) for i in range(replicas)]
        self._tree: OwnerTree[Pieces] = OwnerTree()
        self._tree.add(self._names, 0.0)
        self._evicts_at = params.eviction_interval_secs

    def members(self, numbers: Sequence[int]) -> None:
        """Who left is removed from the tree, who came is added."""
        super().members(numbers)
        names = [_name(i) for i in numbers]
        for gone in set(self._tree.sizes) - set(names):
            self._tree.remove(gone)
        self._tree.add(names, 0.0)
        self._names = names

    def choose(self, snapshot: Snapshot, block: Requests, row: int) -> int:
        """Candidates by prefix, then two of them at random and the shorter queue; the first drawn wins a tie."""
        load = snapshot.outstanding
        if not self.params.prefix_aware:
            return self._two(list(range(self.replicas)), load)
        self._evict(snapshot.now)
        prompt = Pieces(spans_of(block, row), int(block.prompt_tokens[row]))
        able = list(range(self.replicas))
        if float(load.max() - load.min()) <= self.params.imbalanced_threshold:
            length, owners = self._tree.match(prompt, self._names)
            names = self._tree.smallest(self._names) if length / len(prompt) < self.params.match_rate_threshold else owners
            able = [i for i, name in enumerate(self._names) if name in names] or able
        place = able[0] if len(able) == 1 else self._two(able, load)
        self._tree.insert(prompt, self._names[place], snapshot.now)
        return place

    def _two(self, able: list[int], load: NDArray[np.int64]) -> int:
        if len(able) == 1:
            return able[0]
        a, b = self.rng.choice(len(able), 2, replace=False)
        first, second = able[int(a)], able[int(b)]
        return second if load[second] < load[first] else first

    def _evict(self, now: float) -> None:
        p = self.params
        if not p.do_eviction or now < self._evicts_at:
            return
        self._evicts_at = (now // p.eviction_interval_secs + 1.0) * p.eviction_interval_secs
        for name, size in list(self._tree.sizes.items()):
            if size * p.characters_per_token > p.eviction_threshold_chars:
                self._tree.evict(name, int(size - p.eviction_target_chars / p.characters_per_token))


def _name(replica: int) -> str:
    return f"replica-{replica:06d}"
