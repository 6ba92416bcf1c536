"""vLLM on Ascend: where each setting matters. What it shares with vLLM is tried on its own accelerator."""

from __future__ import annotations

from typing import Any

from tests.settings import vllm
from tests.settings.traffic import EXPERTS, HEAVY, LONG, SPARSE
from tests.settings.walk import Case, merged

BASE: dict[str, Any] = merged(
    vllm.BASE, {"model": "qwen3-8b", "deployment": {"accelerator": "ascend-910b3", "engine": {"name": "vllm-ascend"}}}
)
TIGHT = {"max_model_len": 256, "block_size": 16}
RANKS = merged(EXPERTS, {"deployment": {"accelerator": "ascend-910b2"}})


def scheduler(**settings: Any) -> dict[str, Any]:
    """``additional_config.scheduler_config``."""
    return {"additional_config": {"scheduler_config": settings}}


def ascend(**settings: Any) -> dict[str, Any]:
    """``additional_config.ascend_scheduler_config`` of 0.10."""
    return {"version": "0.10", "additional_config": {"ascend_scheduler_config": settings}}


_IN = "additional_config.scheduler_config"
CASES: dict[str, Case] = vllm.CASES | {
    "version": Case("0.11"),
    "usage_context": Case("llm_class", changes=LONG),
    "block_size": Case(64, engine={"max_model_len": 256}, changes={"deployment": {"kv_blocks": 6}}),
    "gpu_memory_utilization": Case(0.34, engine={"max_model_len": 9200}, changes=HEAVY),
    "VLLM_CPU_KVCACHE_SPACE": Case(4),
    "num_gpu_blocks_override": Case(6, engine={"max_model_len": 256}),
    "scheduler_reserve_full_isl": Case(
        False,
        engine={"max_num_batched_tokens": 64, "max_num_seqs": 8, "max_model_len": 256},
        changes={"deployment": {"kv_blocks": 6}},
    ),
    "api_server_count": Case(1, changes={"deployment": {"dp": 2}}),
    "dp_sync_interval": Case(1, changes=merged(SPARSE, RANKS)),
    "additional_config": Case(
        scheduler(short_request_first_config={"threshold": 100})["additional_config"], engine={"max_num_seqs": 2}
    ),
    "additional_config.ascend_scheduler_config": Case({"enabled": True}, engine={"version": "0.10"}),
    "additional_config.ascend_scheduler_config.enabled": Case(True, engine={"version": "0.10"}),
    "additional_config.ascend_scheduler_config.enable_chunked_prefill": Case(True, engine=ascend(enabled=True)),
    _IN: Case({"short_request_first_config": {"threshold": 100}}, engine={"max_num_seqs": 2}),
    f"{_IN}.enable_balance_scheduling": Case(True, engine={"max_num_seqs": 2}, changes=RANKS),
    f"{_IN}.recompute_scheduler_enable": Case(True),
    f"{_IN}.short_request_first_config": Case({"threshold": 100}, engine={"max_num_seqs": 2}),
    f"{_IN}.short_request_first_config.threshold": Case(150, 60, engine={"max_num_seqs": 2}),
    f"{_IN}.short_request_first_config.long_max_wait_ms": Case(
        100.0, engine={"max_num_seqs": 2, **scheduler(short_request_first_config={"threshold": 100})}
    ),
    f"{_IN}.batch_job_sched_config": Case({"x": 1.0}),
    f"{_IN}.dyntra_lb_config": Case({"x": 1.0}),
    f"{_IN}.profiling_chunk_config": Case({"x": 1.0}),
}
