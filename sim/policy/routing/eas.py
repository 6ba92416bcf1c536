"""The LLM intelligent router of PAI-EAS: LLM Gateway, LLM Scheduler, LLM Agents.

Documented (Alibaba Cloud help pages): the gateway buffers requests when every instance is loaded and goes round robin when the
scheduler cannot be reached; the agents push waiting requests, KV use and token rates. Assumed: that its scheduler is the one of Llumnix v1
(same names, same behaviour), what each policy name compares, and the numbers of the gateway (queue 512, wait 10 s, try every second).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Self

import numpy as np
from pydantic import Field

from sim.policy.gateway import GatewayParams
from sim.policy.router import PollInterval, RouterParams
from sim.policy.routing._llumnix_v1 import V1Params, V1Router
from sim.registry import register

if TYPE_CHECKING:
    from sim.document import Json

_POLICIES: Final[dict[str, dict[str, Json]]] = {
    "prefix-cache": {"enable_cache_aware_scheduling": True},
    "llm-metric-based": {},
    "least-request": {"dispatch_neutral_load_metric": "num_requests", "dispatch_neutral_load_threshold": 3e38},
    "least-token": {"dispatch_neutral_load_metric": "num_tokens", "dispatch_neutral_load_threshold": 3e38},
}


def _gateway() -> GatewayParams:
    return GatewayParams(wait_scheduling_timeout=10.0)


class EasParams(RouterParams):
    """Settings of the router service."""

    policy: Literal["prefix-cache", "llm-metric-based", "least-request", "least-token"] = Field(
        "prefix-cache", description="how requests are spread"
    )
    status_interval: PollInterval = Field(0.05, description="time between two reports of an agent (assumed: as Llumnix v1)")
    load_threshold: float = Field(8192.0, gt=0, description="prompt tokens to compute from which on an instance counts as loaded")
    gateway: GatewayParams = Field(default_factory=_gateway, description="buffering and retry")


@register("router")
class Eas(V1Router):
    """The longest cached prefix, then the fewest prompt tokens to compute; requests wait in the gateway while all instances are loaded."""

    name = "eas"
    Params = EasParams

    def __init__(self, params: EasParams, replicas: int, rng: np.random.Generator) -> None:
        given = {"dispatch_neutral_load_threshold": params.load_threshold, "load_filter_fallback": False} | _POLICIES[
            params.policy
        ]
        given |= {name.replace("neutral", "prefill"): value for name, value in given.items() if "neutral" in name}
        super().__init__(V1Params(status_interval=params.status_interval, **given), replicas, rng)
        self.gateway = params.gateway
        self._given = params

    def renewed(self, rng: np.random.Generator) -> Self:
        """With the settings it was given, of which those of its rules were made."""
        return type(self)(self._given, self.replicas, rng)
