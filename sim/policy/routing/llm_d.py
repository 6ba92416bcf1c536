"""llm-d's endpoint picker (EPP) with its built-in default configuration, or other weights. Source: llm-d/llm-d-router pkg/epp @ ebab6879.

Scores of queue and KV use are *polled*: between two scrapes all requests see the same numbers. Own counters (``active-request-scorer``, the prefix
index) move at once. Ties are drawn uniformly. The scorers are checked against upstream's unit tests (`servesim conformance router`).

Not modelled: flow control, the P/D decider, precise prefix (KV events), latency prediction, the saturation detector's shedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from sim.policy.gateways import llmd
from sim.policy.gateways.block_index import BlockIndex
from sim.policy.gateways.prompts import Pieces
from sim.policy.requests import Requests
from sim.policy.router import ReplicaFacts, Router, RouterParams, Snapshot
from sim.policy.routing._spans import spans_of
from sim.registry import register

Scorer = Literal[
    "queue-scorer",
    "running-requests-size-scorer",
    "kv-cache-utilization-scorer",
    "prefix-cache-scorer",
    "active-request-scorer",
    "load-aware-scorer",
]
_LEAST_BLOCK = 64
Weight = float


def _default() -> dict[Scorer, Weight]:
    return {"queue-scorer": 2.0, "kv-cache-utilization-scorer": 2.0, "prefix-cache-scorer": 3.0}


class LlmDParams(RouterParams):
    """Settings of `LlmD`; scorers are named as in its configuration."""

    scorers: dict[Scorer, Weight] = Field(
        default_factory=_default,
        min_length=1,
        description="scorers and their weights",
    )
    picker: Literal["max-score-picker", "random-picker", "weighted-random-picker"] = Field(
        "max-score-picker", description="who of the scored is taken"
    )
    refresh_metrics_interval: float = Field(0.05, ge=0, le=3600, description="seconds between two scrapes of an engine's metrics")
    block_size_tokens: int = Field(
        16, ge=1, le=65_536, description="tokens per block of the prefix index; never below 64, and the engine's if larger"
    )
    lru_capacity_per_server: int = Field(31_250, ge=1, le=2**31, description="blocks per endpoint where the engine reports none")


@register("router")
class LlmD(Router):
    """llm-d: weighted scores of polled load, own counters and an approximate prefix index."""

    name = "llm_d"
    aliases = ("llm-d", "epp")
    Params = LlmDParams
    params: LlmDParams
    elastic = True

    def __init__(self, params: LlmDParams, replicas: int, rng: np.random.Generator) -> None:
        super().__init__(params, replicas, rng)
        self._numbers: Sequence[int] = range(replicas)
        self._block = max(params.block_size_tokens, _LEAST_BLOCK)
        self._index = BlockIndex(self._block, params.lru_capacity_per_server)
        self._scraped_at = -1.0
        self._metrics = np.zeros((4, replicas))

    def setup(self, facts: Sequence[ReplicaFacts]) -> None:
        """Blocks as large as the engine's own."""
        self._block = max(_LEAST_BLOCK, *(f.block_size for f in facts), self.params.block_size_tokens)
        self._index = BlockIndex(self._block, self.params.lru_capacity_per_server)

    def members(self, numbers: Sequence[int]) -> None:
        """Who left is forgotten."""
        for gone in set(self._numbers) - set(numbers):
            self._index.drop(gone)
        super().members(numbers)
        self._numbers = list(numbers)
        self._scraped_at = -1.0

    def choose(self, snapshot: Snapshot, block: Requests, row: int) -> int:
        """Score all, pick one, remember its blocks."""
        self._scrape(snapshot)
        keys = []
        if "prefix-cache-scorer" in self.params.scorers:
            keys = self._index.keys(Pieces(spans_of(block, row), int(block.prompt_tokens[row])))
        scores = llmd.total([(w, self._score(name, snapshot, keys)) for name, w in self.params.scorers.items()])
        place = self._pick(scores)
        self._index.insert(keys, self._numbers[place])
        return place

    def _scrape(self, snapshot: Snapshot) -> None:
        """What was read last, if that is younger than the interval. (The real scrapes run on clocks of their own, one per endpoint.)"""
        if self._scraped_at >= 0 and snapshot.now < self._scraped_at + self.params.refresh_metrics_interval:
            return
        self._metrics = np.array(snapshot.gauges()[:4], np.float64)
        interval = self.params.refresh_metrics_interval
        self._scraped_at = snapshot.now if interval == 0 else snapshot.now // interval * interval
        for place, number in enumerate(self._numbers):
            total = self._metrics[3, place]
            if total > 0:
                self._index.size(number, int(total))

    def _score(self, name: str, snapshot: Snapshot, keys: list[int]) -> llmd.Scores:
        running, waiting, used, total = self._metrics
        if name == "queue-scorer":
            return llmd.queue(waiting)
        if name == "running-requests-size-scorer":
            return llmd.queue(running)
        if name == "load-aware-scorer":
            return llmd.load_aware(waiting)
        if name == "active-request-scorer":
            return llmd.active_request(snapshot.outstanding)
        if name == "kv-cache-utilization-scorer":
            return llmd.kv_cache_utilization(np.divide(used, total, out=np.zeros_like(used), where=total > 0))
        n = len(self._numbers)
        return llmd.prefix_cache(self._index.match(keys, self._numbers), np.full(n, len(keys)), np.full(n, self._block))

    def _pick(self, scores: llmd.Scores) -> int:
        picker = self.params.picker
        if picker == "random-picker" or (picker == "weighted-random-picker" and not scores.any()):
            return int(self.rng.integers(0, scores.size))
        if picker == "weighted-random-picker":
            return int(self.rng.choice(scores.size, p=scores / scores.sum()))
        ties = np.flatnonzero(scores == scores.max())
        return int(ties[0]) if ties.size == 1 else int(ties[int(self.rng.integers(0, ties.size))])
