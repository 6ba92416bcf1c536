"""Scorers, pickers and detectors of llm-d's endpoint picker. Source: llm-d/llm-d-router pkg/epp @ ebab6879; names as in its configuration."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Scores = NDArray[np.float64]


def queue(waiting: ArrayLike) -> Scores:
    """``queue-scorer`` and ``running-requests-size-scorer``: (max − q) / (max − min); all equal: 1."""
    q = np.asarray(waiting, np.float64)
    spread = q.max() - q.min()
    out: Scores = np.ones(q.size) if spread == 0 else (q.max() - q) / spread
    return out


def kv_cache_utilization(usage: ArrayLike) -> Scores:
    """``kv-cache-utilization-scorer``: what is free."""
    out: Scores = 1.0 - np.asarray(usage, np.float64)
    return out


def load_aware(waiting: ArrayLike, threshold: float = 128.0) -> Scores:
    """``load-aware-scorer``: half at an empty queue, 0 at ``threshold`` or more."""
    q = np.asarray(waiting, np.float64)
    out: Scores = np.where(q == 0, 0.5, 0.5 * (1.0 - np.minimum(q, threshold) / threshold))
    return out


def active_request(counts: ArrayLike, idle_threshold: int = 0, max_busy_score: float = 1.0) -> Scores:
    """``active-request-scorer``: by the router's own counter."""
    c = np.asarray(counts, np.float64)
    most = c.max()
    with np.errstate(divide="ignore", invalid="ignore"):
        out: Scores = np.where(c <= idle_threshold, 1.0, (most - c) / most * max_busy_score)
    return out


def token_load(tokens: ArrayLike, threshold: float = 4_194_304.0) -> Scores:
    """``token-load-scorer``: ``tokens`` in flight, the uncached ones of this request included."""
    out: Scores = 1.0 - np.minimum(np.asarray(tokens, np.float64), threshold) / threshold
    return out


def prefix_cache(
    matched: ArrayLike, total: ArrayLike, block_tokens: ArrayLike, match_length_weight: float = 0.0, scale_tokens: float = 8192.0
) -> Scores:
    """``prefix-cache-scorer``: matched over total blocks, blended with the matched length."""
    m, t, b = (np.asarray(x, np.float64) for x in (matched, total, block_tokens))
    ratio = np.divide(m, t, out=np.zeros_like(m), where=t > 0)
    length = np.minimum(1.0, m * b / scale_tokens) ** 2
    out: Scores = np.where(t > 0, match_length_weight * length + (1.0 - match_length_weight) * ratio, 0.0)
    return out


def no_hit_lru(hit: bool, order: Sequence[int]) -> Scores:
    """``no-hit-lru-scorer``: half for all where any endpoint has a hit; else 1 for the first in ``order`` down to 0 for the last."""
    n = len(order)
    if hit:
        return np.full(n, 0.5)
    out: Scores = np.ones(n)
    out[list(order)] = 1.0 - np.arange(n) / max(n - 1, 1)
    return out


def lora_affinity(target: str, active: Sequence[Sequence[str]], waiting: Sequence[Sequence[str]], most: Sequence[int]) -> Scores:
    """``lora-affinity-scorer``: loaded 1, room for it 0.8, queued 0.6, else 0."""
    out = []
    for a, w, m in zip(active, waiting, most, strict=True):
        if target in a:
            out.append(1.0)
        elif len(a) + len(w) < m:
            out.append(0.8)
        else:
            out.append(0.6 if target in w else 0.0)
    return np.array(out)


def utilization(waiting: ArrayLike, kv: ArrayLike, fresh: ArrayLike, queue_depth: float = 5.0, kv_util: float = 0.8) -> float:
    """``utilization-detector``: mean of the worse of both ratios; an endpoint with stale metrics counts as full; none: full."""
    q, k, ok = np.asarray(waiting, np.float64), np.asarray(kv, np.float64), np.asarray(fresh, bool)
    if not q.size:
        return 1.0
    return float(np.where(ok, np.maximum(q / queue_depth, k / kv_util), 1.0).mean())


def consecutive(
    keys: Sequence[Hashable], held: Callable[[Hashable], Iterable[tuple[str, str]]], weights: dict[str, float]
) -> dict[str, float]:
    """``precise-prefix-cache``: Σ of the best tier over consecutive blocks from the first; ``held(key)``: [(pod, tier), …]."""
    score: dict[str, float] = {}
    alive: set[str] | None = None
    for key in keys:
        tiers: dict[str, float] = {}
        for pod, tier in held(key):
            tiers[pod] = max(tiers.get(pod, 0.0), weights.get(tier, 0.0))
        alive = set(tiers) if alive is None else alive & set(tiers)
        if not alive:
            break
        for pod in alive:
            score[pod] = score.get(pod, 0.0) + tiers[pod]
    return score


def total(weighted: Sequence[tuple[float, Scores]]) -> Scores:
    """Σ weight · score, each score held within 0 and 1; weights are not normalised."""
    out: Scores = np.sum([w * np.clip(s, 0.0, 1.0) for w, s in weighted], axis=0)
    return out
