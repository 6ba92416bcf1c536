"""Ollama: where each setting matters."""

from __future__ import annotations

from typing import Any

from tests.settings.llamacpp import OVERFLOW, TURNS
from tests.settings.traffic import BURST, LONG, MIXED, SPARSE
from tests.settings.walk import Case, merged

BASE: dict[str, Any] = {
    "model": {"name": "llama-3.1-8b", "weights": "q4_k_m"},
    "traffic": MIXED,
    "deployment": {"accelerator": "rtx-4090", "engine": {"name": "ollama"}},
}
OWN = {"runner": "ollamarunner", "OLLAMA_NUM_PARALLEL": 2}
SMALL = {"num_ctx": 512}
LONG_PROMPTS: dict[str, Any] = {
    "traffic": {"synthetic": {"lengths": {"kind": "fixed", "prompt_tokens": 700, "output_tokens": 8}, "requests": 6}}
}
HALF = {"num_gpu": 20}


def host(**engine: Any) -> dict[str, Any]:
    """Two models on one card."""
    pools = [
        {
            "name": name,
            "model": {"name": name, "weights": "q4_k_m"},
            "accelerator": "rtx-4090",
            "engine": {"name": "ollama", **engine},
        }
        for name in ("llama-3.1-8b", "qwen2.5-7b")
    ]
    return {"deployment": None, "pools": pools}


CASES: dict[str, Case] = {
    "version": Case("0.24", engine={"OLLAMA_NUM_PARALLEL": 4, "num_batch": 64}, changes=BURST),
    "runner": Case("ollamarunner", engine={"OLLAMA_NUM_PARALLEL": 4, "num_batch": 64}, changes=BURST),
    "OLLAMA_NUM_PARALLEL": Case(4),
    "OLLAMA_MAX_QUEUE": Case(1, changes=merged(host(), BURST)),
    "OLLAMA_MAX_LOADED_MODELS": Case(1, changes=host()),
    "OLLAMA_KEEP_ALIVE": Case("0s", changes=merged(host(), SPARSE)),
    "OLLAMA_GPU_OVERHEAD": Case(20 << 30, engine={"runner": "ollamarunner"}),
    "OLLAMA_CONTEXT_LENGTH": Case(512, changes=LONG_PROMPTS),
    "OLLAMA_FLASH_ATTENTION": Case(False, engine={"num_ctx": 16384}, changes=LONG),
    "OLLAMA_MULTIUSER_CACHE": Case(True, engine=OWN, changes=TURNS),
    "OLLAMA_KV_CACHE_TYPE": Case("q8_0"),
    "load_bandwidth": Case("1GB", changes=host()),
    "num_ctx": Case(512, changes=LONG_PROMPTS),
    "num_batch": Case(32),
    "num_keep": Case(100, engine=SMALL, changes=OVERFLOW),
    "num_gpu": Case(20),
    "host": Case("cpu-server", engine=HALF),
    "context_shift": Case(False, engine=SMALL, changes=OVERFLOW),
    "truncate": Case(False, engine=SMALL, changes=LONG_PROMPTS),
}
