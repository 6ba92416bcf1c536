"""Context lengths as engines derive and refuse them."""

from typing import Any

import pytest

import sim
from sim.errors import ConfigError, NotModelledError
from sim.fleet.build import plan
from sim.model import load_model, model_names, spec_from_config
from sim.model.context import overridden, sglang_derived, sglang_length, vllm_derived, vllm_length
from tests.model.test_config_json import LLAMA

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


def model(**keys: Any) -> Any:
    return spec_from_config({**LLAMA, "max_position_embeddings": 32768, **keys}, "mine")


@pytest.mark.parametrize(
    ("scaling", "vllm", "sglang"),
    [
        (None, 32768, 32768),
        (YARN, 131072, 32768),  # SGLang keeps the length of the config where it names the original
        ({"type": "yarn", "factor": 2.0}, 65536, 65536),
        ({"type": "linear", "factor": 2.0}, 65536, 65536),
        ({"type": "dynamic", "factor": 2.0}, 65536, 65536),
        ({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}, 32768, 32768),
        (
            {"type": "longrope", "original_max_position_embeddings": 4096, "long_factor": [1.0], "short_factor": [1.0]},
            32768,
            32768,
        ),
        ({"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096}, 163840, 32768),
    ],
)
def test_rope_scaling_extends_what_the_engine_says(scaling: Any, vllm: int, sglang: int) -> None:
    found = model(rope_scaling=scaling)

    assert (vllm_derived(found), sglang_derived(found)) == (vllm, sglang)


def test_a_length_above_the_derived_one_is_refused_unless_the_check_is_overridden() -> None:
    plain = model()

    with pytest.raises(
        ConfigError, match=r"engine\.max_model_len: is greater than the derived max_model_len \(32768\)"
    ) as caught:
        vllm_length(plain, 40960)
    assert "VLLM_ALLOW_LONG_MAX_MODEL_LEN" in str(caught.value)
    assert vllm_length(plain, 40960, allow_long=True) == 40960
    with pytest.raises(ConfigError, match=r"engine\.context_length: is greater than the derived context_length \(32768\)"):
        sglang_length(plain, 40960)
    assert sglang_length(plain, 40960, allow_long=True) == 40960
    assert vllm_length(model(model_max_length=65536), 65536) == 65536  # a second length of the config counts for vLLM
    assert vllm_length(plain, None) == sglang_length(plain, None) == 32768


def test_overrides_of_the_config() -> None:
    plain = model()

    assert vllm_derived(overridden(plain, {"rope_scaling": YARN}, "f")) == 131072
    assert vllm_derived(overridden(plain, {"text_config": {"rope_parameters": YARN}}, "f")) == 131072
    assert sglang_derived(overridden(plain, {"max_position_embeddings": 65536}, "f")) == 65536
    with pytest.raises(NotModelledError, match=r"f\.num_hidden_layers"):
        overridden(plain, {"num_hidden_layers": 2}, "f")
    with pytest.raises(ConfigError, match=r"f\.rope_scaling\.factor"):
        overridden(plain, {"rope_scaling": {**YARN, "factor": "4"}}, "f")


@pytest.mark.parametrize("name", model_names())
def test_built_in_models_have_the_length_of_their_card(name: str) -> None:
    found = load_model(name)

    assert vllm_derived(found) == sglang_derived(found) == found.max_position


@pytest.mark.parametrize(
    ("engine", "limit"),
    [
        ("{name: vllm, max_model_len: 40000}", "derived max_model_len"),
        ("{name: vllm, version: '0.6', max_model_len: 40000}", "derived max_model_len"),
        ("{name: sglang, context_length: 40000}", "derived context_length"),
    ],
)
def test_a_server_that_would_not_start_is_refused(engine: str, limit: str) -> None:
    short = ("model=qwen2.5-7b", f"deployment.engine={engine}")
    with pytest.raises(ConfigError, match=limit):
        plan(sim.load("quickstart", short))


@pytest.mark.parametrize(
    ("engine", "longest"),
    [
        (
            "{name: vllm, hf_overrides: {rope_scaling: {rope_type: yarn, factor: 4, original_max_position_embeddings: 32768}}}",
            131072,
        ),
        ("{name: vllm, max_model_len: 40000, VLLM_ALLOW_LONG_MAX_MODEL_LEN: true}", 40000),
        ("{name: sglang, context_length: 40000, SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN: true}", 40000),
        ("{name: tgi, max_total_tokens: 40000}", 40000),
        ("{name: sglang, json_model_override_args: {max_position_embeddings: 65536}}", 65536),
    ],
)
def test_what_extends_the_context_extends_it(engine: str, longest: int) -> None:
    (made,) = plan(sim.load("quickstart", ("model=qwen2.5-7b", f"deployment.engine={engine}")))

    assert made.max_context == longest
