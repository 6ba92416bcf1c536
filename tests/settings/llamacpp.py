"""llama.cpp: where each setting matters."""

from __future__ import annotations

from typing import Any

from tests.settings.traffic import MIXED, SHARED, SPARSE, STEADY, TALK, traffic
from tests.settings.walk import Case, merged

BASE: dict[str, Any] = {
    "model": {"name": "llama-3.1-8b", "weights": "q4_k_m"},
    "traffic": MIXED,
    "deployment": {"accelerator": "rtx-4090", "engine": {"name": "llamacpp", "n_ctx": 8192}},
}
SLOTS = {"n_parallel": 2}
OVERFLOW = {"traffic": traffic({"process": "burst"}, {"kind": "fixed", "prompt_tokens": 200, "output_tokens": 700}, 3)}
"""Requests longer than their context."""
SHIFT = {"n_parallel": 1, "n_ctx": 512, "ctx_shift": True}
TURNS = merged(STEADY, {"traffic": {"synthetic": {"sessions": {"turns": 3, "think_time": "0.1s"}, "requests": 24}}})
WINDOWS: dict[str, Any] = {"model": {"name": "gemma-3-12b", "weights": "q4_k_m"}}

CASES: dict[str, Case] = {
    "version": Case("0c1e570"),
    "n_parallel": Case(2),
    "n_ctx": Case(512, changes={"traffic": {"too_long": "skip"}}),
    "n_batch": Case(64),
    "n_ubatch": Case(8192, engine={"n_ctx": 8192, "n_batch": 8192}, changes={"model": {"name": "qwen2.5-32b"}}),
    "kv_unified": Case(False, engine={"n_ctx": 512}, changes={"traffic": {"too_long": "skip"}}),
    "ctx_shift": Case(True, engine={"n_parallel": 1, "n_ctx": 512}, changes=OVERFLOW),
    "n_keep": Case(100, engine=SHIFT, changes=OVERFLOW),
    "n_discard": Case(50, engine=SHIFT, changes=OVERFLOW),
    "slot_prompt_similarity": Case(0.99, engine=SLOTS | {"cache_ram_mib": 0}, changes=merged(SPARSE, SHARED)),
    "cache_prompt": Case(False, changes=SHARED),
    "cache_ram_mib": Case(0, engine=SLOTS, changes=TURNS),
    "cache_idle_slots": Case(False, engine={"n_ctx": 1024}, changes=TALK),
    "n_cache_reuse": Case(64),
    "swa_full": Case(True, changes=WINDOWS),
    "n_ctx_checkpoints": Case(0, changes=merged(WINDOWS, TURNS)),
    "cont_batching": Case(False),
    "n_gpu_layers": Case(20),
    "n_cpu_moe": Case(8, changes={"model": {"name": "qwen3-30b-a3b"}}),
    "op_offload": Case(False, engine={"n_gpu_layers": 20}),
    "host": Case("cpu-server", engine={"n_gpu_layers": 20}),
    "n_predict": Case(10),
}
