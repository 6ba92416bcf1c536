"""What a client sees besides the engines: connection and tokenising before, detokenising and sending after.

An engine's clock is kept as many seconds behind its clients' as a request takes to reach it: the request that leaves its client at ``t`` is
in the engine's inbox at ``t``, and everything that happens to it is seen ``before`` seconds later, its answer ``after`` more. That is exact,
not an approximation, as long as the delay is the same for all requests of a pool: an engine does not know what time it is. What grows with the
prompt (some µs per token, tokenised beside others) delays that request alone. What an API server does one request after the other is no such delay: it
is simulated (`EngineGroup.set_front`).

A client that waits for its answer has it only then: the world asks `away` before it lets a client go on, and `shift` puts the same seconds
into the rows. Pools that hand requests over have one door, that of the first pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from sim.ledger import Values

if TYPE_CHECKING:
    from sim.cost.profile import EngineProfile
    from sim.fleet.build import Plan

SEEN: Final = ("taken_s", "first_scheduled_s", "prefill_end_s", "kv_allocated_s", "kv_arrived_s", "decode_start_s")
"""Columns of what happens in engines before a request's first token."""


class ClientSide:
    """Of the pools of a run: for each a `sim.cost.profile.EngineProfile`, how many replicas, how many ranks each (results are by rank)."""

    def __init__(self, profiles: Sequence[EngineProfile], replicas: Sequence[int], ranks: Sequence[int]) -> None:
        self._profiles = list(profiles)
        self._of_replica = [p for p, n in zip(profiles, replicas, strict=True) for _ in range(n)]
        self._bounds = np.cumsum([0, *(n * r for n, r in zip(replicas, ranks, strict=True))]).tolist()

    @classmethod
    def of(cls, plans: Sequence[Plan]) -> ClientSide:
        """Of planned pools."""
        door = [plans[0].profile if p.role else p.profile for p in plans]
        return cls(door, [p.replicas for p in plans], [p.rank_count for p in plans])

    def away(self, replica: int, prompt_tokens: int) -> float:
        """Seconds from the moment an engine's answer has in its rows to the moment the client has it."""
        profile = self._of_replica[replica]
        return float(profile.before_engine(prompt_tokens) + profile.client_first_token)

    def shift(self, rows: dict[str, Values]) -> None:
        """Bring the times of the rows to what clients see; ``replica`` of a row says which pool it is of."""
        replica = np.maximum(rows["replica"], 0)  # who reached none has been to the door
        for profile, lo, hi in zip(self._profiles, self._bounds, self._bounds[1:], strict=False):
            mine = slice(None) if len(self._profiles) == 1 else (replica >= lo) & (replica < hi)
            before = profile.before_engine(rows["prompt_tokens"][mine])
            for name in SEEN:
                if name in rows:
                    rows[name][mine] += before
            for name in ("first_token_s", "finish_s"):
                rows[name][mine] += before + profile.client_first_token
