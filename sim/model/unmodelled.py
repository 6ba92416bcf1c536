"""Refusing an architecture that is not modelled: by its name, with what its config says of it and the nearest modelled family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim.errors import NotModelledError, did_you_mean
from sim.model.families import FAMILIES
from sim.model.from_fields import why_not
from sim.model.keys import Keys

Config = Mapping[str, Any]

# Keys that betray a kind of layer, what it is, and a modelled family that has such layers.
_SIGNS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("kv_lora_rank",), "latent attention", "deepseek_v3"),
    (("index_topk", "sparse_attention_config"), "sparse attention", "deepseek_v32"),
    (("linear_num_key_heads", "linear_attn_config"), "linear attention", "qwen3_next"),
    (("ssm_state_size", "state_size", "mamba_d_state", "ssm_cfg", "mamba_num_heads"), "state-space layers", "qwen3_next"),
    (("rwkv_version", "attention_hidden_size"), "RWKV layers", "qwen3_next"),
    (("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts"), "routed experts", "qwen3_moe"),
    (("block_configs",), "blocks of different shapes", "llama"),
    (("cross_attention_layers",), "cross-attention layers", "llama"),
    (("sliding_window", "hybrid_layer_pattern", "sliding_window_pattern"), "sliding windows", "gemma3_text"),
)


_DIFFUSION = ("llada", "dream", "sdar", "diffu")


def writes_otherwise(model_type: str) -> bool:
    """Whether a model of this name writes its text by diffusion, block by block, rather than token by token."""
    return any(name in model_type.lower() for name in _DIFFUSION)


def not_modelled(config: Config, text: Config, model_type: str, field: str) -> NotModelledError:
    """The refusal of a ``model_type`` that `sim.model.families` does not know."""
    names = config.get("architectures") or text.get("architectures") or []
    architecture = str(names[0]) if isinstance(names, list) and names else ""
    signs = [(what, like) for keys, what, like in _SIGNS if any(text.get(k) for k in keys)]
    known = ", ".join(what for what, _ in signs)
    why = "this architecture is not modelled" + (f" ({architecture})" if architecture else "")
    if not model_type:
        why = "the config names no model_type" + (f" ({architecture})" if architecture else "")
    if config.get("is_encoder_decoder") or text.get("is_encoder_decoder"):
        return NotModelledError(field, model_type, "encoder-decoder models are not modelled", "decoder-only models")
    if writes_otherwise(model_type):
        return NotModelledError(
            field, model_type, "models that write by diffusion are not modelled", "models that write token by token"
        )
    if known:
        why += f"; its config has {known}"
    strange = why_not(Keys(text, "", field))
    if model_type and strange:
        why += f"; it cannot be read from its fields: {strange}"
    near = did_you_mean(model_type, FAMILIES).removeprefix("did you mean ").removesuffix("?")
    nearest = near.strip("'") or (signs[0][1] if signs else "llama")
    return NotModelledError(
        field,
        model_type,
        why,
        hint=f"nearest modelled family: {nearest}; the {len(FAMILIES)} that are known: servesim profiles families",
    )
