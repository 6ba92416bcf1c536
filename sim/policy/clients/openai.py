"""The openai client for Python; the one for Node and langchain-openai, which leaves both settings open, do the same.

*Source*: openai 3.57 ``_constants.py``, ``_base_client.py`` (``_should_retry``, ``_calculate_retry_timeout``). ``Retry-After`` and
``x-should-retry`` are not modelled: the engines' servers send neither.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from sim.policy.client import BROKEN, Client, ClientParams
from sim.registry import register
from sim.units import Seconds


class OpenaiParams(ClientParams):
    """``OpenAI(timeout=…, max_retries=…)``."""

    timeout: Seconds = Field(600.0, gt=0, le=1e6, description="for each read: until the first byte (and between bytes)")
    connect: Seconds = Field(5.0, gt=0, le=1e6, description="of httpx.Timeout: making a connection")
    max_retries: int = Field(2, ge=0, le=100, description="attempts after the first")


@register("client")
class Openai(Client):
    """Tries again after connection errors, time-outs, 408, 409, 429 and 5xx; pauses min(0.5·2ⁿ, 8) s less up to a quarter."""

    name = "openai"
    Params = OpenaiParams
    params: OpenaiParams
    source = "openai 3.57 for Python: _constants.py, _base_client.py"

    @property
    def attempts(self) -> int:
        """One and the retries."""
        return 1 + int(self.params.max_retries)

    @property
    def connect(self) -> float:
        """As set."""
        return float(self.params.connect)

    @property
    def first_byte(self) -> float:
        """As set."""
        return float(self.params.timeout)

    def retries(self, failure: str) -> bool:
        """A stream that has begun is not begun again."""
        return failure != BROKEN

    def delay(self, attempt: int, rng: np.random.Generator) -> float:
        """With jitter downwards."""
        return min(0.5 * 2.0**attempt, 8.0) * (1.0 - 0.25 * float(rng.random()))
