"""The TokenWorks configuration center of PAI (2026): session affinity, then prefix cache, then load balance.

*Source*: Alibaba Cloud help page ``tokenworks-config-center``. Assumed: load is requests sent and not finished; the waiting-request threshold,
whose default is not published, is off; prefixes are remembered as sent (`sim.policy.llumnix.prefix`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sim.policy.llumnix.prefix import PrefixIndex, chunk_keys
from sim.policy.requests import Requests
from sim.policy.router import ReplicaFacts, Router, RouterParams, Snapshot
from sim.policy.routing._spans import spans_of
from sim.registry import register
from sim.units import Seconds

_CHUNK: Final = 256


class TokenworksParams(RouterParams):
    """Settings of the three layers."""

    session_affinity: Literal["off", "soft", "strict"] = Field(
        "soft", description="requests of a session go where the last one went"
    )
    session_ttl: Seconds = Field(1800.0, gt=0, description="a session unused for so long is forgotten")
    session_max_entries: int = Field(100_000, ge=1, description="sessions remembered, least recently used out first")
    session_load_factor: float = Field(1.5, ge=1, description="soft affinity is dropped above so many times the mean load")
    prefix_cache: bool = Field(True, description="prefer the instance with the longest cached prefix")
    prefix_load_margin: float = Field(0.3, ge=0, description="… unless its load is above the mean by more than this share")
    max_waiting_requests: int | None = Field(None, ge=0, description="… or more requests wait there (default not published; off)")


@register("router")
class EasTokenworks(Router):
    """Session affinity, prefix cache, least requests."""

    name = "eas_tokenworks"
    aliases = ("tokenworks",)
    Params = TokenworksParams
    params: TokenworksParams
    elastic = True

    def __init__(self, params: TokenworksParams, replicas: int, rng: np.random.Generator) -> None:
        super().__init__(params, replicas, rng)
        self._sessions: OrderedDict[int, tuple[int, float]] = OrderedDict()
        self._index: PrefixIndex | None = None
        self._facts: Sequence[ReplicaFacts] = ()
        self._numbers: Sequence[int] = range(replicas)
        self._all = replicas

    def setup(self, facts: Sequence[ReplicaFacts]) -> None:
        """Block sizes, for the index of prefixes."""
        self._facts = facts

    def members(self, numbers: Sequence[int]) -> None:
        """Sessions and prefixes of those who go are forgotten."""
        super().members(numbers)
        place = {number: i for i, number in enumerate(numbers)}
        kept = ((s, self._numbers[k], t) for s, (k, t) in self._sessions.items() if self._numbers[k] in place)
        self._sessions = OrderedDict((s, (place[number], t)) for s, number, t in kept)
        for gone in set(self._numbers) - set(numbers):
            if self._index is not None:
                self._index.forget(gone)
        self._numbers = numbers

    def choose(self, snapshot: Snapshot, block: Requests, row: int) -> int:
        """Three layers in order; the first that names an instance decides."""
        load = snapshot.outstanding
        now, session = snapshot.now, int(block.session[row])
        keys = self._keys(snapshot, block, row)
        chosen = self._by_session(session, now, load)
        if chosen is None:
            chosen = self._by_prefix(snapshot, keys, load)
        if chosen is None:
            chosen = int(np.argmin(load))
        if session >= 0:
            self._sessions[session] = (chosen, now)
            self._sessions.move_to_end(session)
            if len(self._sessions) > self.params.session_max_entries:
                self._sessions.popitem(last=False)
        if self._index is not None:
            self._index.store(self._numbers[chosen], keys)
        return chosen

    def _by_session(self, session: int, now: float, load: NDArray[np.int64]) -> int | None:
        p = self.params
        known = self._sessions.get(session)
        if p.session_affinity == "off" or session < 0 or known is None or now - known[1] > p.session_ttl:
            return None
        if p.session_affinity == "soft" and load[known[0]] > p.session_load_factor * load.mean():
            return None
        return known[0]

    def _keys(self, snapshot: Snapshot, block: Requests, row: int) -> list[int]:
        if not self.params.prefix_cache:
            return []
        if self._index is None:
            size = self._facts[0].block_size if self._facts else 1
            room = float(snapshot.gauges()[3].max()) * size
            self._index = PrefixIndex(self._all, max(int(room) // _CHUNK, 1))
        return chunk_keys(spans_of(block, row), _CHUNK)

    def _by_prefix(self, snapshot: Snapshot, keys: list[int], load: NDArray[np.int64]) -> int | None:
        if self._index is None or not keys:
            return None
        hits = np.array([self._index.consecutive(n, keys) for n in self._numbers])
        hits[load > load.mean() * (1 + self.params.prefix_load_margin)] = 0
        if self.params.max_waiting_requests is not None:
            hits[snapshot.gauges()[1] > self.params.max_waiting_requests] = 0
        if hits.max() == 0:
            return None
        best = np.flatnonzero(hits == hits.max())
        return int(best[np.argmin(load[best])])
