"""LiteLLM's router: retries by itself, at once where another deployment is healthy.

*Source*: litellm 1.110.2 ``constants.py`` (DEFAULT_MAX_RETRIES 2, request time-out 6000 s, INITIAL_RETRY_DELAY 0.5, MAX_RETRY_DELAY 8, JITTER
0.75), ``router_utils``. Whether another deployment is healthy is a setting here; cooldowns are not modelled.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from sim.policy.client import BROKEN, Client, ClientParams
from sim.registry import register
from sim.units import Seconds


class LitellmParams(ClientParams):
    """``Router(timeout=…, num_retries=…)``."""

    timeout: Seconds = Field(6000.0, gt=0, le=1e6, description="of one attempt")
    num_retries: int = Field(2, ge=0, le=100, description="attempts after the first")
    others_healthy: bool = Field(False, description="another deployment of the group is healthy: retries do not pause")


@register("client")
class Litellm(Client):
    """Pauses min(0.5·2ⁿ, 8) s plus up to 0.75 s."""

    name = "litellm"
    Params = LitellmParams
    params: LitellmParams
    source = "litellm 1.110.2: constants.py, router.py"

    @property
    def attempts(self) -> int:
        """One and the retries."""
        return 1 + int(self.params.num_retries)

    @property
    def total(self) -> float:
        """As set."""
        return float(self.params.timeout)

    def retries(self, failure: str) -> bool:
        """Whatever failed before the answer began."""
        return failure != BROKEN

    def delay(self, attempt: int, rng: np.random.Generator) -> float:
        """None where another deployment is healthy."""
        if self.params.others_healthy:
            return 0.0
        return min(0.5 * 2.0**attempt, 8.0) + 0.75 * float(rng.random())
