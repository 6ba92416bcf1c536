"""SGLang: where each setting matters."""

from __future__ import annotations

from typing import Any

from tests.settings.traffic import ADAPTERS, BURST, EXPERTS, HEAVY, MIXED, PRIORITIES, SHARED, STEADY, TALK, sides, traffic
from tests.settings.walk import Case, merged

BASE: dict[str, Any] = {
    "model": "llama-3.1-8b",
    "traffic": MIXED,
    "deployment": {"accelerator": "h100-sxm", "engine": {"name": "sglang"}},
}
POOL = {"max_total_tokens": 700}
FEW = {"max_running_requests": 2}
EAGLE = {"speculative_algorithm": "EAGLE"}
TREE = EAGLE | {"speculative_eagle_topk": 4, "speculative_num_draft_tokens": 16, "speculative_num_steps": 4}
FIRST = {"enable_priority_scheduling": True, **FEW}
LORA = {"enable_lora": True}
RETURN = merged(TALK, {"deployment": {"kv_blocks": 900}})
"""Sessions that find little on the accelerator when they come back."""
HICACHE = {"enable_hierarchical_cache": True}


def storage(**more: Any) -> dict[str, Any]:
    """HiCache with little host memory and slow storage behind it, for which requests wait."""
    config: dict[str, Any] = {"prefetch_threshold": 16, "bandwidth": "500MB"} | more
    kept = {"hicache_ratio": 1.0, "page_size": 16, "hicache_storage_backend": "mooncake"}
    return HICACHE | kept | {"hicache_storage_backend_extra_config": config}


STORED = merged(TALK, {"deployment": {"kv_blocks": 60}, "traffic": {"synthetic": {"requests": 72}}})
WAITS = {"hicache_storage_prefetch_policy": "wait_complete"}
_CONFIG = "hicache_storage_backend_extra_config"
REUSE = merged(SHARED, {"traffic": {"synthetic": {"prefixes": {"groups": 6}, "requests": 48}}})
STAGES: dict[str, Any] = {"deployment": {"pp": 2}}
RANKS: dict[str, Any] = {"deployment": {"dp": 2}}

WINDOWS: dict[str, Any] = {"model": "gpt-oss-20b"}
STATES: dict[str, Any] = {"model": "qwen3.5-9b"}
TURNS = merged(
    STATES,
    {
        "traffic": traffic(
            {"process": "constant", "rate": "20/s"}, {"kind": "fixed", "prompt_tokens": 150, "output_tokens": 60}, 12
        )
    },
)
TURNS["traffic"]["synthetic"]["sessions"] = {"turns": 3, "think_time": "2s"}

CASES: dict[str, Case] = {
    "version": Case("0.4"),
    "schedule_policy": Case("lpm", engine=FEW, changes=SHARED),
    "schedule_conservativeness": Case(0.2, engine=POOL),
    "chunked_prefill_size": Case(64),
    "max_prefill_tokens": Case(256, engine={"chunked_prefill_size": -1}, changes=BURST),
    "max_running_requests": Case(2),
    "max_total_tokens": Case(700),
    "max_queued_requests": Case(2, engine=FEW),
    "json_model_override_args": Case({"max_position_embeddings": 120}, changes={"traffic": {"too_long": "skip"}}),
    "SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN": Case(True, engine={"context_length": 200_000}),
    "context_length": Case(120, changes={"traffic": {"too_long": "skip"}}),
    "page_size": Case(64, changes=SHARED),
    "mem_fraction_static": Case(0.27, changes=HEAVY),
    "disable_radix_cache": Case(True, changes=SHARED),
    "radix_eviction_policy": Case("mru", engine=POOL, changes=REUSE),
    "swa_full_tokens_ratio": Case(0.3, engine=POOL, changes=WINDOWS),
    "disable_hybrid_swa_memory": Case(True, engine=POOL | {"swa_full_tokens_ratio": 0.3}, changes=WINDOWS),
    "mamba_radix_cache_strategy": Case("no_buffer", changes=STATES),
    "max_mamba_cache_size": Case(10, changes=STATES),
    "mamba_full_memory_ratio": Case(0.02, changes=merged(STATES, BURST)),
    "mamba_track_interval": Case(64, changes=TURNS),
    "linear_attn_backend": Case("flashinfer", changes=STATES),
    "disable_overlap_schedule": Case(True),
    "enable_mixed_chunk": Case(True, changes=STEADY),
    "prefill_max_requests": Case(1),
    "prefill_decode_interval": Case(4, changes=STEADY),
    "prefill_decode_interval_min_bs": Case(8, engine={"prefill_decode_interval": 4}, changes=STEADY),
    "min_free_slots_delay": Case(4, engine={"max_running_requests": 6}),
    "enable_priority_scheduling": Case(True, engine=FEW, changes=PRIORITIES),
    "schedule_low_priority_values_first": Case(True, engine=FIRST, changes=PRIORITIES),
    "priority_scheduling_preemption_threshold": Case(50, engine=FIRST, changes=PRIORITIES),
    "disable_priority_preemption": Case(True, engine=FIRST, changes=PRIORITIES),
    "retraction_policy": Case(
        "priority",
        engine={"enable_priority_scheduling": True, "max_total_tokens": 700, "schedule_conservativeness": 0.0},
        changes=PRIORITIES,
    ),
    "num_continuous_decode_steps": Case(4),
    "stream_interval": Case(10),
    "ignore_eos": Case(True, engine=POOL),
    "random_seed": Case(7, engine={"schedule_policy": "random", **FEW}),
    "speculative_algorithm": Case("EAGLE"),
    "speculative_num_steps": Case(5, engine=EAGLE),
    "speculative_eagle_topk": Case(8, engine=TREE),
    "speculative_num_draft_tokens": Case(32, engine=TREE),
    "speculative_draft_model_path": Case("llama-3.2-3b", "llama-3.2-1b", engine={"speculative_algorithm": "STANDALONE"}),
    "speculative_accept_rate": Case(0.2, engine=EAGLE),
    "cuda_graph_max_bs": Case(2),
    "disable_cuda_graph": Case(True),
    "pp_max_micro_batch_size": Case(1, changes=STAGES),
    "pp_async_batch_depth": Case(2, engine={"pp_max_micro_batch_size": 2}, changes=STAGES),
    "enable_lora": Case(True, changes=ADAPTERS),
    "max_loras_per_batch": Case(2, engine=LORA, changes=ADAPTERS),
    "max_lora_rank": Case(64, engine=LORA, changes=ADAPTERS),
    "scheduler_recv_interval": Case(8, changes=STEADY),
    "enable_dp_attention": Case(True, changes=EXPERTS),
    "load_balance_method": Case("total_tokens", changes=RANKS),
    "load_watch_interval": Case(0.9, engine={"load_balance_method": "total_tokens"}, changes=merged(RANKS, STEADY)),
    "enable_hierarchical_cache": Case(True, changes=RETURN),
    "hicache_ratio": Case(0.5, engine=HICACHE, changes=RETURN),
    "hicache_size": Case(0.05, engine=HICACHE, changes=RETURN),
    "hicache_write_policy": Case("write_back", engine=HICACHE, changes=RETURN),
    "hicache_io_backend": Case("direct", engine=HICACHE, changes=RETURN),
    "hicache_mem_layout": Case("layer_first", engine=HICACHE, changes=RETURN),
    "hicache_storage_backend": Case("hf3fs", engine=storage(size=0.1) | WAITS, changes=STORED),
    "hicache_storage_prefetch_policy": Case("best_effort", engine=storage(), changes=STORED),
    f"{_CONFIG}.prefetch_threshold": Case(100_000, engine=storage(), changes=STORED),
    f"{_CONFIG}.prefetch_timeout_base": Case("1ms", engine=storage(prefetch_timeout_per_ki_token=0), changes=STORED),
    f"{_CONFIG}.prefetch_timeout_per_ki_token": Case(0, engine=storage(prefetch_timeout_base=0), changes=STORED),
    f"{_CONFIG}.bandwidth": Case("5GB", engine=storage() | WAITS, changes=STORED),
    f"{_CONFIG}.latency": Case("50ms", engine=storage() | WAITS, changes=STORED),
    f"{_CONFIG}.size": Case(0.05, engine=storage() | WAITS, changes=STORED),
    _CONFIG: Case({"prefetch_threshold": 100_000}, engine=storage() | WAITS, changes=STORED),
    "enable_dynamic_chunking": Case(True),
    "disaggregation_mode": Case("prefill"),
    "num_reserved_decode_tokens": Case(8, changes=sides("sglang", blocks=1500)),
    "disaggregation_decode_enable_radix_cache": Case(True),
    "enable_prefill_delayer": Case(True),
}
