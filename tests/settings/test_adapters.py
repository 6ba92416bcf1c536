"""Engines load, evict and batch the adapters that traffic names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sim.config.scenario import Scenario
from sim.errors import ConfigError
from sim.study.single import Prepared
from tests.settings.traffic import MIXED, SPARSE
from tests.settings.walk import COLUMNS, merged

ENGINES: dict[str, dict[str, Any]] = {
    "vllm": {"name": "vllm", "enable_lora": True, "max_model_len": 2048},
    "vllm-v0": {"name": "vllm-v0", "enable_lora": True, "max_model_len": 2048},
    "sglang": {"name": "sglang", "enable_lora": True},
}
PLACES = {"vllm": "max_loras", "vllm-v0": "max_loras", "sglang": "max_loras_per_batch"}


def prepared(engine: str, count: int = 6, changes: dict[str, Any] | None = None, **settings: Any) -> Prepared:
    base = {
        "model": "llama-3.1-8b",
        "traffic": MIXED | {"adapters": {"count": count}},
        "deployment": {"accelerator": "a100-sxm-80g", "engine": ENGINES[engine] | settings},
    }
    return Prepared(Scenario.model_validate(merged(base, changes or {})))


def finish(made: Prepared) -> float:
    return float(made.run().requests["finish_s"].sum())


@pytest.mark.parametrize("engine", ENGINES)
def test_one_stroke_and_step_by_step_give_the_same_bytes(engine: str) -> None:
    for places in (2, 6):
        made = prepared(engine, **{PLACES[engine]: places})
        fast, slow = (made.run(multi_step=on).requests for on in (True, False))
        for name in COLUMNS:
            assert fast[name].to_numpy().tobytes() == slow[name].to_numpy().tobytes(), name


@pytest.mark.parametrize("engine", ENGINES)
def test_time_follows_rank_and_number(engine: str) -> None:
    room = {PLACES[engine]: 8}
    small, large = (finish(prepared(engine, max_lora_rank=rank, **room)) for rank in (8, 128))
    assert small < large
    one, many = (finish(prepared(engine, count, **room)) for count in (1, 8))
    assert one < many


@pytest.mark.parametrize("engine", ENGINES)
def test_places_for_adapters_take_memory(engine: str) -> None:
    blocks = [prepared(engine, **{PLACES[engine]: places}).plans[0].kv_blocks for places in (1, 64)]
    assert blocks[0] > blocks[1]


def test_what_is_kept_in_host_memory_is_not_read_again() -> None:
    few, all_ = (finish(prepared("vllm", changes=SPARSE, max_cpu_loras=n)) for n in (1, 6))
    assert all_ < few


def test_batches_hold_no_more_adapters_than_there_are_places() -> None:
    alone = prepared("vllm", 4, {"traffic": {"synthetic": {"arrival": {"process": "burst"}}}}, max_loras=1).run().requests
    order = alone.sort_values("first_scheduled_s")
    together = prepared("vllm", 4, {"traffic": {"synthetic": {"arrival": {"process": "burst"}}}}, max_loras=4).run().requests
    assert np.median(together["first_scheduled_s"]) < np.median(order["first_scheduled_s"])


@pytest.mark.parametrize("engine", ["tgi", "static", "llamacpp"])
def test_engines_that_serve_none_refuse(engine: str) -> None:
    base = {
        "model": "llama-3.1-8b",
        "traffic": MIXED | {"adapters": {"count": 2}},
        "deployment": {"accelerator": "a100-sxm-80g", "engine": {"name": engine}},
    }
    with pytest.raises(ConfigError, match=f"adapters are not modelled for {engine}"):
        Prepared(Scenario.model_validate(base))
    with pytest.raises(ConfigError, match="max_loras"):
        prepared("vllm", enable_lora=False, max_loras=2)
    with pytest.raises(ConfigError, match="max_cpu_loras"):
        prepared("vllm", max_loras=4, max_cpu_loras=2)
