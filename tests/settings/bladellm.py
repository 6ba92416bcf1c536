"""BladeLLM: where each setting matters."""

from __future__ import annotations

from typing import Any

from tests.settings.traffic import BURST, HEAVY, MIXED, SHARED
from tests.settings.walk import Case

BASE: dict[str, Any] = {
    "model": "qwen3-8b",
    "traffic": MIXED,
    "deployment": {"accelerator": "h20", "engine": {"name": "bladellm"}},
}
DRAFT = {"decode_algo": "sps", "draft_model": "qwen3-0.6b"}

CASES: dict[str, Case] = {
    "version": Case(None),
    "tensor_parallel_size": Case(4),
    "pipeline_parallel_size": Case(4),
    "pipeline_micro_batch": Case(2),
    "attention_dp_size": Case(2),
    "max_gpu_memory_utilization": Case(0.25, engine={"max_model_len": 9200}, changes=HEAVY),
    "preempt_strategy": Case("SWAP"),
    "ragged_flash_max_batch_tokens": Case(64, engine={"max_batch_size": 16}, changes=BURST),
    "max_batch_size": Case(2),
    "decode_algo": Case("look_ahead"),
    "gamma": Case(6, engine=DRAFT),
    "draft_model": Case("qwen3-1.7b", "qwen3-0.6b", engine={"decode_algo": "sps"}),
    "acceptance_rate": Case(0.2, engine=DRAFT),
    "disable_prompt_cache": Case(True, changes=SHARED),
    "prompt_cache_enable_swap": Case(True),
    "max_queue_time": Case("1s"),
    "enable_llumnix": Case(True),
    "kv_cache_quant": Case("no_quant"),
    "disable_cuda_graph": Case(True),
    "cuda_graph_max_batch_size": Case(2),
    "max_model_len": Case(120, changes={"traffic": {"too_long": "skip"}}),
}
