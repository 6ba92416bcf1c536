"""httpx without more: short time-outs, no retries. *Source*: httpx 0.28.1 ``_config.py``."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from sim.policy.client import Client, ClientParams
from sim.registry import register
from sim.units import Seconds


class HttpxParams(ClientParams):
    """``httpx.Timeout(connect=…, read=…)``. The limit of 100 connections is not modelled: each client has its own."""

    connect: Seconds = Field(5.0, gt=0, le=1e6, description="making a connection")
    read: Seconds = Field(5.0, gt=0, le=1e6, description="until the first byte (and between bytes)")


@register("client")
class Httpx(Client):
    """One attempt; five seconds for the first byte."""

    name = "httpx"
    Params = HttpxParams
    params: HttpxParams
    source = "httpx 0.28.1: _config.py"

    @property
    def attempts(self) -> int:
        """One."""
        return 1

    @property
    def connect(self) -> float:
        """As set."""
        return float(self.params.connect)

    @property
    def first_byte(self) -> float:
        """As set."""
        return float(self.params.read)

    def retries(self, failure: str) -> bool:
        """Never."""
        return False

    def delay(self, attempt: int, rng: np.random.Generator) -> float:
        """Never asked."""
        return 0.0
