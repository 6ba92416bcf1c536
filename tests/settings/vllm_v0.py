"""vLLM V0: where each setting matters."""

from __future__ import annotations

from typing import Any

from tests.settings.traffic import ADAPTERS, BURST, GROWING, HEAVY, MIXED, PRIORITIES, SPARSE, STEADY
from tests.settings.walk import Case, merged

BASE: dict[str, Any] = {
    "model": "llama-3.1-8b",
    "traffic": MIXED,
    "deployment": {"accelerator": "a100-sxm-80g", "engine": {"name": "vllm-v0", "max_model_len": 2048}},
}
FEW: dict[str, Any] = {"deployment": {"kv_blocks": 21}}
TIGHT = {"max_model_len": 256}
LORA = {"enable_lora": True}

OPEN: dict[str, Any] = {"max_model_len": None}

CASES: dict[str, Case] = {
    "version": Case("0.4"),
    "max_num_batched_tokens": Case(300, engine={"max_num_seqs": 16, **TIGHT}, changes=BURST),
    "max_num_seqs": Case(2),
    "hf_overrides": Case({"max_position_embeddings": 120}, engine=OPEN, changes={"traffic": {"too_long": "skip"}}),
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": Case(True, engine={"max_model_len": 200_000}),
    "max_model_len": Case(120, changes={"traffic": {"too_long": "skip"}}),
    "max_paddings": Case(8, engine={"version": "0.3"}, changes=BURST),
    "block_size": Case(32, engine=TIGHT, changes=FEW),
    "gpu_memory_utilization": Case(0.27, engine={"max_model_len": 9200}, changes=HEAVY),
    "num_gpu_blocks_override": Case(34, engine=TIGHT),
    "swap_space": Case(0.0, engine={"preemption_mode": "swap", **TIGHT}, changes=merged(BURST, FEW)),
    "preemption_mode": Case("swap", engine=TIGHT, changes=merged(BURST, FEW)),
    "enable_chunked_prefill": Case(True),
    "scheduler_delay_factor": Case(1.0, changes=STEADY),
    "scheduling_policy": Case("priority", engine={"max_num_seqs": 2}, changes=PRIORITIES),
    "num_lookahead_slots": Case(8, engine=TIGHT, changes=merged(BURST, FEW)),
    "use_v2_block_manager": Case(
        True, False, engine={"version": "0.6.2", "preemption_mode": "swap", **TIGHT}, changes=merged(GROWING, FEW)
    ),
    "disable_async_output_proc": Case(True),
    "num_scheduler_steps": Case(8),
    "enable_prefix_caching": Case(True),
    "enforce_eager": Case(True),
    "enable_lora": Case(True, changes=ADAPTERS),
    "max_lora_rank": Case(64, engine=LORA, changes=ADAPTERS),
    "max_loras": Case(4, engine=LORA, changes=ADAPTERS),
    "max_cpu_loras": Case(6, engine=LORA, changes=merged(SPARSE, ADAPTERS)),
}
