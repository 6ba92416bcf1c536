"""Quotas of each tenant: requests and tokens per minute, and requests at once; what is above is refused.

*Source*: LiteLLM 1.110 ``rpm_limit``, ``tpm_limit``, ``max_parallel_requests`` of a key: counters of fixed windows of a minute; tokens are counted when
an answer ends, so that a window can be overdrawn by what is in flight (429 from then on). ``count: at_admission`` reserves prompt and max_tokens instead.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from sim.policy.admitting import Admission, AdmissionParams, Seen, Ticket
from sim.registry import register
from sim.units import Seconds


class TenantQuotaParams(AdmissionParams):
    """Settings of `TenantQuota`; limits are those of LiteLLM, for each tenant (class) alike, or as ``tenants`` says."""

    rpm_limit: int | None = Field(None, ge=0, le=10**9, description="requests per window")
    tpm_limit: int | None = Field(None, ge=0, le=10**12, description="tokens per window, prompts and answers")
    max_parallel_requests: int | None = Field(None, ge=0, le=10**9, description="requests in flight at once")
    window: Seconds = Field(60.0, gt=0, le=1e6, description="length of a window; windows begin at its multiples")
    count: Literal["at_end", "at_admission"] = Field("at_end", description="when the tokens of a request are counted")
    tenants: dict[int, float] = Field(
        default_factory=dict, description="share of the limits that single tenants (numbers of classes) have: {1: 0.5} is half"
    )

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.rpm_limit is None and self.tpm_limit is None and self.max_parallel_requests is None:
            raise ValueError("needs at least one of rpm_limit, tpm_limit, max_parallel_requests")
        if any(share < 0 for share in self.tenants.values()):
            raise ValueError("shares in tenants must not be negative")
        return self


@register("admission")
class TenantQuota(Admission):
    """Nobody waits: a request is within its tenant's quota or refused (429)."""

    name = "tenant_quota"
    Params = TenantQuotaParams
    params: TenantQuotaParams
    hears_first_tokens = True

    def __init__(self, params: TenantQuotaParams, replicas: int, rng: np.random.Generator) -> None:
        super().__init__(params, replicas, rng)
        self._window = -1
        self._requests: dict[int, int] = defaultdict(int)
        self._tokens: dict[int, int] = defaultdict(int)
        self._parallel: dict[int, int] = defaultdict(int)
        self._through: deque[int] = deque()

    def _at(self, now: float) -> None:
        window = int(now // self.params.window)
        if window != self._window:
            self._window = window
            self._requests.clear()
            self._tokens.clear()

    def offer(self, ticket: Ticket, snapshot: Seen) -> bool:
        """Whether the quota has room."""
        p, who = self.params, ticket.tenant
        self._at(snapshot.now)
        share = p.tenants.get(who, 1.0)
        asked = ticket.prompt_tokens + ticket.max_tokens if p.count == "at_admission" else 1
        for limit, used, more in (
            (p.rpm_limit, self._requests[who], 1),
            (p.tpm_limit, self._tokens[who], asked),
            (p.max_parallel_requests, self._parallel[who], 1),
        ):
            if limit is not None and used + more > limit * share:
                return False
        self._requests[who] += 1
        self._parallel[who] += 1
        if p.count == "at_admission":
            self._tokens[who] += asked
        self._through.append(ticket.number)
        return True

    def release(self, snapshot: Seen) -> Sequence[int]:
        """Whoever is within the quota."""
        out = list(self._through)
        self._through.clear()
        return out

    def ended(self, ticket: Ticket, now: float, output_tokens: int) -> None:
        """What it took counts in the window in which it ends."""
        self._parallel[ticket.tenant] -= 1
        if self.params.count == "at_end":
            self._at(now)
            self._tokens[ticket.tenant] += (ticket.prompt_tokens + output_tokens) if output_tokens else 0
