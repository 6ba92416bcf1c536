"""Llumnix v0: one manager polls the instances, dispatches by load and migrates running requests (EAS ``--enable_llumnix`` generation).

*Source*: AlibabaPAI/llumnix 24220fb8, ``llumnix/config/default.py`` for names and defaults, ``llumnix/global_scheduler`` for rules. Assumed: the
bandwidth and overhead of a transfer; that "killed" counts preemptions since the last poll; that a prompt's chunks stay where they were sent
(`sim.policy.llumnix.prefix`). Between two polls the manager decides on what it saw last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from pydantic import Field

from sim.errors import NotModelledError
from sim.policy.llumnix import v0_dispatch as dispatch
from sim.policy.llumnix import v0_migration as migration
from sim.policy.llumnix.prefix import PrefixIndex, chunk_keys
from sim.policy.llumnix.v0_load import METRICS, InstanceInfo
from sim.policy.migration import MigrationParams
from sim.policy.requests import Requests
from sim.policy.router import PollInterval, Relocation, ReplicaFacts, Router, RouterParams, Snapshot
from sim.policy.routing._spans import spans_of
from sim.registry import register
from sim.units import Bytes, Seconds

BANDWIDTH: Final = {"gloo": 8e9, "rayrpc": 4e9, "nccl": 25e9}
"""Bytes per second of one transfer by backend. gloo: the 64 Gb/s network of the OSDI'24 test bed; the others are estimates."""


class LlumnixV0Params(RouterParams):
    """Settings as Llumnix v0 spells them."""

    polling_interval: PollInterval = Field(0.05, description="time between two looks at the instances")
    dispatch_policy: Literal["load", "queue", "balanced", "flood", "rr", "cacheaware"] = Field(
        "load", description="how requests are spread"
    )
    topk_random_dispatch: int = Field(1, ge=1, description="draw among so many best instances")
    dispatch_load_metric: Literal["remaining_steps", "kv_blocks_ratio", "adaptive_decode", "miss_waiting_tokens"] = Field(
        "remaining_steps", description="load of an instance"
    )
    enable_defrag: bool = Field(False, description="remaining_steps counts the first waiting request only")
    enable_migration: bool = Field(False, description="migrate running requests")
    pair_migration_frequency: int = Field(1, ge=1, description="look for pairs every so many polls")
    pair_migration_policy: Literal["defrag", "balanced"] = Field("defrag", description="how sources and destinations are paired")
    migrate_out_threshold: float = Field(
        -3.0, allow_inf_nan=False, description="remaining steps at or below which an instance is a source"
    )
    request_migration_policy: Literal["LCR", "SR", "LR", "FCW", "FCWSR"] = Field("SR", description="which request moves")
    migration_max_stages: int = Field(3, ge=1, description="stages of copying beside decoding")
    migration_last_stage_max_blocks: int = Field(16, ge=1, description="blocks that may be copied with the request stopped")
    max_migration_concurrency: int = Field(1, ge=1, description="migrations of an instance at once")
    migration_backend: Literal["gloo", "rayrpc", "nccl"] = Field("gloo", description="how KV travels; sets the default bandwidth")
    migration_bandwidth: Bytes | None = Field(
        None, gt=0, description="bytes per second of one transfer, instead of the backend's"
    )
    migration_overhead: Seconds = Field(0.002, ge=0, description="set-up of one stage (estimated)")
    migration_commit: Seconds = Field(0.005, ge=0, description="hand-over of a stopped request without its copy (estimated)")
    enable_scaling: bool = Field(False, description="only false: upstream's scaling policies cannot run at this commit")


@register("router")
class LlumnixV0(Router):
    """Dispatch by load metrics as of the last poll; defragmentation by live migration."""

    name = "llumnix_v0"
    aliases = ("llumnix-v0",)
    Params = LlumnixV0Params
    params: LlumnixV0Params
    elastic = True

    def __init__(self, params: LlumnixV0Params, replicas: int, rng: np.random.Generator) -> None:
        super().__init__(params, replicas, rng)
        if params.enable_scaling:
            raise NotModelledError("router.enable_scaling", True, "upstream's scaling policies cannot run at 24220fb8", "false")
        if params.pair_migration_policy == "balanced":
            raise NotModelledError("router.pair_migration_policy", "balanced", "raises TypeError upstream at 24220fb8", "defrag")
        if params.enable_migration and params.request_migration_policy in ("FCW", "FCWSR"):
            raise NotModelledError(
                "router.request_migration_policy",
                params.request_migration_policy,
                "waiting requests are not moved",
                "LCR, SR, LR",
            )
        self.interval = params.polling_interval
        if params.enable_migration:
            bandwidth = params.migration_bandwidth or BANDWIDTH[params.migration_backend]
            stages, blocks = params.migration_max_stages, params.migration_last_stage_max_blocks
            self.migration = MigrationParams(
                bandwidth, params.migration_overhead, params.migration_commit, stages, blocks, params.max_migration_concurrency
            )
        width = len(str(replicas - 1))
        self._all = [f"{i:0{width}d}" for i in range(replicas)]
        self._ids = list(self._all)
        self._infos = [InstanceInfo(i, 0) for i in self._ids]
        self._sent = dict.fromkeys(self._ids, 0)
        self._killed = np.zeros(replicas)
        self._killed_before: dict[str, float] = {}
        self._requests = 0
        self._polls = 0
        self._metric = METRICS[params.dispatch_load_metric]
        self._index: PrefixIndex | None = None

    def members(self, numbers: Sequence[int]) -> None:
        """Who stays is known as of the last poll; who comes has sent and killed nothing."""
        super().members(numbers)
        ids = [self._all[n] for n in numbers]
        killed = dict(zip(self._ids, self._killed.tolist(), strict=True))
        infos = {info.instance_id: info for info in self._infos}
        for gone in set(self._ids) - set(ids):
            self._sent[gone] = 0
            if self._index is not None:
                self._index.forget(int(gone))
        kept = set(self._ids)
        self._infos = [infos[i] if i in kept else InstanceInfo(i, 0) for i in ids]
        self._killed = np.array([killed.get(i, self._killed_before.get(i, 0.0)) for i in ids])
        self._killed_before |= killed
        self._ids = ids

    def _take_in(self, snapshot: Snapshot) -> None:
        seen = snapshot.look()
        killed = seen["preempted"] - self._killed
        self._killed = seen["preempted"].copy()
        integers = {name: values for name, values in seen.items() if name != "seen_until"}
        rows = {name: values.astype(np.int64).tolist() for name, values in integers.items()}
        self._infos = [
            InstanceInfo(
                instance_id=self._ids[i],
                num_total_gpu_blocks=rows["total_blocks"][i],
                num_used_gpu_blocks=rows["used_blocks"][i],
                num_running_requests=rows["running"][i],
                num_waiting_requests=rows["waiting"][i],
                num_blocks_first_waiting_request=rows["first_waiting_blocks"][i],
                num_blocks_all_waiting_requests=rows["waiting_blocks"][i],
                num_blocks_last_running_request=rows["last_running_blocks"][i],
                num_killed_requests=int(killed[i]),
                decode_batch_size=rows["decodes"][i],
                num_miss_tokens_all_waiting_requests=rows["waiting_tokens"][i],
                enable_defrag=self.params.enable_defrag,
            )
            for i in range(self.replicas)
        ]

    def plays(self, role: str) -> None:
        """Not modelled: v0 brings requests from prefill to decode instances by its migration."""
        raise NotModelledError("router.name", "llumnix_v0", "its hand-over between pools by migration is not modelled", "llumnix")

    def setup(self, facts: Sequence[ReplicaFacts]) -> None:
        """Block sizes, for the index of prefixes."""
        self._facts = facts

    def poll(self, snapshot: Snapshot) -> list[Relocation]:
        """New instance infos; with migration, a request of each source of a pair."""
        self._take_in(snapshot)
        self._polls += 1
        p = self.params
        if not p.enable_migration or self._polls % p.pair_migration_frequency:
            return []
        moves = []
        for source, destination in migration.defrag(self._infos, p.migrate_out_threshold):
            if source == destination:
                continue
            here, there = self._ids.index(source), self._ids.index(destination)
            rows, came = snapshot.running(here)
            running = [
                migration.Candidate(r[0], r[2], t)
                for r, t in zip(rows.tolist(), came.tolist(), strict=True)
                if r[3] > 0 and r[2] >= r[4] + r[3] - 1
            ]
            chosen = migration.choose(p.request_migration_policy, running, [])
            if chosen is not None:
                moves.append(Relocation(chosen.request, here, there))
        return moves

    def rested(self, polls: int) -> None:
        """They count where only some polls look for pairs."""
        self._polls += polls

    def _pick(self, n: int) -> int:
        return int(self.rng.integers(0, n))

    def choose(self, snapshot: Snapshot, block: Requests, row: int) -> int:
        """By ``dispatch_policy``."""
        p, infos = self.params, self._infos
        topk = p.topk_random_dispatch
        if p.dispatch_policy == "load":
            chosen = dispatch.load(infos, self._metric, topk, self._pick)
        elif p.dispatch_policy == "queue":
            chosen = dispatch.queue(infos, topk, self._pick)
        elif p.dispatch_policy == "balanced":
            chosen = dispatch.balanced(infos, self._sent, topk, self._pick)
        elif p.dispatch_policy == "flood":
            chosen = dispatch.flood(infos, self._sent, topk, self._pick)
        elif p.dispatch_policy == "rr":
            chosen = dispatch.rr(infos, self._requests)
        else:
            chosen = self._by_cache(block, row)
        self._sent[chosen] += 1
        self._requests += 1
        return self._ids.index(chosen)

    def _by_cache(self, block: Requests, row: int) -> str:
        if self._index is None:
            sizes = [self._facts[int(i)].block_size for i in self._ids]
            tokens = max(i.num_total_gpu_blocks * size for i, size in zip(self._infos, sizes, strict=True))
            self._index = PrefixIndex(len(self._all), max(tokens // dispatch.CHUNK, 1))
        keys = chunk_keys(spans_of(block, row), dispatch.CHUNK)
        hits = {i: self._index.consecutive(int(i), keys) for i in self._ids}
        chosen = dispatch.cacheaware(self._infos, hits, self._metric, self.params.topk_random_dispatch, self._pick).instance_id
        self._index.store(int(chosen), keys)
        return chosen
