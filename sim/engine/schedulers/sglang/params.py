"""Server arguments of SGLang that change scheduling, and their defaults by GPU memory (``arg_groups/memory_hook.py``)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue, PrivateAttr

from sim.engine.contract import EngineParams, Site
from sim.engine.effect import inert, needs
from sim.engine.releases import check_release
from sim.engine.schedulers.sglang.drafting import speculating
from sim.engine.schedulers.sglang.hicache import StorageConfig, check_hicache
from sim.engine.schedulers.sglang.pools import with_strategy
from sim.engine.schedulers.sglang.ranks import divided, graph_reserve, refuse_ranks, server_site
from sim.engine.sides import Role
from sim.errors import ConfigError, NotModelledError
from sim.model.context import overridden, sglang_length
from sim.model.spec import ModelSpec
from sim.units import Seconds

NEWEST = "0.5"
MIB = 1 << 20
_UNKNOWN_GPU = (4096, 160, 160)
# GPU memory below MiB: chunked_prefill_size, largest decode graph for tp < 4 and tp >= 4
_BY_MEMORY = (
    (20 * 1024, 2048, 8, 8),
    (35 * 1024, 4096, 48, 160),
    (60 * 1024, 4096, 32, 160),
    (160 * 1024, 8192, 256, 512),
    (1 << 60, 16384, 512, 512),
)


class SglangParams(EngineParams):
    """Settings as ``python -m sglang.launch_server`` spells them; None is SGLang's own default for the GPU and model."""

    version: str = Field(
        NEWEST,
        pattern=r"^\d+\.\d+(\.\d+)?$",
        description="release whose host overheads apply, 0.2 to 0.5; decisions are those of 0.5.23",
    )
    schedule_policy: Literal["fcfs", "lpm", "dfs-weight", "lof", "random", "hrrn", "shortest-prefill-first"] = Field(
        "fcfs",
        description="order of the waiting queue",
        json_schema_extra=needs("shared prefixes", "lpm", "dfs-weight"),
    )
    schedule_conservativeness: float = Field(1.0, ge=0.0, description="scales the expected output length of running requests")
    chunked_prefill_size: int | None = Field(None, ge=-1, description="most prompt tokens in one batch; -1 switches chunking off")
    max_prefill_tokens: int = Field(16384, ge=1, description="input budget of a prefill batch; the first request may exceed it")
    max_running_requests: int | None = Field(
        None, ge=1, description="most requests running at once; with speculative decoding 48 by default"
    )
    max_total_tokens: int | None = Field(None, ge=1, description="cap of the KV pool in tokens")
    max_queued_requests: int | None = Field(None, ge=1, description="waiting requests beyond which new ones are turned away")
    context_length: int | None = Field(None, ge=1, description="longest prompt and output together; default from the model")
    json_model_override_args: dict[str, JsonValue] | None = Field(
        None, description="overrides of the model's config: lengths and RoPE scaling"
    )
    SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN: bool = Field(False, description="accept a context_length above the derived one")
    page_size: int = Field(1, ge=1, le=1024, description="tokens per KV page")
    mem_fraction_static: float | None = Field(None, gt=0.0, lt=1.0, description="share of GPU memory for weights and KV pool")
    disable_radix_cache: bool = Field(False, description="no prefix caching")
    radix_eviction_policy: Literal["lru", "lfu", "slru", "fifo", "mru", "filo", "priority"] = Field(
        "lru", description="which unused leaf of the radix tree goes first"
    )
    swa_full_tokens_ratio: float = Field(
        0.8,
        gt=0.0,
        le=1.0,
        description="tokens of window layers for each of full layers, where a model has a pool for each",
        json_schema_extra=needs("window layers"),
    )
    disable_hybrid_swa_memory: bool = Field(
        False, description="window layers keep every token, in one pool with the others", json_schema_extra=needs("window layers")
    )
    mamba_radix_cache_strategy: Literal["auto", "no_buffer", "extra_buffer", "extra_buffer_lazy"] = Field(
        "auto",
        description="how recurrent states get into the cache: at the ends of requests, or tracked in further slots",
        json_schema_extra=needs("recurrent layers"),
    )
    max_mamba_cache_size: int | None = Field(
        None, ge=1, description="slots for recurrent states; default from the memory", json_schema_extra=needs("recurrent layers")
    )
    mamba_full_memory_ratio: float = Field(
        0.9,
        gt=0.0,
        description="memory for recurrent states in relation to that for KV",
        json_schema_extra=needs("recurrent layers"),
    )
    mamba_track_interval: int = Field(
        256,
        ge=1,
        description="tokens between two states that a decoding request tracks",
        json_schema_extra=needs("recurrent layers"),
    )
    linear_attn_backend: Literal["triton", "cutedsl", "flashinfer", "flashkda"] = Field(
        "triton",
        description="kernels of recurrent layers; only triton can track states",
        json_schema_extra=needs("recurrent layers"),
    )
    disable_overlap_schedule: bool = Field(False, description="decide the next batch only when the last one is done")
    enable_mixed_chunk: bool = Field(False, description="running requests decode in the same batch as prompt chunks")
    prefill_max_requests: int | None = Field(None, ge=1, description="most requests in one prefill batch")
    prefill_decode_interval: int = Field(0, ge=0, le=1_000_000, description="decisions after a prefill batch that make no other")
    prefill_decode_interval_min_bs: int = Field(0, ge=0, description="running requests below which the interval does not apply")
    min_free_slots_delay: int | None = Field(None, ge=1, description="free places to wait for before the next prefill batch")
    enable_priority_scheduling: bool = Field(
        False, description="order the queue by request priority", json_schema_extra=needs("priorities")
    )
    schedule_low_priority_values_first: bool = Field(
        False, description="the lower value goes first", json_schema_extra=needs("priorities")
    )
    priority_scheduling_preemption_threshold: int = Field(
        10, ge=0, description="priority difference that allows preemption", json_schema_extra=needs("priorities")
    )
    disable_priority_preemption: bool = Field(
        False, description="priorities order the queue only", json_schema_extra=needs("priorities")
    )
    retraction_policy: Literal["length", "priority"] = Field(
        "length", description="whom to retract first when KV memory runs out", json_schema_extra=needs("priorities")
    )
    num_continuous_decode_steps: int = Field(
        1, ge=1, description="decode steps in a row", json_schema_extra=inert("SGLang 0.5.23 accepts and ignores it")
    )
    ignore_eos: bool = Field(False, description="clients send ignore_eos (as benchmarks do), which reserves the full output")
    random_seed: int = Field(0, ge=0, description="seed of the random policy and of draft acceptance")
    speculative_algorithm: Literal["EAGLE", "EAGLE3", "NEXTN", "STANDALONE", "NGRAM"] | None = Field(
        None, description="speculative decoding; speculative_accept_rate says how well it works"
    )
    speculative_num_steps: int = Field(3, ge=1, le=64, description="draft tokens in a row")
    speculative_eagle_topk: int = Field(1, ge=1, le=64, description="branches per draft step")
    speculative_num_draft_tokens: int = Field(4, ge=2, le=256, description="tokens verified per request and step")
    speculative_draft_model_path: str | None = Field(None, description="the draft model of STANDALONE")
    speculative_accept_rate: float | None = Field(
        None,
        ge=0.0,
        le=1.0,
        description="probability that the next draft token is accepted, by any branch of the tree; by default estimated by algorithm, "
        "depth and tree (no setting of SGLang)",
    )
    cuda_graph_max_bs: int | None = Field(None, ge=1, le=65_536, description="largest decode batch run as a CUDA graph")
    disable_cuda_graph: bool = Field(False, description="no CUDA graphs: decode batches are not padded")
    pp_max_micro_batch_size: int | None = Field(
        None, ge=1, description="most running requests of one pipeline slot; default max_running_requests / pp"
    )
    pp_async_batch_depth: int = Field(0, ge=0, le=64, description="pipeline slots beyond one per stage")
    enable_lora: bool = Field(
        False, description="adapters: max_loras_per_batch limits a batch", json_schema_extra=needs("adapters")
    )
    max_loras_per_batch: int = Field(
        8, ge=1, description="most adapters in one batch; requests without one count as one", json_schema_extra=needs("adapters")
    )
    max_lora_rank: int = Field(16, ge=1, le=512, description="rank of the adapters", json_schema_extra=needs("adapters"))
    stream_interval: int = Field(
        1,
        ge=1,
        description="tokens sent at once",
        json_schema_extra=inert("tokens count when they are made; clients see so many at once"),
    )
    scheduler_recv_interval: int = Field(1, ge=1, description="decode passes between two polls for new requests")
    enable_dp_attention: bool = Field(
        False, description="data-parallel ranks (deployment.dp) share the experts and step together"
    )
    load_balance_method: Literal["auto", "round_robin", "follow_bootstrap_room", "total_requests", "total_tokens"] = Field(
        "auto", description="how requests are dispatched to data-parallel ranks; auto: round_robin"
    )
    load_watch_interval: Seconds = Field(0.1, gt=0, description="time between two looks of the dispatcher at the ranks' loads")
    enable_hierarchical_cache: bool = Field(False, description="HiCache: copies of the radix cache in host memory")
    hicache_ratio: float = Field(
        2.0, ge=0, le=1e6, allow_inf_nan=False, description="host memory for KV, in sizes of the device's pool"
    )
    hicache_size: float = Field(
        0.0, ge=0, le=1 << 20, allow_inf_nan=False, description="host memory for KV of each rank in GB, instead of the ratio"
    )
    hicache_write_policy: Literal["write_through", "write_through_selective", "write_back"] = Field(
        "write_through",
        description="copied to the host at insertion, at the second use, or when the device needs the room",
        json_schema_extra=needs("shared prefixes"),
    )
    hicache_io_backend: Literal["direct", "kernel", "kernel_ascend"] = Field(
        "kernel", description="how KV is copied", json_schema_extra=inert("copies run at what the host's link reaches")
    )
    hicache_mem_layout: Literal["layer_first", "page_first", "page_first_direct"] = Field(
        "page_first", description="of the host's memory", json_schema_extra=inert("copies run at what the host's link reaches")
    )
    hicache_storage_backend: str | None = Field(
        None,
        description="storage behind host memory: file (a disk of each replica), mooncake or hf3fs (one store of all replicas)",
    )
    hicache_storage_prefetch_policy: Literal["best_effort", "wait_complete", "timeout"] = Field(
        "timeout",
        description="whether a request waits for what is fetched from storage",
        json_schema_extra=needs("shared prefixes"),
    )
    hicache_storage_backend_extra_config: StorageConfig | None = Field(
        None, description="when to fetch from storage, how large and how fast it is"
    )
    # accepted so that a server's command line can be copied, refused where they switch something on
    enable_dynamic_chunking: bool = Field(False, description="not modelled")
    disaggregation_mode: Literal["null", "prefill", "decode"] = Field(
        "null", description="side of a disaggregated deployment; set by the role of the pool"
    )
    num_reserved_decode_tokens: int = Field(512, ge=0, description="decode side: KV tokens kept free for each request it has")
    disaggregation_decode_enable_radix_cache: bool = Field(False, description="not modelled")
    enable_prefill_delayer: bool = Field(False, description="not modelled")
    _role: str = PrivateAttr("")  # of the pool, see `as_side`


def refuse(params: SglangParams, site: Site) -> None:
    """Raise for combinations that SGLang refuses (`ConfigError`) or that are not modelled (`NotModelledError`)."""
    check_release("sglang", params.version, NEWEST)
    refuse_ranks(params, site)
    check_hicache(params, site)
    flags = (
        "enable_dynamic_chunking",
        "enable_prefill_delayer",
        "disaggregation_decode_enable_radix_cache",
    )
    for name in flags:
        if getattr(params, name):
            raise NotModelledError(f"engine.{name}", True, "not modelled for SGLang", "false")
    if params.disaggregation_mode != "null":
        if not params._role:
            why = "a side needs its counterpart: give the pools the roles prefill and decode"
            raise ConfigError("engine.disaggregation_mode", params.disaggregation_mode, why, "null")
        for name in ("speculative_algorithm", "enable_priority_scheduling", "enable_lora"):
            if getattr(params, name):
                why = "not modelled on a disaggregated side"
                raise NotModelledError(f"engine.{name}", getattr(params, name), why, "leave it out")
        if params.scheduler_recv_interval > 1 or site.pp > 1:
            field = "deployment.pp" if site.pp > 1 else "engine.scheduler_recv_interval"
            value = site.pp if site.pp > 1 else params.scheduler_recv_interval
            raise NotModelledError(field, value, "not modelled on a disaggregated side", "1")
    if site.pp > 1:
        for name, off in (("enable_mixed_chunk", False), ("speculative_algorithm", None)):
            if getattr(params, name) != off:
                raise ConfigError(
                    f"engine.{name}", getattr(params, name), f"SGLang refuses it with pipeline stages (pp {site.pp})"
                )
    elif params.pp_async_batch_depth:
        raise ConfigError("engine.pp_async_batch_depth", params.pp_async_batch_depth, "needs pipeline stages (deployment.pp > 1)")
    if (params.speculative_algorithm == "STANDALONE") != (params.speculative_draft_model_path is not None):
        why = (
            "a draft model goes with speculative_algorithm STANDALONE, and only with it (the others draft with one layer or none)"
        )
        raise ConfigError("engine.speculative_draft_model_path", params.speculative_draft_model_path, why)
    if params.speculative_algorithm and params.enable_mixed_chunk:
        raise NotModelledError(
            "engine.enable_mixed_chunk", True, "mixed chunks with speculative decoding are not modelled", "false"
        )
    if params.disable_radix_cache and params.schedule_policy == "shortest-prefill-first":
        raise ConfigError("engine.schedule_policy", params.schedule_policy, "needs the radix cache", "fcfs, lof, random")
    if params.enable_priority_scheduling and params.schedule_policy not in ("fcfs", "lof"):
        raise ConfigError(
            "engine.schedule_policy", params.schedule_policy, "priority scheduling needs another policy", "fcfs, lof"
        )
    if params.enable_mixed_chunk and params.chunked_prefill_size == -1:
        raise ConfigError("engine.enable_mixed_chunk", True, "needs chunked prefill (chunked_prefill_size > 0)")
    if params.retraction_policy == "priority" and not params.enable_priority_scheduling:
        raise ConfigError("engine.retraction_policy", "priority", "needs enable_priority_scheduling")


def as_side(params: SglangParams, role: Role) -> SglangParams:
    """Settings of a prefill or decode pool. Raises ConfigError."""
    if params.disaggregation_mode not in ("null", role):
        raise ConfigError("engine.disaggregation_mode", params.disaggregation_mode, f"contradicts role {role} of the pool", role)
    new: dict[str, object] = {"disaggregation_mode": role}
    if role == "decode":
        new["disable_radix_cache"] = True  # as upstream by default: nothing is matched on the decode side
    made = params.model_copy(update=new)
    made._role = role
    return made


def _memory_mib(site: Site) -> float:
    return float(site.accelerator.memory_bytes) / MIB if site.accelerator is not None else 0.0


def defaults_by_memory(site: Site) -> tuple[int, int]:
    """(chunked_prefill_size, largest decode graph) for the GPU. *Source*: ``handle_gpu_memory_settings``."""
    mib = _memory_mib(site)
    chunk, small, large = _UNKNOWN_GPU
    if mib > 0:
        chunk, small, large = next(row[1:] for row in _BY_MEMORY if mib < row[0])
    return chunk, small if site.tp < 4 else large


def decode_graph_sizes(max_bs: int, speculative: bool = False) -> list[int]:
    """Batch sizes that decode graphs are captured for, ascending; a decode batch is padded to the next one."""
    if speculative:
        sizes = [*range(1, 9), *range(10, 33, 2), *range(40, 65, 4), *range(72, 257, 8), *range(272, max_bs + 1, 16)]
    else:
        sizes = [1, 2, 4, 8, 12, *range(16, 257, 8), *range(272, 512, 16), *range(512, max_bs + 1, 32)]
    return sorted({s for s in sizes if s <= max_bs} | {max_bs})


def mem_fraction_static(chunk: int, max_bs: int, graphs: bool, site: Site, more_graphs: float = 0.0) -> float:
    """Share of GPU memory for weights and KV pool when it is left open.

    Reserved MiB = 512 + 1.5·max(chunk, 2048) + tp·pp/8·1024 + 2·max_bs for decode graphs + 8 for each prefill graph; at least 10 GiB
    on GPUs above 60 GiB. ``more_graphs``: MiB for the graphs of DP attention. *Source*: ``handle_gpu_memory_settings`` (dense models).
    """
    mib = _memory_mib(site)
    if mib <= 0:
        return 0.88
    reserved = 512 + 1.5 * max(chunk, 2048) + site.tp * site.pp / 8 * 1024
    if graphs:
        reserved += 2 * max_bs + more_graphs
    if mib > 60 * 1024:
        reserved = max(reserved, 10240)
    return round((mib - reserved) / mib, 3)


def resolve(params: SglangParams, site: Site) -> SglangParams:
    """Every default filled in except ``max_running_requests``, which needs the size of the KV pool."""
    refuse(params, site)
    server = server_site(params, site)
    chunk, max_bs = defaults_by_memory(server)
    new: dict[str, object] = {}
    if params.speculative_algorithm is not None:
        new |= speculating(params)
    if site.pp > 1:
        new["disable_overlap_schedule"] = True  # as upstream: the pipeline itself hides the host
    if params.chunked_prefill_size is None:
        new["chunked_prefill_size"] = chunk
    elif params.chunked_prefill_size == 0:
        new["chunked_prefill_size"] = -1
    chunk = new.get("chunked_prefill_size", params.chunked_prefill_size)
    if 0 < chunk < params.page_size or (chunk > 0 and chunk % params.page_size):
        raise ConfigError("engine.chunked_prefill_size", chunk, f"must be a multiple of page_size {params.page_size}")
    if params.cuda_graph_max_bs is None:
        new["cuda_graph_max_bs"] = min(max_bs, params.max_running_requests or max_bs)
    if isinstance(site.model, ModelSpec) and not site.extra.get("recording"):
        model = overridden(site.model, params.json_model_override_args, "deployment.engine.json_model_override_args")
        allow = params.SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN
        new["context_length"] = sglang_length(model, params.context_length, allow, "deployment.engine")
    elif params.context_length is None:
        new["context_length"] = site.model.max_position if site.model is not None else 131072
    if params.mem_fraction_static is None:
        new["mem_fraction_static"] = mem_fraction_static(
            chunk,
            new.get("cuda_graph_max_bs", max_bs),
            not params.disable_cuda_graph,
            server,
            graph_reserve(params, site, max_bs),
        )
    if params.disable_radix_cache and params.schedule_policy in ("lpm", "dfs-weight", "hrrn"):
        new["schedule_policy"] = "fcfs"
    resolved = params.model_copy(update=new)
    return divided(resolved.model_copy(update=with_strategy(resolved, site.model)), site)


def max_running(params: SglangParams, tokens: int) -> int:
    """``resolve_max_num_reqs``: the user's value or clamp(tokens / context · 512, 2048, 4096), and at most half the pool's tokens."""
    context = params.context_length or 131072
    limit = params.max_running_requests or min(max(int(tokens / context * 512), 2048), 4096)
    return max(1, min(limit, tokens // 2))
