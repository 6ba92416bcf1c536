"""SGLang's router (sglang_router 0.3.2) and its successor smg, over HTTP.

Own counters only: requests in flight through this gateway, which is what ``outstanding`` counts. The tree is fed by routing and never told what
the engines evict. Recorded decisions of sglang_router 0.3.2 and smg 1.13.0 are matched (`servesim conformance router`). Sizes are given in
characters, as on the command line; a token counts as ``characters_per_token`` of them.

smg 1.13 leaves workers out of ``cache_aware`` that report a long queue or full KV memory, as long as another does not (its other policies do so too, which is
not modelled).

*Polled*: reports of SGLang engines every ``load_monitor_interval``, for the policies that use them; they are as old as that, and what this gateway has sent
since is added only by ``least_load``. Routing keys are sessions. ``prefix_hash`` needs tokens, as over gRPC.

Not modelled: smg 1.13's bound of the tree as a whole (here: for each worker). Its limit of requests in flight and its queue are `queue_limit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sim.policy.gateways.cache_aware import CacheAware, Settings
from sim.policy.gateways.prompts import Pieces
from sim.policy.gateways.rings import HashRing
from sim.policy.gateways.sglang import Buckets, Reported, least_load, prefix_hash
from sim.policy.recovery import SMG
from sim.policy.requests import Requests
from sim.policy.router import CharactersPerToken, PollInterval, Relocation, ReplicaFacts, Router, RouterParams, Snapshot
from sim.policy.routing._spans import spans_of
from sim.registry import register

if TYPE_CHECKING:
    from sim.rules import Rule

Version = Literal["0.3", "smg-1.8", "smg-1.13"]
_EVICTION_S = {"0.3": 60.0, "smg-1.8": 120.0, "smg-1.13": 60.0}


class SglangRouterParams(RouterParams):
    """Settings of `SglangRouter`, spelled as on its command line."""

    version: Version = Field("0.3", description="sglang_router 0.3, or smg at 1.8 or 1.13: the rules of cache_aware differ")
    policy: Literal[
        "cache_aware",
        "round_robin",
        "random",
        "power_of_two",
        "least_load",
        "prefix_hash",
        "consistent_hashing",
        "manual",
        "bucket",
    ] = Field("cache_aware", description="how a worker is chosen")
    cache_threshold: float = Field(0.3, ge=0, le=1, description="share of the prompt that must match for a hit (strictly more)")
    balance_abs_threshold: int = Field(
        64, ge=0, le=10**9, description="requests in flight by which workers must differ to be out of balance"
    )
    balance_rel_threshold: float = Field(
        1.5, ge=0, le=1e9, allow_inf_nan=False, description="and the factor (smg 1.13: against the mean)"
    )
    eviction_interval: float | None = Field(
        None, gt=0, le=1e9, description="seconds between evictions; null: 60, for smg-1.8 120"
    )
    max_tree_size: int = Field(
        2**26, ge=1, le=2**40, description="characters that one worker may hold in the tree after an eviction"
    )
    characters_per_token: CharactersPerToken = 4.0
    load_monitor_interval: PollInterval = Field(10.0, le=1e6, description="seconds between two reports of an engine's load")
    prefix_token_count: int = Field(256, ge=1, le=2**20, description="prefix_hash: tokens that are hashed")
    prefix_hash_load_factor: float = Field(
        1.25, ge=0, le=1e6, description="prefix_hash: load beyond which the ring's worker is passed over"
    )
    bucket_adjust_interval_secs: float = Field(
        5.0, gt=0, le=1e6, description="bucket: seconds between two looks at the boundaries"
    )
    least_load_kv_pressure_weight: float = Field(0.15, ge=0, le=1e6, description="least_load: weight of KV pressure")
    least_load_default_throughput: float = Field(
        2000.0, gt=0, le=1e9, description="least_load: tokens/s of an engine that reports none"
    )
    least_load_mean_prefill_tokens: float = Field(
        1024.0, gt=0, le=1e9, description="least_load: tokens that a request counts for"
    )
    worker_overload_protection: bool = Field(True, description="smg-1.13 with SGLang: whether overloaded workers are left out")
    worker_overload_waiting_requests: int = Field(
        8, ge=1, le=10**9, description="requests waiting at a worker that is overloaded"
    )
    worker_overload_token_usage: float = Field(0.8, gt=0, le=1, description="share of KV memory in use at one that is")
    assignment_mode: Literal["random", "min_load", "min_group"] = Field(
        "random", description="manual: where a new routing key (here: session) goes"
    )


class _Reports:
    """What engines said last: requests waiting, share of KV memory in use; and tokens sent to each since."""

    def __init__(self, gauges: NDArray[np.float64]) -> None:
        _, self.waiting, used, total = np.array(gauges[:4], np.float64)
        self.kv = np.divide(used, total, out=np.zeros_like(used), where=total > 0)
        self.sent = np.zeros(len(self.kv))


@register("router")
class SglangRouter(Router):
    """A gateway of SGLang: prefix-aware by default, else the simple policies."""

    name = "sglang_router"
    recovery = SMG
    aliases = ("smg",)
    Params = SglangRouterParams
    params: SglangRouterParams
    elastic: ClassVar[bool] = True

    def __init__(self, params: SglangRouterParams, replicas: int, rng: np.random.Generator) -> None:
        super().__init__(params, replicas, rng)
        self._numbers: list[int] = list(range(replicas))
        thresholds = params.cache_threshold, params.balance_abs_threshold, params.balance_rel_threshold
        self._core = CacheAware(Settings(params.version, *thresholds), self._numbers)
        self._interval = params.eviction_interval or _EVICTION_S[params.version]
        self._evicts_at = self._interval
        self._most = int(params.max_tree_size / params.characters_per_token)
        self._turn = 0
        self._sticky: dict[int, int] = {}
        self._ring = HashRing()
        self._buckets: Buckets | None = None
        self._reports: _Reports | None = None
        self._protects = False

    def setup(self, facts: Sequence[ReplicaFacts]) -> None:
        """SGLang's engines report their load."""
        p = self.params
        reports = bool(facts) and all(f.engine == "sglang" for f in facts)
        self._protects = reports and p.worker_overload_protection and (p.version, p.policy) == ("smg-1.13", "cache_aware")
        if self._protects or (reports and p.policy in ("power_of_two", "least_load")):
            self.interval = p.load_monitor_interval

    def poll(self, snapshot: Snapshot) -> Sequence[Relocation]:
        """New reports; what was sent since the last ones counts no more."""
        self._reports = _Reports(snapshot.gauges())
        if self._compiled is not None:
            self._compiled.reported(self._reports.kv)
        return ()

    def members(self, numbers: Sequence[int]) -> None:
        """Workers that left lose their keys; what the tree does with them depends on the version."""
        super().members(numbers)
        self._numbers = list(numbers)
        self._core.workers(self._numbers)
        self._sticky = {k: w for k, w in self._sticky.items() if w in self._numbers}
        self._reports = None
        if self._compiled is not None:
            self._compiled.workers(self._numbers)

    def rule(self) -> Rule | None:
        """All policies but least_load, prefix_hash and bucket, and where no worker is left out."""
        if self._protects:
            return None
        if self._compiled is None and self.params.policy not in ("least_load", "prefix_hash", "bucket"):
            self._compiled = self._new_rule()
        return self._compiled

    def _new_rule(self) -> Rule:
        from sim.policy.rules import cache_aware, in_turn, owned, random, sticky, two_apart

        p = self.params
        if p.policy == "round_robin":
            return in_turn.counted()
        if p.policy == "random":
            return random.uniform()
        if p.policy == "manual":
            kinds = {"random": sticky.ANY, "min_load": sticky.REQUESTS, "min_group": sticky.SESSIONS}
            return sticky.StickyRule(self._numbers, kinds[p.assignment_mode], alone=True)
        if p.policy == "power_of_two":
            return two_apart.TwoApart(own=False)
        if p.policy == "consistent_hashing":
            return owned.OwnedRule(self._owner)
        return cache_aware.CacheAwareRule(self._core.settings, self._numbers, self._interval, float(self._most))

    def _owner(self, session: int) -> int:
        """The place of a session on the ring."""
        self._ring.set_nodes(self._numbers)
        return self._numbers.index(self._ring.owner(session))

    def choose(self, snapshot: Snapshot, block: Requests, row: int) -> int:
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
        if policy == "power_of_two":
            return self._power_of_two()
        if policy == "least_load":
            return self._least_load(snapshot)
        return self._hashed(snapshot, block, row)

    def _power_of_two(self) -> int:
        """Over HTTP nobody counts its load: without reports both are 0, and the first drawn wins the tie."""
        first = int(self.rng.integers(0, self.replicas))
        second = (first + 1 + int(self.rng.integers(0, self.replicas - 1))) % self.replicas
        if self._reports is None:
            return first
        return second if self._reports.kv[second] < self._reports.kv[first] else first

    def _least_load(self, snapshot: Snapshot) -> int:
        p, r, loads = self.params, self._reports, snapshot.outstanding
        seen = [
            Reported(float(load))
            if r is None
            else Reported(float(load), float(r.waiting[i]) * p.least_load_mean_prefill_tokens, float(r.kv[i]), 0.0, r.sent[i])
            for i, load in enumerate(loads)
        ]
        place = least_load(
            seen, p.least_load_kv_pressure_weight, p.least_load_default_throughput, p.least_load_mean_prefill_tokens
        )
        if r is not None:
            r.sent[place] += p.least_load_mean_prefill_tokens  # over HTTP the length of a prompt is not known
        return place

    def _hashed(self, snapshot: Snapshot, block: Requests, row: int) -> int:
        p = self.params
        if p.policy == "bucket":
            if self._buckets is None or self._buckets.workers != self.replicas:
                self._buckets = Buckets(
                    self.replicas, p.balance_abs_threshold, p.balance_rel_threshold, p.bucket_adjust_interval_secs
                )
            return self._buckets.choose(snapshot.now, int(block.prompt_tokens[row] * p.characters_per_token))
        if p.policy == "consistent_hashing":
            session = int(block.session[row])
            return int(self.rng.integers(0, self.replicas)) if session < 0 else self._owner(session)
        self._ring.set_nodes(self._numbers)
        prompt = Pieces(spans_of(block, row), int(block.prompt_tokens[row]))
        first = next(iter(prompt.blocks(min(p.prefix_token_count, len(prompt)), partial=True)))
        owner = self._numbers.index(self._ring.owner(first))
        return prefix_hash([float(v) for v in snapshot.outstanding], owner, p.prefix_hash_load_factor)

    def _overloaded(self) -> list[int]:
        """Workers that are left out, by what they reported last."""
        p, r = self.params, self._reports
        if not self._protects or r is None:
            return []
        over = (r.waiting >= p.worker_overload_waiting_requests) | (r.kv >= p.worker_overload_token_usage)
        return [self._numbers[i] for i in np.flatnonzero(over)]

    def _cache_aware(self, snapshot: Snapshot, block: Requests, row: int) -> int:
        if snapshot.now >= self._evicts_at:
            self._core.tree.evict(self._most)
            self._evicts_at = (snapshot.now // self._interval + 1.0) * self._interval
        prompt = Pieces(spans_of(block, row), int(block.prompt_tokens[row]))
        loads = _by_number(self._numbers, snapshot.outstanding)
        decision = self._core.decide(prompt, loads, self._overloaded())
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


def _by_number(numbers: Sequence[int], outstanding: NDArray[np.int64]) -> NDArray[np.int64]:
    """Loads by the number of a replica, whatever places the router sees."""
    if not numbers or numbers[-1] == len(numbers) - 1:  # ascending: all of them
        return outstanding
    loads = np.zeros(numbers[-1] + 1, np.int64)
    loads[list(numbers)] = outstanding
    return loads
