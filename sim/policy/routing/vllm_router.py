"""The vLLM project's router (PyPI vllm_router 0.1.17), a fork of SGLang's.

``cache_aware`` of the released wheel works on prompt tokens. A request without token ids (text prompts and no tokenizer at the router) always
goes to the first worker with the least load; set ``tokens: false`` for that. Recorded decisions are matched (`servesim conformance router`).
*Polled*: ``power_of_two`` adds its own requests in flight to loads that it read up to ``load_poll_interval`` ago. ``kv_aware`` knows every block that an
engine stores and evicts, as of now. Not modelled: ttft_aware (least polled load), smetric, blocks that kv_aware takes to be there for 2 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sim.policy.gateways.cache_aware import CacheAware, Settings
from sim.policy.gateways.prompts import Letters, Pieces
from sim.policy.gateways.rings import HashRing
from sim.policy.recovery import SMG
from sim.policy.requests import Requests
from sim.policy.router import PollInterval, Relocation, Router, RouterParams, Snapshot
from sim.policy.routing._spans import spans_of
from sim.policy.routing.sglang_router import _by_number
from sim.registry import register

if TYPE_CHECKING:
    from sim.rules import Rule


class VllmRouterParams(RouterParams):
    """Settings of `VllmRouter`, spelled as on its command line."""

    policy: Literal[
        "cache_aware", "round_robin", "random", "sticky_least_loaded", "power_of_two", "kv_aware", "consistent_hash"
    ] = Field("cache_aware", description="how a worker is chosen")
    load_poll_interval: PollInterval = Field(
        5.0, le=1e6, description="power_of_two: seconds between two reads of an engine's load"
    )
    tokens: bool = Field(True, description="whether the router sees token ids; without them cache_aware is least load")
    cache_threshold: float = Field(0.3, ge=0, le=1, description="share of the prompt that must match for a hit (strictly more)")
    balance_abs_threshold: int = Field(
        64, ge=0, le=10**9, description="requests in flight by which workers must differ to be out of balance"
    )
    balance_rel_threshold: float = Field(1.5, ge=0, le=1e9, allow_inf_nan=False, description="and the factor by which")
    eviction_interval_secs: float = Field(120.0, gt=0, le=1e9, description="seconds between evictions")
    max_tree_size: int = Field(2**25, ge=1, le=2**40, description="tokens that one worker may hold in the tree after an eviction")


@register("router")
class VllmRouter(Router):
    """The vLLM project's gateway: prefix-aware on tokens by default."""

    name = "vllm_router"
    recovery = SMG
    Params = VllmRouterParams
    params: VllmRouterParams
    elastic = True

    def __init__(self, params: VllmRouterParams, replicas: int, rng: np.random.Generator) -> None:
        super().__init__(params, replicas, rng)
        self._numbers: list[int] = list(range(replicas))
        thresholds = params.cache_threshold, params.balance_abs_threshold, params.balance_rel_threshold
        self._core = CacheAware(Settings("vllm-router", *thresholds), self._numbers)
        self._evicts_at = params.eviction_interval_secs
        self._turn = 0
        self._sessions: dict[int, int] = {}
        self._ring = HashRing(160)
        self._polled: NDArray[np.float64] | None = None
        if params.policy == "power_of_two":
            self.interval = params.load_poll_interval

    def poll(self, snapshot: Snapshot) -> Sequence[Relocation]:
        """Requests running and waiting."""
        gauges = snapshot.gauges()
        self._polled = np.array(gauges[0] + gauges[1])
        if self._compiled is not None:
            self._compiled.reported(self._polled)
        return ()

    def members(self, numbers: Sequence[int]) -> None:
        """Workers that left lose their sessions; their nodes stay in the tree until evicted."""
        super().members(numbers)
        self._numbers = list(numbers)
        self._core.workers(self._numbers)
        self._sessions = {k: w for k, w in self._sessions.items() if w in self._numbers}
        self._polled = None
        if self._compiled is not None:
            self._compiled.workers(self._numbers)

    def rule(self) -> Rule | None:
        """All policies but kv_aware."""
        if self._compiled is None and self.params.policy != "kv_aware":
            self._compiled = self._new_rule()
        return self._compiled

    def _new_rule(self) -> Rule:
        from sim.policy.rules import cache_aware, in_turn, owned, random, sticky, two_apart

        p = self.params
        if p.policy == "round_robin":
            return in_turn.counted()
        if p.policy == "random":
            return random.uniform()
        if p.policy == "sticky_least_loaded":
            return sticky.StickyRule(self._numbers, sticky.SESSIONS)
        if p.policy == "power_of_two":
            return two_apart.TwoApart(own=True)
        if p.policy == "consistent_hash":
            return owned.OwnedRule(self._owner)
        interval = p.eviction_interval_secs
        return cache_aware.CacheAwareRule(self._core.settings, self._numbers, interval, float(p.max_tree_size), p.tokens)

    def _owner(self, session: int) -> int:
        """The place of a session on the ring."""
        self._ring.set_nodes(self._numbers)
        return self._numbers.index(self._ring.owner(session))

    def choose(self, snapshot: Snapshot, block: Requests, row: int) -> int:
        """One decision by ``policy``."""
        p = self.params
        if p.policy == "round_robin":
            self._turn += 1
            return (self._turn - 1) % self.replicas
        if p.policy == "random":
            return int(self.rng.integers(0, self.replicas))
        if p.policy == "sticky_least_loaded":
            return self._sticky(int(block.session[row]))
        if p.policy == "power_of_two":
            return self._power_of_two(snapshot)
        if p.policy == "consistent_hash":
            session = int(block.session[row])
            return int(self.rng.integers(0, self.replicas)) if session < 0 else self._owner(session)
        if p.policy == "kv_aware":
            hits = snapshot.cached(block, row)
            most = hits.max()
            return int(snapshot.outstanding.argmin()) if most == 0 else len(hits) - 1 - int(hits[::-1].argmax())
        if snapshot.now >= self._evicts_at:
            self._core.tree.evict(p.max_tree_size)
            self._evicts_at = (snapshot.now // p.eviction_interval_secs + 1.0) * p.eviction_interval_secs
        prompt = Pieces(spans_of(block, row), int(block.prompt_tokens[row])) if p.tokens else Letters("")
        decision = self._core.decide(prompt, _by_number(self._numbers, snapshot.outstanding))
        number = decision.allowed[0]
        if p.tokens:
            self._core.chosen(number, prompt, decision)
        return self._numbers.index(number)

    def _power_of_two(self, snapshot: Snapshot) -> int:
        """The less loaded of two that are drawn, the first of equals."""
        if self.replicas == 1:
            return 0
        first = int(self.rng.integers(0, self.replicas))
        second = (first + 1 + int(self.rng.integers(0, self.replicas - 1))) % self.replicas
        load = snapshot.outstanding if self._polled is None else snapshot.outstanding + self._polled
        return second if load[second] < load[first] else first

    def _sticky(self, session: int) -> int:
        """A session stays; a new one goes to the worker with the fewest sessions, drawn among equals (the real tie-break hashes the URL)."""
        if session < 0:
            return int(self.rng.integers(0, self.replicas))
        if session not in self._sessions:
            held = np.bincount([self._numbers.index(w) for w in self._sessions.values()], minlength=self.replicas)
            ties = np.flatnonzero(held == held.min())
            self._sessions[session] = self._numbers[int(ties[int(self.rng.integers(0, ties.size))])]
        return self._numbers.index(self._sessions[session])
