"""The ``traffic`` section: who asks what and when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sim import registry
from sim.config.base import Arrival, Count, Lengths, Section
from sim.errors import ServesimError
from sim.units import Rate, Seconds

Priority = Annotated[int, Field(ge=-(2**31), lt=2**31)]


def _ends(arrival: Any) -> bool:
    """Whether an ``arrival`` section names a process that ends by itself; one that is wrong is found where it is built."""
    name = arrival.get("process") if isinstance(arrival, Mapping) else arrival
    if not isinstance(name, str):
        return False
    try:
        return bool(registry.lookup("arrival", name).ends)
    except ServesimError:
        return False


class Synthetic(Section):
    """Traffic drawn from distributions."""

    arrival: Arrival = Field(description="arrival process, such as {process: poisson, rate: 8/s}")
    lengths: Lengths = Field(description="prompt and output lengths, such as azure-2023-conv")
    requests: Count | None = Field(
        None,
        description="number of requests; null: 10,000, or as many as come until arrivals end that do (stages, spike, diurnal …)",
    )
    max_tokens: Count | None = Field(None, description="the clients' limit on generated tokens; longer outputs end there")
    prefixes: dict[str, Any] | None = Field(None, description="shared system prompts: {groups, shared_tokens, zipf}")
    sessions: dict[str, Any] | None = Field(None, description="multi-turn sessions: {turns, think_time, …}")

    @model_validator(mode="before")
    @classmethod
    def _so_many(cls, given: Any) -> Any:
        """Arrivals in stages, a spike, a day end by themselves."""
        if not isinstance(given, Mapping) or given.get("requests") is not None:
            return given
        return given if _ends(given.get("arrival")) else {**given, "requests": 10_000}


class Trace(Section):
    """Traffic from a recorded trace."""

    format: str = Field("auto", description="format of the file: azure-2023, mooncake, csv …; auto: found by its names")
    path: str = Field(description="the file (gzip, zstd allowed) or folder, relative to the scenario's folder")
    arrival: Arrival | None = Field(
        None, description="when requests arrive, where the file does not say, or instead of its times"
    )
    rate_scale: float = Field(1.0, gt=0, allow_inf_nan=False, description="play the trace so many times faster")
    rate: Rate | None = Field(None, description="play the trace at this mean rate")
    window: tuple[Seconds | None, Seconds | None] | None = Field(None, description="only requests of this time, [start, end]")
    limit: Count | None = Field(None, description="only the first so many requests")
    max_tokens: Count | None = Field(None, description="the clients' limit on generated tokens; longer outputs end there")
    settings: dict[str, Any] = Field(default_factory=dict, description="settings of the format's reader")


class Adapters(Section):
    """Adapters (LoRA) that requests name: so many alike or by popularity, or the share of each."""

    count: Count | None = Field(None, description="number of adapters")
    share: float = Field(
        1.0, ge=0, le=1, allow_inf_nan=False, description="share of requests that name one; the others use the base model"
    )
    zipf: float = Field(
        0.0, ge=0, le=20, allow_inf_nan=False, description="popularity: adapter k is drawn with weight 1/k^zipf; 0: all alike"
    )
    shares: tuple[float, ...] | None = Field(
        None, min_length=1, description="instead: share of all requests that name each adapter; the rest uses the base model"
    )

    @model_validator(mode="after")
    def _one_way(self) -> Adapters:
        if (self.count is None) == (self.shares is None):
            raise ValueError("needs exactly one of count and shares")
        if self.shares is not None and (not all(0 <= x <= 1 for x in self.shares) or sum(self.shares) > 1 + 1e-9):
            raise ValueError("shares must each be in [0, 1] and at most 1 together")
        if self.shares is not None and {"share", "zipf"} & self.model_fields_set:
            raise ValueError("share and zipf go with count; shares says all")
        return self


class ClosedLoop(Section):
    """Clients that wait for an answer before they ask again; the arrival times of the traffic are ignored."""

    concurrency: Count = Field(description="number of clients")
    think_time: Seconds = Field(0.0, description="time from an answer to the client's next request")


class Traffic(Section):
    """Exactly one source, ``synthetic`` or ``trace``."""

    synthetic: Synthetic | None = None
    trace: Trace | None = None
    closed_loop: ClosedLoop | None = None
    adapters: Adapters | None = Field(None, description="adapters that requests name, such as {count: 16, zipf: 1, share: 0.5}")
    priorities: dict[Priority, Annotated[float, Field(gt=0, allow_inf_nan=False)]] | None = Field(
        None,
        min_length=1,
        description="priorities of requests and their weights, such as {0: 9, 1: 1}; what goes first is the engine's",
    )
    endpoint: Literal["completions", "chat"] = Field(
        "completions", description="what clients call; chat requests pass a template, which costs some servers time"
    )
    structured_output: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        allow_inf_nan=False,
        description="share of requests whose answer must follow a grammar or JSON schema",
    )
    too_long: Literal["error", "skip"] = Field("error", description="what becomes of requests longer than the model's context")

    @model_validator(mode="after")
    def _one_source(self) -> Traffic:
        if (self.synthetic is None) == (self.trace is None):
            raise ValueError("needs exactly one source: synthetic or trace")
        return self
