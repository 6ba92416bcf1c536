"""LiteLLM's router over deployments of one model group. Source: PyPI litellm 1.110.2 ``router_strategy``.

*Own counters* only, those of one process (Redis, where several share them, is taken as exact). Deployments that fail are
tried again elsewhere and cool down (`sim.policy.recovery`). Not modelled: fallbacks, ``cost-based-routing``, limits per deployment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from sim.policy.recovery import LITELLM
from sim.policy.requests import Requests
from sim.policy.router import Router, RouterParams, Snapshot
from sim.registry import register

if TYPE_CHECKING:
    from sim.rules import Rule


class LiteLlmParams(RouterParams):
    """Settings of `LiteLlm`, spelled as in ``router_settings``."""

    routing_strategy: Literal["simple-shuffle", "least-busy", "latency-based-routing", "usage-based-routing-v2"] = Field(
        "simple-shuffle", description="how a deployment is chosen"
    )
    weights: tuple[float, ...] = Field(
        (), description="simple-shuffle: weight of each replica, by its number; uniform without any"
    )
    stream: bool = Field(True, description="latency-based-routing: latency is TTFT of streams; else time per generated token")
    lowest_latency_buffer: float = Field(
        0.0, ge=0, le=1e6, description="draw among those within so many times the lowest latency more"
    )
    max_latency_list_size: int = Field(10, ge=1, le=10_000, description="latest latencies that are averaged")
    ttl: float = Field(3600.0, gt=0, le=1e9, description="seconds after which latencies are forgotten")


@register("router")
class LiteLlm(Router):
    """Weighted draw by default; least busy, lowest latency or lowest use on demand."""

    name = "litellm"
    recovery = LITELLM
    Params = LiteLlmParams
    params: LiteLlmParams
    elastic = True

    def __init__(self, params: LiteLlmParams, replicas: int, rng: np.random.Generator) -> None:
        super().__init__(params, replicas, rng)
        self.hears = params.routing_strategy in ("latency-based-routing", "usage-based-routing-v2")
        self._numbers: Sequence[int] = range(replicas)
        self._latencies: dict[int, deque[tuple[float, float]]] = {}
        self._tokens: dict[int, int] = {}
        self._minute = -1
        self._open: dict[int, tuple[int, float, int, int]] = {}

    def members(self, numbers: Sequence[int]) -> None:
        """What is known of those that left is kept under their names, as in its cache."""
        super().members(numbers)
        self._numbers = list(numbers)

    def rule(self) -> Rule | None:
        """Of draws without weights and of the least busy; the others hear of answers."""
        if self._compiled is None and not self.hears and not self.params.weights:
            from sim.policy.rules.fewest import first
            from sim.policy.rules.random import uniform

            self._compiled = uniform() if self.params.routing_strategy == "simple-shuffle" else first()
        return self._compiled

    def choose(self, snapshot: Snapshot, block: Requests, row: int) -> int:
        """By the strategy."""
        p, n = self.params, len(self._numbers)
        if p.routing_strategy == "least-busy":
            return int(snapshot.outstanding.argmin())
        if p.routing_strategy == "simple-shuffle":
            weights = np.array([p.weights[k] if k < len(p.weights) else 0.0 for k in self._numbers])
            if weights.sum() <= 0:
                return int(self.rng.integers(0, n))
            return int(self.rng.choice(n, p=weights / weights.sum()))
        if p.routing_strategy == "usage-based-routing-v2":
            self._at(snapshot.now)
            used = [self._tokens.get(k, 0) for k in self._numbers]
            return self._draw([i for i in range(n) if used[i] == min(used)])
        latency = [self._latency(k, snapshot.now) for k in self._numbers]
        least = min(latency)
        return self._draw([i for i in range(n) if latency[i] <= least * (1.0 + p.lowest_latency_buffer)])

    def _draw(self, places: list[int]) -> int:
        return places[0] if len(places) == 1 else places[int(self.rng.integers(0, len(places)))]

    def _latency(self, number: int, now: float) -> float:
        """Mean of the latest; 0 of one that has not answered yet, which so goes first."""
        kept = self._latencies.get(number, ())
        values = [v for t, v in kept if t + self.params.ttl > now]
        return sum(values) / len(values) if values else 0.0

    def _at(self, now: float) -> None:
        if int(now // 60) != self._minute:
            self._minute = int(now // 60)
            self._tokens.clear()

    def _note(self, replica: int, now: float, value: float) -> None:
        self._latencies.setdefault(replica, deque(maxlen=self.params.max_latency_list_size)).append((now, value))

    def on_sent(self, number: int, replica: int, block: Requests, row: int, now: float) -> None:
        """It begins."""
        self._open[number] = replica, now, int(block.prompt_tokens[row]), int(block.output_tokens[row])

    def on_first_token(self, number: int, now: float) -> None:
        """Its TTFT is known."""
        if number in self._open and self.params.stream:
            replica, began, *_ = self._open[number]
            self._note(replica, now, now - began)

    def on_end(self, number: int, now: float) -> None:
        """Its latency and its tokens are known."""
        found = self._open.pop(number, None)
        if found is None:
            return
        replica, began, prompt, output = found
        if not self.params.stream:
            self._note(replica, now, (now - began) / max(output, 1))
        self._at(now)
        self._tokens[replica] = self._tokens.get(replica, 0) + prompt + output
