"""KV bytes, cuts over GPUs and GEMM shapes."""

import math

import pytest

from sim.errors import ConfigError
from sim.model import ModelSpec, load_model


@pytest.mark.parametrize(
    ("name", "tp", "expected"),
    [
        ("llama-2-7b", 1, 2 * 32 * 32 * 128 * 2),
        ("llama-3.1-8b", 1, 131_072),
        ("llama-3.1-8b", 8, 131_072 / 8),
        ("llama-3.1-8b", 16, 131_072 / 8),  # heads are replicated when there are fewer than GPUs
        ("deepseek-v3", 1, 61 * 576 * 2),
        ("deepseek-v3", 8, 61 * 576 * 2),  # the latent is copied to every GPU
        ("deepseek-v3.2", 1, 61 * (576 * 2 + 132)),
    ],
)
def test_kv_bytes_of_a_token(name: str, tp: int, expected: float) -> None:
    assert load_model(name).kv_bytes_per_token(tp) == expected


def test_an_fp8_cache_takes_half() -> None:
    assert load_model("qwen3-8b", kv_cache="fp8").kv_bytes_per_token() == load_model("qwen3-8b").kv_bytes_per_token() / 2


def test_windows_forget_and_linear_layers_keep_a_state() -> None:
    gemma, next80 = load_model("gemma-3-27b"), load_model("qwen3-next-80b-a3b")

    assert gemma.kinds.count("full") == 10
    assert gemma.kv_bytes(1024) == 1024 * gemma.kv_bytes_per_token()
    assert gemma.kv_bytes(100_000) < 0.2 * 100_000 * gemma.kv_bytes_per_token()
    assert next80.kinds.count("full") == 12
    assert next80.kv_bytes(0) == next80.state_bytes() > 0


@pytest.mark.parametrize("name", ["llama-3.1-8b", "mixtral-8x7b", "deepseek-v3", "gpt-oss-20b", "gemma-2-9b", "opt-13b"])
@pytest.mark.parametrize("tp", [1, 2, 4])
def test_cutting_never_loses_weights(name: str, tp: int) -> None:
    model = load_model(name)

    assert model.weight_bytes() <= tp * model.weight_bytes(tp) <= 1.25 * model.weight_bytes()


@pytest.mark.parametrize("name", ["llama-3.1-8b", "qwen3-8b", "mixtral-8x7b"])
def test_gemms_hold_the_weights_of_the_layers(name: str) -> None:
    model = load_model(name)
    gemms = sum(s.n * s.k * s.repeat * s.layers for s in model.linear_shapes())
    moe = model.moe_shape()
    if moe:
        gemms += moe.layers * moe.experts * 3 * moe.hidden * moe.intermediate

    ends = 2 * model.vocab * model.hidden
    assert math.isclose(gemms + ends, model.param_count(), rel_tol=1e-3)


def test_experts_are_spread_or_cut() -> None:
    model = load_model("qwen3-30b-a3b")

    whole, cut = model.moe_shape(tp=4, ep=4), model.moe_shape(tp=4)
    assert whole is not None and cut is not None
    assert (whole.local_experts, whole.intermediate) == (32, 768)
    assert (cut.local_experts, cut.intermediate) == (128, 192)
    assert model.weight_bytes(tp=4, ep=4) == pytest.approx(model.weight_bytes(tp=4))


@pytest.mark.parametrize(
    ("name", "cut", "text"),
    [
        ("llama-3.1-8b", {"tp": 3}, "32 attention heads of llama-3.1-8b cannot be divided evenly"),
        ("qwen2.5-7b", {"tp": 8}, "28 attention heads"),
        ("llama-3.1-8b", {"pp": 33}, "has only 32 layers"),
        ("llama-3.1-8b", {"ep": 2}, "has no experts"),
        ("mixtral-8x7b", {"ep": 16}, "has only 8 experts"),
        ("llama-3.1-8b", {"tp": 0}, "at least 1"),
    ],
)
def test_impossible_cuts_name_the_setting(name: str, cut: dict[str, int], text: str) -> None:
    (setting,) = cut

    with pytest.raises(ConfigError, match=text) as caught:
        load_model(name).check_parallelism(**cut)

    assert caught.value.field == f"deployment.{setting}"


def test_specs_are_values() -> None:
    assert load_model("qwen3-8b") is load_model("qwen3-8b")
    assert isinstance(hash(load_model("qwen3-8b")), int)
    assert isinstance(load_model("qwen3-8b"), ModelSpec)
