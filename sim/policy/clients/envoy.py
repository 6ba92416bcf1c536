"""Envoy in front of clients that do nothing themselves: a route time-out, and retries where a policy asks for them.

*Source*: envoyproxy.io, HTTP route components and retry policy: route time-out 15 s, pause U[0, 25 ms·(2ⁿ−1)) up to ten times the base. The base
interval of 25 ms is its documented default; that ``per_try_timeout`` counts to the first byte of a stream is assumed.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from sim.policy.client import BROKEN, BUSY, CONNECT, ERROR, TIMEOUT, Client, ClientParams
from sim.registry import register
from sim.units import Seconds

_ON = {
    "connect-failure": {CONNECT},
    "reset": {CONNECT, ERROR, TIMEOUT},
    "5xx": {CONNECT, ERROR, TIMEOUT},
    "gateway-error": {ERROR, TIMEOUT},
    "retriable-4xx": set[str](),
    "retriable-status-codes": {BUSY},
}


class EnvoyParams(ClientParams):
    """Settings of a route and its ``retry_policy``."""

    timeout: Seconds = Field(15.0, gt=0, le=1e6, description="of the route: the whole answer, all attempts together")
    per_try_timeout: Seconds | None = Field(None, gt=0, le=1e6, description="until the first byte of one attempt")
    num_retries: int = Field(0, ge=0, le=100, description="retries; 0: no policy (Envoy Gateway has 2)")
    retry_on: tuple[
        Literal["connect-failure", "reset", "5xx", "gateway-error", "retriable-4xx", "retriable-status-codes"], ...
    ] = Field(("5xx",), description="after what; retriable-status-codes stands for 429 and 503 of a busy server")
    base_interval: Seconds = Field(0.025, gt=0, description="of the back-off")
    max_interval: Seconds | None = Field(None, gt=0, description="its bound; by default ten times the base")


@register("client")
class Envoy(Client):
    """The route's time-out ends everything, however many attempts are left."""

    name = "envoy"
    Params = EnvoyParams
    params: EnvoyParams
    source = "envoyproxy.io: route time-out, retry policy"

    @property
    def attempts(self) -> int:
        """One and the retries."""
        return 1 + int(self.params.num_retries)

    @property
    def first_byte(self) -> float:
        """``per_try_timeout``."""
        return float(self.params.per_try_timeout or self.params.timeout)

    @property
    def deadline(self) -> float:
        """The route's time-out holds for all attempts together."""
        return min(float(self.params.timeout), super().deadline)

    def retries(self, failure: str) -> bool:
        """By ``retry_on``; never once the answer has begun."""
        return failure != BROKEN and any(failure in _ON[name] for name in self.params.retry_on)

    def delay(self, attempt: int, rng: np.random.Generator) -> float:
        """Full jitter."""
        base = float(self.params.base_interval)
        most = float(self.params.max_interval or 10 * base)
        return float(rng.random()) * min(base * (2.0 ** (attempt + 1) - 1.0), most)
