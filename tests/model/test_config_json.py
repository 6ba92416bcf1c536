"""Reading a Hugging Face ``config.json``: what is found, and what a bad file gets."""

import json
from pathlib import Path
from typing import Any

import pytest

from sim.errors import ConfigError, DataError, NotModelledError, UnknownNameError
from sim.model import load_model, spec_from_config
from sim.model.serving import cache_warning, served

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}


def test_a_path_gives_the_same_model_as_the_built_in_name(tmp_path: Path) -> None:
    folder = tmp_path / "my-llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))

    by_file, by_folder = load_model(str(folder / "config.json")), load_model(str(folder))

    assert by_file == by_folder
    assert by_file.name == "my-llama"
    assert by_file.architecture == "LlamaForCausalLM"
    assert by_file.param_count() == load_model("llama-3.1-8b").param_count()


@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "intermediate_size"])
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.config\.{key}: is missing in the config of mine"):
        spec_from_config({k: v for k, v in LLAMA.items() if k != key}, "mine")


@pytest.mark.parametrize("value", ["4096", -1, 0, 4096.5, True])
def test_a_number_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"model\.config\.hidden_size: must be a whole number of at least 1"):
        spec_from_config({**LLAMA, "hidden_size": value}, "mine")


def test_a_family_key_that_is_missing_is_named() -> None:
    with pytest.raises(ConfigError, match=r"model\.config\.num_experts: is missing in the config of mine"):
        spec_from_config({**LLAMA, "model_type": "mixtral"}, "mine")


def test_files_that_are_no_config(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")

    with pytest.raises(DataError, match="no such file"):
        load_model(str(tmp_path / "absent.json"))
    with pytest.raises(DataError, match="no such file"):
        load_model(str(tmp_path / "absent"))
    with pytest.raises(DataError, match="no readable JSON"):
        load_model(str(tmp_path / "broken.json"))
    with pytest.raises(DataError, match="one JSON object"):
        load_model(str(tmp_path / "list.json"))
    with pytest.raises(ConfigError, match="built-in name or the path"):
        load_model(" ")


@pytest.mark.parametrize("extra", [{"is_encoder_decoder": True}, {"model_type": "mamba2"}, {"layer_types": ["mamba"] * 32}])
def test_other_architectures_are_refused(extra: dict[str, Any]) -> None:
    with pytest.raises(NotModelledError):
        spec_from_config({**LLAMA, **extra}, "mine")


def test_an_unknown_family_is_refused_by_name() -> None:
    newcomer = {
        **LLAMA,
        "model_type": "newcomer",
        "architectures": ["NewForCausalLM"],
        "n_routed_experts": 256,
        "kv_lora_rank": 512,
    }

    with pytest.raises(
        NotModelledError, match=r"model\.config\.model_type: this architecture is not modelled \(NewForCausalLM\)"
    ) as caught:
        spec_from_config(newcomer, "mine")

    assert "latent attention, routed experts" in str(caught.value)
    assert "nearest modelled family: deepseek_v3" in str(caught.value)
    with pytest.raises(NotModelledError, match="nearest modelled family: qwen3_moe"):
        spec_from_config({**LLAMA, "model_type": "qwen3_mof", "architectures": None}, "mine")
    by_class = {**LLAMA, "model_type": "newcomer"}  # engines choose the model class by architectures
    assert spec_from_config(by_class, "mine") == spec_from_config(LLAMA, "mine")


@pytest.mark.parametrize(
    ("quantization", "weights"),
    [
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "awq", "bits": 4}, "awq-int4"),
        ({"quant_method": "gptq", "bits": 8}, "gptq-int8"),
        ({"quant_method": "compressed-tensors", "format": "float-quantized"}, "fp8"),
        ({"quant_method": "compressed-tensors", "format": "int-quantized"}, "w8a8"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4"),
        ({"quant_method": "modelopt", "quant_algo": "W4A16_AWQ"}, "awq-int4"),
        ({"quant_algo": "FP8", "ignore": ["lm_head"]}, "fp8"),
        ({"quant_method": "fbgemm_fp8", "modules_to_not_convert": []}, "fp8"),
        ({"quant_method": "compressed-tensors", "format": "mxfp4-pack-quantized"}, "mxfp4-linear"),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "pack-quantized",
                "config_groups": {"g": {"weights": {"num_bits": 8}}},
            },
            "w8a16",
        ),
    ],
)
def test_the_number_format_of_a_checkpoint_is_found(quantization: dict[str, Any], weights: str) -> None:
    assert spec_from_config({**LLAMA, "quantization_config": quantization}, "mine").weights == weights


@pytest.mark.parametrize(
    ("quantization", "key", "value"),
    [
        ({"quant_method": "eetq"}, "quant_method", "eetq"),
        ({"quant_method": "torchao", "quant_type": {"default": {"_type": "UIntXWeightOnlyConfig"}}}, "quant_type.default._type", "UIntX"),
        ({"quant_method": "torchao", "quant_type": "autoquant"}, "quant_type", "autoquant"),
        ({"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 2, "group_size": 64}}}, "quant_config.weight_quant_params.nbits", "2"),
        ({"quant_method": "modelopt", "quant_algo": "W2A2"}, "quant_algo", "W2A2"),
        ({"quant_method": "compressed-tensors", "format": "sparse-24-bitmask"}, "format", "sparse-24-bitmask"),
        ({"quant_method": "gptq", "bits": 5}, "bits", "5"),
        ({"quant_method": "compressed-tensors", "format": "float-quantized", "kv_cache_scheme": {"type": "int", "num_bits": 4}}, "kv_cache_scheme", "int 4"),
    ],
)  # fmt: skip
def test_a_number_format_that_is_not_modelled_is_refused_by_name(quantization: dict[str, Any], key: str, value: str) -> None:
    with pytest.raises(NotModelledError, match=rf"quantization_config\.{key}: .*{value}"):
        spec_from_config({**LLAMA, "quantization_config": quantization}, "mine")


def test_a_quantisation_file_beside_the_config_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    plain = load_model(str(tmp_path / "config.json"))
    folder = tmp_path / "quantised"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    (folder / "hf_quant_config.json").write_text(
        json.dumps({"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}})
    )
    found = load_model(str(folder))

    assert (plain.weights, plain.kv_wanted) == ("bf16", "")
    assert (found.weights, found.kv_wanted, found.kv_dtype) == ("fp8", "fp8", "bf16")
    assert served(found, follows_checkpoint=True).kv_bytes_per_token() == plain.kv_bytes_per_token() / 2
    assert served(found, follows_checkpoint=False).kv_bytes_per_token() == plain.kv_bytes_per_token()
    assert load_model(str(folder), kv_cache="bf16").kv_wanted == ""


@pytest.mark.parametrize("scheme", [{"type": "float", "num_bits": 8}])
def test_the_kv_dtype_of_a_checkpoint_is_found(scheme: dict[str, Any]) -> None:
    block = {"quant_method": "compressed-tensors", "format": "float-quantized", "kv_cache_scheme": scheme}

    assert spec_from_config({**LLAMA, "quantization_config": block}, "mine").kv_wanted == "fp8"
    assert spec_from_config({**LLAMA, "quantization_config": {**block, "kv_cache_scheme": None}}, "mine").kv_wanted == ""


def test_layers_that_forget_are_warned_about_until_their_caches_are_modelled() -> None:
    assert cache_warning(load_model("llama-3.1-8b")) is None
    gemma = cache_warning(load_model("gemma-3-27b"))
    assert gemma is not None and "52 sliding-window layers (keep only their window) of 62" in gemma
    assert cache_warning(load_model("gemma-3-27b"), kept=("sliding",)) is None
    linear = cache_warning(load_model("qwen3-next-80b-a3b"))
    assert linear is not None and "36 recurrent layers" in linear


def test_unknown_number_formats() -> None:
    with pytest.raises(NotModelledError, match="eetq"):
        spec_from_config({**LLAMA, "quantization_config": {"quant_method": "eetq"}}, "mine")
    with pytest.raises(UnknownNameError, match="did you mean 'fp8'"):
        load_model("qwen3-8b", weights="fp88")
    with pytest.raises(UnknownNameError, match="model.kv_cache"):
        load_model("qwen3-8b", kv_cache="int3")


MOE: dict[str, Any] = {
    **LLAMA, "model_type": "newcomer_moe", "architectures": ["NewcomerMoeForCausalLM"], "head_dim": 128, "num_experts": 64,
    "num_experts_per_tok": 8, "moe_intermediate_size": 1024, "first_k_dense_replace": 1, "n_shared_experts": 1,
}  # fmt: skip


def test_an_unknown_family_of_known_fields_is_read_and_says_so() -> None:
    model = spec_from_config(MOE, "mine")
    layer = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 2 * 4096
    experts = 64 * (3 * 4096 * 1024 + 4096 + 1) + 3 * 4096 * 1024
    by_hand = 2 * 128256 * 4096 + 4096 + 32 * layer + 3 * 4096 * 14336 + 31 * experts

    assert model.param_count() == by_hand
    assert model.warnings == (f"mine: architecture 'newcomer_moe' read from fields, not verified: {by_hand:,} parameters",)


@pytest.mark.parametrize(
    "extra", [{"swa_head_dim": 64}, {"hc_mult": 4}, {"layer_types": ["mamba"] * 32}, {"ngram_table": [1, 2]}]
)
def test_one_key_that_is_not_understood_is_enough_to_refuse(extra: dict[str, Any]) -> None:
    with pytest.raises(NotModelledError) as caught:
        spec_from_config({**MOE, **extra}, "mine")

    assert "mamba" in str(caught.value) or next(iter(extra)) in str(caught.value)


def test_a_config_that_was_edited_is_read_again(tmp_path):
    file = tmp_path / "config.json"
    config = json.loads((Path(__file__).parents[2] / "profiles" / "models" / "llama-3.1-8b.json").read_text())["config"]
    file.write_text(json.dumps(config))
    assert [load_model(str(place)).layers for place in (file, tmp_path)] == [32, 32]
    file.write_text(json.dumps(config | {"num_hidden_layers": 16}))
    assert [load_model(str(place)).layers for place in (file, tmp_path)] == [16, 16]
    (tmp_path / "hf_quant_config.json").write_text(
        json.dumps({"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": None}})
    )
    assert load_model(str(tmp_path)).weight_bytes() < 0.7 * load_model("llama-3.1-8b").weight_bytes()


def test_a_tower_that_names_no_sizes_attends_with_those_of_its_class():
    """Published Pixtral sections leave sizes to the configuration class; naming the same ones changes nothing."""
    said = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
    section = {"model_type": "pixtral", "patch_size": 16, "image_size": 1024}
    short, whole = (spec_from_config({**LLAMA, "vision_config": {**section, **more}}, "mine") for more in ({}, said))
    assert short.images == whole.images
    assert short.images.attention == 24 * 1024
