"""Settings of MindIE spelled as in its ``config.json`` (ScheduleConfig, ModelDeployConfig, ModelConfig), and what it makes of them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from sim.cost.drafts import DraftMethod, acceptance
from sim.document import loads
from sim.engine.contract import EngineParams, Site
from sim.engine.effect import inert
from sim.engine.releases import check_release
from sim.engine.sides import Role
from sim.errors import ConfigError, NotModelledError

FIELD = "deployment.engine"
NEWEST = "2.3"


class PluginParams(BaseModel):
    """``plugin_params``: which plugins run. ``acceptance_rate`` says how well speculation works on the traffic."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plugin_type: str = Field(description="Names joined by commas: prefix_cache, splitfuse, mtp, la, memory_decoding.")
    num_speculative_tokens: int = Field(1, ge=1, le=16, description="mtp: tokens guessed per step.")
    level: int = Field(4, ge=3, le=16, description="la: N-gram length N.")
    window: int = Field(5, ge=1, le=16, description="la: window W.")
    guess_set_size: int = Field(5, ge=1, le=16, description="la: guess set size G.")
    decoding_length: int = Field(16, ge=1, le=16, description="memory_decoding: tokens guessed per step.")
    acceptance_rate: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Probability that a guessed token is right if the one before it was; by default estimated by plugin (not MindIE's own).",
    )

    @property
    def names(self) -> set[str]:
        """The plugins."""
        return {name.strip() for name in self.plugin_type.split(",") if name.strip()}

    @property
    def gamma(self) -> int:
        """Look-ahead slots of a sequence (speculationGamma)."""
        if "mtp" in self.names:
            return self.num_speculative_tokens
        if "la" in self.names:
            return (self.level - 1) * (self.window + self.guess_set_size)
        return self.decoding_length if "memory_decoding" in self.names else 0

    @property
    def method(self) -> DraftMethod:
        """How guesses are made."""
        return "mtp" if "mtp" in self.names else "ngram" if self.gamma else "none"

    @property
    def right(self) -> tuple[float, ...]:
        """Probability that the guess at each position is right, given those before it; la verifies N-grams of N − 1 guesses each."""
        look_ahead = "la" in self.names
        depth = self.level - 1 if look_ahead else self.gamma
        if self.acceptance_rate is not None:
            return (self.acceptance_rate,) * depth
        return acceptance(self.method, depth, self.guess_set_size if look_ahead else 1.0) if depth else ()


PLUGINS = {"prefix_cache", "splitfuse", "mtp", "la", "memory_decoding"}
_SPECULATION = {"mtp", "la", "memory_decoding"}


class MindieParams(EngineParams):
    """Settings of one MindIE server; the defaults are those of its ``config.json``."""

    version: str = Field(
        NEWEST,
        pattern=r"^\d+\.\d+(\.\d+)?$",
        description="Release, 1.0 to 2.3: of all of them the host side of one line and the decisions of 2.3 are known.",
        json_schema_extra=inert("one line of releases is known"),
    )
    templateType: Literal["Standard", "Mix"] = Field("Standard", description="Mix: chunked prefill (with the splitfuse plugin).")
    cacheBlockSize: int = Field(128, ge=1, le=128, description="Tokens per KV block.")
    maxPrefillBatchSize: int | None = Field(
        None, ge=0, description="Most requests in a prefill batch; by default 50, at most maxBatchSize; 0: maxBatchSize."
    )
    maxPrefillTokens: int = Field(
        8192, ge=1, description="Most tokens in a prefill batch; in effect at least maxSeqLen, except with chunked prefill."
    )
    prefillTimeMsPerReq: int = Field(150, ge=0, le=1000, description="supportSelectBatch: assumed cost of a prefill, ms.")
    decodeTimeMsPerReq: int = Field(50, ge=0, le=1000, description="supportSelectBatch: assumed worth of a decode, ms.")
    prefillPolicyType: int = Field(0, ge=0, le=3, description="Only 0, first come first served.")
    decodePolicyType: int = Field(0, ge=0, le=3, description="Only 0, first come first served.")
    maxBatchSize: int = Field(
        200, ge=1, le=819200, description="Most requests in a decode batch; more may be running and take turns."
    )
    maxIterTimes: int | None = Field(
        None, ge=1, description="Most tokens generated for a request; by default 512, below maxSeqLen."
    )
    maxPreemptCount: int = Field(
        0, ge=0, description="Most requests swapped to host memory per round; others are computed again. Needs cpuMemSize."
    )
    supportSelectBatch: bool = Field(False, description="Choose prefill or decode by throughput (stageSelectPolicy 1).")
    stageSelectPolicy: int = Field(0, ge=0, le=3, description="0 prefill first, 1 throughput, 2 least laxity.")
    maxQueueDelayMicroseconds: int = Field(5000, ge=500, le=1_000_000, description="Wait of a request before its prefill, µs.")
    maxFirstTokenWaitTime: int = Field(
        2500, ge=0, le=3_600_000, description="After so many ms a request that finds no room has a running one preempted."
    )
    dynamicBatchSizeEnable: bool = Field(False, description="Adapt maxBatchSize to decodeExpectedTime.")
    prefillExpectedTime: int = Field(1500, ge=0, description="Target of the time to first token, ms.")
    decodeExpectedTime: int = Field(50, ge=0, description="Target of the time per output token, ms.")
    bufferResponseEnabled: bool = Field(False, description="Only false: responses are not smoothed.")
    enableChunkedPrefill: bool | None = Field(None, description="Chunked prefill; by default as templateType and plugins say.")
    prefillChunkSize: int = Field(0, ge=0, description="Largest chunk of a prompt; 0: maxPrefillTokens.")
    maxNumPartialPrefills: int = Field(
        64, ge=1, description="Partial prefills at once.", json_schema_extra=inert("MindIE reads it and never asks for it")
    )
    maxLongPartialPrefills: int = Field(8, ge=1, description="Long prompts in prefill at once.")
    longPrefillTokenThreshold: int = Field(1024, ge=1, description="Prompts with more tokens to compute are long.")
    enablePrefixCache: bool | None = Field(None, description="Keep full blocks for equal prefixes; by default as plugins say.")
    maxSeqLen: int = Field(2560, ge=2, description="Most tokens of a request, prompt and output; generation stops there.")
    maxInputTokenLen: int | None = Field(
        None, ge=1, description="Longest prompt; longer ones are refused. By default 2048, below maxSeqLen."
    )
    inferMode: Literal["standard", "dmi"] = Field("standard", description="dmi: one role of a disaggregated deployment.")
    role: Literal["PnD", "P", "D"] = Field(
        "PnD", description="Set by the role of the pool, as by Motor's controller: prefill and decode, prefill only, decode only."
    )
    tokenTimeout: int = Field(600, ge=1, le=3600, description="Seconds after which a request that gets no token is ended.")
    e2eTimeout: int = Field(600, ge=1, le=65535, description="Seconds after which a request is ended.")
    npuMemSize: float = Field(-1, ge=-1, description="GB of KV cache per NPU; −1: what NPU_MEMORY_FRACTION leaves.")
    cpuMemSize: float = Field(0, ge=0, le=2**20, description="GB of host memory per NPU for swapped requests.")
    npu_memory_fraction: float = Field(0.8, gt=0, le=1, description="Environment variable NPU_MEMORY_FRACTION.")
    plugin_params: PluginParams | None = Field(None, description="Plugins, also as JSON text.")
    async_scheduling: bool = Field(False, description="Environment variable MINDIE_ASYNC_SCHEDULING_ENABLE; only false.")

    @field_validator("plugin_params", mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return (loads(value) if value.strip() else None) if isinstance(value, str) else value

    @property
    def block_size(self) -> int:
        """Tokens per KV block."""
        return self.cacheBlockSize

    @property
    def gamma(self) -> int:
        """Look-ahead slots of a sequence."""
        return self.plugin_params.gamma if self.plugin_params is not None else 0

    @property
    def token_budget(self) -> int:
        """Most tokens of a round."""
        return self.maxPrefillTokens if self.enableChunkedPrefill else max(self.maxSeqLen, self.maxPrefillTokens)


def resolve_params(p: MindieParams, site: Site) -> MindieParams:
    """Every setting filled in as MindIE does. Raises ConfigError, NotModelledError."""
    _refuse(p, site)
    plugins = p.plugin_params.names if p.plugin_params is not None else set()
    new: dict[str, object] = {
        "enableChunkedPrefill": p.enableChunkedPrefill
        if p.enableChunkedPrefill is not None
        else p.templateType == "Mix" or "splitfuse" in plugins,
        "enablePrefixCache": p.enablePrefixCache if p.enablePrefixCache is not None else "prefix_cache" in plugins,
        "maxPrefillBatchSize": min(50, p.maxBatchSize)
        if p.maxPrefillBatchSize is None
        else p.maxPrefillBatchSize or p.maxBatchSize,
        "maxIterTimes": min(512, p.maxSeqLen - 1) if p.maxIterTimes is None else p.maxIterTimes,
        "maxInputTokenLen": min(2048, p.maxSeqLen - 1) if p.maxInputTokenLen is None else p.maxInputTokenLen,
        "stageSelectPolicy": 1 if p.supportSelectBatch else p.stageSelectPolicy,
    }
    q = p.model_copy(update=new)
    _check(q, new["maxInputTokenLen"], new["maxIterTimes"], new["maxPrefillBatchSize"])
    return q


def as_side(p: MindieParams, role: Role) -> MindieParams:
    """One side of a disaggregated deployment. Raises ConfigError."""
    mine: Literal["P", "D"] = "P" if role == "prefill" else "D"
    if "inferMode" in p.model_fields_set and p.inferMode != "dmi":
        raise ConfigError(f"{FIELD}.inferMode", p.inferMode, f"the pool has the role {role}", "dmi")
    if p.role not in ("PnD", mine):
        raise ConfigError(f"{FIELD}.role", p.role, f"contradicts the role {role} of the pool", mine)
    return p.model_copy(update={"inferMode": "dmi", "role": mine})


def _refuse(p: MindieParams, site: Site) -> None:
    check_release("mindie", p.version, NEWEST)
    if site.pp > 1:
        raise NotModelledError("deployment.pp", site.pp, "pipeline stages are not modelled for MindIE", "1")
    if site.accelerator is not None and site.accelerator.vendor != "huawei":
        raise NotModelledError("deployment.accelerator", site.accelerator.name, "MindIE runs on Ascend NPUs", "an Ascend NPU")
    if site.model is not None and site.model.is_hybrid:
        why = "nothing is published on how MindIE keeps caches of layers with windows or states"
        raise NotModelledError("model", site.model.name, why, "a model of full layers", "or vllm-ascend")
    if p.stageSelectPolicy == 3:
        raise NotModelledError(f"{FIELD}.stageSelectPolicy", 3, "layerwise edge-cloud serving is not modelled", "0, 1, 2")
    for name in ("prefillPolicyType", "decodePolicyType"):
        if getattr(p, name) != 0:
            raise ConfigError(f"{FIELD}.{name}", getattr(p, name), "MindIE supports first come first served only", "0")
    for name, why in (("bufferResponseEnabled", "smoothed responses are"), ("async_scheduling", "asynchronous scheduling is")):
        if getattr(p, name):
            raise NotModelledError(f"{FIELD}.{name}", True, f"{why} not modelled", "false")


def _check(p: MindieParams, longest: int, most: int, prompts: int) -> None:
    plugins = p.plugin_params.names if p.plugin_params is not None else set()
    if plugins - PLUGINS:
        raise ConfigError(
            f"{FIELD}.plugin_params.plugin_type",
            ",".join(sorted(plugins - PLUGINS)),
            "unknown plugin",
            ", ".join(sorted(PLUGINS)),
        )
    if len(plugins & _SPECULATION) > 1:
        raise ConfigError(f"{FIELD}.plugin_params.plugin_type", ",".join(sorted(plugins)), "one way to speculate at a time")
    if longest >= p.maxSeqLen:
        raise ConfigError(f"{FIELD}.maxInputTokenLen", longest, "must be below maxSeqLen", f"1..{p.maxSeqLen - 1}")
    if p.maxPrefillTokens < longest and not p.enableChunkedPrefill:
        raise ConfigError(f"{FIELD}.maxPrefillTokens", p.maxPrefillTokens, "must reach maxInputTokenLen", f"at least {longest}")
    if most >= p.maxSeqLen:
        raise ConfigError(f"{FIELD}.maxIterTimes", most, "must be below maxSeqLen", f"1..{p.maxSeqLen - 1}")
    if prompts > p.maxBatchSize:
        raise ConfigError(f"{FIELD}.maxPrefillBatchSize", prompts, "must not exceed maxBatchSize", f"0..{p.maxBatchSize}")
    if p.maxPreemptCount > p.maxBatchSize:
        raise ConfigError(f"{FIELD}.maxPreemptCount", p.maxPreemptCount, "must not exceed maxBatchSize", f"0..{p.maxBatchSize}")
    if p.maxPreemptCount > 0 and p.cpuMemSize == 0:
        raise ConfigError(f"{FIELD}.maxPreemptCount", p.maxPreemptCount, "swapping needs host memory", "0", "set cpuMemSize")
    if p.maxPreemptCount > 0 and p.enablePrefixCache:
        raise NotModelledError(
            f"{FIELD}.maxPreemptCount", p.maxPreemptCount, "swapping with the prefix cache is not modelled", "0"
        )
    if p.role == "PnD" and p.inferMode == "dmi":
        raise ConfigError(f"{FIELD}.inferMode", "dmi", "prefills or decodes only", "standard", "give the pools their roles")
    if p.role != "PnD":
        _check_side(p)
    if p.dynamicBatchSizeEnable and p.enableChunkedPrefill:
        raise NotModelledError(
            f"{FIELD}.dynamicBatchSizeEnable", True, "a dynamic batch size with chunked prefill is not modelled", "false"
        )


def _check_side(p: MindieParams) -> None:
    if p.enableChunkedPrefill:
        raise NotModelledError(f"{FIELD}.templateType", "Mix", "chunked prefill in roles P and D is not modelled", "Standard")
    if p.role == "D" and p.enablePrefixCache:
        raise NotModelledError(f"{FIELD}.enablePrefixCache", True, "the prefix cache in role D is not modelled", "false")
    if p.dynamicBatchSizeEnable:
        raise ConfigError(f"{FIELD}.dynamicBatchSizeEnable", True, "works only where a server prefills and decodes", "false")
