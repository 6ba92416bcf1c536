"""A token bucket: so many requests (or tokens) per second on average, so many at once.

*Source*: lightseekorg/smg @ 73da68ca ``middleware/token_bucket.rs``: tokens = min(capacity, tokens + elapsed · rate), the bucket starts full. Envoy's
local rate limit adds whole ``tokens_per_fill`` at each ``fill_interval`` instead (docs of ``local_ratelimit``); set ``fill_interval`` for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, inf
from typing import Literal

import numpy as np
from pydantic import Field

from sim.policy.admitting import Admission, AdmissionParams, Line, Seen, Ticket
from sim.registry import register
from sim.units import Rate, Seconds

_ROUNDING = 1e-9


class Bucket:
    """Tokens that come back with time. ``interval`` 0: continuously, else in portions at its multiples."""

    def __init__(self, rate: float, capacity: float, interval: float = 0.0) -> None:
        self.rate, self.capacity, self._interval = rate, capacity, interval
        self.tokens, self._at = capacity, 0.0

    def _fill(self, now: float) -> None:
        if now <= self._at:
            return
        seconds = now - self._at
        if self._interval > 0:
            seconds = (floor(now / self._interval + _ROUNDING) - floor(self._at / self._interval + _ROUNDING)) * self._interval
        self.tokens = min(self.capacity, self.tokens + seconds * self.rate)
        self._at = now

    def take(self, now: float, n: float) -> bool:
        """Take ``n`` tokens if there are as many."""
        self._fill(now)
        if self.tokens + _ROUNDING < n:
            return False
        self.tokens = max(self.tokens - n, 0.0)
        return True

    def give(self, n: float) -> None:
        """Tokens come back before their time."""
        self.tokens = min(self.capacity, self.tokens + n)

    def enough_at(self, now: float, n: float) -> float:
        """When there will be ``n`` tokens if nobody else takes any; inf: never."""
        self._fill(now)
        missing = n - self.tokens
        if missing <= _ROUNDING:
            return now
        if self.rate <= 0 or n > self.capacity + _ROUNDING:
            return inf
        if self._interval > 0:
            steps = int(np.ceil(missing / (self.rate * self._interval) - _ROUNDING))
            return (floor(now / self._interval + _ROUNDING) + steps) * self._interval
        return now + missing / self.rate


class TokenBucketParams(AdmissionParams):
    """Settings of `TokenBucket`."""

    rate: Rate = Field(le=1e12, description="tokens per second: a request takes as many as `cost` says")
    burst: float = Field(1.0, ge=1, le=1e12, description="most tokens in the bucket, which starts full")
    cost: Literal["request", "prompt_tokens", "total_tokens"] = Field(
        "request", description="what a request takes: 1, its prompt tokens, or these and max_tokens"
    )
    per: Literal["fleet", "tenant"] = Field(
        "fleet", description="one bucket for all, or one of this size for each tenant (class)"
    )
    fill_interval: Seconds = Field(0.0, le=1e6, description="0: tokens come continuously; else in portions, as Envoy adds them")
    queue_size: int = Field(
        0, ge=0, le=10**9, description="requests that may wait for tokens (per bucket); others are refused (429)"
    )
    queue_timeout: Seconds = Field(60.0, gt=0, le=1e9, description="time after which a waiting request is refused (408)")


@register("admission")
class TokenBucket(Admission):
    """A rate limit with a burst."""

    name = "token_bucket"
    Params = TokenBucketParams
    params: TokenBucketParams

    def __init__(self, params: TokenBucketParams, replicas: int, rng: np.random.Generator) -> None:
        super().__init__(params, replicas, rng)
        self._buckets: dict[int, tuple[Bucket, Line]] = {}

    def _of(self, ticket: Ticket) -> tuple[Bucket, Line]:
        p = self.params
        key = ticket.tenant if p.per == "tenant" else 0
        if key not in self._buckets:
            line = Line(p.queue_size + 1, p.queue_timeout)  # the one that goes on at once stands in it too
            self._buckets[key] = Bucket(p.rate, p.burst, p.fill_interval), line
        return self._buckets[key]

    def _cost(self, ticket: Ticket) -> float:
        kind = self.params.cost
        if kind == "request":
            return 1.0
        return float(ticket.prompt_tokens + (ticket.max_tokens if kind == "total_tokens" else 0))

    def offer(self, ticket: Ticket, snapshot: Seen) -> bool:
        """Refused where too many wait, and where a request takes more than a full bucket has."""
        bucket, line = self._of(ticket)
        cost = self._cost(ticket)
        if cost > bucket.capacity or line.full:
            return False
        if len(line) >= self.params.queue_size and (len(line) or bucket.enough_at(snapshot.now, cost) > snapshot.now):
            return False
        line.put(ticket)
        return True

    def release(self, snapshot: Seen) -> Sequence[int]:
        """Heads for whom there are tokens."""
        out = []
        for bucket, line in self._buckets.values():
            while (head := line.head) is not None and bucket.take(snapshot.now, self._cost(head)):
                out.append(line.take().number)
        return out

    def expired(self, now: float) -> Sequence[int]:
        """Who has waited for too long."""
        return [n for _, line in self._buckets.values() for n in line.late(now)]

    def wake(self, now: float) -> float:
        """When there are tokens, or patience ends."""
        times = [
            min(line.due(), bucket.enough_at(now, self._cost(head)))
            for bucket, line in self._buckets.values()
            if (head := line.head) is not None
        ]
        return min(times, default=inf)

    def withdraw(self, ticket: Ticket, now: float) -> None:
        """Out of the line."""
        self._of(ticket)[1].drop(ticket.number)
