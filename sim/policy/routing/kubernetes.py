"""A Kubernetes Service: kube-proxy chooses a pod for each *connection*; with HTTP keep-alive the requests on it follow.

*Source*: kubernetes.io "Virtual IPs and Service Proxies": iptables and nftables draw a pod uniformly, ipvs goes round robin (``rr``) or takes the pod with
the fewest connections (``lc``). Clients reuse idle connections as httpx does: at most ``max_keepalive_connections`` idle ones, for
``keepalive_expiry`` seconds; *assumed*: all clients are one process with one pool, the oldest idle connection is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from sim.policy.requests import Requests
from sim.policy.router import Router, RouterParams, Snapshot
from sim.registry import register
from sim.units import Seconds


class KubernetesParams(RouterParams):
    """Settings of `Kubernetes`."""

    proxy_mode: Literal["iptables", "nftables", "ipvs"] = Field("iptables", description="how kube-proxy balances connections")
    scheduler: Literal["rr", "lc"] = Field("rr", description="ipvs: round robin, or least connections")
    keep_alive: bool = Field(True, description="whether clients reuse connections; without, every request is balanced by itself")
    max_keepalive_connections: int = Field(20, ge=0, le=10**6, description="idle connections that are kept (httpx)")
    keepalive_expiry: Seconds = Field(5.0, gt=0, le=1e6, description="how long an idle connection is kept (httpx)")


class _Connection:
    __slots__ = ("idle_since", "replica")

    def __init__(self, replica: int) -> None:
        self.replica, self.idle_since = replica, 0.0


@register("router")
class Kubernetes(Router):
    """Balanced by connections, blind to what goes over them."""

    name = "kubernetes"
    aliases = ("kube_proxy",)
    Params = KubernetesParams
    params: KubernetesParams
    elastic = True
    hears = True

    def __init__(self, params: KubernetesParams, replicas: int, rng: np.random.Generator) -> None:
        super().__init__(params, replicas, rng)
        self._numbers: Sequence[int] = range(replicas)
        self._idle: list[_Connection] = []
        self._open: dict[int, _Connection] = {}
        self._next: _Connection | None = None
        self._turn = 0

    def members(self, numbers: Sequence[int]) -> None:
        """Connections to pods that left are closed."""
        super().members(numbers)
        self._numbers = list(numbers)
        self._idle = [c for c in self._idle if c.replica in self._numbers]

    def choose(self, snapshot: Snapshot, block: Requests, row: int) -> int:
        """An idle connection, else a new one."""
        p = self.params
        self._idle = [c for c in self._idle if c.idle_since + p.keepalive_expiry > snapshot.now]
        if self._idle:
            self._next = self._idle.pop(0)
        else:
            self._next = _Connection(self._numbers[self._place(snapshot)])
        return list(self._numbers).index(self._next.replica)

    def _place(self, snapshot: Snapshot) -> int:
        p, n = self.params, len(self._numbers)
        if p.proxy_mode != "ipvs":
            return int(self.rng.integers(0, n))
        if p.scheduler == "rr":
            self._turn += 1
            return (self._turn - 1) % n
        count = dict.fromkeys(self._numbers, 0)
        for c in [*self._idle, *self._open.values()]:
            if c.replica in count:
                count[c.replica] += 1
        return min(range(n), key=lambda i: count[self._numbers[i]])

    def on_sent(self, number: int, replica: int, block: Requests, row: int, now: float) -> None:
        """The connection is busy."""
        if self._next is not None and self._next.replica == replica:
            self._open[number] = self._next
        self._next = None

    def on_end(self, number: int, now: float) -> None:
        """It is idle, or closed."""
        connection = self._open.pop(number, None)
        p = self.params
        if connection is None or not p.keep_alive or connection.replica not in self._numbers:
            return
        self._idle = [c for c in self._idle if c.idle_since + p.keepalive_expiry > now]
        if len(self._idle) < p.max_keepalive_connections:
            connection.idle_since = now
            self._idle.append(connection)
