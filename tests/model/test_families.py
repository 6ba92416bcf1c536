"""A published model of every family: parameters against the total of its safetensors index or its model card."""

import json
from pathlib import Path
from typing import Any

import pytest

from sim.errors import NotModelledError
from sim.model import load_model, spec_from_config
from sim.model.families import FAMILIES

LINES = Path(__file__).with_name("families.jsonl").read_text(encoding="utf-8").splitlines()
ROWS: dict[str, dict[str, Any]] = {row["name"]: row for row in map(json.loads, LINES)}


@pytest.mark.parametrize("name", ROWS)
def test_parameters_are_those_the_publisher_states(name: str) -> None:
    model = spec_from_config(ROWS[name]["config"], name)

    assert model.param_count() / 1e9 == pytest.approx(ROWS[name]["billions"], rel=0.02)
    assert model.warnings == ()
    assert model.active_param_count() <= model.param_count()
    assert model.weight_bytes() == pytest.approx(2 * model.param_count())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("qwen-7b", 32 * 32 * 128 * 2 * 2),
        ("falcon-40b", 60 * 8 * 64 * 2 * 2),
        ("starcoder", 40 * 1 * 128 * 2 * 2),
        ("glm-4-9b-chat", 40 * 2 * 128 * 2 * 2),
        ("minicpm3", 62 * (256 + 32) * 2),
        ("hunyuan-large", 32 * 8 * 128 * 2 * 2),  # every second layer borrows keys and values
        ("kimi-linear-48b", 7 * 576 * 2),
        ("jamba-mini", 4 * 8 * 128 * 2 * 2),
        ("gemma-4-e4b", (20 * 2 * 256 + 4 * 2 * 512) * 2 * 2),  # the last 18 layers borrow
        ("minimax-text-01", 10 * 8 * 128 * 2 * 2),
    ],
)
def test_a_token_takes_the_bytes_counted_by_hand(name: str, expected: float) -> None:
    assert spec_from_config(ROWS[name]["config"], name).kv_bytes_per_token() == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("jamba-mini", 28 * (8192 * 3 * 2 + 8192 * 16 * 4)),
        ("nemotron-nano-9b-v2", 27 * ((128 * 80 + 2 * 8 * 128) * 3 * 2 + 128 * 80 * 128 * 4)),
        ("minimax-text-01", 70 * 64 * 128 * 128 * 4),
        ("lfm2-8b-a1b", 18 * 2048 * 2 * 2),
    ],
)
def test_a_sequence_keeps_the_state_counted_by_hand(name: str, expected: int) -> None:
    assert spec_from_config(ROWS[name]["config"], name).state_bytes() == expected


def test_every_family_is_written_down_once() -> None:
    assert len(FAMILIES) > 120
    assert all(name == name.strip() for name in FAMILIES)
    assert load_model("llama-3.1-8b").own_blocks == ()


def test_towers_of_several_kinds_are_added_and_those_without_sizes_said() -> None:
    text = {"model_type": "deepseek_v2", "hidden_size": 1280, "intermediate_size": 6848, "num_hidden_layers": 12, "num_attention_heads": 10,
            "num_key_value_heads": 10, "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6, "moe_intermediate_size": 896,
            "first_k_dense_replace": 1, "kv_lora_rank": None, "q_lora_rank": None, "qk_nope_head_dim": 0, "qk_rope_head_dim": 0,
            "use_mla": False, "v_head_dim": 0, "vocab_size": 129280, "max_position_embeddings": 8192}  # fmt: skip
    towers = {"model_type": "vision", "mlp_ratio": 3.7362, "width": {"sam_vit_b": {"layers": 12, "width": 768}}}
    model = spec_from_config({"model_type": "deepseek_vl_v2", "language_config": text, "vision_config": towers}, "ocr")
    assert model.vision_params == 12 * 12 * 768**2
    towers["width"] = {"sam_vit_b": {"heads": 12}}
    model = spec_from_config({"model_type": "deepseek_vl_v2", "language_config": text, "vision_config": towers}, "ocr")

    assert model.kv_bytes_per_token() == 12 * 10 * 128 * 2 * 2
    assert any("the size of the encoder in vision_config is not known" in w for w in model.warnings)


def test_heads_that_differ_by_layer_without_blocks_are_refused() -> None:
    config = ROWS["yi-34b"]["config"] | {"model_type": "deci", "num_key_value_heads_per_layer": [4, 2]}
    with pytest.raises(NotModelledError, match="num_key_value_heads_per_layer"):
        spec_from_config(config, "decilm")


def test_a_published_size_that_counts_draft_layers_counts_them_and_loads_without_them() -> None:
    config = {
        "model_type": "mimo", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151680, "max_position_embeddings": 32768, "num_nextn_predict_layers": 1,
    }  # fmt: skip
    model = spec_from_config(config, "mimo-7b")
    assert model.param_count() / 1e9 == pytest.approx(7.83, rel=0.005)
    assert model.weight_bytes() == pytest.approx(2 * (model.param_count() - model.draft_params))
    assert model.active_param_count() == model.param_count() - model.draft_params


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"num_local_experts": 8, "num_experts_per_tok": 2}, "num_local_experts"),
        ({"kv_lora_rank": 512}, "kv_lora_rank"),
        ({"mamba_d_state": 16}, "mamba_d_state"),
    ],
)
def test_a_known_family_that_promises_layers_its_rule_does_not_make_is_refused(change: dict[str, int], key: str) -> None:
    with pytest.raises(NotModelledError, match=key):
        spec_from_config(ROWS["yi-34b"]["config"] | change, "x")


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "phi4flash", "mamba_d_state": 16, "mb_per_layer": 2},
        {"model_type": "rwkv6", "rwkv_version": "6_0"},
        {"model_type": "zamba2", "mamba_d_state": 64, "n_mamba_heads": 112},
        {"model_type": "openelm", "num_query_heads": [12] * 36},
        {"model_type": "phi3small", "blocksparse_block_size": 64},
        {"model_type": "recurrent_gemma", "lru_width": 4096},
        {"model_type": "plamo2", "mamba_enabled": True},
        {"model_type": "bailing_moe_linear", "layer_group_size": 5},
    ],
)
def test_what_is_not_modelled_is_refused_by_its_name(config: dict[str, Any]) -> None:
    sizes = {k: v for k, v in ROWS["yi-34b"]["config"].items() if k != "model_type"}
    with pytest.raises(NotModelledError, match=f"got '{config['model_type']}'"):
        spec_from_config(sizes | config, "x")
