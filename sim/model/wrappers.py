"""Where a config hides its text model: sections of multimodal configs, Mistral's own ``params.json``, wrappers that name no type.

*Source*: the configuration classes of transformers (what a text section leaves out has its class's default); vLLM
``transformers_utils/configs/mistral.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim.errors import ConfigError

Config = Mapping[str, Any]

_TEXT = ("text_config", "language_config", "llm_config", "thinker_config")
# Text towers that do not name their type: what the wrapper's configuration class takes.
TOWERS = {
    "llava": "llama", "llava_next": "llama", "vipllava": "llama", "mistral3": "mistral", "pixtral": "mistral", "gemma3": "gemma3_text",
    "gemma4": "gemma4_text", "gemma3n": "gemma3n_text", "mllama": "mllama_text_model", "llama4": "llama4_text", "idefics3": "llama",
    "smolvlm": "llama", "aya_vision": "cohere2", "llava_onevision": "qwen2", "internvl": "qwen2", "qwen2_vl": "qwen2_vl",
    "qwen2_5_vl": "qwen2_5_vl", "qwen3_vl": "qwen3_vl_text", "qwen3_vl_moe": "qwen3_vl_moe_text", "voxtral": "llama", "qwen2_audio": "qwen2",
    "deepseek_vl_v2": "deepseek_v2", "paligemma": "gemma", "idefics2": "mistral", "llava_next_video": "llama",
}  # fmt: skip
# What the class of a text section has where the section leaves it out.
_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "max_position_embeddings",
)
_DEFAULTS = {
    "llama": (4096, 11008, 32, 32, None, 32000, 2048),
    "mistral": (4096, 14336, 32, 32, 8, 32000, 131072),
    "mixtral": (4096, 14336, 32, 32, 8, 32000, 131072),
    "qwen2": (4096, 22016, 32, 32, 32, 151936, 32768),
    "phi3": (3072, 8192, 32, 32, None, 32064, 4096),
    "gemma": (3072, 24576, 28, 16, 16, 256000, 8192),
    "gemma2": (2304, 9216, 26, 8, 4, 256000, 8192),
}
_MINICPM = {"2.5": "llama", "2.6": "qwen2", "4": "llama", "4.0": "llama", "4.5": "qwen3"}


def text_of(config: Config, field: str) -> tuple[Config, str, str]:
    """The language part of a config, its model_type, and where it stands (``.text_config``). Raises `ConfigError`."""
    config = _native(config, field)
    outer = config.get("model_type") or ""
    found: Config = config
    inner = section = ""
    for _ in range(2):  # omni models nest twice: thinker_config.text_config
        key = next((k for k in _TEXT if found.get(k) is not None), "")
        if not key:
            break
        if not isinstance(found[key], Mapping):
            raise ConfigError(f"{field}.config{section}.{key}", found[key], "must be a mapping")
        section += f".{key}"
        kept = {k: v for k, v in found.items() if k in ("torch_dtype", "dtype", "architectures")}
        inner = found.get("model_type") or inner
        found = {**kept, **found[key]}
    said = found.get("model_type")
    if said is None and found is not config:
        said = TOWERS.get(str(inner), inner)
    said = outer if said is None else said
    if not isinstance(said, str):
        raise ConfigError(f"{field}.config.model_type", said, "must be a text")
    if section and said in _DEFAULTS and found.get("num_hidden_layers", found.get("n_layer")) is None:
        defaults = zip(_SIZES, _DEFAULTS[said], strict=True)
        found = {
            **{k: v for k, v in defaults if v is not None and found.get(k) is None},
            **{k: v for k, v in found.items() if v is not None},
        }
    if section and said == "mistral" and "head_dim" in found and found.get("num_attention_heads") is None:
        found = {**found, "num_attention_heads": 32}  # Pixtral 12B leaves out what is the class's default
    if said in ("minicpmv", "minicpmo"):
        said = _MINICPM.get(str(found.get("version")), "qwen2" if said == "minicpmo" else said)
    return found, said, section


def _native(config: Config, field: str) -> Config:
    """Mistral's ``params.json`` under the names of ``config.json``."""
    if "model_type" in config or not ("dim" in config and "n_layers" in config):
        return config
    names = {
        "dim": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads", "n_kv_heads": "num_key_value_heads",
        "hidden_dim": "intermediate_size", "head_dim": "head_dim", "vocab_size": "vocab_size", "q_lora_rank": "q_lora_rank",
        "kv_lora_rank": "kv_lora_rank", "qk_rope_head_dim": "qk_rope_head_dim", "qk_nope_head_dim": "qk_nope_head_dim", "v_head_dim": "v_head_dim",
        "sliding_window": "sliding_window", "tied_embeddings": "tie_word_embeddings",
    }  # fmt: skip
    out = {theirs: config[ours] for ours, theirs in names.items() if config.get(ours) is not None}
    out["max_position_embeddings"] = config.get("max_position_embeddings") or config.get("max_seq_len") or 128_000
    out |= {k: config[k] for k in ("quantization_config",) if k in config}
    moe = config.get("moe")
    if moe is None:
        return {**out, "model_type": "mistral"}
    if not isinstance(moe, Mapping):
        raise ConfigError(f"{field}.config.moe", moe, "must be a mapping")
    out["num_experts_per_tok"] = moe.get("num_experts_per_tok")
    if config.get("kv_lora_rank") is None:
        return {**out, "num_local_experts": moe.get("num_experts"), "model_type": "mixtral"}
    more = {
        "n_routed_experts": "num_experts",
        "moe_intermediate_size": "expert_hidden_dim",
        "n_shared_experts": "num_shared_experts",
    }
    more |= {"first_k_dense_replace": "first_k_dense_replace"}
    return {**out, **{theirs: moe.get(ours) for theirs, ours in more.items()}, "model_type": "deepseek_v3"}
