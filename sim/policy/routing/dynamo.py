"""NVIDIA Dynamo's KV router. Source: ai-dynamo/dynamo lib/kv-router @ 01690d42; recorded selections of ai-dynamo-runtime 1.6.1 are matched.

*Own counters*: a ledger of what this router has sent: prompt tokens until the first token, blocks of the prompt until the end, shared ones once. *From
the engines*: which blocks each has in its cache, by KV events (as of now: their way through NATS or ZMQ is not modelled), or, without them, what was sent
there within ``router_ttl_secs``. Between prefill and decode pools there is a router on either side; the decode side gives no credit for overlap and does
not count prefills. Not modelled: tiers below the device, replicas of the router, its queue (off in 1.6.1), busy thresholds, predicted load.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from math import inf
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sim.policy.gateways import dynamo
from sim.policy.gateways.prompts import Pieces
from sim.policy.recovery import DYNAMO
from sim.policy.requests import Requests
from sim.policy.router import ReplicaFacts, Router, RouterParams, Snapshot
from sim.policy.routing._spans import spans_of
from sim.registry import register


class DynamoParams(RouterParams):
    """Settings of `Dynamo`, spelled as in ``KvRouterConfig``."""

    overlap_score_credit: float = Field(1.0, ge=0, le=1e6, description="blocks that a cached block takes off the cost")
    overlap_score_credit_decay: float = Field(
        0.0, ge=0, le=1e6, description="less credit for workers with more prefill than the least loaded"
    )
    prefill_load_scale: float = Field(1.0, ge=0, le=1e6, description="weight of prefill blocks against decode blocks")
    decode_active_request_weight: float = Field(0.0, ge=0, le=1e6, description="blocks that a running request counts for")
    router_temperature: float = Field(
        0.0, ge=0, le=1e3, description="0: the smallest cost; above: softmax of the costs over their range"
    )
    router_track_prefill_tokens: bool = Field(True, description="whether prompts under way count")
    router_track_active_blocks: bool = Field(True, description="whether blocks of running requests count")
    router_assume_kv_reuse: bool = Field(True, description="whether running requests with a common prefix share its blocks")
    use_kv_events: bool = Field(
        True, description="whether engines tell which blocks they store and evict; false: by what was sent"
    )
    router_ttl_secs: float = Field(
        120.0, gt=0, le=1e9, description="without events: seconds for which a block is taken to be cached"
    )
    migration_limit: int = Field(
        0, ge=0, le=100, description="of the frontend: so often a request goes on elsewhere when its worker has died"
    )
    router_mode: Literal["kv"] = Field(
        "kv", description="the other modes of the frontend are round_robin, random, least_outstanding"
    )


def _consecutive(kept: dict[Hashable, float], keys: list[Hashable], since: float) -> int:
    """Blocks from the first on that were sent there after ``since``."""
    n = 0
    while n < len(keys) and kept.get(keys[n], -inf) >= since:
        n += 1
    return n


@register("router")
class Dynamo(Router):
    """Smallest cost: prefill blocks that are not cached, and active blocks."""

    name = "dynamo"
    aliases = ("dynamo_kv",)
    Params = DynamoParams
    params: DynamoParams
    elastic = True
    hears = True

    def __init__(self, params: DynamoParams, replicas: int, rng: np.random.Generator) -> None:
        super().__init__(params, replicas, rng)
        self.recovery = replace(DYNAMO, migrations=params.migration_limit)
        self._numbers: list[int] = list(range(replicas))
        self._ledger = dynamo.Ledger(replicas)
        self._block = 16
        self._decode = False
        self._kept: dict[int, dict[Hashable, float]] = {}
        self._prompts = 0
        self._open: dict[int, tuple[int, float, list[Hashable]]] = {}
        self._chosen: tuple[Requests | None, int, float, list[Hashable]] = (None, -1, 0.0, [])

    def plays(self, role: str) -> None:
        """The decode side looks at active blocks only."""
        self._decode = role == "decode"

    def setup(self, facts: Sequence[ReplicaFacts]) -> None:
        """Blocks of the engines."""
        self._block = facts[0].block_size

    def members(self, numbers: Sequence[int]) -> None:
        """Who left is forgotten."""
        for gone in set(self._numbers) - set(numbers):
            self._kept.pop(gone, None)
        super().members(numbers)
        self._numbers = list(numbers)

    def choose(self, snapshot: Snapshot, block: Requests, row: int) -> int:
        """By cost; of equals one is drawn."""
        p, isl = self.params, int(block.prompt_tokens[row])
        prompt = Pieces(spans_of(block, row), isl)
        keys = self._keys(prompt)
        hits = self._overlap(snapshot, block, row, keys)
        weights = dynamo.Weights(
            0.0 if self._decode else p.overlap_score_credit,
            p.overlap_score_credit_decay,
            p.prefill_load_scale,
            decode_active_request_weight=p.decode_active_request_weight,
            router_track_prefill_tokens=p.router_track_prefill_tokens and not self._decode,
            decode=self._decode,
        )
        ledger = self._ledger
        ledger.reach(max(self._numbers) + 1)
        least = min(ledger.prefill[n] for n in self._numbers) / self._block
        costs = []
        for hit, n in zip(hits.tolist(), self._numbers, strict=True):
            active = ledger.blocks_with(n, keys) if p.router_track_active_blocks else 0
            excess = ledger.prefill[n] / self._block - least
            worker = dynamo.Worker(hit, ledger.prefill[n], active, int(ledger.requests[n]), excess_prefill_blocks=excess)
            costs.append(dynamo.cost(worker, isl, self._block, weights))
        place = self._draw(costs)
        self._chosen = block, row, max(isl - float(hits[place]) * self._block, 0.0), keys
        return place

    def _keys(self, prompt: Pieces) -> list[Hashable]:
        """Whole blocks, each with all that came before it."""
        out: list[Hashable] = []
        before: Hashable = 0
        for content in prompt.blocks(self._block, partial=False):
            before = hash((before, content))
            out.append(before)
        if self.params.router_assume_kv_reuse:
            return out
        self._prompts += 1
        return [(self._prompts, i) for i in range(len(out))]

    def _overlap(self, snapshot: Snapshot, block: Requests, row: int, keys: list[Hashable]) -> NDArray[np.float64]:
        if self._decode or self.params.overlap_score_credit == 0:
            return np.zeros(len(self._numbers))
        if self.params.use_kv_events:
            return snapshot.cached(block, row)
        since = snapshot.now - self.params.router_ttl_secs
        return np.array([_consecutive(self._kept.get(n, {}), keys, since) for n in self._numbers], np.float64)

    def _draw(self, costs: list[float]) -> int:
        t = self.params.router_temperature
        if t > 0:
            return int(self.rng.choice(len(costs), p=dynamo.shares(costs, t)))
        ties = dynamo.best(costs)
        return ties[0] if len(ties) == 1 else ties[int(self.rng.integers(0, len(ties)))]

    # -- the ledger

    def on_sent(self, number: int, replica: int, block: Requests, row: int, now: float) -> None:
        """Its prompt and its blocks are under way."""
        chosen, at, uncached, keys = self._chosen
        if chosen is not block or at != row:  # somebody else has chosen
            keys, uncached = (
                self._keys(Pieces(spans_of(block, row), int(block.prompt_tokens[row]))),
                float(block.prompt_tokens[row]),
            )
        self._ledger.reach(replica + 1)
        self._ledger.admit(replica, uncached, keys)
        self._open[number] = replica, uncached, keys
        if not self.params.use_kv_events:
            kept = self._kept.setdefault(replica, {})
            for key in keys:
                kept.pop(key, None)
                kept[key] = now
            while kept and next(iter(kept.values())) < now - self.params.router_ttl_secs:  # the oldest come first
                del kept[next(iter(kept))]

    def on_first_token(self, number: int, now: float) -> None:
        """Its prompt is computed."""
        if number in self._open:
            replica, uncached, keys = self._open[number]
            self._ledger.first_token(replica, uncached)
            self._open[number] = replica, 0.0, keys

    def on_end(self, number: int, now: float) -> None:
        """Its blocks are free."""
        found = self._open.pop(number, None)
        if found is not None:
            replica, uncached, keys = found
            self._ledger.first_token(replica, uncached)
            self._ledger.end(replica, keys)
