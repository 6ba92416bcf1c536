"""Published configs in minimal form: parameters, what is kept per token and per sequence, and number formats.

``real_configs.jsonl`` holds, a line each, the keys of the published ``config.json`` that decide anything here (and of
``hf_quant_config.json`` beside it).
"""

import json
from pathlib import Path
from typing import Any

import pytest

from sim.errors import NotModelledError
from sim.model import ModelSpec, load_model, spec_from_config

LINES = Path(__file__).with_name("real_configs.jsonl").read_text(encoding="utf-8").splitlines()
CONFIGS: dict[str, dict[str, Any]] = {row["name"]: row for row in map(json.loads, LINES)}


def spec(name: str) -> ModelSpec:
    row = CONFIGS[name]
    return spec_from_config(row["config"], name, beside=row["beside"])


# Parameters in billions: the publisher's count (model card or total of the safetensors index), within 2 %.
PARAMETERS = {
    "MiniMaxAI/MiniMax-M3": 426,
    "Qwen/Qwen3-VL-30B-A3B-Instruct": 31.1,
    "Qwen/Qwen3.5-35B-A3B": 35,
    "XiaomiMiMo/MiMo-V2-Flash": 309,
    "deepseek-ai/DeepSeek-V4-Flash": 284,
    "google/gemma-4-26B-A4B": 25.8,
    "Phi-mini-MoE": 7.6,
    "Baichuan2-13B": 13.9,
    "ERNIE-4.5-21B-A3B": 21.8,
    "bloom-7b1": 7.069016064,
    "c4ai-command-r-v01": 34.980831232,
    "chatglm3-6b": 6.243584,
    "command-r7b": 8.028033024,
    "falcon-7b": 6.921720704,
    "gemma-3-27b-it": 27.4,
    "gemma-3-4b-it": 4.3,
    "gpt-j-6b": 6.05,
    "starcoder2-15b": 15.957889024,
    "moonshotai/Kimi-K3": 2800,
    "nvidia/Llama-3_3-Nemotron-Super-49B-v1": 49.867145216,
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": 31.577940288,
    "stepfun-ai/Step-3.7-Flash": 196,
    "Hunyuan-A13B": 80.4,
    "LFM2.5-VL-1.6B": 1.6,
    "Llama-3.2-90B-Vision": 88.6,
    "zai-org/GLM-5-FP8": 744,
    "nvidia/Llama-3.1-70B-Instruct-FP8": 70.553706496,
}


@pytest.mark.parametrize(("name", "billions"), PARAMETERS.items())
def test_parameters_are_those_the_publisher_states(name: str, billions: float) -> None:
    assert spec(name).param_count() / 1e9 == pytest.approx(billions, rel=0.02)


# Active parameters of a token in billions, as model cards say.
ACTIVE = {
    "zai-org/GLM-5-FP8": 40, "deepseek-ai/DeepSeek-V4-Flash": 13, "XiaomiMiMo/MiMo-V2-Flash": 15, "Hunyuan-A13B": 13,
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": 3.5, "moonshotai/Kimi-K3": 104, "stepfun-ai/Step-3.7-Flash": 11,
}  # fmt: skip


@pytest.mark.parametrize(("name", "billions"), ACTIVE.items())
def test_active_parameters_are_near_those_of_the_model_card(name: str, billions: float) -> None:
    assert spec(name).active_param_count() / 1e9 == pytest.approx(billions, rel=0.07)


# (kind, layers, window, bytes of a token in all of them together), by hand from the config, 16-bit cache.
KEPT: dict[str, list[tuple[str, int, int, float]]] = {
    # 60 layers of 4 KV heads × 128, and an index key of 128 in each of the 57 sparse ones
    "MiniMaxAI/MiniMax-M3": [("full", 60, 0, 60 * 4 * 128 * 2 * 2 + 57 * 128 * 2)],
    "Qwen/Qwen3-VL-30B-A3B-Instruct": [("full", 48, 0, 48 * 4 * 128 * 2 * 2)],
    "Qwen/Qwen3.5-35B-A3B": [("full", 10, 0, 10 * 2 * 256 * 2 * 2)],
    "XiaomiMiMo/MiMo-V2-Flash": [("full", 9, 0, 23_040), ("sliding", 39, 128, 199_680)],
    # 20 layers keep an entry of 512 per 4 tokens with an index key of 128, 20 one per 128; the last draft layer is not counted
    "deepseek-ai/DeepSeek-V4-Flash": [
        ("full", 41, 0, 21 * (512 + 128) * 2 / 4 + 20 * 512 * 2 / 128),
        ("sliding", 43, 128, 43 * 1024),
    ],
    "google/gemma-4-26B-A4B": [("full", 5, 0, 20_480), ("sliding", 25, 1024, 25 * 8 * 256 * 2 * 2)],
    "command-r7b": [("full", 8, 0, 8 * 8 * 128 * 2 * 2), ("sliding", 24, 4096, 24 * 8 * 128 * 2 * 2)],
    "falcon-7b": [("full", 32, 0, 32 * 64 * 2 * 2)],
    "chatglm3-6b": [("full", 28, 0, 28 * 2 * 128 * 2 * 2)],
    "gemma-3-27b-it": [("full", 10, 0, 10 * 16 * 128 * 2 * 2), ("sliding", 52, 1024, 52 * 16 * 128 * 2 * 2)],
    "starcoder2-15b": [("sliding", 40, 4096, 40 * 4 * 128 * 2 * 2)],
    "moonshotai/Kimi-K3": [("full", 24, 0, 24 * (512 + 64) * 2)],
    "nvidia/Llama-3_3-Nemotron-Super-49B-v1": [("full", 49, 0, 49 * 8 * 128 * 2 * 2)],
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": [("full", 6, 0, 6 * 2 * 128 * 2 * 2)],
    "stepfun-ai/Step-3.7-Flash": [("full", 12, 0, 12 * 8 * 128 * 2 * 2), ("sliding", 33, 512, 33 * 8 * 128 * 2 * 2)],
    "Hunyuan-A13B": [("full", 32, 0, 32 * 8 * 128 * 2 * 2)],
    "LFM2.5-VL-1.6B": [("full", 6, 0, 6 * 8 * 64 * 2 * 2)],
    "Llama-3.2-90B-Vision": [("full", 80, 0, 327_680)],  # 20 cross-attention layers keep nothing of the text
    "zai-org/GLM-5-FP8": [("full", 78, 0, 89_856 + 10_296)],  # latent, and index keys in 8 bits with a scale
}


@pytest.mark.parametrize("name", KEPT)
def test_a_token_takes_the_bytes_counted_by_hand(name: str) -> None:
    found = [(g.kind, g.layers, g.window, g.layers * g.bytes_per_token) for g in spec(name).kv_groups()]

    assert [row[:3] for row in found] == [row[:3] for row in KEPT[name]]
    assert [row[3] for row in found] == pytest.approx([row[3] for row in KEPT[name]], rel=1e-12)


# Bytes of recurrent state of a sequence: convolutions in 16 bits, the recurrence in 32.
STATES = {
    "Qwen/Qwen3.5-35B-A3B": 30 * ((2 * 16 * 128 + 32 * 128) * 3 * 2 + 32 * 128 * 128 * 4),
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": 23 * ((64 * 64 + 2 * 8 * 128) * 3 * 2 + 64 * 64 * 128 * 4),
    "moonshotai/Kimi-K3": 69 * (3 * 96 * 128 * 3 * 2 + 96 * 128 * 128 * 4),
    "LFM2.5-VL-1.6B": 10 * 2048 * 2 * 2,
}


@pytest.mark.parametrize(("name", "size"), STATES.items())
def test_a_sequence_keeps_the_published_state(name: str, size: int) -> None:
    assert spec(name).state_bytes() == size
    assert spec(name).state_bytes(tp=2) == size / 2


@pytest.mark.parametrize(
    ("name", "weights", "gigabytes", "kv"),
    [
        ("Qwen/Qwen3-32B-FP8-Static-PerTensor", "fp8", 34.3, "fp8"),
        ("nvidia/Llama-3.1-70B-Instruct-FP8", "fp8", 72.7, "fp8"),
        ("RedHatAI-FP8-KV", "fp8", 9.1, "fp8"),
        ("RedHatAI-w8a16", "w8a16", 9.1, ""),
        ("meta-fbgemm_fp8", "fp8", 9.14, ""),  # one down projection stays in 16 bits
        ("modelopt-W4A16_AWQ", "awq-int4", 5.73, ""),
        ("mxfp4-pack-quantized", "mxfp4-linear", 5.81, ""),
        ("moonshotai/Kimi-K3", "mxfp4-linear", 1554, ""),  # experts in 4 bits, attention and shared experts in 16
        ("deepseek-ai/DeepSeek-V4-Flash", "mxfp4-linear", 155.4, ""),  # experts in 4 bits, the rest in 8
        ("zai-org/GLM-5-FP8", "fp8", 746, ""),
    ],
)
def test_number_formats_are_those_of_the_checkpoint(name: str, weights: str, gigabytes: float, kv: str) -> None:
    model = spec(name)

    assert (model.weights, model.kv_wanted) == (weights, kv)
    assert model.weight_bytes() / 1e9 == pytest.approx(gigabytes, rel=0.01)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("tp", [1, 2, 4])
def test_cutting_never_loses_weights(name: str, tp: int) -> None:
    model = spec(name)
    if model.heads % tp:
        pytest.skip(f"{model.heads} heads are not cut over {tp}")

    assert model.weight_bytes() <= tp * model.weight_bytes(tp) * (1 + 1e-12)
    assert sum(s.layers for s in model.linear_shapes(tp)) >= model.layers
    assert model.part(0, model.layers) is model
    halves = model.part(0, model.layers // 2), model.part(model.layers // 2, model.layers)
    ends = sum(model.end_weight_bytes())
    assert sum(sum(map(sum, half.layer_weight_bytes())) for half in halves) == pytest.approx(
        sum(map(sum, model.layer_weight_bytes())), rel=1e-9
    )
    assert ends > 0


def test_a_model_that_writes_by_diffusion_is_refused(tmp_path) -> None:
    config = {"model_type": "llada2_moe", "architectures": ["LLaDA2MoeModelLM"], "hidden_size": 2048, "num_hidden_layers": 20, "vocab_size": 157184,
              "num_attention_heads": 16, "num_key_value_heads": 4, "intermediate_size": 5120}  # fmt: skip
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config))
    with pytest.raises(NotModelledError, match="diffusion"):
        load_model(str(file))
