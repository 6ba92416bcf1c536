"""The ``traffic`` section: who asks what and when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from sim.config.base import Arrival, Count, Lengths, Section
from sim.units import Rate, Seconds


class Synthetic(Section):
    """Traffic drawn from distributions."""

    arrival: Arrival = Field(description="arrival process, such as {process: poisson, rate: 8/s}")
    lengths: Lengths = Field(description="prompt and output lengths, such as azure-2023-conv")
    requests: Count | None = Field(
        None, description="number of requests; null: 10,000, or as many as come until the last of the arrival's stages ends"
    )
    max_tokens: Count | None = Field(None, description="the clients' limit on generated tokens; longer outputs end there")
    prefixes: dict[str, Any] | None = Field(None, description="shared system prompts: {groups, shared_tokens, zipf}")
    sessions: dict[str, Any] | None = Field(None, description="multi-turn sessions: {turns, think_time, …}")

    @model_validator(mode="before")
    @classmethod
    def _so_many(cls, given: Any) -> Any:
        """Arrivals in stages end by themselves."""
        if not isinstance(given, Mapping) or given.get("requests") is not None:
            return given
        arrival = given.get("arrival")
        staged = isinstance(arrival, Mapping) and arrival.get("process") == "stages" and not given.get("sessions")
        return given if staged else {**given, "requests": 10_000}


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


class ClosedLoop(Section):
    """Clients that wait for an answer before they ask again; the arrival times of the traffic are ignored."""

    concurrency: Count = Field(description="number of clients")
    think_time: Seconds = Field(0.0, description="time from an answer to the client's next request")


class Traffic(Section):
    """Exactly one source, ``synthetic`` or ``trace``."""

    synthetic: Synthetic | None = None
    trace: Trace | None = None
    closed_loop: ClosedLoop | None = None
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
