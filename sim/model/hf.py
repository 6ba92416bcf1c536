"""From a Hugging Face ``config.json`` to a `ModelSpec`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim.errors import ConfigError, NotModelledError
from sim.model.checkpoint import Stored, stored
from sim.model.families import FAMILIES, Config, Fields, layer_kinds
from sim.model.quant import kv_dtype, weight_format
from sim.model.spec import ModelSpec
from sim.model.unmodelled import not_modelled

_NAMES: Mapping[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "hidden": ("hidden_size", "n_embd"),
    "heads": ("num_attention_heads", "n_head"),
    "intermediate": ("intermediate_size", "ffn_dim", "n_inner"),
    "vocab": ("vocab_size",),
    "max_position": ("max_position_embeddings", "n_positions", "seq_length"),
}
_OTHER_ARCHITECTURES = ("ssm_cfg", "state_size", "ssm_state_size", "mamba_d_state", "rwkv_version", "attention_hidden_size")
_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "bf16"}  # engines serve fp32 checkpoints in 16 bits


def spec_from_config(
    config: Mapping[str, Any],
    name: str,
    weights: str = "auto",
    kv_cache: str = "auto",
    source: str = "",
    field: str = "model",
    beside: Mapping[str, Any] | None = None,
) -> ModelSpec:
    """The architecture in a ``config.json``, served with ``weights`` and ``kv_cache``.

    ``weights="auto"`` is what the checkpoint holds (its ``quantization_config``, else ``beside``, the ``hf_quant_config.json`` in
    the same folder, else its 16-bit dtype); ``kv_cache="auto"`` is the 16-bit dtype of the model, and what the checkpoint wants
    is kept in ``ModelSpec.kv_wanted`` for the engines that follow it.

    *Raises*: `ConfigError` naming a missing or malformed key; `NotModelledError` for an architecture or number format that is not
    modelled; `UnknownNameError` for an unknown name of a number format.
    """
    text = _text(config)
    model_type = str(text.get("model_type", config.get("model_type", "")))
    if model_type not in FAMILIES:
        raise not_modelled(config, text, model_type, f"{field}.config.model_type")
    fields = _architecture(text, name, field)
    rule, tied_by_default = FAMILIES[model_type]
    try:
        rule(text, fields)
    except KeyError as missing:
        raise ConfigError(f"{field}.config", name, f"key {missing} is missing for model_type {model_type!r}") from None
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    fields["tie_embeddings"] = tied_by_default if tied is None else bool(tied)
    fields["vision_params"] = _vision(config)
    held, dtype = _stored(config, text, beside, field), _dtype(config, text)
    fields |= _formats(held.weights, dtype, weights, kv_cache, field)
    fields["kv_wanted"] = held.kv if kv_cache == "auto" else ""
    architecture = (config.get("architectures") or [model_type])[0]
    return ModelSpec(name=name, architecture=str(architecture), source=source, **fields)


def _text(config: Mapping[str, Any]) -> Config:
    """The language part of a multimodal config."""
    for key in ("text_config", "language_config", "llm_config"):
        if isinstance(config.get(key), Mapping):
            return {**{k: v for k, v in config.items() if k in ("torch_dtype", "dtype")}, **config[key]}
    return config


def _architecture(c: Config, name: str, field: str) -> Fields:
    if c.get("is_encoder_decoder"):
        raise NotModelledError(field, name, "encoder-decoder models are not modelled", "decoder-only models")
    if any(key in c for key in _OTHER_ARCHITECTURES):
        raise NotModelledError(field, name, "state-space layers are not modelled", "attention and gated DeltaNet layers")
    if c.get("model_type") == "bloom":
        c = {"intermediate_size": 4 * int(c.get("hidden_size", c.get("n_embed", 0))), "max_position_embeddings": 2048, **c}
    f: Fields = {ours: _number(c, keys, name, field) for ours, keys in _NAMES.items()}
    f["kv_heads"] = c.get("num_key_value_heads") or f["heads"]
    if not c.get("head_dim") and f["hidden"] % f["heads"]:
        raise ConfigError(
            f"{field}.config.head_dim", None, f"missing, and hidden_size {f['hidden']} is no multiple of {f['heads']} heads"
        )
    f["head_dim"] = f["v_head_dim"] = c.get("head_dim") or f["hidden"] // f["heads"]
    f["window"] = c.get("sliding_window") or 0
    try:
        f["attention"] = layer_kinds(c)
    except KeyError as kind:
        raise NotModelledError(f"{field}.config.layer_types", kind.args[0], "unknown kind of layer") from None
    if f["attention"] and len(f["attention"]) != f["layers"]:
        raise ConfigError(f"{field}.config.layer_types", len(f["attention"]), f"does not list the {f['layers']} layers")
    if f["attention"] and set(f["attention"]) == {"full"}:
        f["attention"], f["window"] = (), 0
    return f


def _number(c: Config, keys: tuple[str, ...], name: str, field: str) -> int:
    found = next((c[k] for k in keys if c.get(k) is not None), None)
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        problem = "is missing" if found is None else "must be a whole number of at least 1"
        raise ConfigError(f"{field}.config.{keys[0]}", found, f"{problem} in the config of {name}")
    return found


def _dtype(config: Config, text: Config) -> str:
    stored = str(text.get("dtype") or text.get("torch_dtype") or config.get("dtype") or config.get("torch_dtype") or "bfloat16")
    return _DTYPES.get(stored.removeprefix("torch."), "bf16")


def _stored(config: Config, text: Config, beside: Config | None, field: str) -> Stored:
    """Formats of the checkpoint: its own block first, as engines read them."""
    for owner in (config, text):
        if owner.get("quantization_config") is not None:
            return stored(owner["quantization_config"], f"{field}.config.quantization_config")
    return stored(beside, f"{field}.hf_quant_config")


def _formats(native: str, dtype: str, weights: str, kv_cache: str, field: str) -> Fields:
    wanted = weights.strip().lower()
    if wanted == "auto":
        wanted = native or dtype
    elif wanted in ("int4", "w4a16") and native == "int4-experts":
        wanted = native
    form = weight_format(wanted, f"{field}.weights")
    if form.name in ("bf16", "fp16", "fp32"):
        dtype = form.name
    elif form.compute == "int8" and form.source.startswith("ggml"):
        dtype = "fp16"  # llama.cpp keeps activations and KV cache in fp16
    return {
        "weights": form.name,
        "dtype": dtype,
        "kv_dtype": dtype if kv_cache == "auto" else kv_dtype(kv_cache, f"{field}.kv_cache"),
    }


def _vision(config: Config) -> int:
    """Parameters of a vision encoder: attention, MLP and merger. Within some per cent of the published counts."""
    v = config.get("vision_config")
    if not isinstance(v, Mapping):
        return 0
    depth = v.get("depth") or v.get("num_hidden_layers") or 0
    hidden, inner = v.get("hidden_size", 0), v.get("intermediate_size", 0)
    patch = v.get("patch_size", 14) ** 2 * 3 * v.get("temporal_patch_size", 1) * hidden
    merged = hidden * v.get("spatial_merge_size", 1) ** 2
    return int(depth * (4 * hidden * hidden + 2 * hidden * inner) + patch + merged * (merged + v.get("out_hidden_size", 0)))
