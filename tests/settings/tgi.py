"""TGI: where each setting matters."""

from __future__ import annotations

from typing import Any

from tests.settings.traffic import BURST, HEAVY, MIXED, SHARED, SPARSE, STEADY
from tests.settings.walk import Case, merged

BASE: dict[str, Any] = {
    "model": "llama-3.1-8b",
    "traffic": MIXED,
    "deployment": {"accelerator": "h100-sxm", "engine": {"name": "tgi"}},
}
PLAIN = {"prefill_chunking": False}
PADDED = {"flash": False, "max_total_tokens": 300}
GUESS = {"speculate": 3}
BUSY = merged(STEADY, {"traffic": {"synthetic": {"requests": 40}}})

CASES: dict[str, Case] = {
    "version": Case("1.1"),
    "backend": Case("v2"),
    "max_concurrent_requests": Case(2),
    "waiting_served_ratio": Case(4.0, engine=PLAIN, changes=BUSY),
    "max_waiting_tokens": Case(1, engine=PLAIN | {"waiting_served_ratio": 4.0}, changes=BUSY),
    "max_batch_size": Case(2, engine=PLAIN),
    "max_batch_prefill_tokens": Case(256),
    "max_batch_total_tokens": Case(600, engine=PADDED, changes=BURST),
    "max_input_tokens": Case(100, changes={"traffic": {"too_long": "skip"}}),
    "max_total_tokens": Case(120, changes={"traffic": {"too_long": "skip"}}),
    "cuda_memory_fraction": Case(0.3, changes=HEAVY),
    "attention": Case("paged"),
    "prefix_caching": Case(False, changes=merged(SPARSE, SHARED)),
    "prefill_chunking": Case(False, changes=STEADY),
    "flash": Case(False, engine={"max_total_tokens": 300}),
    "speculate": Case(3),
    "speculator": Case("medusa", engine=GUESS),
    "acceptance": Case(0.9, engine=GUESS),
    "phantom_prefix": Case(False, engine=PLAIN | {"max_batch_prefill_tokens": 256}, changes=BURST),
}
