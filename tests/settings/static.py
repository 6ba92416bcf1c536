"""Static batches: where each setting matters."""

from __future__ import annotations

from typing import Any

from tests.settings.traffic import MIXED
from tests.settings.walk import Case

BASE: dict[str, Any] = {
    "model": "llama-3.1-8b",
    "traffic": MIXED,
    "deployment": {"accelerator": "h100-sxm", "engine": {"name": "static"}},
}

CASES: dict[str, Case] = {
    "max_batch_size": Case(2),
    "max_queue_delay": Case("200ms"),
    "response": Case("when_done"),
}
