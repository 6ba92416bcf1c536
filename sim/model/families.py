"""What the model families of Hugging Face leave unsaid in their ``config.json``: biases, norms, layer patterns, defaults.

*Source*: transformers, ``models/<model_type>/configuration_*.py`` and ``modeling_*.py`` (5.0); vLLM ``model_executor/models``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

Fields = dict[str, Any]
Config = Mapping[str, Any]
Rule = Callable[[Config, Fields], None]

_KINDS = {"full_attention": "full", "sliding_attention": "sliding", "chunked_attention": "chunked", "linear_attention": "linear"}


def layer_kinds(c: Config) -> tuple[str, ...]:
    """Attention kinds a config lists under ``layer_types``; empty when it lists none. Raises KeyError for an unknown kind."""
    return tuple(_KINDS[kind] for kind in c.get("layer_types") or ())


def every(layers: int, period: int, common: str, special: str = "full") -> tuple[str, ...]:
    """``special`` in each layer whose 1-based number is a multiple of ``period``, ``common`` in the others."""
    return tuple(special if (i + 1) % period == 0 else common for i in range(layers))


def _llama(c: Config, f: Fields) -> None:
    f["attention_bias"] = f["output_bias"] = bool(c.get("attention_bias", False))
    f["mlp_bias"] = bool(c.get("mlp_bias", False))


def _mistral(c: Config, f: Fields) -> None:
    _window(c, f)


def _window(c: Config, f: Fields) -> None:
    """A window in every layer, unless the config says which layers have it."""
    if c.get("sliding_window") and c.get("use_sliding_window", True) and f["window"] < f["max_position"] and not f["attention"]:
        f["attention"] = ("sliding",) * f["layers"]


def _mixtral(c: Config, f: Fields) -> None:
    f |= {"n_experts": c["num_local_experts"], "top_k": c["num_experts_per_tok"], "moe_intermediate": c["intermediate_size"]}


def _qwen2(c: Config, f: Fields) -> None:
    f["attention_bias"] = True
    if not c.get("use_sliding_window", False):
        f["attention"], f["window"] = (), 0


def _qwen_experts(c: Config, f: Fields) -> None:
    f |= {"n_experts": c["num_experts"], "top_k": c["num_experts_per_tok"], "moe_intermediate": c["moe_intermediate_size"]}
    f["shared_intermediate"] = c.get("shared_expert_intermediate_size", 0) or 0
    f["n_shared_experts"] = 1 if f["shared_intermediate"] else 0
    step, dense = c.get("decoder_sparse_step", 1), set(c.get("mlp_only_layers") or ())
    f["moe_layers"] = tuple(i not in dense and (i + 1) % step == 0 for i in range(f["layers"]))


def _qwen2_moe(c: Config, f: Fields) -> None:
    _qwen2(c, f)
    _qwen_experts(c, f)


def _qwen3(c: Config, f: Fields) -> None:
    f["attention_bias"] = f["output_bias"] = bool(c.get("attention_bias", False))
    f["qk_norm"] = 2 * f["head_dim"]
    if not c.get("use_sliding_window", False):
        f["attention"], f["window"] = (), 0


def _qwen3_moe(c: Config, f: Fields) -> None:
    _qwen3(c, f)
    _qwen_experts(c, f)


def _deltanet(c: Config, f: Fields) -> None:
    """Qwen3-Next and Qwen3.5: three gated DeltaNet layers to one gated attention layer."""
    kinds = layer_kinds(c) or every(f["layers"], c.get("full_attention_interval", 4), "linear")
    f |= {"attention": kinds, "window": 0, "qk_norm": 2 * f["head_dim"], "attention_gate": bool(c.get("attn_output_gate", True))}
    f |= {"linear_key_heads": c["linear_num_key_heads"], "linear_value_heads": c["linear_num_value_heads"]}
    f |= {"linear_key_dim": c["linear_key_head_dim"], "linear_value_dim": c["linear_value_head_dim"]}
    f["linear_conv"] = c["linear_conv_kernel_dim"]


def _deltanet_moe(c: Config, f: Fields) -> None:
    _deltanet(c, f)
    _qwen_experts(c, f)


def _opt(c: Config, f: Fields) -> None:
    f |= {"gated_mlp": False, "attention_bias": True, "output_bias": True, "mlp_bias": True, "norm_bias": True}
    f["learned_positions"] = f["max_position"] + 2
    width = c.get("word_embed_proj_dim", f["hidden"])
    f["embedding_dim"] = width if width != f["hidden"] else 0


def _bloom(c: Config, f: Fields) -> None:
    f |= {"gated_mlp": False, "attention_bias": True, "output_bias": True, "mlp_bias": True, "norm_bias": True}


def _phi(c: Config, f: Fields) -> None:
    f |= {
        "gated_mlp": False,
        "attention_bias": True,
        "output_bias": True,
        "mlp_bias": True,
        "norm_bias": True,
        "norms_per_layer": 1,
    }


def _phi3(c: Config, f: Fields) -> None:
    _window(c, f)


def _gemma(c: Config, f: Fields) -> None:
    f["attention_bias"] = f["output_bias"] = bool(c.get("attention_bias", False))


def _gemma2(c: Config, f: Fields) -> None:
    _gemma(c, f)
    f["norms_per_layer"] = 4
    f["attention"] = layer_kinds(c) or every(f["layers"], 2, "sliding")


def _gemma3(c: Config, f: Fields) -> None:
    _gemma(c, f)
    f |= {"norms_per_layer": 4, "qk_norm": 2 * f["head_dim"]}
    f["attention"] = layer_kinds(c) or every(f["layers"], c.get("sliding_window_pattern", 6), "sliding")


def _gpt_oss(c: Config, f: Fields) -> None:
    _mixtral(c, f)
    f |= {"attention_bias": True, "output_bias": True, "mlp_bias": True}
    f["attention"] = layer_kinds(c) or every(f["layers"], 2, "sliding")


def _leading_dense(c: Config, f: Fields) -> None:
    """DeepSeek and GLM: the first layers are dense, shared experts are as wide as routed ones."""
    f |= {"n_experts": c["n_routed_experts"], "top_k": c["num_experts_per_tok"], "moe_intermediate": c["moe_intermediate_size"]}
    f["n_shared_experts"] = c.get("n_shared_experts") or 0
    f["shared_intermediate"] = f["n_shared_experts"] * f["moe_intermediate"]
    first, step = c.get("first_k_dense_replace", 0), c.get("moe_layer_freq", 1)
    f["moe_layers"] = tuple(i >= first and i % step == 0 for i in range(f["layers"]))


def _deepseek(c: Config, f: Fields) -> None:
    _leading_dense(c, f)
    f |= {"q_lora_rank": c.get("q_lora_rank") or 0, "kv_lora_rank": c["kv_lora_rank"], "v_head_dim": c["v_head_dim"]}
    f |= {"qk_nope_head_dim": c["qk_nope_head_dim"], "qk_rope_head_dim": c["qk_rope_head_dim"]}
    f["head_dim"] = f["qk_nope_head_dim"] + f["qk_rope_head_dim"]
    if c.get("index_n_heads"):
        f |= {"index_heads": c["index_n_heads"], "index_head_dim": c["index_head_dim"], "index_top_k": c["index_topk"]}


def _glm4_moe(c: Config, f: Fields) -> None:
    _leading_dense(c, f)
    f["attention_bias"] = bool(c.get("attention_bias", False))
    f["qk_norm"] = 2 * f["head_dim"] if c.get("use_qk_norm", False) else 0


def _minimax_m2(c: Config, f: Fields) -> None:
    _mixtral(c, f)
    f["qk_norm"] = (f["heads"] + f["kv_heads"]) * f["head_dim"]


def _llama4(c: Config, f: Fields) -> None:
    """Chunked attention except in every fourth layer, experts in every ``interleave_moe_layer_step``-th, one shared expert."""
    _llama(c, f)
    step = c.get("interleave_moe_layer_step", 1)
    f |= {"n_experts": c["num_local_experts"], "top_k": c["num_experts_per_tok"], "moe_intermediate": c["intermediate_size"]}
    f |= {"n_shared_experts": 1, "shared_intermediate": c["intermediate_size"]}
    f["intermediate"] = c.get("intermediate_size_mlp", c["intermediate_size"])
    f["moe_layers"] = tuple((i + 1) % step == 0 for i in range(f["layers"]))
    if c.get("attention_chunk_size"):
        f["window"] = c["attention_chunk_size"]
        f["attention"] = layer_kinds(c) or every(f["layers"], 4, "chunked")


# model_type → what to add, and whether input and output embeddings are one tensor when the config does not say.
FAMILIES: Mapping[str, tuple[Rule, bool]] = MappingProxyType(
    {
        "llama": (_llama, False),
        "mistral": (_mistral, False),
        "mixtral": (_mixtral, False),
        "qwen2": (_qwen2, False),
        "qwen2_moe": (_qwen2_moe, False),
        "qwen3": (_qwen3, False),
        "qwen3_moe": (_qwen3_moe, False),
        "qwen3_next": (_deltanet_moe, False),
        "qwen3_5": (_deltanet, False),
        "qwen3_5_text": (_deltanet, False),
        "qwen3_5_moe": (_deltanet_moe, False),
        "qwen3_5_moe_text": (_deltanet_moe, False),
        "opt": (_opt, True),
        "bloom": (_bloom, True),
        "phi": (_phi, False),
        "phi3": (_phi3, False),
        "gemma": (_gemma, True),
        "gemma2": (_gemma2, True),
        "gemma3": (_gemma3, True),
        "gemma3_text": (_gemma3, True),
        "gpt_oss": (_gpt_oss, False),
        "deepseek_v2": (_deepseek, False),
        "deepseek_v3": (_deepseek, False),
        "deepseek_v32": (_deepseek, False),
        "kimi_k2": (_deepseek, False),
        "glm4_moe": (_glm4_moe, False),
        "minimax_m2": (_minimax_m2, False),
        "llama4": (_llama4, False),
        "llama4_text": (_llama4, False),
    }
)
