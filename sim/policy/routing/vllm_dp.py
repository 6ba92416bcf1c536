"""vLLM's internal data-parallel load balancer: API servers in front of data-parallel engines.

As the router of a scenario it stands in front of engines of their own, ``deployment.replicas`` of them; with ``deployment.dp`` it chooses the
rank inside each vLLM by itself.

*Source*: vLLM 0.33.0 V1. ``v1/engine/core_client.py`` ``DPLBAsyncMPClient.get_core_engine_for_request``: score, local increments, rotation.
``v1/engine/coordinator.py``: counts are published at most every 100 ms if an engine reported a change, otherwise every 5 s.
``v1/engine/core.py`` ``_maybe_publish_request_counts``: an engine reports when its counts have changed; its KV use goes along.

Simplified: an engine is seen as of its last scheduling decision, upstream reports at the end of that step, up to one step later. After a
quiet time upstream publishes the first change at once; here it is published at the next request or interval, whichever is first. Messages
take no time. Several API servers (between the ranks of an engine only: a router does not know whose requests finished) get the requests
in turn. Not modelled: ``data_parallel_rank`` of a request; the 50 ms that the coordinator waits for all ranks of a mixture-of-experts step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from pydantic import Field

from sim.errors import NotModelledError
from sim.policy.requests import Requests
from sim.policy.router import PollInterval, Relocation, ReplicaFacts, Router, RouterParams, Snapshot
from sim.registry import register

IDLE_INTERVAL: Final = 5.0
"""Seconds after which the coordinator publishes even if nothing changed."""
WAITING_PENALTY: Final = 6.0
"""Weight of a waiting request per KV use above `FREE_USE`."""
FREE_USE: Final = 0.5
"""KV use up to which a queue costs nothing extra."""
_ROUNDING: Final = 1e-9  # seconds

Counts = tuple[int, int, float]
"""Waiting, running, KV use (0 to 1) of one engine."""


class Balancer:
    """What one API server knows and decides. ``client_index`` of ``client_count`` servers sets where its scan starts."""

    def __init__(self, engines: int, client_count: int = 1, client_index: int = 0) -> None:
        self.client_count = client_count
        self.start = engines * client_index // client_count
        self.waiting = [0] * engines
        self.running = [0] * engines
        self.usage = [0.0] * engines

    def publish(self, counts: Sequence[Counts]) -> None:
        """New counts of all engines; local increments are forgotten."""
        self.waiting = [c[0] for c in counts]
        self.running = [c[1] for c in counts]
        self.usage = [c[2] for c in counts]

    def choose(self, inflight: Sequence[int]) -> int:
        """The engine for the next request. ``inflight``: this server's own unfinished requests by engine.

        The least score wins, the first one in the order of the scan, which starts one engine further every time.
        """
        n = len(self.waiting)
        best, least = 0, float("inf")
        for i in range(self.start, self.start + n):
            k = i if i < n else i - n
            waiting = self.waiting[k]
            score: float = max(self.client_count * inflight[k], waiting + self.running[k])
            if waiting:
                score += waiting * WAITING_PENALTY * max(0.0, self.usage[k] - FREE_USE)
            if score < least:
                best, least = k, score
        self.waiting[best] += self.client_count
        self.start = (self.start + 1) % n
        return best


class VllmDpParams(RouterParams):
    """Settings of coordinator and front end."""

    min_stats_update_interval: PollInterval = Field(0.1, description="least time between two publications of the engines' counts")
    api_server_count: int = Field(
        1, ge=1, le=1024, description="API servers, each with counts of its own; only 1 in front of replicas"
    )


@register("router")
class VllmDp(Router):
    """vLLM's data-parallel front end: own requests in flight against published counts, queues weighted by KV use."""

    name = "vllm_dp"
    aliases = ("vllm-dp",)
    Params = VllmDpParams
    params: VllmDpParams

    def __init__(self, params: VllmDpParams, replicas: int, rng: np.random.Generator) -> None:
        super().__init__(params, replicas, rng)
        self.interval = params.min_stats_update_interval
        servers = params.api_server_count
        self._balancers = [Balancer(replicas, servers, i) for i in range(servers)]
        self._next = 0
        self._reports: list[Counts] = [(0, 0, 0.0)] * replicas
        self._changes = [(0, 0, 0)] * replicas  # waiting, running, finished so far at the last report
        self._sent = [0] * replicas
        self._published = float("-inf")

    def setup(self, facts: Sequence[ReplicaFacts]) -> None:
        """Raises `NotModelledError` for several API servers in front of replicas."""
        if self.params.api_server_count > 1 and not facts[0].rank:
            raise NotModelledError("router.api_server_count", self.params.api_server_count, "is not modelled in a fleet", "1")

    def poll(self, snapshot: Snapshot) -> Sequence[Relocation]:
        """The coordinator's turn; the next one is an interval after the last publication, or after now if nothing changed."""
        least = self.params.min_stats_update_interval
        self._publish(snapshot)
        left = self._published + least - snapshot.now
        self.interval = left if left > _ROUNDING else least
        return ()

    def _publish(self, snapshot: Snapshot) -> None:
        quiet = snapshot.now - self._published + _ROUNDING
        if quiet >= self.params.min_stats_update_interval and (self._report(snapshot) or quiet >= IDLE_INTERVAL):
            for balancer in self._balancers:
                balancer.publish(self._reports)
            self._published = snapshot.now

    def _report(self, snapshot: Snapshot) -> bool:
        """Take in the engines whose counts changed since their last report, even if they changed back; True if any did."""
        seen = snapshot.look()
        outstanding = snapshot.outstanding.tolist()
        waiting, running = seen["waiting"].tolist(), seen["running"].tolist()
        used, total = seen["used_blocks"].tolist(), seen["total_blocks"].tolist()
        changed = False
        for k in range(self.replicas):
            now = (int(waiting[k]), int(running[k]), self._sent[k] - outstanding[k])
            if now != self._changes[k]:
                self._changes[k] = now
                self._reports[k] = (now[0], now[1], used[k] / total[k] if total[k] > 0.0 else 0.0)
                changed = True
        return changed

    def choose(self, snapshot: Snapshot, block: Requests, row: int) -> int:
        """O(replicas); the engines are looked at only after a quiet time."""
        self._publish(snapshot)
        server, servers = self._next, len(self._balancers)
        self._next = (server + 1) % servers
        own = snapshot.outstanding if servers == 1 else snapshot.outstanding_of(servers)[server]  # type: ignore[attr-defined]
        chosen = self._balancers[server].choose(own.tolist())
        self._sent[chosen] += 1
        return chosen
