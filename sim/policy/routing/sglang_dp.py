"""SGLang's dispatch to data-parallel ranks (0.5.23 ``managers/data_parallel_controller.py``): in turn, fewest requests, or fewest tokens.

``total_requests``: the rank with the fewest requests running and waiting; ``total_tokens``: with the fewest tokens in its KV pool and queue,
then requests. ``follow_bootstrap_room``, the default of a prefill server: the room that the router draws for a hand-over, modulo the ranks, which is
a rank at random. Loads are those of the last snapshot, taken every ``load_watch_interval``; what was sent since is added: one request, the
tokens of the prompt. ``auto`` is round robin. Of equals the first.

With ``deployment.dp`` SGLang uses it by itself between its ranks. Tokens of the queue are taken from the prompts of requests that were sent
and not yet admitted, in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from sim.policy.requests import Requests
from sim.policy.router import PollInterval, Relocation, Router, RouterParams, Snapshot
from sim.registry import register


class SglangDpParams(RouterParams):
    """Server arguments of the data-parallel controller."""

    load_balance_method: Literal["auto", "round_robin", "follow_bootstrap_room", "total_requests", "total_tokens"] = Field(
        "auto", description="what decides; auto: round_robin"
    )
    load_watch_interval: PollInterval = Field(0.1, description="time between two snapshots of the loads")


@register("router")
class SglangDp(Router):
    """SGLang's data-parallel controller: round robin, or the least of loads that are as old as the last snapshot."""

    name = "sglang_dp"
    aliases = ("sglang-dp",)
    Params = SglangDpParams
    params: SglangDpParams

    def __init__(self, params: SglangDpParams, replicas: int, rng: np.random.Generator) -> None:
        super().__init__(params, replicas, rng)
        self._turn = 0
        self._requests = np.zeros(replicas)
        self._tokens = np.zeros(replicas)
        self._sent: list[list[int]] = [[] for _ in range(replicas)]
        self.by_load = params.load_balance_method in ("total_requests", "total_tokens")
        self.interval = params.load_watch_interval if self.by_load else None

    def poll(self, snapshot: Snapshot) -> Sequence[Relocation]:
        """A new snapshot: what was counted since the last one is forgotten."""
        seen = snapshot.look()
        self._requests = seen["running"] + seen["waiting"]
        self._tokens = seen["used_blocks"].copy()
        for k, waiting in enumerate(seen["waiting"].astype(int).tolist()):
            self._sent[k] = self._sent[k][len(self._sent[k]) - waiting :] if waiting else []
            self._tokens[k] += sum(self._sent[k])
        return ()

    def choose(self, snapshot: Snapshot, block: Requests, row: int) -> int:
        """O(replicas)."""
        if self.params.load_balance_method == "follow_bootstrap_room":
            return int(self.rng.integers(self.replicas))
        if not self.by_load:
            turn = self._turn
            self._turn = (turn + 1) % self.replicas
            return turn
        if self.params.load_balance_method == "total_requests":
            best = int(self._requests.argmin())
        else:
            best = int(np.lexsort((self._requests, self._tokens))[0])
        prompt = int(block.prompt_tokens[row])
        self._requests[best] += 1.0
        self._tokens[best] += prompt
        self._sent[best].append(prompt)
        return best
