"""The ``traffic`` section: who asks what and when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictInt, model_validator

from sim import registry
from sim.config.base import Arrival, Count, Lengths, Section, Share
from sim.config.slo import ClassSlo
from sim.errors import ServesimError
from sim.units import Rate, Seconds

ClassName = Annotated[str, Field(min_length=1, max_length=60, pattern=r"^[^\s.\[\]/\\]+$")]
Priority = Annotated[int, Field(ge=-(2**31), lt=2**31)]


_UNMODELLED = {"audio": "audio", "videos": "videos", "encoder_tokens": "the tokens of an encoder"}
"""Settings that people look for and that no engine here computes; refused by name."""


def _ends(arrival: object) -> bool:
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
    prefixes: dict[str, object] | None = Field(None, description="shared system prompts: {groups, shared_tokens, zipf}")
    sessions: dict[str, object] | None = Field(None, description="multi-turn sessions: {turns, think_time, …}")
    agents: dict[str, object] | None = Field(
        None, description="runs of agents: calls with tools between them, some at once: {steps, tool_time, fan_out, …}"
    )
    clients: dict[str, object] | None = Field(
        None, description="a pool of unlike clients, each with its share of the rate and its lengths: {count, zipf, …}"
    )


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
    settings: dict[str, object] = Field(default_factory=dict, description="settings of the format's reader")


class Adapters(Section):
    """Adapters (LoRA) that requests name: so many alike or by popularity, or the share of each."""

    count: Count | None = Field(None, description="number of adapters")
    share: Share = Field(1.0, description="share of requests that name one; the others use the base model")
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
    """Clients that wait for an answer before they ask again; the arrival times of the traffic are ignored unless ``paced``."""

    concurrency: Count = Field(description="number of clients")
    think_time: Seconds = Field(0.0, description="time from an answer to the client's next request")
    paced: StrictBool = Field(
        False,
        description="no request is sent before its arrival time: a rate with a limit of requests in flight, such as "
        "vllm bench serve --request-rate with --max-concurrency",
    )


class Images(Section):
    """Images beside the text of requests."""

    share: Share = Field(1.0, description="share of requests that have any")
    count: Annotated[StrictInt, Field(ge=1, le=1024)] = Field(1, description="images of each of these")
    tokens: Count = Field(description="tokens that an image adds to the prompt, as the model makes them of its size")


class Sources(Section):
    """What the whole traffic has and each of its classes can have."""

    synthetic: Synthetic | None = None
    trace: Trace | None = None
    closed_loop: ClosedLoop | None = None
    adapters: Adapters | None = Field(None, description="adapters that requests name, such as {count: 16, zipf: 1, share: 0.5}")
    images: Images | None = Field(
        None,
        description="images that an encoder turns into tokens, such as {share: 0.5, count: 2, tokens: 1024}; the source's lengths are of text",
    )
    priorities: dict[Priority, Annotated[float, Field(gt=0, allow_inf_nan=False)]] | None = Field(
        None,
        min_length=1,
        description="priorities of requests and their weights, such as {0: 9, 1: 1}; what goes first is the engine's",
    )

    @model_validator(mode="before")
    @classmethod
    def _no_encoders(cls, given: object) -> object:
        """Encoders of sound and video cost memory here, not time."""
        for where in (given, given.get("synthetic")) if isinstance(given, Mapping) else ():
            for name in _UNMODELLED.keys() & where.keys() if isinstance(where, Mapping) else ():
                raise ValueError(
                    f"{_UNMODELLED[name]} of requests are not modelled: encoders count as weights, not as time; give their tokens as prompt tokens"
                )
        return given

    @model_validator(mode="before")
    @classmethod
    def _clients_that_wait_need_no_times(cls, given: object) -> object:
        """``arrival`` may be left out where every request but the first follows an answer: it would be ignored."""
        if not isinstance(given, Mapping) or not isinstance(loop := given.get("closed_loop"), Mapping) or loop.get("paced"):
            return given
        if isinstance(source := given.get("synthetic"), Mapping) and not {"arrival", "agents"} & source.keys():
            return {**given, "synthetic": {**source, "arrival": {"process": "constant", "rate": "1/s"}}}
        return given

    @property
    def waits(self) -> bool:
        """Whether any client waits for its answer before it asks again."""
        return self.closed_loop is not None


class TrafficClass(Sources):
    """One class of clients: its own source, ``synthetic`` or ``trace``, and what sets it apart. Nothing of it depends on the other classes."""

    tenant: str | None = Field(
        None, min_length=1, max_length=200, description="who sends it; several classes may have one tenant"
    )
    priority: Priority | None = Field(None, description="priority of its requests, as the engine reads it")
    adapter: Annotated[StrictInt, Field(ge=1, lt=2**31)] | None = Field(
        None, description="number of the one adapter that it names"
    )
    model: str | None = Field(None, description="the model that it asks for, or a pool that serves it, where pools have several")
    slo: ClassSlo | None = Field(None, description="targets of its own, instead of those of all requests")

    @model_validator(mode="after")
    def _one_source(self) -> TrafficClass:
        if (self.synthetic is None) == (self.trace is None):
            raise ValueError("needs exactly one source: synthetic or trace")
        if self.priority is not None and self.priorities is not None:
            raise ValueError("priority and priorities say the same: give one")
        if self.adapter is not None and self.adapters is not None:
            raise ValueError("adapter and adapters say the same: give one")
        return self


class Traffic(Sources):
    """Exactly one source: ``synthetic``, ``trace``, or ``classes`` that each have one."""

    classes: dict[ClassName, TrafficClass] | None = Field(
        None,
        min_length=1,
        max_length=1000,
        description="classes of clients by name, each with its own rate, lengths, SLO, tenant …",
    )
    requests: Count | None = Field(
        None,
        description="of classes: number of requests of all together; null: until the last class that ends by itself has ended, 10,000 where none does",
    )
    duration: Seconds | None = Field(None, gt=0, le=1e8, description="of classes: traffic ends after this time")
    endpoint: Literal["completions", "chat"] = Field(
        "completions",
        description="what clients call; chat requests pass a template, which takes vLLM 0.10 and 0.11 and vllm-ascend 0.9 and 0.10 37 ms, "
        "12 of them one request after the other; of no other server a difference is known",
    )
    structured_output: Share = Field(0.0, description="share of requests whose answer must follow a grammar or JSON schema")
    sampling: Literal["filtered", "greedy"] = Field(
        "filtered",
        description="how tokens are drawn: with top-k or top-p, as servers do by default where the model's generation_config says so, "
        "or always the most likely one (temperature 0)",
    )
    penalties: Share = Field(0.0, description="share of requests with a presence, frequency or repetition penalty")
    logprobs: Share = Field(0.0, description="share of requests that want log-probabilities of their tokens")
    n: int = Field(1, ge=1, le=1024, description="answers to one request; only 1 is modelled")
    too_long: Literal["error", "skip"] = Field("error", description="what becomes of requests longer than the model's context")

    @model_validator(mode="before")
    @classmethod
    def _so_many(cls, given: object) -> object:
        """10,000 requests, where nothing ends by itself; a class that is null is none."""
        if not isinstance(given, Mapping):
            return given
        if isinstance(given.get("classes"), Mapping):
            given = {**given, "classes": {k: v for k, v in given["classes"].items() if v is not None}}
        source = given.get("synthetic")
        if not isinstance(source, Mapping) or source.get("requests") is not None or _ends(source.get("arrival")):
            return given
        return {**given, "synthetic": {**source, "requests": 10_000}}

    @model_validator(mode="after")
    def _one_source(self) -> Traffic:
        if sum(x is not None for x in (self.synthetic, self.trace, self.classes)) != 1:
            raise ValueError("needs exactly one source: synthetic, trace or classes")
        if self.classes is None:
            for name in ("requests", "duration"):
                if getattr(self, name) is not None:
                    where = "synthetic.requests" if self.synthetic is not None else "trace.limit or trace.window"
                    raise ValueError(f"{name} belongs to classes; here it is {where}")
            return self
        if self.requests is not None and self.duration is not None:
            raise ValueError("requests and duration both say when traffic ends: give one")
        for name in ("closed_loop", "adapters", "priorities", "images"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} belongs to a class: traffic.classes.NAME.{name}")
        return self

    @property
    def waits(self) -> bool:
        """Whether any client waits for its answer before it asks again."""
        return self.closed_loop is not None or any(c.waits for c in (self.classes or {}).values())

    @property
    def random(self) -> bool:
        """Whether another seed gives other requests."""
        return any(source.synthetic is not None for source in self.sources().values())

    @property
    def so_many(self) -> int | None:
        """The number of requests that a setting fixes; None where recorded or shaped traffic decides it."""
        if self.classes is None:
            return None if self.synthetic is None else self.synthetic.requests
        ends = any(
            c.synthetic is None or c.synthetic.requests or _ends(c.synthetic.arrival.process) for c in self.classes.values()
        )
        return self.requests if ends or self.duration else self.requests or 10_000

    def with_requests(self, requests: int) -> Traffic:
        """The same traffic with another number of requests, where `so_many` says that it has one."""
        if self.classes is not None:
            return self.model_copy(update={"requests": requests})
        assert self.synthetic is not None
        return self.model_copy(update={"synthetic": self.synthetic.model_copy(update={"requests": requests})})

    def sources(self) -> dict[str, Sources]:
        """What has a source, by its field: the traffic itself, or each of its classes."""
        if self.classes is None:
            return {"traffic": self}
        return {f"traffic.classes.{name}": c for name, c in self.classes.items()}
