"""Who sends what and when."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from sim.config.section import Named, Open, Section
from sim.units import Rate, Seconds


class Arrival(Named):
    """When requests arrive. A bare string is the process."""

    key: ClassVar[str] = "process"
    kind: ClassVar[str] = "arrival"


class Lengths(Named):
    """How long prompts and outputs are. A bare string is the kind."""

    key: ClassVar[str] = "kind"
    kind: ClassVar[str] = "length"


class Synthetic(Section):
    """Traffic drawn from distributions."""

    arrival: Arrival = Field(description="when requests arrive")
    lengths: Lengths = Field(description="how many tokens prompts and outputs have")
    requests: int | None = Field(None, ge=1, le=10**12, description="how many requests; none: without end, needs until")
    max_tokens: int | None = Field(
        None, ge=1, description="the limit of output tokens that every client sends; none: the output itself"
    )
    prefixes: dict[str, Any] | None = Field(None, description="system prompts that requests share")
    sessions: dict[str, Any] | None = Field(None, description="conversations of several turns")


class Trace(Open):
    """Traffic recorded elsewhere. Settings of the format stand beside these."""

    key: ClassVar[str] = "format"
    kind: ClassVar[str] = "trace"

    format: str = Field(min_length=1, description="format of the file")
    path: str = Field(min_length=1, description="the file; relative to the scenario's folder, then to the working directory")
    rate_scale: float = Field(1.0, gt=0, allow_inf_nan=False, description="plays the trace this many times as fast")
    rate: Rate | None = Field(None, description="plays the trace at this mean rate, such as 8/s")
    window: tuple[Seconds | None, Seconds | None] | None = Field(
        None, description="[start, end] in the trace's own time, from its first request"
    )
    limit: int | None = Field(None, ge=1, description="at most this many requests")
    max_tokens: int | None = Field(
        None, ge=1, description="the limit of output tokens that every client sends; none: the output itself"
    )


class ClosedLoop(Section):
    """Clients that wait for their answer before they ask again: the source's requests, at times of their own."""

    concurrency: int = Field(ge=1, le=10_000_000, description="clients")
    think_time: Seconds = Field(0.0, description="time from an answer to the client's next request")


class Traffic(Section):
    """Exactly one source, synthetic or trace; ``closed_loop`` beside it."""

    synthetic: Synthetic | None = Field(None, description="traffic drawn from distributions")
    trace: Trace | None = Field(None, description="traffic recorded elsewhere")
    closed_loop: ClosedLoop | None = Field(None, description="waiting clients instead of the source's arrival times")
    too_long: Literal["refuse", "skip"] = Field(
        "refuse", description="what to do with requests longer than the engine's context: refuse to run, or leave them out"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.synthetic is None) == (self.trace is None):
            raise ValueError("needs exactly one of synthetic and trace")
        return self
