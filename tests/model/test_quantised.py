"""Number formats tensor by tensor: lists of modules, groups, mixed precision."""

from typing import Any

import pytest

from sim.model import ModelSpec, spec_from_config
from sim.model.quantised import Matcher
from tests.model.test_config_json import LLAMA

LAYER = {"q": 4096**2, "k": 4096 * 1024, "v": 4096 * 1024, "o": 4096**2, "gate_up": 2 * 4096 * 14336, "down": 4096 * 14336}
ENDS = 2 * (2 * 128256 * 4096 + 4096) + 32 * 2 * 2 * 4096  # embeddings, head and norms in 16 bits


def quantised(**block: Any) -> ModelSpec:
    return spec_from_config({**LLAMA, "quantization_config": block}, "mine")


def size(bits: float, sixteen: dict[str, int] | None = None) -> float:
    """Bytes of the Llama with linear layers in ``bits``, but ``sixteen`` of each tensor (layers) in 16 bits."""
    out = ENDS + 0.0
    for name, elements in LAYER.items():
        plain = (sixteen or {}).get(name, 0)
        out += elements * (plain * 2 + (32 - plain) * bits / 8)
    return out


FP8 = 8 + 32 / 128**2


@pytest.mark.parametrize(
    ("ignore", "sixteen"),
    [
        (["lm_head"], {}),
        (["model.layers.0.mlp.down_proj"], {"down": 1}),
        (["model.layers.0.mlp"], {"gate_up": 1, "down": 1}),
        (["self_attn"], {"q": 32, "k": 32, "v": 32, "o": 32}),
        (["re:.*self_attn.*"], {"q": 32, "k": 32, "v": 32, "o": 32}),
        (["re:.*layers\\.(0|1)\\.self_attn\\.(q|k)_proj$"], {"q": 2, "k": 2}),
        (["model.layers.3.self_attn*"], {"q": 1, "k": 1, "v": 1, "o": 1}),
        (["*down_proj"], {"down": 32}),
        (["model.layers.1.self_attn.qkv_proj", "model.layers.2.mlp.gate_up_proj"], {"q": 1, "k": 1, "v": 1, "gate_up": 1}),
        (["mtp.layers.0.mlp", "model.visual.layers.1.mlp", "model.layers.0.input_layernorm", "model.layers.0.mlp.gate"], {}),
        (["language_model.model.layers.5.mlp.down_proj"], {"down": 1}),
    ],
)
def test_modules_on_the_list_stay_in_sixteen_bits(ignore: list[str], sixteen: dict[str, int]) -> None:
    for key in ("ignore", "modules_to_not_convert", "ignored_layers"):
        assert quantised(quant_method="fp8", **{key: ignore}).weight_bytes() == pytest.approx(size(FP8, sixteen))


@pytest.mark.parametrize(
    ("block", "bits"),
    [
        ({"quant_method": "gptq", "bits": 3, "group_size": 128}, 3 + 19 / 128),
        ({"quant_method": "gptq", "bits": 4, "group_size": 32}, 4 + 20 / 32),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, 8 + 24 / 4096),
        ({"quant_method": "awq", "w_bit": 4, "q_group_size": 64}, 4 + 20 / 64),
        ({"quant_method": "auto-round", "bits": 4, "group_size": 128}, 4 + 20 / 128),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_use_double_quant": True}, 4 + 8 / 64 + 32 / 64 / 256),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 8 + 32 / 4096),
        ({"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp8_e4m3"}}}, FP8),
        ({"quant_method": "quark", "global_quant_config": {"weight": [{"dtype": "fp4"}]}}, 4.25),
        ({"quant_method": "modelopt", "quant_algo": "W4A8_AWQ"}, 4 + 16 / 128),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, 4.5),
        ({"quant_method": "mxfp8"}, 8.25),
        (
            {
                "quant_method": "hqq",
                "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64}},
                "skip_modules": ["lm_head"],
            },
            4.5,
        ),
        ({"quant_method": "torchao", "quant_type": "int4_weight_only", "quant_type_kwargs": {"group_size": 64}}, 4.5),
        (
            {
                "quant_method": "torchao",
                "quant_type": {"default": {"_type": "Int4WeightOnlyConfig", "_data": {"group_size": 128}}},
            },
            4.25,
        ),
        ({"quant_method": "torchao", "quant_type": {"default": {"_type": "Float8DynamicActivationFloat8WeightConfig"}}}, FP8),
        ({"quant_method": "torchao", "quant_type": {"default": {"_type": "Int8WeightOnlyConfig", "_version": 1}}}, 8 + 32 / 4096),
        (
            {"quant_method": "compressed-tensors", "format": "marlin-24", "config_groups": {"g": {"weights": {"num_bits": 4}}}},
            3.125,
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "pack-quantized",
                "config_groups": {
                    "g": {
                        "weights": {"num_bits": 4, "type": "int", "group_size": 128},
                        "input_activations": {"num_bits": 8, "type": "int"},
                    }
                },
            },
            4.125,
        ),
    ],
)
def test_every_kind_in_use_has_its_bits(block: dict[str, Any], bits: float) -> None:
    assert quantised(**block).weight_bytes() == pytest.approx(size(bits))


def test_torchao_names_modules_with_configs_of_their_own() -> None:
    four, eight = {"_type": "Int4WeightOnlyConfig", "_data": {"group_size": 64}}, {"_type": "Int8WeightOnlyConfig"}
    by_name = {"_default": four, "re:.*\\.mlp\\..*": eight, "model.layers.0.self_attn.q_proj": None}
    block = {
        "quant_method": "torchao",
        "quant_type": {"default": {"_type": "ModuleFqnToConfig", "_data": {"module_fqn_to_config": by_name}}},
    }
    own = quantised(**block)
    whole = quantised(quant_method="torchao", quant_type={"default": four})
    layer = {name: shape.n * shape.k for shape in own.linear_shapes(1) for name in (shape.name,)}

    assert own.weight_bytes() - whole.weight_bytes() > own.layers * layer["down"] * 3 / 8
    assert dict(own.blocks[0].formats) != dict(own.blocks[1].formats)


def test_groups_with_targets_and_mixed_precision() -> None:
    four = {"num_bits": 4, "type": "float", "group_size": 16}
    groups = {
        "a": {"targets": ["re:.*self_attn.*"], "weights": {"num_bits": 8, "type": "float"}},
        "b": {"targets": ["re:.*mlp.*"], "weights": four, "input_activations": four},
    }
    attention = sum(LAYER[n] for n in "qkvo") * 32
    mlp = (LAYER["gate_up"] + LAYER["down"]) * 32
    by_group = quantised(quant_method="compressed-tensors", format="mixed-precision", config_groups=groups)
    named = {f"model.layers.{i}.self_attn": {"quant_algo": "FP8"} for i in range(32)}
    named |= {f"model.layers.{i}.mlp": {"quant_algo": "NVFP4"} for i in range(32)} | {"lm_head": {"quant_algo": "W4A16_NVFP4"}}
    by_name = quantised(quant_method="modelopt", quant_algo="MIXED_PRECISION", quantized_layers=named)

    assert by_group.weight_bytes() == pytest.approx(ENDS + attention * FP8 / 8 + mlp * 4.5 / 8)
    assert by_name.weight_bytes() == pytest.approx(ENDS + attention * FP8 / 8 + mlp * 4.5 / 8 - 128256 * 4096 * (2 - 4.5 / 8))
    assert by_name.weights == by_group.weights == "nvfp4"
    forms = {s.name: s.form for s in by_name.linear_shapes()}
    assert forms == {"qkv": "fp8", "o": "fp8", "gate_up": "", "down": ""}
    assert by_name.head_shape().form == "nvfp4-wo"


def test_a_format_of_the_users_choice_forgets_the_list_of_another() -> None:
    config = {**LLAMA, "quantization_config": {"quant_method": "fp8", "ignore": ["self_attn"]}}

    assert spec_from_config(config, "mine", weights="fp8").weight_bytes() == spec_from_config(config, "mine").weight_bytes()
    assert spec_from_config(config, "mine", weights="bf16").own_blocks == ()
    assert spec_from_config(config, "mine", weights="w8a8").own_blocks == ()


def test_patterns() -> None:
    m = Matcher(["model.layers.7.mlp.experts", "shared_experts", "re:^model.layers.2.*o_proj"], "f")

    assert m.has(7, "mlp.experts.0.gate_proj")
    assert not m.has(8, "mlp.experts.0.gate_proj")
    assert m.has(0, "mlp.shared_experts.down_proj")
    assert m.has(2, "self_attn.o_proj")
    assert not m.has(0, "mlp.shared_expert.down_proj")
    assert not Matcher([], "f")


def test_experts_in_a_format_of_their_own_leave_the_shared_ones_alone() -> None:
    moe = {
        **LLAMA,
        "model_type": "glm4_moe",
        "n_routed_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 1024,
        "n_shared_experts": 1,
    }
    model = spec_from_config({**moe, "quantization_config": {"quant_method": "w4afp8"}}, "mine")

    assert model.weights == "w4a8-fp8"
    forms = {s.name: s.form for s in model.linear_shapes()}
    assert forms == {"qkv": "fp8", "o": "fp8", "router": "", "shared_gate_up": "fp8", "shared_down": "fp8"}


@pytest.mark.parametrize(("kind", "weights"), [("w8a8_dynamic", "w8a8"), ("w4a8_dynamic", "w4a8"), ("float", "bf16")])
def test_modelslim_names_its_format(kind: str, weights: str) -> None:
    assert spec_from_config({**LLAMA, "quantize": kind}, "mine").weights == weights
