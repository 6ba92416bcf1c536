"""botocore in its standard retry mode (clients of Bedrock and SageMaker endpoints).

*Source*: botocore 1.44.8 ``retries/standard.py``: U·min(base·2ⁱ, 20) s, base 1 s after throttling and 0.05 s otherwise; connect and read
60 s. The quota of retry tokens (500 per process) is not modelled, as clients here are many processes.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from sim.policy.client import BROKEN, BUSY, Client, ClientParams
from sim.registry import register
from sim.units import Seconds


class BotocoreParams(ClientParams):
    """``botocore.config.Config``."""

    connect_timeout: Seconds = Field(60.0, gt=0, le=1e6, description="making a connection")
    read_timeout: Seconds = Field(60.0, gt=0, le=1e6, description="until the first byte (and between bytes)")
    max_attempts: int = Field(3, ge=1, le=100, description="attempts, the first one included")


@register("client")
class Botocore(Client):
    """Full jitter, longer after throttling."""

    name = "botocore"
    Params = BotocoreParams
    params: BotocoreParams
    source = "botocore 1.44.8: retries/standard.py"

    def __init__(self, params: BotocoreParams) -> None:
        super().__init__(params)
        self._last = ""

    @property
    def attempts(self) -> int:
        """As set."""
        return int(self.params.max_attempts)

    @property
    def connect(self) -> float:
        """As set."""
        return float(self.params.connect_timeout)

    @property
    def first_byte(self) -> float:
        """As set."""
        return float(self.params.read_timeout)

    def retries(self, failure: str) -> bool:
        """Transient errors and throttling."""
        self._last = failure
        return failure != BROKEN

    def delay(self, attempt: int, rng: np.random.Generator) -> float:
        """After the failure that `retries` was asked about last."""
        base = 1.0 if self._last == BUSY else 0.05
        return float(rng.random()) * min(base * 2.0**attempt, 20.0)
