"""Every model and number format of the measured deployments can be loaded (where the measurements are at hand)."""

import json
from pathlib import Path

import pytest

from sim.hardware import load_accelerator
from sim.model import load_model

POINTS = Path(__file__).resolve().parents[3] / "shared" / "data" / "measured" / "points"


@pytest.mark.skipif(not POINTS.is_dir(), reason="the measured deployments are not beside this checkout")
def test_measured_models_and_accelerators_load() -> None:
    seen = set()
    for file in POINTS.glob("*/points.jsonl"):
        for line in file.read_text().splitlines():
            point = json.loads(line)
            seen.add((point["model"], point["weights"], point["kv_cache"] or "auto", point["accelerator"]))

    for model, weights, kv_cache, accelerator in seen:
        assert load_model(model, weights, kv_cache).warnings == ()
        assert load_accelerator(accelerator).memory_bytes > 0
