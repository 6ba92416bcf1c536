"""Llumnix v1: gateway and scheduler of llumnix-project/llumnix 8a693b46.

Dispatch by metrics of polled statuses corrected by a ledger of requests on the way; filters and fall-back; cache-aware mode with its quirks;
SLO policy; rescheduling; prefill and decode dispatch between pools with roles, both at once or one after the other. Not modelled, and refused:
adaptive P/D, the enhanced predictor. Assumed: bandwidth and overhead of a migration; that a pair moves requests as long as their tokens
stay within the limit.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from sim.policy.gateway import GatewayParams
from sim.policy.routing._llumnix_v1 import V1Params, V1Router
from sim.registry import register


class LlumnixParams(V1Params):
    """Settings of gateway and scheduler; dashes of the command line written as underscores."""

    gateway: GatewayParams | None = Field(default_factory=GatewayParams, description="buffering and retry; null: none")


@register("router")
class Llumnix(V1Router):
    """Fewest prompt tokens to compute first, behind a gateway that retries."""

    name = "llumnix"
    Params = LlumnixParams

    def __init__(self, params: LlumnixParams, replicas: int, rng: np.random.Generator) -> None:
        super().__init__(params, replicas, rng)
        self.gateway = params.gateway
