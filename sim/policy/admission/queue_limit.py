"""A bound on requests in flight, and a queue before it: the concurrency limit of SGLang's router and smg.

*Source*: lightseekorg/smg @ 73da68ca ``app_context.rs``, ``middleware/concurrency.rs``: a bucket of ``max_concurrent_requests`` tokens, refilled at
``rate_limit_tokens_per_second`` (unset: the capacity per second; 0: not at all, which is a pure semaphore); a request takes one and gives it
back at the end of its answer. When it is empty a queue of ``queue_size`` (full: 429) with ``queue_timeout_secs`` (408). vllm_router 0.1.17
has the same with ``max_concurrent_requests`` 32768.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np
from pydantic import Field

from sim.policy.admission.token_bucket import Bucket
from sim.policy.admitting import Admission, AdmissionParams, Line, Seen, Ticket
from sim.registry import register


class QueueLimitParams(AdmissionParams):
    """Settings of `QueueLimit`, spelled as on the command line of smg."""

    max_concurrent_requests: int = Field(ge=1, le=10**9, description="requests in flight at once")
    rate_limit_tokens_per_second: float | None = Field(
        None,
        ge=0,
        le=1e9,
        description="places that come back by time alone; null: as many per second as there are; 0: none, a semaphore",
    )
    queue_size: int = Field(100, ge=0, le=10**9, description="requests that may wait; others are refused (429)")
    queue_timeout_secs: float = Field(60.0, gt=0, le=1e9, description="seconds after which a waiting request is refused (408)")


@register("admission")
class QueueLimit(Admission):
    """So many requests in flight, so many more in a queue."""

    name = "queue_limit"
    Params = QueueLimitParams

    def __init__(self, params: QueueLimitParams, replicas: int, rng: np.random.Generator) -> None:
        super().__init__(params, replicas, rng)
        most, rate = params.max_concurrent_requests, params.rate_limit_tokens_per_second
        self._bucket = Bucket(most if rate is None else rate, most)
        self._line = Line(params.queue_size, params.queue_timeout_secs)

    def offer(self, ticket: Ticket, snapshot: Seen) -> bool:
        """Refused where the queue is full and no place is free."""
        if self._line.full and (len(self._line) > 0 or self._bucket.enough_at(snapshot.now, 1.0) > snapshot.now):
            return False
        self._line.put(ticket)
        return True

    def release(self, snapshot: Seen) -> Sequence[int]:
        """As many as there are places."""
        out = []
        while self._line.head is not None and self._bucket.take(snapshot.now, 1.0):
            out.append(self._line.take().number)
        return out

    def expired(self, now: float) -> Sequence[int]:
        """Who has waited for too long."""
        return self._line.late(now)

    def wake(self, now: float) -> float:
        """When a place comes back by time, or patience ends."""
        return inf if self._line.head is None else min(self._line.due(), self._bucket.enough_at(now, 1.0))

    def ended(self, ticket: Ticket, now: float, output_tokens: int) -> None:
        """Its place is free."""
        self._bucket.give(1.0)

    def withdraw(self, ticket: Ticket, now: float) -> None:
        """Out of the line."""
        self._line.drop(ticket.number)
