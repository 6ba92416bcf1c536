"""What depends on model and engine at once, seen from a scenario."""

import json
from pathlib import Path

import pytest

import sim
from sim.fleet.build import plan
from tests.model.test_config_json import LLAMA


def notes(model: str, engine: str, accelerator: str = "h100-sxm") -> tuple[str, ...]:
    wanted = (f"model={model}", f"deployment.engine={engine}", f"deployment.accelerator={accelerator}")
    (made,) = plan(sim.load("quickstart", wanted))
    return made.evidence.notes


def test_layers_that_forget_are_named_where_they_are_cached_as_if_they_did_not() -> None:
    drafting = "{name: sglang, speculative_algorithm: EAGLE3}"
    assert any("12 sliding-window layers" in note for note in notes("gpt-oss-20b", drafting))
    assert not any("as if all layers" in note for note in notes("qwen3-8b", drafting))


@pytest.mark.parametrize("engine", ["llamacpp", "sglang", "tgi"])
def test_an_engine_whose_way_is_modelled_says_nothing(engine: str) -> None:
    assert not any("as if all layers" in note for note in notes("gemma-3-4b", engine))


@pytest.mark.parametrize(("engine", "dtype"), [("vllm", "fp8"), ("sglang", "fp8"), ("tgi", "bf16")])
def test_auto_follows_the_checkpoint_where_the_engine_does(tmp_path: Path, engine: str, dtype: str) -> None:
    block = {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "kv_cache_scheme": {"type": "float", "num_bits": 8},
    }
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "quantization_config": block}))

    wanted = (f"model.config={tmp_path}", "model.name=null", f"deployment.engine={engine}")
    (made,) = plan(sim.load("quickstart", wanted))

    assert made.model.kv_dtype == dtype
