"""vLLM V1: where each setting matters."""

from __future__ import annotations

from typing import Any

from tests.settings.traffic import ADAPTERS, BURST, EXPERTS, HEAVY, LONG, MIXED, PRIORITIES, SHARED, SPARSE, STEADY, TALK
from tests.settings.walk import Case, merged

BASE: dict[str, Any] = {
    "model": "llama-3.1-8b",
    "traffic": MIXED,
    "deployment": {"accelerator": "h100-sxm", "engine": {"name": "vllm"}},
}
TIGHT = {"max_model_len": 256}
FEW: dict[str, Any] = {"deployment": {"kv_blocks": 34}}
DRAFT = {"speculative_config": {"method": "eagle", "num_speculative_tokens": 3}}
SIDE = {"kv_transfer_config": {"kv_role": "kv_consumer"}}
LORA = {"enable_lora": True}
DYING: dict[str, Any] = {  # a prefill replica, while KV is on its way
    "deployment": None,
    "pools": [
        {
            "name": n, "role": r, "accelerator": "h100-sxm", "replicas": 2,
            "engine": {"name": "vllm", "kv_transfer_config": {"kv_role": k}},
        }
        for n, r, k in (("p", "prefill", "kv_producer"), ("d", "decode", "kv_consumer"))
    ],
    "transfer": {"bandwidth": "200MB"},
    "faults": {"name": "crash", "mtbf": "2s", "for": "200ms"},
}  # fmt: skip
EIGHT = {"max_num_seqs": 8}

OSS: dict[str, Any] = {"model": "gpt-oss-20b"}
STATES: dict[str, Any] = {"model": "qwen3.5-9b", "traffic": {"synthetic": {"prefixes": {"groups": 1, "shared_tokens": 1600}}}}
SCOUT: dict[str, Any] = {"model": "llama-4-scout", "deployment": {"accelerator": "h200-sxm", "tp": 4, "kv_blocks": 140}}

OPEN: dict[str, Any] = {"max_model_len": None}

RETURN: dict[str, Any] = merged(TALK, {"deployment": {"kv_blocks": 60}})
"""Sessions that find little on the accelerator when they come back."""


def tiers(**extra: Any) -> dict[str, Any]:
    """Native offloading."""
    config = {"cpu_bytes_to_use": "1GB"} | extra
    connector = {"kv_connector": "OffloadingConnector", "kv_role": "kv_both", "kv_connector_extra_config": config}
    return {"max_model_len": 512, "block_size": 16, "kv_transfer_config": connector}


def lmcache(**file: Any) -> dict[str, Any]:
    """LMCache."""
    connector = {"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"}
    return {
        "max_model_len": 512,
        "block_size": 16,
        "kv_transfer_config": connector,
        "LMCACHE_CONFIG_FILE": {"chunk_size": 32} | file,
    }


DISK = lmcache(local_cpu=False, max_local_disk_size=1)
REMOTE = lmcache(local_cpu=False, remote_url="lm://store")
_EXTRA = "kv_transfer_config.kv_connector_extra_config"
_FILE = "LMCACHE_CONFIG_FILE"

CASES: dict[str, Case] = {
    "version": Case("0.12"),
    "usage_context": Case("llm_class", changes=LONG),
    "performance_mode": Case("throughput", changes=LONG),
    "max_num_batched_tokens": Case(64, engine=EIGHT),
    "max_num_seqs": Case(2),
    "max_num_active_seqs": Case(2),
    "hf_overrides": Case({"max_position_embeddings": 120}, engine=OPEN, changes={"traffic": {"too_long": "skip"}}),
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": Case(True, engine={"max_model_len": 200_000}),
    "max_model_len": Case(120, changes={"traffic": {"too_long": "skip"}}),
    "block_size": Case(32, engine=TIGHT, changes=FEW),
    "gpu_memory_utilization": Case(0.27, engine={"max_model_len": 9200}, changes=HEAVY),
    "kv_cache_memory_bytes": Case("2GB", engine={"max_model_len": 9200}, changes=HEAVY),
    "VLLM_MXFP4_USE_MARLIN": Case(True, changes=OSS),
    "VLLM_CPU_KVCACHE_SPACE": Case(
        0.125,
        4,
        engine={"max_model_len": 512},
        changes={"model": "llama-3.2-1b", "deployment": {"accelerator": "cpu-server"}, **BURST},
    ),
    "num_gpu_blocks_override": Case(34, engine=TIGHT),
    "enforce_eager": Case(True),
    "compilation_config": Case({"cudagraph_mode": "NONE"}),
    "compilation_config.cudagraph_mode": Case("PIECEWISE", "FULL", changes={"deployment": {"accelerator": "a100-sxm-80g"}}),
    "compilation_config.cudagraph_capture_sizes": Case([64]),
    "enable_prefix_caching": Case(False, changes=SHARED),
    "prefix_cache_retention_interval": Case(32, changes=merged(OSS, SHARED)),
    "prefix_match_unit": Case(16, changes=STATES),
    "disable_hybrid_kv_cache_manager": Case(True, engine=TIGHT, changes=merged(OSS, {"deployment": {"kv_blocks": 60}})),
    "VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE": Case(True, engine=TIGHT, changes=SCOUT),
    "mamba_ssm_cache_dtype": Case("bfloat16", changes=STATES),
    "disable_lookahead_block_hashes": Case(True, engine=DRAFT, changes=SHARED),
    "enable_chunked_prefill": Case(False, engine={"max_model_len": 250, "max_num_batched_tokens": 256, "max_num_seqs": 16}),
    "async_scheduling": Case(False),
    "scheduling_policy": Case("priority", engine={"max_num_seqs": 2}, changes=PRIORITIES),
    "long_prefill_token_threshold": Case(32),
    "long_prefill_token_threshold_adaptive": Case(
        True, engine={"long_prefill_token_threshold": 16, "max_num_batched_tokens": 512, "max_num_seqs": 8}
    ),
    "scheduler_reserve_full_isl": Case(False, engine={"max_num_batched_tokens": 64, "max_num_seqs": 8, **TIGHT}, changes=FEW),
    "watermark": Case(0.4, engine=TIGHT, changes=FEW),
    "prefill_schedule_interval": Case(4, changes=STEADY),
    "enable_lora": Case(True, changes=ADAPTERS),
    "max_lora_rank": Case(64, engine=LORA, changes=ADAPTERS),
    "max_loras": Case(4, engine=LORA, changes=ADAPTERS),
    "max_cpu_loras": Case(6, engine=LORA, changes=merged(SPARSE, ADAPTERS)),
    "speculative_config": Case({"method": "ngram"}),
    "speculative_config.method": Case("eagle3", engine=DRAFT),
    "speculative_config.model": Case("llama-3.2-3b", "llama-3.2-1b", engine={"speculative_config": {"method": "draft_model"}}),
    "speculative_config.num_speculative_tokens": Case(5, engine=DRAFT),
    "speculative_config.acceptance_rate": Case(0.2, engine=DRAFT),
    "kv_transfer_config": Case({"kv_role": "kv_consumer"}),
    "kv_transfer_config.kv_role": Case("kv_producer", "kv_consumer"),
    "kv_transfer_config.kv_load_failure_policy": Case("recompute", "fail", changes=DYING),
    "kv_transfer_config.transfer_base": Case(0.1, engine=SIDE),
    "kv_transfer_config.transfer_per_token": Case(0.001, engine=SIDE),
    "kv_transfer_config.idle_poll": Case(0.05, engine=SIDE),
    "kv_transfer_config.kv_connector": Case("LMCacheConnectorV1", "OffloadingConnector", engine=tiers()),
    _EXTRA: Case({"cpu_bytes_to_use": "1GB"}, engine=SIDE),
    f"{_EXTRA}.cpu_bytes_to_use": Case("20MB", engine=tiers(), changes=RETURN),
    f"{_EXTRA}.block_size": Case(64, engine=tiers(), changes=RETURN),
    f"{_EXTRA}.eviction_policy": Case("arc", engine=tiers()),
    f"{_EXTRA}.store_threshold": Case(2, engine=tiers()),
    f"{_EXTRA}.load_timeout_seconds": Case(1.0, engine=tiers(), changes=RETURN),
    "kv_offloading_size": Case(1, engine={"max_model_len": 512, "block_size": 16}, changes=RETURN),
    "kv_offloading_backend": Case(
        "lmcache", engine={"max_model_len": 512, "block_size": 16, "kv_offloading_size": 1}, changes=RETURN
    ),
    _FILE: Case({"chunk_size": 32}, {"chunk_size": 64}, engine=lmcache(), changes=RETURN),
    f"{_FILE}.chunk_size": Case(64, engine=lmcache(), changes=RETURN),
    f"{_FILE}.local_cpu": Case(False, engine=lmcache(max_local_disk_size=1), changes=RETURN),
    f"{_FILE}.max_local_cpu_size": Case(0.02, engine=lmcache(), changes=RETURN),
    f"{_FILE}.max_local_disk_size": Case(0.02, engine=DISK, changes=RETURN),
    f"{_FILE}.remote_url": Case("lm://store", engine=lmcache(max_local_cpu_size=0.02), changes=RETURN),
    f"{_FILE}.save_decode_cache": Case(True, engine=lmcache(), changes=RETURN),
    f"{_FILE}.cache_policy": Case("LFU", engine=lmcache()),
    f"{_FILE}.use_layerwise": Case(True, engine=lmcache()),
    f"{_FILE}.enable_async_loading": Case(True, engine=REMOTE, changes=RETURN),
    f"{_FILE}.disk_bandwidth": Case("1GB", engine=DISK, changes=RETURN),
    f"{_FILE}.disk_latency": Case("10ms", engine=DISK, changes=RETURN),
    f"{_FILE}.remote_bandwidth": Case("1GB", engine=REMOTE, changes=RETURN),
    f"{_FILE}.remote_latency": Case("10ms", engine=REMOTE, changes=RETURN),
    f"{_FILE}.max_remote_size": Case(0.02, engine=REMOTE, changes=RETURN),
    "stream_interval": Case(4),
    "api_server_count": Case(1, changes={"deployment": {"dp": 2}}),
    "dp_sync_interval": Case(1, changes=merged(SPARSE, EXPERTS)),
    "enable_expert_parallel": Case(True),
}
