"""What the routers share that follow the v1 scheduler: accounts fed by polls, cache-aware metrics, rescheduling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from sim.errors import ConfigError, NotModelledError
from sim.policy.llumnix import v1_dispatch, v1_reschedule, v1_slo
from sim.policy.llumnix.prefix import PrefixIndex, chunk_keys
from sim.policy.llumnix.v1_predict import Profile
from sim.policy.llumnix.v1_status import METRICS, Account, Status, decode_batch_size
from sim.policy.migration import MigrationParams
from sim.policy.requests import Requests
from sim.policy.router import PollInterval, Relocation, ReplicaFacts, Router, RouterParams, Snapshot
from sim.policy.routing._spans import spans_of
from sim.units import Bytes, Seconds

LoadMetric = Literal[
    "all_prefills_tokens_num",
    "kv_cache_usage_ratio_projected",
    "decode_batch_size",
    "num_waiting_requests",
    "num_requests",
    "num_tokens",
]
Rescheduling = Literal[
    "decode_load", "neutral_failover", "prefill_failover", "decode_failover", "binpacking_mitigation", "binpacking_consolidation"
]


class SloProfile(BaseModel):
    """Profiled median times: prefill [tokens], decode [batch, tokens per request], in milliseconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prefill_tokens: tuple[float, ...] = Field(min_length=1, description="token counts, ascending")
    prefill_ms: tuple[float, ...] = Field(min_length=1, description="time of a prefill step of so many tokens")
    batch: tuple[float, ...] = Field(min_length=1, description="batch sizes, ascending")
    tokens: tuple[float, ...] = Field(min_length=1, description="tokens per request, ascending")
    decode_ms: tuple[tuple[float, ...], ...] = Field(min_length=1, description="a row per batch size: time of a decode step")

    def profile(self) -> Profile:
        """As the predictor wants it. Raises ConfigError where the sizes do not fit."""
        rows = np.array([len(r) for r in self.decode_ms])
        fits = (
            len(self.prefill_ms) == len(self.prefill_tokens) and len(rows) == len(self.batch) and (rows == len(self.tokens)).all()
        )
        if not fits:
            raise ConfigError(
                "router.slo_profile", "…", "the lists do not fit each other", "one time per token count, one row per batch size"
            )
        return Profile(self.prefill_tokens, self.prefill_ms, self.batch, self.tokens, np.array(self.decode_ms, np.float64))


class V1Params(RouterParams):
    """Settings of the v1 scheduler."""

    scheduling_policy: Literal["load-balance", "flood", "slo", "round-robin"] = Field(
        "load-balance", description="how requests are spread"
    )
    status_interval: PollInterval = Field(0.05, description="time between two looks at the instances")
    topk: int = Field(1, ge=1, description="draw among so many best instances")
    dispatch_neutral_load_metric: LoadMetric = Field("all_prefills_tokens_num", description="load of an instance")
    dispatch_neutral_load_threshold: float = Field(8192.0, gt=0, description="instances at or above are filtered out")
    dispatch_prefill_load_metric: LoadMetric = Field("all_prefills_tokens_num", description="load of a prefill instance")
    dispatch_prefill_load_threshold: float = Field(2048.0, gt=0, description="prefill instances at or above are filtered out")
    dispatch_decode_load_metric: LoadMetric = Field("kv_cache_usage_ratio_projected", description="load of a decode instance")
    dispatch_decode_load_threshold: float = Field(1.0, gt=0, description="decode instances at or above are filtered out")
    separate_pd_scheduling: bool = Field(
        False, description="ask for the decode instance when the prompt is computed; false: for both at once (batch mode)"
    )
    load_filter_fallback: bool = Field(True, description="if nothing passes the filters, try again without the load filter")
    enable_cache_aware_scheduling: bool = Field(False, description="put a locality metric before the load metric")
    cache_aware_metric: Literal["kv_cache_hit_len", "cache_aware_all_prefills_tokens_num"] = Field(
        "kv_cache_hit_len", description="the locality metric"
    )
    cache_aware_min_tokens: int = Field(1024, ge=1, description="shortest prompt that locality is looked up for")
    cache_aware_chunk_size: int = Field(256, ge=1, description="tokens per chunk of a prefix")
    enable_predictor_enhanced: bool = Field(False, description="only false in a fleet: instances do not report step times")
    enable_adaptive_pd: bool = Field(False, description="only false in a fleet: pools of one role each are not handed over")
    ttft_slo: Seconds = Field(6.0, gt=0, description="target of the slo policy")
    tpot_slo: Seconds = Field(0.05, gt=0, description="target of the slo policy")
    slo_profile: SloProfile | None = Field(None, description="profiled times that the slo policy predicts from")
    max_num_batched_tokens: int = Field(8192, ge=1, description="tokens of a prefill step that TTFT is predicted with")
    enable_rescheduling: bool = Field(False, description="migrate running requests")
    rescheduling_interval: PollInterval = Field(0.5, description="time between two looks for moves")
    rescheduling_policies: tuple[Rescheduling, ...] = Field(
        ("decode_load", "neutral_failover"), description="rules, in this order"
    )
    rescheduling_load_threshold: float = Field(1.0, gt=0, description="projected KV use: sources at or above, destinations below")
    rescheduling_load_diff_threshold: float = Field(0.7, ge=0, description="least difference of a pair")
    rescheduling_tokens: int = Field(1024, ge=1, description="most tokens moved by a pair, shortest requests first")
    migration_bandwidth: Bytes = Field(25e9, gt=0, description="bytes per second of one transfer (estimated: 200 Gb/s RDMA)")
    migration_overhead: Seconds = Field(0.002, ge=0, description="set-up of one stage (estimated)")
    migration_commit: Seconds = Field(0.005, ge=0, description="hand-over of a stopped request without its copy (estimated)")


class V1Router(Router):
    """Accounts of all instances, updated by polls and by its own dispatches."""

    elastic = True

    params: V1Params

    def __init__(self, params: V1Params, replicas: int, rng: np.random.Generator) -> None:
        super().__init__(params, replicas, rng)
        p = params
        for field in ("enable_predictor_enhanced", "enable_adaptive_pd"):
            if getattr(p, field):
                raise NotModelledError(f"router.{field}", True, "is not modelled in a fleet", "false")
        needs = p.scheduling_policy == "slo" or any(r.startswith("binpacking") for r in p.rescheduling_policies)
        if needs and p.slo_profile is None:
            raise ConfigError(
                "router.slo_profile", None, "the slo policy and bin packing predict from profiled times", "a profile"
            )
        self._profile = p.slo_profile.profile() if p.slo_profile is not None else None
        self.interval = p.status_interval
        if p.enable_rescheduling:
            self.migration = MigrationParams(p.migration_bandwidth, p.migration_overhead, p.migration_commit, concurrency=4)
        locality = p.cache_aware_metric if p.enable_cache_aware_scheduling else None
        self._locality_metric = locality
        self.pairs = not p.separate_pd_scheduling
        self._infer_type = "neutral"
        self._set_rules(p.dispatch_neutral_load_metric, p.dispatch_neutral_load_threshold)
        self._accounts = [Account(Status(i)) for i in range(replicas)]
        self._numbers: Sequence[int] = range(replicas)
        self._all = replicas
        self._requests = 0
        self._stuck: int | None = None
        self._next_moves = 0.0
        self._index: PrefixIndex | None = None
        self._facts: Sequence[ReplicaFacts] = [ReplicaFacts()] * replicas

    def _set_rules(self, metric: str, threshold: float) -> None:
        locality = self._locality_metric
        self._rule = v1_dispatch.Rule((metric,), metric, threshold)
        self._local = v1_dispatch.Rule((locality, metric), metric, threshold) if locality else None

    def plays(self, role: str) -> None:
        """Metric and threshold of the role; locality matters to prefill only (``pkg/scheduler/policy/scheduling_policy.go``)."""
        p, self._infer_type = self.params, role
        if role == "prefill":
            self._set_rules(p.dispatch_prefill_load_metric, p.dispatch_prefill_load_threshold)
        else:
            self._locality_metric = None
            self._set_rules(p.dispatch_decode_load_metric, p.dispatch_decode_load_threshold)
        for a in self._accounts:
            a.status.infer_type = role

    def revert(self) -> None:
        """The prefill's account is as before: its decode found no instance."""
        self._requests -= 1
        for a in self._accounts:
            a.revert(self._requests)

    def reached(self, choice: int, now: float) -> None:
        """The decode request leaves the ledger when the engine's status shows it: from now on it can."""
        for a in self._accounts:
            if choice in a.ledger:
                a.ledger[choice].sent = now
                a.ledger[choice].held = False

    def setup(self, facts: Sequence[ReplicaFacts]) -> None:
        """Block sizes: the scheduler counts in tokens."""
        self._facts = facts

    def members(self, numbers: Sequence[int]) -> None:
        """Accounts of those who stay go on; who comes is not chosen before his first report."""
        super().members(numbers)
        known = dict(zip(self._numbers, self._accounts, strict=True))
        stuck = None if self._stuck is None else self._numbers[self._stuck]
        self._accounts = [known.get(n) or Account(Status(i, time=float("-inf"))) for i, n in enumerate(numbers)]
        for place, account in enumerate(self._accounts):
            account.status.instance = place
        for gone in set(self._numbers) - set(numbers):
            if self._index is not None:
                self._index.forget(gone)
        self._stuck = numbers.index(stuck) if stuck in numbers else None
        self._numbers = numbers

    def poll(self, snapshot: Snapshot) -> list[Relocation]:
        """New statuses; at the interval of rescheduling, its moves."""
        self._take_in(snapshot.look(), snapshot.now)
        if not self.params.enable_rescheduling or snapshot.now < self._next_moves:
            return []
        self._next_moves = snapshot.now + self.params.rescheduling_interval
        self._predict(0)
        return [r for move in self._moves() for r in self._requests_of(move, snapshot)]

    def _take_in(self, seen: Mapping[str, NDArray[np.float64]], now: float) -> None:
        for i, account in enumerate(self._accounts):
            size = self._facts[i].block_size
            account.update(
                Status(
                    i,
                    infer_type=self._infer_type,
                    time=now,
                    seen_until=float(seen["seen_until"][i]),
                    num_total_tokens=float(seen["total_blocks"][i] * size),
                    num_used_tokens=float(seen["used_blocks"][i] * size),
                    waiting_prefill_tokens=float(seen["waiting_tokens"][i]),
                    running_prefill_tokens=float(seen["prefill_tokens"][i]),
                    unallocated_running_prefill_tokens=float(seen["unallocated_tokens"][i]),
                    num_waiting=int(seen["waiting"][i]),
                    num_running=int(seen["running"][i]),
                    running_decodes=int(seen["decodes"][i]),
                )
            )

    def _moves(self) -> list[v1_reschedule.Move]:
        p, found = self.params, []
        for rule in p.rescheduling_policies:
            if rule == "decode_load":
                found += v1_reschedule.decode_load(
                    self._accounts, p.rescheduling_load_threshold, p.rescheduling_load_diff_threshold, p.rescheduling_tokens
                )
            elif rule == "binpacking_mitigation":
                found += v1_reschedule.binpacking_mitigation(self._accounts, 1e3 * p.tpot_slo, p.rescheduling_tokens)
            elif rule == "binpacking_consolidation":
                found += v1_reschedule.binpacking_consolidation(self._accounts, 1e3 * p.tpot_slo)
            else:
                found += v1_reschedule.failover(self._accounts, rule.removesuffix("_failover"))
        return found

    def _requests_of(self, move: v1_reschedule.Move, snapshot: Snapshot) -> list[Relocation]:
        """Shortest running requests first, as many as stay within the tokens."""
        rows, _ = snapshot.running(move.source)
        out, total = [], 0
        for request, _, tokens, delivered, prompt in sorted(rows.tolist(), key=lambda r: r[2]):
            if delivered == 0 or tokens < prompt + delivered - 1:
                continue
            total += tokens
            if move.tokens != v1_reschedule.ALL and total > move.tokens:
                break
            out.append(Relocation(request, move.source, move.destination))
        return out

    def _pick(self, n: int) -> int:
        return int(self.rng.integers(0, n))

    def _predict(self, tokens: int) -> None:
        """Milliseconds until a request of ``tokens`` would have its first token, and per token, at each instance."""
        if self._profile is None:
            return
        for a in self._accounts:
            s, batch = a.status, decode_batch_size(a)
            held = s.num_used_tokens
            waiting = s.waiting_prefill_tokens + s.running_prefill_tokens + a.inflight(False)[2] + tokens
            a.predicted_ttft = self._profile.ttft(
                waiting, self.params.max_num_batched_tokens, batch, held / batch if batch else 0.0
            )
            a.predicted_tpot = self._profile.tpot(batch, held)

    def choose(self, snapshot: Snapshot, block: Requests, row: int) -> int:
        """By ``scheduling_policy``; −1 where every instance is filtered out."""
        p, now = self.params, snapshot.now
        tokens = int(block.prompt_tokens[row])
        keys, rule = self._locality(block, row, tokens)
        if p.scheduling_policy == "round-robin":
            chosen: Account | None = self._accounts[self._requests % self.replicas]
        elif p.scheduling_policy == "slo":
            self._predict(tokens)
            chosen = v1_slo.slo(self._accounts, now, self._infer_type, self._pick, 1e3 * p.ttft_slo, 1e3 * p.tpot_slo)
        elif not p.load_filter_fallback:
            load = (METRICS[rule.filter_metric], rule.threshold)
            left = v1_dispatch.filtered(self._accounts, now, load)
            chosen = v1_dispatch.select(left, rule.metrics, self._pick, p.topk) if left else None
        elif p.scheduling_policy == "flood":
            chosen = v1_dispatch.flood(self._accounts, now, rule, self._stuck)
        else:
            chosen = v1_dispatch.load_balance(self._accounts, now, rule, self._pick, p.topk)
        if chosen is None:
            return -1
        self._stuck = chosen.status.instance
        decode = self._infer_type == "decode"
        chosen.dispatch(self._requests, now, tokens, int(chosen.kv_cache_hit_len), decode)
        chosen.ledger[self._requests].held = decode and self.pairs
        self._requests += 1
        if self._index is not None and keys:
            self._index.store(self._numbers[chosen.status.instance], keys)
        return chosen.status.instance

    def _locality(self, block: Requests, row: int, tokens: int) -> tuple[list[int], v1_dispatch.Rule]:
        """Chunks of the prompt and the rule to use; hit lengths noted in the accounts. Without any hit the misses stay 0, as upstream."""
        for a in self._accounts:
            a.kv_cache_hit_len = a.prefix_miss_tokens = 0.0
        p = self.params
        if self._local is None or tokens < p.cache_aware_min_tokens:
            return [], self._rule
        if self._index is None:
            room = max(a.status.num_total_tokens for a in self._accounts)
            self._index = PrefixIndex(self._all, max(int(room) // p.cache_aware_chunk_size, 1))
        keys = chunk_keys(spans_of(block, row), p.cache_aware_chunk_size)
        hits = self._index.longest_from_first_hit(keys, self._all)
        for account, number in zip(self._accounts, self._numbers, strict=True):
            if number in hits:
                hit = hits[number] * p.cache_aware_chunk_size
                account.kv_cache_hit_len = float(hit)
                account.prefix_miss_tokens = float(tokens - hit)
        return keys, self._local
