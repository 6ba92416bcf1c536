"""Fair queueing of tenants by virtual token counters (`sim.policy.gateways.vtc`), at the door of the fleet.

In the paper the counters stand in the engine and a request is admitted when its KV fits. A gateway does not see that: it lets so many requests (and
tokens) through at once, by the settings of the artifact, for each replica. What runs beyond that has to wait here, in the order of the counters, and
not in the engines' own queues, which are first come, first served.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import inf
from typing import Literal

import numpy as np
from pydantic import Field

from sim.policy.admitting import Admission, AdmissionParams, Seen, Ticket
from sim.policy.gateways.vtc import Counters
from sim.registry import register


class VtcParams(AdmissionParams):
    """Settings of `Vtc`; the limits are spelled as in the artifact."""

    lift: Literal["paper", "artifact"] = Field("paper", description="what a tenant that comes back starts from")
    input_weight: float = Field(1.0, ge=0, le=1e6, description="w_p: service of a prompt token")
    output_weight: float = Field(2.0, ge=0, le=1e6, description="w_q: service of a generated token")
    weights: dict[int, float] = Field(default_factory=dict, description="weights of tenants (numbers of classes); 1 unless given")
    running_max_req_size: int = Field(ge=1, le=10**6, description="requests in flight for each replica")
    max_total_tokens: int | None = Field(
        None, ge=1, le=10**12, description="prompt tokens and max_tokens of requests in flight, for each replica; null: no limit"
    )
    charge: Literal["streamed", "finished"] = Field(
        "streamed", description="when answers count: token by token as they are streamed through, or when they end"
    )


@register("admission")
class Vtc(Admission):
    """The waiting request of the tenant that was served least goes next. One that does not fit lets nobody pass."""

    name = "vtc"
    Params = VtcParams
    params: VtcParams
    hears_first_tokens = True

    def __init__(self, params: VtcParams, replicas: int, rng: np.random.Generator) -> None:
        super().__init__(params, replicas, rng)
        p = params
        self._counters = Counters(p.lift, p.input_weight, p.output_weight, p.weights)
        self._queues: dict[int, deque[Ticket]] = {}
        self._inside: dict[int, Ticket] = {}
        self._charged: dict[int, int] = {}
        self._reserved = 0

    def _waiting(self) -> list[int]:
        return [tenant for tenant, queue in self._queues.items() if queue]

    def offer(self, ticket: Ticket, snapshot: Seen) -> bool:
        """Nobody is refused but what could never go."""
        most = self.params.max_total_tokens
        if most is not None and ticket.prompt_tokens + ticket.max_tokens > most * self.replicas:
            return False
        self._counters.arrive(ticket.tenant, self._waiting())
        self._queues.setdefault(ticket.tenant, deque()).append(ticket)
        return True

    def release(self, snapshot: Seen) -> Sequence[int]:
        """As many as fit, in the order of the counters."""
        if not any(self._queues.values()):
            return []
        p, out = self.params, []
        replicas = max(len(snapshot.outstanding), 1)  # where none serves, an autoscaler must see that somebody waits
        counted = False
        while (waiting := self._waiting()) and len(self._inside) < p.running_max_req_size * replicas:
            if not counted and len(waiting) > 1:
                self._count(snapshot)
                counted = True
            tenant = self._counters.next(waiting)
            queue = self._queues[tenant]  # type: ignore[index]
            head = queue[0]
            size = head.prompt_tokens + head.max_tokens
            if self._inside and self._reserved + size > (p.max_total_tokens or inf) * replicas:
                break
            queue.popleft()
            self._counters.admitted(tenant, head.prompt_tokens, not queue)
            self._inside[head.number] = head
            self._charged[head.number] = 0
            self._reserved += size
            out.append(head.number)
        return out

    def _count(self, snapshot: Seen) -> None:
        """Tokens that have come by since the last time."""
        if self.params.charge == "streamed" and self._inside:
            ids, done = snapshot.delivered()
            for number, tokens in zip(ids.tolist(), done.tolist(), strict=True):
                if number in self._inside:
                    self._charge(number, tokens)

    def _charge(self, number: int, tokens: int) -> None:
        new = tokens - self._charged[number]
        if new > 0:
            self._charged[number] = tokens
            self._counters.generated(self._inside[number].tenant, new)

    def ended(self, ticket: Ticket, now: float, output_tokens: int) -> None:
        """The rest of its answer counts, its place is free."""
        self._charge(ticket.number, output_tokens)
        self._reserved -= ticket.prompt_tokens + ticket.max_tokens
        del self._inside[ticket.number], self._charged[ticket.number]

    def withdraw(self, ticket: Ticket, now: float) -> None:
        """Out of its queue."""
        self._queues[ticket.tenant].remove(ticket)
