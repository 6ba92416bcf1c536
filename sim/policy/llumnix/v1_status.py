"""What the v1 scheduler knows of an instance: the last polled status and its own ledger of requests on the way.

*Source*: llumnix-project/llumnix 8a693b46 ``pkg/cms/instance_status_local_account.go``, ``pkg/scheduler/policy/metrics.go``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

INFLIGHT_TIMEOUT: Final = 10.0
"""Seconds after which a dispatched request that the engine never showed is dropped from the ledger."""
NO_MEMORY: Final = 3.4028234663852886e38
"""FLT_MAX: the ratio of an instance without KV memory."""


@dataclass(slots=True)
class Status:
    """Counters of one instance as of ``time``; tokens and requests. ``seen_until``: requests sent up to then are in the counters."""

    instance: int
    time: float = 0.0
    seen_until: float = 0.0
    schedulable: bool = True
    healthy: bool = True
    unit: int = -1
    infer_type: str = "neutral"
    num_total_tokens: float = 0.0
    num_used_tokens: float = 0.0
    waiting_prefill_tokens: float = 0.0
    running_prefill_tokens: float = 0.0
    unallocated_running_prefill_tokens: float = 0.0
    hybrid_waiting_decode_tokens: float = 0.0
    num_waiting: int = 0
    num_loading: int = 0
    num_running: int = 0
    hybrid_waiting_decodes: int = 0
    waiting_to_decode: int = 0
    running_decodes: int = 0
    computed_since: float = 0.0


@dataclass(slots=True)
class InFlight:
    """A dispatched request that the engine has not shown yet."""

    sent: float
    tokens: int
    uncomputed: int
    decode: bool = False
    held: bool = False
    """Chosen ahead: the prompt is still being computed elsewhere."""


@dataclass(slots=True)
class Account:
    """One instance: last status, requests on the way, and what is computed for one decision."""

    status: Status
    ledger: dict[int, InFlight] = field(default_factory=dict)
    prefix_miss_tokens: float = 0.0
    kv_cache_hit_len: float = 0.0
    predicted_computed: float = 0.0
    predicted_ttft: float = 0.0
    predicted_tpot: float = 0.0

    def dispatch(self, request: int, now: float, tokens: int, hit: int = 0, decode: bool = False) -> None:
        """Note a request sent to the instance; ``hit``: its tokens that a cache-aware scheduler expects to find there."""
        self.ledger[request] = InFlight(now, tokens, 0 if decode else tokens - hit, decode)

    def revert(self, request: int) -> None:
        """Take a dispatch back (a prefill whose decode found no instance)."""
        self.ledger.pop(request, None)

    def update(self, status: Status) -> None:
        """A new status has been polled: requests it shows leave the ledger, and those that never came after 10 s."""
        self.status = status
        seen, limit = status.seen_until, status.time - INFLIGHT_TIMEOUT
        for request in [r for r, e in self.ledger.items() if (e.sent <= seen and not e.held) or e.sent < limit]:
            del self.ledger[request]

    def inflight(self, decode: bool) -> tuple[int, int, int]:
        """Requests, tokens and uncomputed tokens on the way, of prefills or of decodes."""
        mine = [e for e in self.ledger.values() if e.decode == decode]
        return len(mine), sum(e.tokens for e in mine), sum(e.uncomputed for e in mine)


def all_prefills_tokens_num(a: Account) -> float:
    """Prompt tokens still to compute: waiting, running and on the way, less those predicted to be computed since the status."""
    s = a.status
    return s.waiting_prefill_tokens + s.running_prefill_tokens + a.inflight(False)[2] - a.predicted_computed


def kv_cache_usage_ratio_projected(a: Account) -> float:
    """Share of the KV memory that is used or will be by what waits and is on the way to decode. *Range* ≥ 0; may exceed 1."""
    s = a.status
    if s.num_total_tokens == 0:
        return NO_MEMORY
    wanted = s.waiting_prefill_tokens + s.unallocated_running_prefill_tokens + s.hybrid_waiting_decode_tokens
    return (s.num_used_tokens + wanted + a.inflight(True)[1]) / s.num_total_tokens


def decode_batch_size(a: Account) -> float:
    """Requests that decode or are about to."""
    s = a.status
    return s.hybrid_waiting_decodes + s.num_loading + s.waiting_to_decode + s.running_decodes + a.inflight(True)[0]


def num_waiting_requests(a: Account) -> float:
    """Requests waiting, and on the way."""
    return a.status.num_waiting + len(a.ledger)


def num_requests(a: Account) -> float:
    """All requests there or on the way."""
    s = a.status
    return s.num_waiting + s.num_loading + s.num_running + len(a.ledger)


def num_tokens(a: Account) -> float:
    """Tokens held or to be held, as the scheduler counts them itself in lite mode."""
    s = a.status
    return s.num_used_tokens + s.waiting_prefill_tokens + sum(e.tokens for e in a.ledger.values())


def cache_aware_all_prefills_tokens_num(a: Account) -> float:
    """Tokens to compute before the request's own first token: its misses behind everybody else's."""
    return a.prefix_miss_tokens + all_prefills_tokens_num(a)


Metric = Callable[[Account], float]

METRICS: dict[str, Metric] = {
    "all_prefills_tokens_num": all_prefills_tokens_num,
    "kv_cache_usage_ratio_projected": kv_cache_usage_ratio_projected,
    "decode_batch_size": decode_batch_size,
    "num_waiting_requests": num_waiting_requests,
    "num_requests": num_requests,
    "num_tokens": num_tokens,
    "cache_aware_all_prefills_tokens_num": cache_aware_all_prefills_tokens_num,
    "kv_cache_hit_len": lambda a: -a.kv_cache_hit_len,
    "predicted_ttft": lambda a: a.predicted_ttft,
    "predicted_tpot": lambda a: a.predicted_tpot,
}
"""Smaller is better; a hit length counts negative."""
