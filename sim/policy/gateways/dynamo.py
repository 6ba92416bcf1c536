"""NVIDIA Dynamo's KV router: the cost of a worker and the choice among them. Source: ai-dynamo/dynamo lib/kv-router scheduling/selector.rs @ 01690d42."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Weights:
    """Spelled as in Dynamo (`KvRouterConfig`)."""

    overlap_score_credit: float = 1.0
    overlap_score_credit_decay: float = 0.0
    prefill_load_scale: float = 1.0
    host_cache_hit_weight: float = 0.75
    disk_cache_hit_weight: float = 0.25
    shared_cache_multiplier: float = 0.0
    decode_active_request_weight: float = 0.0
    router_temperature: float = 0.0
    router_track_prefill_tokens: bool = True
    decode: bool = False
    """It chooses decode workers: without prefill tracking, credit is taken off their active blocks."""


@dataclass(frozen=True)
class Worker:
    """A candidate. Blocks: cached prefix by tier, and active ones this request included; tokens: prefill under way."""

    device_blocks: float
    active_prefill_tokens: float
    decode_blocks: float
    active_requests: float = 0.0
    host_blocks: float = 0.0
    disk_blocks: float = 0.0
    shared_blocks: float = 0.0
    excess_prefill_blocks: float = 0.0


def cost(w: Worker, isl: int, block_size: int, weights: Weights) -> float:
    """In blocks; the smallest wins. ``w.active_prefill_tokens`` without this request's."""
    raw = (w.active_prefill_tokens + isl) / block_size if weights.router_track_prefill_tokens else 0.0
    blocks = max(isl / block_size, 1e-12)
    decay = 1.0 / (1.0 + weights.overlap_score_credit_decay * w.excess_prefill_blocks / blocks)
    credit = (
        weights.overlap_score_credit * decay * w.device_blocks
        + weights.host_cache_hit_weight * w.host_blocks
        + weights.disk_cache_hit_weight * w.disk_blocks
        + weights.shared_cache_multiplier * w.shared_blocks
    )
    requests = weights.decode_active_request_weight * w.active_requests
    if weights.decode and not weights.router_track_prefill_tokens and credit > 0.0:
        return max(w.decode_blocks - credit, 0.0) + requests
    return weights.prefill_load_scale * max(raw - credit, 0.0) + w.decode_blocks + requests


def best(costs: Sequence[float]) -> list[int]:
    """All places of the smallest cost: one of them is drawn uniformly."""
    least = min(costs)
    return [i for i, c in enumerate(costs) if c == least]


def shares(costs: Sequence[float], temperature: float) -> NDArray[np.float64]:
    """Probabilities of a choice at a temperature above 0: softmax of the costs, rescaled by their range."""
    a = np.asarray(costs, np.float64)
    spread = float(a.max() - a.min())
    if spread <= 0.0:
        return np.full(a.size, 1.0 / a.size)
    w = np.exp(-(a - a.min()) / (spread * temperature))
    probabilities: NDArray[np.float64] = w / w.sum()
    return probabilities


class Ledger:
    """What one router replica knows of its own requests: prefill tokens under way and blocks of running requests, shared ones once."""

    def __init__(self, workers: int) -> None:
        self.prefill = np.zeros(workers)
        self.requests = np.zeros(workers, np.int64)
        self._blocks: list[dict[object, int]] = [{} for _ in range(workers)]

    def reach(self, workers: int) -> None:
        """There are at least so many workers."""
        more = workers - len(self._blocks)
        if more > 0:
            self.prefill = np.concatenate([self.prefill, np.zeros(more)])
            self.requests = np.concatenate([self.requests, np.zeros(more, np.int64)])
            self._blocks += [{} for _ in range(more)]

    def blocks_with(self, worker: int, keys: Sequence[object]) -> int:
        """Active blocks of a worker with a request of these blocks besides."""
        mine = self._blocks[worker]
        return len(mine) + sum(1 for k in set(keys) if k not in mine)

    def admit(self, worker: int, uncached: float, keys: Sequence[object]) -> None:
        """The request is sent."""
        self.prefill[worker] += uncached
        self.requests[worker] += 1
        mine = self._blocks[worker]
        for k in keys:
            mine[k] = mine.get(k, 0) + 1

    def first_token(self, worker: int, uncached: float) -> None:
        """Its prompt is computed."""
        self.prefill[worker] = max(self.prefill[worker] - uncached, 0.0)

    def end(self, worker: int, keys: Sequence[object]) -> None:
        """It has finished or was given up."""
        self.requests[worker] -= 1
        mine = self._blocks[worker]
        for k in keys:
            left = mine[k] - 1
            if left:
                mine[k] = left
            else:
                del mine[k]


def workers_of(row: Mapping[str, Sequence[float]], overlap: Mapping[str, float], isl: int, block_size: int) -> dict[str, Worker]:
    """Candidates of a recorded selection: ``row[worker]``: potential prefill tokens and decode blocks with this request, active requests."""
    out = {}
    for name, (prefill, decode, active) in row.items():
        cached = overlap.get(name, 0) * block_size
        out[name] = Worker(overlap.get(name, 0), prefill - (isl - cached), decode, active)
    return out
