"""AIBrix's gateway plug-in. Source: vllm-project/aibrix @ e3e10f9e ``pkg/plugins/gateway/algorithms``, ``pkg/cache``.

*Own counters*: requests in flight (``realtime_num_requests_running``), prefixes by what was sent, tokens of users. *Polled*: KV use, refreshed every 50 ms.
Blocks of 4 characters are coarsened to ``prefix_cache_block_tokens``. Users of ``vtc-basic`` are tenants (classes), and it draws where nobody is
told apart; its estimates count a token as four characters. Not modelled: power-of-two (Redis), throughput, least-latency, least-busy-time, pd.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import inf
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sim.policy.gateways.prompts import Pieces
from sim.policy.requests import Requests
from sim.policy.router import Router, RouterParams, Snapshot
from sim.policy.routing._spans import spans_of
from sim.registry import register


class AibrixParams(RouterParams):
    """Settings of `Aibrix`; the names are those of its environment variables, without AIBRIX_."""

    routing_strategy: Literal["random", "least-request", "least-kv-cache", "least-gpu-cache", "prefix-cache", "vtc-basic"] = (
        Field("prefix-cache", description="header routing-strategy, or ROUTING_ALGORITHM")
    )
    pod_metric_refresh_interval_ms: float = Field(50.0, ge=0, le=3.6e6, description="time between two reads of a pod's metrics")
    prefix_cache_block_tokens: int = Field(16, ge=1, le=65_536, description="tokens of a block")
    prefix_cache_eviction_duration_mins: float = Field(20.0, gt=0, le=1e6, description="minutes for which a prefix is remembered")
    pod_running_request_imbalance_abs_count: int = Field(
        8, ge=0, le=10**9, description="beyond this spread only the least loaded may match"
    )
    standard_deviation_factor: float = Field(
        1.0, ge=0, le=1e6, description="a match is taken up to mean + so many standard deviations"
    )
    vtc_window_minutes: float = Field(5.0, gt=0, le=1e6, description="vtc-basic: minutes over which a user's tokens count")


@register("router")
class Aibrix(Router):
    """Prefix-aware with a guard against imbalance; without a strategy the real gateway does not choose at all."""

    name = "aibrix"
    Params = AibrixParams
    params: AibrixParams
    elastic = True

    def __init__(self, params: AibrixParams, replicas: int, rng: np.random.Generator) -> None:
        super().__init__(params, replicas, rng)
        self._numbers: Sequence[int] = range(replicas)
        self._seen: dict[int, dict[int, float]] = {}
        self._order: deque[tuple[float, int, int]] = deque()
        self._read_at, self._kv = -inf, np.zeros(replicas)
        self._users: dict[int, float] = {}
        self._named = False  # requests say whose they are
        self._tokens: deque[tuple[float, int, float]] = deque()

    def members(self, numbers: Sequence[int]) -> None:
        """Who left is no candidate any more; metrics are read anew."""
        super().members(numbers)
        self._numbers = list(numbers)
        self._read_at = -inf

    def choose(self, snapshot: Snapshot, block: Requests, row: int) -> int:
        """By the strategy."""
        how, running = self.params.routing_strategy, np.asarray(snapshot.outstanding)
        if how == "prefix-cache":
            return self._prefix(snapshot.now, running, block, row)
        if how == "vtc-basic":
            return self._vtc(snapshot.now, running, block, row)
        if how == "least-request":
            return self._any(running)
        if how == "random":
            return int(self.rng.integers(0, len(running)))
        kv = self._usage(snapshot)
        return len(kv) - 1 - int(kv[::-1].argmin()) if how == "least-kv-cache" else self._any(kv)

    def _any(self, cost: NDArray[np.float64] | NDArray[np.int64]) -> int:
        """The least; of equals one is drawn."""
        ties = np.flatnonzero(cost == cost.min())
        return int(ties[0]) if ties.size == 1 else int(ties[int(self.rng.integers(0, ties.size))])

    def _usage(self, snapshot: Snapshot) -> NDArray[np.float64]:
        interval = self.params.pod_metric_refresh_interval_ms / 1e3
        if snapshot.now >= self._read_at + interval:
            _, _, used, total = snapshot.gauges()[:4]
            self._kv = np.divide(used, total, out=np.zeros_like(used), where=total > 0)
            self._read_at = snapshot.now // interval * interval if interval else snapshot.now
        return self._kv

    # -- prefix-cache

    def _prefix(self, now: float, running: NDArray[np.int64], block: Requests, row: int) -> int:
        p = self.params
        self._forget(now)
        keys = self._keys(block, row)
        n = len(self._numbers)
        able: Sequence[int] = range(n)
        if running.max() - running.min() > p.pod_running_request_imbalance_abs_count:
            able = np.flatnonzero(running == running.min()).tolist()
        matched = self._match(keys, able)
        spread = float(running.std(ddof=1)) if n > 1 else 0.0
        most = running.mean() + p.standard_deviation_factor * spread
        place = next((i for i in self._sorted(matched, running) if running[i] <= most), -1)
        if place < 0:
            place = self._any(running)
        for key in keys:
            self._seen.setdefault(key, {})[self._numbers[place]] = now
            self._order.append((now, key, self._numbers[place]))
        return place

    def _sorted(self, matched: dict[int, int], running: NDArray[np.int64]) -> list[int]:
        """The best match first, then the least loaded, ties in any order."""
        luck = self.rng.random(len(matched))
        return [i for _, _, _, i in sorted((-m, int(running[i]), u, i) for (i, m), u in zip(matched.items(), luck, strict=True))]

    def _keys(self, block: Requests, row: int) -> list[int]:
        out, before = [], 0
        for content in Pieces(spans_of(block, row), int(block.prompt_tokens[row])).blocks(
            self.params.prefix_cache_block_tokens, partial=False
        ):
            before = hash((before, content))
            out.append(before)
        return out

    def _match(self, keys: list[int], able: Sequence[int]) -> dict[int, int]:
        """Blocks from the first on, by place; those without any are left out."""
        alive, out = {self._numbers[i]: i for i in able}, {}
        for length, key in enumerate(keys, 1):
            holders = self._seen.get(key, {})
            alive = {n: i for n, i in alive.items() if n in holders}
            if not alive:
                break
            out.update(dict.fromkeys(alive.values(), length))
        return out

    def _forget(self, now: float) -> None:
        since = now - 60.0 * self.params.prefix_cache_eviction_duration_mins
        while self._order and self._order[0][0] < since:
            t, key, number = self._order.popleft()
            holders = self._seen.get(key)
            if holders is not None and holders.get(number) == t:
                del holders[number]
                if not holders:
                    del self._seen[key]

    # -- vtc-basic

    def _vtc(self, now: float, running: NDArray[np.int64], block: Requests, row: int) -> int:
        """Users are spread over pods by their tokens; nobody is held back."""
        user = int(block.tenant[row]) or int(block.klass[row])
        self._named = self._named or user > 0
        since = now - 60.0 * self.params.vtc_window_minutes
        while self._tokens and self._tokens[0][0] < since:
            _, who, size = self._tokens.popleft()
            self._users[who] -= size
        mine, n = self._users.get(user, 0.0), len(running)
        levels = [v for v in self._users.values() if v > 0] or [0.0]
        bucket = max(1000.0, (min(levels) + max(levels)) / 2.0)
        wanted = min(mine / bucket, n - 1.0)
        score = np.abs(np.arange(n) - wanted) + np.minimum(running / 100.0, 1.0) + self.rng.random(n) * 0.1
        prompt = float(block.prompt_tokens[row])
        size = prompt + 2.0 * np.ceil(1.5 * prompt)
        self._users[user] = mine + size
        self._tokens.append((now, user, size))
        return int(score.argmin()) if self._named else int(self.rng.integers(0, n))
