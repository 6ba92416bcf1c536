"""A client described by hand: time-outs, attempts, back-off."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from sim.policy.client import BROKEN, BUSY, CONNECT, ERROR, TIMEOUT, Client, ClientParams
from sim.registry import register
from sim.units import Seconds


class SimpleParams(ClientParams):
    """By default it waits for ever and tries once."""

    connect_timeout: Seconds | None = Field(None, gt=0, le=1e6, description="making a connection; null: no limit")
    first_token_timeout: Seconds | None = Field(
        None, gt=0, le=1e6, description="until the first byte of an attempt; null: no limit"
    )
    timeout: Seconds | None = Field(None, gt=0, le=1e6, description="of a whole attempt; null: no limit")
    max_attempts: int = Field(1, ge=1, le=1000, description="attempts, the first one included")
    backoff: Seconds = Field(0.5, ge=0, le=1e6, description="pause after the first failure")
    factor: float = Field(2.0, ge=1, le=100, description="the next pause is so many times as long")
    max_backoff: Seconds = Field(8.0, ge=0, le=1e6, description="longest pause")
    jitter: float = Field(0.0, ge=0, le=1, description="share of a pause that is drawn: 1 is anything from 0 to the pause")
    retry_on: tuple[Literal["connect", "timeout", "overloaded", "error", "broken"], ...] = Field(
        (CONNECT, TIMEOUT, BUSY, ERROR), description=f"after what it tries again; {BROKEN}: also an answer that broke off"
    )


@register("client")
class Simple(Client):
    """Exponential back-off with jitter downwards."""

    name = "simple"
    Params = SimpleParams
    params: SimpleParams
    source = "settings of the scenario"

    @property
    def attempts(self) -> int:
        """As set."""
        return int(self.params.max_attempts)

    @property
    def connect(self) -> float:
        """As set."""
        return float(self.params.connect_timeout or np.inf)

    @property
    def first_byte(self) -> float:
        """As set."""
        return float(self.params.first_token_timeout or np.inf)

    @property
    def total(self) -> float:
        """As set."""
        return float(self.params.timeout or np.inf)

    def retries(self, failure: str) -> bool:
        """By ``retry_on``."""
        return failure in self.params.retry_on

    def delay(self, attempt: int, rng: np.random.Generator) -> float:
        """Exponential."""
        p = self.params
        pause = min(p.backoff * p.factor**attempt, p.max_backoff)
        return float(pause * (1.0 - p.jitter * float(rng.random())))
