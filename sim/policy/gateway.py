"""Settings of a gateway that buffers requests while no instance can be had (`sim.fleet.gateway` does it)."""

from __future__ import annotations

from pydantic import Field, model_validator

from sim.policy.router import PollInterval, RouterParams
from sim.units import Seconds


class GatewayParams(RouterParams):
    """Defaults of llumnix-project/llumnix 8a693b46 ``cmd/gateway/app/options/config.go``; names as there, with underscores."""

    max_queue_size: int = Field(512, ge=1, description="requests in the buffer; a handler that finds it full tries again later")
    wait_queue_threads: int = Field(5, ge=1, description="requests in scheduling at once: a worker is blocked while it waits")
    wait_queue_interval: PollInterval = Field(1.0, description="pause before a handler tries a full buffer again")
    wait_scheduling_timeout: Seconds = Field(5.0, ge=0, description="time after which a request without an instance fails")
    wait_scheduling_retry_interval: PollInterval = Field(1.0, description="pause between two tries to get an instance")
    retry_max_count: int = Field(
        0, ge=0, le=0, description="retries after a failed forward; only 0 is modelled, as nothing fails"
    )
    scheduler_outage: tuple[Seconds, Seconds] | None = Field(
        None, description="[from, to]: the scheduler is unreachable, the gateway goes round robin"
    )

    @model_validator(mode="after")
    def _forwards(self) -> GatewayParams:
        if self.scheduler_outage is not None and self.scheduler_outage[0] > self.scheduler_outage[1]:
            raise ValueError("scheduler_outage must be [from, to] with from ≤ to")
        return self
