"""nginx in front of the replicas: smooth weighted round robin, ``least_conn``, ``random two least_conn``.

*Source*: nginx ``ngx_http_upstream_{round_robin,least_conn,random}_module`` and its documentation. *Own counters*: requests in flight, of each worker process
by itself unless the upstream has a ``zone``. Not modelled: ``slow_start``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from sim.policy.recovery import NGINX
from sim.policy.requests import Requests
from sim.policy.router import Router, RouterParams, Snapshot
from sim.registry import register

if TYPE_CHECKING:
    from sim.policy.rules.smooth import Upstream
    from sim.rules import Rule


class NginxParams(RouterParams):
    """Settings of `Nginx`."""

    method: Literal["round_robin", "least_conn", "random two least_conn"] = Field(
        "least_conn", description="how a server is chosen"
    )
    weights: tuple[int, ...] = Field((), description="weight of each replica, by its number; 1 where there is none")
    worker_processes: int = Field(
        1, ge=1, le=1024, description="processes, each of which takes a random share of the connections"
    )
    zone: bool = Field(True, description="whether they share their counters")


@register("router")
class Nginx(Router):
    """The reverse proxy that stands before most things."""

    name = "nginx"
    recovery = NGINX
    Params = NginxParams
    params: NginxParams
    elastic = True

    def __init__(self, params: NginxParams, replicas: int, rng: np.random.Generator) -> None:
        super().__init__(params, replicas, rng)
        self._shared = params.zone or params.worker_processes == 1
        self.hears = not self._shared
        self._numbers: Sequence[int] = range(replicas)
        workers = 1 if self._shared else params.worker_processes
        self._current: list[dict[int, int]] = [{} for _ in range(workers)]
        self._conns: list[dict[int, int]] = [{} for _ in range(workers)]
        self._worker = 0
        self._of: dict[int, tuple[int, int]] = {}

    def members(self, numbers: Sequence[int]) -> None:
        """Other servers: the upstream is read anew, its turns begin anew."""
        super().members(numbers)
        self._numbers = list(numbers)
        for current in self._current:
            current.clear()
        if self._compiled is not None:
            self._compiled.replace(self._upstream())

    def _weight(self, number: int) -> int:
        weights = self.params.weights
        return max(weights[number], 0) if number < len(weights) else 1

    def rule(self) -> Rule | None:
        """Of one counter, without draws; see `sim.policy.rules.smooth`."""
        if self.hears or self.params.method == "random two least_conn":
            return None
        if self._compiled is None:
            from sim.policy.rules.smooth import smooth
            from sim.rules import Rule

            self._compiled = Rule(smooth, self._upstream())
        return self._compiled

    def _upstream(self) -> Upstream:
        from sim.policy.rules.smooth import Upstream

        weights = np.array([self._weight(k) for k in self._numbers], np.int64)
        least = np.array([self.params.method == "least_conn"], np.int64)
        return Upstream(weights, np.zeros_like(weights), np.zeros(len(weights), np.int8), least)

    def choose(self, snapshot: Snapshot, block: Requests, row: int) -> int:
        """By one worker process."""
        self._worker = 0 if self._shared else int(self.rng.integers(0, len(self._conns)))
        method, places = self.params.method, range(len(self._numbers))
        if method == "round_robin":
            return self._in_turn(places)
        busy = self._busy(snapshot)
        if method == "least_conn":
            load = [busy[i] / w if (w := self._weight(n)) else np.inf for i, n in enumerate(self._numbers)]
            least = min(load)
            ties = [i for i in places if load[i] == least]
            return ties[0] if len(ties) == 1 else self._in_turn(ties)
        weights = np.array([self._weight(n) for n in self._numbers], np.float64)
        if np.count_nonzero(weights) < 2:
            return int(np.argmax(weights))
        a, b = (int(i) for i in self.rng.choice(len(weights), 2, replace=False, p=weights / weights.sum()))
        return b if busy[b] * weights[a] < busy[a] * weights[b] else a

    def _busy(self, snapshot: Snapshot) -> Sequence[int]:
        if self._shared:
            return [int(v) for v in snapshot.outstanding]
        conns = self._conns[self._worker]
        return [conns.get(n, 0) for n in self._numbers]

    def _in_turn(self, places: Sequence[int]) -> int:
        """Smooth weighted round robin: everybody gains its weight, the first of the highest goes and pays the sum."""
        current = self._current[self._worker]
        total, best = 0, places[0]
        for i in places:
            n = self._numbers[i]
            current[n] = current.get(n, 0) + self._weight(n)
            total += self._weight(n)
            if current[n] > current.get(self._numbers[best], 0):
                best = i
        current[self._numbers[best]] -= total
        return best

    def on_sent(self, number: int, replica: int, block: Requests, row: int, now: float) -> None:
        """One more connection of the worker that chose."""
        conns = self._conns[self._worker]
        conns[replica] = conns.get(replica, 0) + 1
        self._of[number] = self._worker, replica

    def on_end(self, number: int, now: float) -> None:
        """One less."""
        found = self._of.pop(number, None)
        if found is not None:
            self._conns[found[0]][found[1]] -= 1
