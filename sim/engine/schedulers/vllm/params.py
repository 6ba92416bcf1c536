"""Engine arguments of vLLM that change scheduling, and their defaults by hardware, usage and version (``engine/arg_utils.py``)."""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from sim.engine.adapters import Adapters
from sim.engine.contract import EngineParams, Site
from sim.engine.effect import inert, needs
from sim.engine.schedulers.vllm.connectors import KVTransferConfig, LMCacheConfig, changed, check_connector
from sim.engine.sides import Role
from sim.errors import ConfigError, NotModelledError
from sim.model.context import overridden, vllm_length
from sim.model.spec import ModelSpec
from sim.units import Bytes

GIB = 1 << 30
Rate = Annotated[float, Field(ge=0.0, le=1.0)]
GraphMode = Literal["NONE", "PIECEWISE", "FULL", "FULL_DECODE_ONLY", "FULL_AND_PIECEWISE"]
LATEST = 33
OLDEST = 8


class SpeculativeConfig(BaseModel):
    """``--speculative-config``; ``acceptance_rate`` says how well it works on the traffic."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["ngram", "eagle", "eagle3", "mtp", "draft_model"] = Field("eagle", description="how drafts are made")
    model: str | None = Field(None, description="the draft model of method draft_model")
    num_speculative_tokens: int = Field(3, ge=1, le=64, description="drafts per step")
    acceptance_rate: Rate | tuple[Rate, ...] | None = Field(
        None,
        description="probability that a draft is accepted if the one before it was; or one number per position; "
        "by default estimated by method and position (no setting of vLLM)",
    )


class CompilationConfig(BaseModel):
    """``--compilation-config``, as far as it decides how decode steps are launched."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cudagraph_mode: GraphMode | None = Field(
        None, description="what graphs are captured of; default FULL_AND_PIECEWISE, before 0.11 PIECEWISE"
    )
    cudagraph_capture_sizes: tuple[Annotated[int, Field(ge=1, le=1 << 20)], ...] | None = Field(
        None, description="token counts that graphs are captured for", max_length=4096
    )


class VllmParams(EngineParams):
    """Settings as ``vllm serve`` spells them; None is vLLM's own default for the hardware, usage and version."""

    version: str = Field("0.33", pattern=r"^0\.\d+(\.\d+)?$", description="release whose rules and defaults apply, 0.2 to 0.33")
    usage_context: Literal["server", "llm_class"] = Field("server", description="API server or offline LLM class: other defaults")
    performance_mode: Literal["balanced", "interactivity", "throughput"] = Field(
        "balanced", description="throughput doubles the default batch limits"
    )
    max_num_batched_tokens: int | None = Field(None, ge=1, description="most tokens in one step")
    max_num_seqs: int | None = Field(None, ge=1, description="most requests running at once")
    max_num_active_seqs: int | None = Field(None, ge=1, description="a lower limit of running requests than max_num_seqs")
    max_model_len: int | None = Field(None, ge=2, description="longest prompt and output together; default from the model")
    hf_overrides: dict[str, JsonValue] | None = Field(
        None, description="overrides of the model's config: lengths and RoPE scaling"
    )
    VLLM_ALLOW_LONG_MAX_MODEL_LEN: bool = Field(
        False, description="accept a max_model_len above the length derived from the config"
    )
    block_size: int = Field(16, ge=1, le=1024, description="tokens per KV block; on a CPU 128 if not given")
    gpu_memory_utilization: float | None = Field(None, gt=0.0, le=1.0, description="share of GPU memory that vLLM may use")
    kv_cache_memory_bytes: Bytes | None = Field(None, gt=0, description="memory of the KV cache, instead of what is left")
    VLLM_MXFP4_USE_MARLIN: bool | None = Field(
        None,
        description="Run mxfp4 experts with Marlin on Hopper too (environment); by default Triton's kernels.",
        json_schema_extra=needs("mxfp4 experts on Hopper"),
    )
    VLLM_CPU_KVCACHE_SPACE: float | None = Field(
        None,
        gt=0,
        le=1 << 20,
        allow_inf_nan=False,
        description="GiB of KV cache on a CPU (environment variable); default half of the memory",
    )
    num_gpu_blocks_override: int | None = Field(None, ge=2, description="number of KV blocks, instead of what fits")
    enforce_eager: bool = Field(False, description="no CUDA graphs")
    compilation_config: CompilationConfig = Field(default_factory=CompilationConfig, description="graphs")
    enable_prefix_caching: bool = Field(True, description="reuse blocks of equal prefixes")
    prefix_cache_retention_interval: int | None = Field(
        0,
        ge=0,
        description="tokens between two places where windows and recurrent states stay cached; 0: only at the end of prompts; null: all",
        json_schema_extra=needs("shared prefixes"),
    )
    prefix_match_unit: int | None = Field(
        None,
        ge=1,
        description="tokens: hits inside the large blocks of models with recurrent layers",
        json_schema_extra=needs("shared prefixes"),
    )
    disable_hybrid_kv_cache_manager: bool = Field(False, description="all layers cache as if they had full attention")
    VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE: bool = Field(
        False, description="groups of their own also for chunked attention (Llama 4)"
    )
    disable_lookahead_block_hashes: bool = Field(
        False,
        description="drafting models compute the last block of a hit again, as before 0.24",
        json_schema_extra=needs("shared prefixes"),
    )
    mamba_ssm_cache_dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="number format of recurrent states; auto: as the model asks"
    )
    enable_chunked_prefill: bool = Field(True, description="a prompt may be computed over several steps")
    async_scheduling: bool | None = Field(None, description="schedule a step ahead; default on from 0.14")
    scheduling_policy: Literal["fcfs", "priority"] = Field(
        "fcfs", description="priority: the lower value first", json_schema_extra=needs("priorities")
    )
    long_prefill_token_threshold: int = Field(0, ge=0, description="most new tokens of one request in a step; 0: no limit")
    long_prefill_token_threshold_adaptive: bool = Field(False, description="raise the threshold to an equal share of the step")
    scheduler_reserve_full_isl: bool | None = Field(None, description="admit only what fits whole; default on from 0.19")
    watermark: float = Field(0.0, ge=0.0, lt=1.0, description="share of blocks that admission leaves free")
    prefill_schedule_interval: int = Field(1, ge=1, description="prompts only every so many steps while others decode")
    enable_lora: bool | None = Field(
        None, description="serve adapters; by default where max_loras is given", json_schema_extra=needs("adapters")
    )
    max_lora_rank: int = Field(16, ge=1, le=512, description="rank of the adapters", json_schema_extra=needs("adapters"))
    max_loras: int | None = Field(
        None,
        ge=1,
        description="adapters in one batch and on the device; default 1 with enable_lora",
        json_schema_extra=needs("adapters"),
    )
    max_cpu_loras: int | None = Field(
        None, ge=1, description="adapters kept in host memory; default max_loras", json_schema_extra=needs("adapters")
    )
    speculative_config: SpeculativeConfig | None = Field(None, description="speculative decoding")
    kv_transfer_config: KVTransferConfig | None = Field(
        None, description="prefill or decode side of a disaggregated deployment, or tiers behind the KV cache"
    )
    kv_offloading_size: float | None = Field(
        None,
        ge=0,
        le=1 << 20,
        allow_inf_nan=False,
        description="GiB of host memory for KV that leaves the accelerator, of all ranks",
    )
    kv_offloading_backend: Literal["native", "lmcache"] | None = Field(None, description="who manages it; default native")
    LMCACHE_CONFIG_FILE: LMCacheConfig | None = Field(
        None, description="what stands in LMCache's file of that name (environment variable)"
    )
    stream_interval: int = Field(
        1,
        ge=1,
        description="tokens sent at once",
        json_schema_extra=inert("tokens count when they are made; clients see so many at once"),
    )
    api_server_count: int | None = Field(
        None, ge=1, description="API servers in front of data-parallel ranks; by default one per rank"
    )
    dp_sync_interval: int | None = Field(
        None, ge=1, description="steps between two finish detections of ranks that step together; by default 16, before 0.24 32"
    )
    enable_expert_parallel: bool = Field(
        False,
        description="experts are spread over the ranks",
        json_schema_extra=inert("deployment.ep says how experts are spread"),
    )

    @property
    def minor(self) -> int:
        """33 of 0.33."""
        return int(self.version.split(".")[1])


def is_v0(version: object) -> bool:
    """Whether a version is one of 0.2 to 0.7, whose scheduler is another (`sim.engine.schedulers.vllm_v0`)."""
    found = re.match(r"0\.(\d+)", str(version))
    return found is not None and 2 <= int(found[1]) < OLDEST


def batch_defaults(params: VllmParams, site: Site) -> tuple[int, int]:
    """Default ``max_num_batched_tokens`` and ``max_num_seqs``. *Source*: EngineArgs.get_batch_defaults, vLLM 0.33."""
    accelerator = site.accelerator
    memory = accelerator.memory_bytes if accelerator is not None else 80 * GIB
    name = (accelerator.device_name or accelerator.name).lower() if accelerator is not None else ""
    offline = params.usage_context == "llm_class"
    if accelerator is not None and accelerator.is_cpu:
        return (4096 if offline else 2048) * site.tp * site.pp, (256 if offline else 128) * site.tp * site.pp
    if memory >= 160 * GIB:
        tokens, seqs = 16384, 1024
    elif memory >= 70 * GIB and "a100" not in name and "gb10" not in name:
        tokens, seqs = (16384 if offline else 8192), 1024
    else:
        tokens, seqs = (8192 if offline else 2048), 256
    if params.performance_mode == "throughput":
        tokens, seqs = 2 * tokens, 2 * seqs
    return tokens, seqs


def refuse(params: VllmParams, site: Site) -> None:
    """Raise for what vLLM refuses (`ConfigError`) or what is not modelled (`NotModelledError`)."""
    if site.accelerator is not None and not site.accelerator.is_cpu and params.VLLM_CPU_KVCACHE_SPACE is not None:
        raise ConfigError(
            "engine.VLLM_CPU_KVCACHE_SPACE", params.VLLM_CPU_KVCACHE_SPACE, f"has no effect on {site.accelerator.name}", "null"
        )
    if _is_cpu(site) and "gpu_memory_utilization" in params.model_fields_set:
        raise ConfigError(
            "engine.gpu_memory_utilization", params.gpu_memory_utilization, "does not size the KV cache of a CPU", "null",
            "set VLLM_CPU_KVCACHE_SPACE",
        )  # fmt: skip
    graphs = params.compilation_config
    if graphs != CompilationConfig() and (params.enforce_eager or _is_cpu(site)):
        why = "has no effect on a CPU" if _is_cpu(site) else "has no effect with enforce_eager"
        raise ConfigError("engine.compilation_config", graphs.model_dump(exclude_none=True), why, "leave it out")
    if graphs.cudagraph_mode not in (None, "NONE", "PIECEWISE") and params.minor < 10:
        where = f"version {params.version} captures pieces only"
        raise ConfigError("engine.compilation_config.cudagraph_mode", graphs.cudagraph_mode, where, "PIECEWISE, NONE")
    if _is_cpu(site) and params.async_scheduling:
        raise ConfigError("engine.async_scheduling", True, "is forced off on a CPU", "false")
    if not OLDEST <= params.minor <= LATEST:
        why = (
            "is V0: engine vllm-v0, which vllm hands over to for 0.2 to 0.7"
            if params.minor < OLDEST
            else "this release is not known"
        )
        raise NotModelledError("engine.version", params.version, why, f"0.{OLDEST} to 0.{LATEST}")
    speculative = params.speculative_config
    if (
        speculative is not None
        and (speculative.method == "draft_model") != (speculative.model is not None)
        and not site.extra.get("recording")
    ):
        raise ConfigError(
            "engine.speculative_config.model", speculative.model, "a draft model goes with method draft_model, and only with it"
        )
    if params.performance_mode == "interactivity":
        raise NotModelledError(
            "engine.performance_mode", "interactivity", "its own graph sizes are not modelled", "balanced, throughput"
        )
    check_connector(params, site)
    if params.kv_transfer_config is not None and not site.extra.get("recording"):
        if params.speculative_config is not None:
            raise NotModelledError(
                "engine.speculative_config", "set", "speculation on a disaggregated side is not modelled", "null"
            )
        if site.pp > 1:
            raise NotModelledError("deployment.pp", site.pp, "pipeline stages on a disaggregated side are not modelled", "1")
    if site.pp > 1 and params.async_scheduling and params.minor < 14:
        raise ConfigError(
            "engine.async_scheduling", True, "pipeline parallelism needs synchronous scheduling before 0.14", "false"
        )
    if params.minor < 24:
        for name, off in (("watermark", 0.0), ("max_num_active_seqs", None), ("prefill_schedule_interval", 1)):
            if getattr(params, name) != off:
                raise ConfigError(
                    f"engine.{name}", getattr(params, name), f"version {params.version} has no such setting", str(off)
                )


def _is_cpu(site: Site) -> bool:
    return site.accelerator is not None and bool(site.accelerator.is_cpu)


V = TypeVar("V", bound=VllmParams)


def on_cpu(p: V) -> V:
    """What the CPU platform forces or defaults to, whatever the version's defaults are. *Source*: vLLM 0.32 platforms/cpu.py."""
    forced: dict[str, object] = {"async_scheduling": False, "enforce_eager": True}
    if "block_size" not in p.model_fields_set:
        forced["block_size"] = 128
    return p.model_copy(update=forced)


def model_length(p: VllmParams, site: Site) -> int:
    """``max_model_len``, given or derived from the model's config. Raises ConfigError where vLLM refuses it."""
    if not isinstance(site.model, ModelSpec) or site.extra.get("recording"):
        return p.max_model_len or (8192 if site.model is None else int(site.model.max_position))
    model = overridden(site.model, p.hf_overrides, "deployment.engine.hf_overrides")
    return vllm_length(model, p.max_model_len, p.VLLM_ALLOW_LONG_MAX_MODEL_LEN, "deployment.engine")


def resolve(params: V, site: Site) -> V:
    """Every default filled in. Raises ConfigError, NotModelledError."""
    refuse(params, site)
    if (
        params.minor < 24
        and "enable_prefix_caching" not in params.model_fields_set
        and "linear" in getattr(site.model, "kinds", ())
    ):
        params = params.model_copy(update={"enable_prefix_caching": False})  # by default off for recurrent layers
    if params.minor < 24 and "prefix_cache_retention_interval" not in params.model_fields_set:
        params = params.model_copy(update={"prefix_cache_retention_interval": None})
    p = params = on_cpu(params) if _is_cpu(site) else params
    new: dict[str, object] = {}
    length = model_length(p, site)
    default_tokens, default_seqs = batch_defaults(p, site)
    tokens = p.max_num_batched_tokens
    seqs = p.max_num_seqs or min(default_seqs, tokens or default_seqs)
    if tokens is None:
        tokens = min(default_tokens, seqs * length)
        if not p.enable_chunked_prefill:
            tokens = max(tokens, length)
        tokens = max(tokens, seqs) if p.max_num_seqs is None else tokens
    new["max_model_len"] = length
    new["max_num_batched_tokens"] = tokens
    new["max_num_seqs"] = seqs
    if tokens < seqs:
        raise ConfigError("engine.max_num_batched_tokens", tokens, "must not be below max_num_seqs", f"at least {seqs}")
    if not p.enable_chunked_prefill and tokens < length:
        raise ConfigError(
            "engine.max_num_batched_tokens", tokens, "without chunked prefill must reach max_model_len", f"at least {length}"
        )
    if p.max_num_active_seqs is not None and p.max_num_active_seqs > seqs:
        raise ConfigError("engine.max_num_active_seqs", p.max_num_active_seqs, "must not exceed max_num_seqs", f"at most {seqs}")
    if p.long_prefill_token_threshold > length:
        raise ConfigError(
            "engine.long_prefill_token_threshold", p.long_prefill_token_threshold, "exceeds max_model_len", f"≤ {length}"
        )
    if p.async_scheduling is None:
        new["async_scheduling"] = p.minor >= 14 and not (
            p.minor < 24 and p.speculative_config is not None and p.speculative_config.method == "ngram"
        )
    if p.scheduler_reserve_full_isl is None:
        new["scheduler_reserve_full_isl"] = p.minor >= 19
    if p.dp_sync_interval is None:
        new["dp_sync_interval"] = 16 if p.minor >= 24 else 32
    if p.gpu_memory_utilization is None and not _is_cpu(site):
        new["gpu_memory_utilization"] = 0.92 if p.minor >= 24 else 0.9
    return params.model_copy(update=new | resolve_adapters(p))


def resolve_adapters(p: VllmParams) -> dict[str, bool | int | None]:
    """``enable_lora``, ``max_loras`` and ``max_cpu_loras`` filled in. Raises ConfigError. *Source*: ``config/lora.py``."""
    on = p.max_loras is not None if p.enable_lora is None else p.enable_lora
    for name in ("max_loras", "max_cpu_loras"):
        if not on and getattr(p, name) is not None:
            raise ConfigError(f"engine.{name}", getattr(p, name), "vLLM serves no adapters without enable_lora", "null")
    if not on:
        return {"enable_lora": False}
    here = p.max_loras or 1
    if p.max_cpu_loras is not None and p.max_cpu_loras < here:
        raise ConfigError("engine.max_cpu_loras", p.max_cpu_loras, "must not be below max_loras", f"at least {here}")
    return {"enable_lora": True, "max_loras": here, "max_cpu_loras": p.max_cpu_loras or here}


def adapters_of(p: VllmParams) -> Adapters | None:
    """Places for adapters under resolved settings."""
    return Adapters(p.max_lora_rank, p.max_loras, p.max_cpu_loras) if p.enable_lora else None


def as_side(params: V, role: Role) -> V:
    """Prefill or decode side of a fleet whose links carry the KV. Raises ConfigError."""
    kv_role: Literal["kv_producer", "kv_consumer"] = "kv_producer" if role == "prefill" else "kv_consumer"
    given = params.kv_transfer_config
    if given is None:
        return params.model_copy(update={"kv_transfer_config": KVTransferConfig(kv_role=kv_role)})
    if given.kv_role != kv_role:
        raise ConfigError("engine.kv_transfer_config.kv_role", given.kv_role, f"contradicts role {role} of the pool", kv_role)
    for name in ("transfer_base", "transfer_per_token"):
        if changed(given, name):  # a saved scenario says the defaults, too
            raise ConfigError(
                f"engine.kv_transfer_config.{name}", getattr(given, name), "the links of the fleet carry the KV", "leave it out"
            )
    return params


def capture_sizes(params: VllmParams, blackwell: bool = False) -> list[int]:
    """Batch sizes that CUDA graphs are captured for, ascending (``VllmConfig._set_cudagraph_sizes``); empty if eager."""
    if params.enforce_eager or params.max_num_seqs is None or params.max_num_batched_tokens is None:
        return []
    if (given := params.compilation_config.cudagraph_capture_sizes) is not None:
        return sorted({n for n in given if n <= params.max_num_batched_tokens})
    k = 1 + (params.speculative_config.num_speculative_tokens if params.speculative_config else 0)
    seqs, tokens = params.max_num_seqs, params.max_num_batched_tokens
    top = min(2 * seqs * k, 1024 if blackwell else 512, tokens)
    sizes = {n for n in (1, 2, 4, *range(8, 256, 8), *range(256, top + 1, 16)) if n <= top}
    sizes |= {n for n in (tokens, seqs) if n <= top}
    if k > 1:
        sizes |= {n * k for n in list(sizes) if n * k <= top}
    return sorted(sizes)
