"""What an engine profile file may hold (`profiles/engines/*.yaml`, and files of one's own), checked as a whole."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, StrictBool, StrictInt, field_validator, model_validator

from sim.profile_files import Graded, Record
from sim.units import parse_seconds

if TYPE_CHECKING:
    from pydantic.config import JsonDict

_LONGEST = 3600.0
_LARGEST_GRAPH = 1 << 20


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number")
    return value


_TEXT_TOO: JsonDict = {"type": ["number", "string"]}


class Seconds(Graded[Annotated[float, Field(ge=0, le=_LONGEST, json_schema_extra=_TEXT_TOO), BeforeValidator(parse_seconds)]]):
    """Seconds, or with a unit such as 0.3ms."""


class Ratio(Graded[Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False), BeforeValidator(_number)]]):
    """Above 0."""


class Count(Graded[Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False), BeforeValidator(_number)]]):
    """0 or more."""


class Switch(Graded[StrictBool]):
    """true or false."""


Positive = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Time = Seconds | None
Factor = Ratio | None
Amount = Count | None
Flag = Switch | None


class GraphRange(Record):
    """Captured sizes ``from``, ``from + step``, … up to ``to``."""

    first: Annotated[StrictInt, Field(alias="from", ge=1, le=_LARGEST_GRAPH)]
    last: Annotated[StrictInt, Field(alias="to", ge=1, le=_LARGEST_GRAPH)]
    step: Annotated[StrictInt, Field(ge=1, le=_LARGEST_GRAPH)]


class LineFigures(Record):
    """Figures of one line; what is left out holds as in the line before. Times in seconds (or with a unit, ``"0.3ms"``)."""

    kernels: str | None = Field(
        None, description="kernel stack whose timings the figures go with: vllm, sglang, vllm-ascend, llama.cpp"
    )
    host_step: Time = Field(None, description="host work per step")
    host_row: Time = Field(None, description="host work per row of the batch")
    host_prefill_row: Time = Field(None, description="host work per row with prompt tokens")
    host_token: Time = Field(None, description="host work per token of the batch")
    host_scale_tp: Time = Field(None, description="further host work per step for each rank beyond the first")
    host_row_ranks: Time = Field(None, description="further host work per row where there are several ranks")
    overlap: Flag = Field(None, description="the host prepares the next step while the device works")
    overlap_gap: Time = Field(None, description="what shows of the host's work where it overlaps")
    host_ahead: Flag = Field(
        None, description="without overlap: the host processes outputs between launches, and the device works behind all it does"
    )
    overlap_gap_ranks: Time = Field(None, description="more of it with several ranks")
    graph_sizes: tuple[Annotated[StrictInt, Field(ge=1, le=_LARGEST_GRAPH)] | GraphRange, ...] | None = Field(
        None, description="token counts that graphs are captured for: numbers, and {from, to, step}"
    )
    graph_prefill: Flag = Field(None, description="steps with prompt tokens use graphs too")
    decode_graph: Literal["full", "piecewise"] | None = Field(
        None, description="one graph for a whole decode step, or one for each piece between attention layers"
    )
    eager_layer: Time = Field(None, description="launching the kernels of a layer one by one, beyond the captured sizes")
    eager_expert_layer: Time = Field(None, description="what a layer of experts adds to it")
    eager_expert_few: Time = Field(
        None, description="the same in steps of fewer than 128 tokens and without compilation (fused kernels; left out: the same)"
    )
    eager_prompt_layer: Time = Field(None, description="what a layer adds to it in steps with prompts")
    eager_latent_layer: Time = Field(None, description="what a layer of latent attention adds to it")
    eager_layer_plain: Time = Field(None, description="the same with compilation switched off too (enforce_eager)")
    recurrent_layer: Time = Field(
        None,
        description="launching the chunked form of a layer with a recurrent state, in steps with prompts (no graph holds it)",
    )
    piecewise_layer: Time = Field(
        None, description="launching what a layer leaves outside its graphs (piecewise graphs: attention)"
    )
    sinks_layer: Time = Field(None, description="what attention with sinks adds to it where it runs in Triton (before Hopper)")
    sinks_prefill: Factor = Field(
        None, description="time of such attention for prompts, relative to the measured kernels, beyond its launch"
    )
    sampler_step: Time = Field(None, description="sampling, per step (device)")
    sampler_row: Time = Field(None, description="sampling, per sampled row (device)")
    step_scatter: Amount = Field(None, description="standard deviation of the logarithm of a step's time, where it was measured")
    draft_step: Time = Field(None, description="further host work of a server that speculates, per step")
    draft_row: Time = Field(None, description="the same, per row")
    draft_pass: Time = Field(None, description="choosing tokens after a pass of the draft, beside its layers and head (device)")
    filter_row: Time = Field(
        None, description="part of sampling that filtering by top-k and top-p takes, per row and 131,072 tokens of vocabulary"
    )
    penalty_step: Time = Field(None, description="presence, frequency and repetition penalties, per step that has any")
    penalty_row: Time = Field(None, description="the same, per row that has any and 131,072 tokens of vocabulary")
    logprob_row: Time = Field(None, description="log-probabilities of a token, per row that wants them")
    structured_row: Time = Field(None, description="mask of allowed tokens, per row that must follow a grammar")
    mixed_factor: Factor = Field(None, description="decode attention in a step that also computes prompts, relative to alone")
    mixed_group: Amount = Field(
        None, description="the same for each query head of a KV head, where the prompt kernel reads keys and values for each anew"
    )
    mixed_row: Time = Field(None, description="more per layer for each decode row in such a step")
    separate_attention: Flag = Field(None, description="prompt and decode rows run in two kernels")
    decode_tile: Amount = Field(
        None, description="query rows that decode attention computes per KV head, whatever the group (0: as measured)"
    )
    serial_token: Time = Field(
        None,
        description="decode attention, per token of the context that one multiprocessor reads alone (kernels that split no context)",
    )
    window_tile: Amount = Field(
        None, description="query rows of a tile where attention in a window is not split under FlashAttention 2 (0: as measured)"
    )
    small_kernel: Time = Field(None, description="launching one norm, activation or rotary kernel in a graph")
    small_kernels_per_layer: Amount = Field(None, description="how many of them a layer has")
    quantise_inputs: Flag = Field(
        None, description="inputs of products in 8-bit integers are quantised by kernels of their own (npu_dynamic_quant)"
    )
    latent_kernels: Amount = Field(None, description="how many more a layer of latent attention has")
    expert_layer: Time = Field(None, description="what surrounds the measured kernels of a layer of experts, per step")
    expert_token: Time = Field(None, description="the same, per token")
    expert_quantising: Time = Field(None, description="the same, more per step where activations are quantised")
    expert_element: Time = Field(None, description="the same, per token and element of its hidden width")
    expert_group: Time = Field(
        None, description="the same, per expert that has tokens: grouped products that take one expert after the other"
    )
    int4_expert_layer: Time = Field(None, description="what 4-bit experts take beyond the measured kernels, per layer and step")
    int4_expert_token: Time = Field(None, description="the same, per token")
    block_expert_floor: Time = Field(
        None, description="a layer of 8-bit experts with block scales, before any byte is read (0: as measured)"
    )
    block_expert_copy: Time = Field(None, description="the same, per token and expert that it goes to")
    fused_shared_experts: Flag = Field(
        None, description="the shared expert of DeepSeek V3 and R1 is computed with the routed ones"
    )
    mxfp4_marlin: Flag = Field(None, description="mxfp4 experts run Marlin on Hopper too, as they do before it")
    gemm_scale: Factor = Field(None, description="time of matrix products relative to the measured kernels")
    compute_scale: Factor = Field(None, description="the same for their compute alone")
    attention_scale: Factor = Field(None, description="the same for attention")
    prefill_scale: Factor = Field(None, description="more of it for attention of prompts, beyond its launch")
    prefill_masked: Amount = Field(
        None,
        description="share of the matrix units' peak at which prompts attend where a mask covers the whole square (0: causal kernels)",
    )
    expert_scale: Factor = Field(None, description="the same for routed experts")
    comms_scale: Factor = Field(None, description="the same for collectives")
    collective_start: Time = Field(None, description="more for every collective than the measured ones take")
    collective_ranks: Time = Field(
        None, description="more for every all-reduce among more than two ranks, times (ranks - 2) / ranks: they wait for the last"
    )
    large_reduce: Time = Field(None, description="more for every byte that is passed on in all-reduces of 64 MiB and more")
    client_request: Time = Field(None, description="from the client to the engine: HTTP, tokenising")
    client_first_token: Time = Field(None, description="from the engine to the client: detokenising, sending")
    client_prompt_token: Time = Field(None, description="tokenising, per prompt token")
    client_serial: Time = Field(None, description="part of client_request that one process does, a request after the other")
    client_chat: Time = Field(None, description="what a chat request adds to client_request")
    client_chat_serial: Time = Field(None, description="what it adds to client_serial")
    band: dict[str, tuple[Positive, Positive, StrictInt]] | None = Field(
        None,
        description="what is left of the model's error, by metric: ends of measured / predicted, and of how many measurements",
    )
    all_to_all: Literal["allgather", "deepep"] | None = Field(None, description="how tokens reach experts on other ranks")

    @model_validator(mode="before")
    @classmethod
    def _nothing_empty(cls, given: object) -> object:
        empty = [k for k, v in given.items() if v is None] if isinstance(given, dict) else []
        if empty:
            raise ValueError(f"{', '.join(map(str, empty))}: has no value")
        return given


def version_of(text: str) -> tuple[int, ...]:
    """``"0.15.1"`` → (0, 15, 1); () for what is no version."""
    return tuple(int(x) for x in re.findall(r"\d+", text)[:3])


class Line(LineFigures):
    """A version line: it begins at ``from``; ``accelerators`` has figures for accelerators by their name or its beginning."""

    start: str = Field(alias="from", description="first version of the line")
    continues: bool = Field(
        False, description="the line before goes on under its name, with what it has on accelerators; only what is given differs"
    )
    accelerators: dict[str, LineFigures] | None = Field(
        None, description="figures on certain accelerators, by name or the beginning of it"
    )

    @field_validator("start")
    @classmethod
    def _version(cls, given: str) -> str:
        if not version_of(given):
            raise ValueError("is not a version, such as '0.15.1'")
        return given


class EngineProfileFile(Record):
    """An engine profile: the host side of an engine, by version line. `servesim calibrate` writes such files."""

    title: str | None = Field(None, description="for people")
    base: str | None = Field(None, description="another profile (name or path) whose figures hold where this one has none")
    notes: tuple[str, ...] = Field((), description="for people")
    lines: tuple[Line, ...] = Field(description="version lines, oldest first")

    @field_validator("lines", mode="before")
    @classmethod
    def _some(cls, given: object) -> object:
        if not isinstance(given, list | tuple) or not given:
            raise ValueError("must be a list of version lines")
        return given
