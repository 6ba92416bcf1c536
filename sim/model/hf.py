"""From a Hugging Face ``config.json`` to a `ModelSpec`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sim.errors import ConfigError, NotModelledError
from sim.model.base import Fields
from sim.model.checkpoint import Stored, ascend, stored
from sim.model.context import rope_fields
from sim.model.encoders import encoder_params
from sim.model.families import FAMILIES
from sim.model.from_fields import read_from_fields
from sim.model.keys import Keys
from sim.model.mixers import Attention
from sim.model.mlps import Routed
from sim.model.quant import kv_dtype, weight_format
from sim.model.quantised import apply
from sim.model.spec import ModelSpec
from sim.model.unmodelled import not_modelled, writes_otherwise
from sim.model.wrappers import text_of

Config = Mapping[str, Any]
_EXPERTS = ("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts")
_PATTERNS = ("hybrid_override_pattern", "layers_block_type")
_STATES = ("mamba_d_state", "ssm_state_size", "mamba_num_heads", "linear_num_key_heads", "linear_attn_config", "rwkv_version")

_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "bf16"}  # engines serve fp32 checkpoints in 16 bits
_STORED_FLOATS = {"float8_e4m3fn", "float8_e5m2", "float64", "auto"}


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
    the same folder, else its 16-bit dtype), tensor by tensor; ``kv_cache="auto"`` is the 16-bit dtype of the model, and what the
    checkpoint wants is kept in ``ModelSpec.kv_wanted`` for the engines that follow it.

    *Raises*: `ConfigError` naming a missing or malformed key; `NotModelledError` for an architecture or number format that is not
    modelled; `UnknownNameError` for an unknown name of a number format.
    """
    text, model_type, section = text_of(config, field)
    model_type = model_type if model_type in FAMILIES else _by_architecture(text, model_type)
    keys = Keys(text, name, f"{field}.config{section}")
    for owner in (config, text):
        if owner.get("is_encoder_decoder"):
            raise NotModelledError(
                f"{field}.config.is_encoder_decoder", True, "encoder-decoder models are not modelled", "decoder-only models"
            )
    unverified, tied_by_default = False, False
    if model_type in FAMILIES:
        fields = FAMILIES[model_type].rule(keys)
        tied_by_default = FAMILIES[model_type].tied
    else:
        found = None if writes_otherwise(model_type) else read_from_fields(keys)
        if found is None:
            raise not_modelled(config, text, model_type, f"{field}.config.model_type")
        fields, unverified = found, True
    fields |= rope_fields(keys)
    fields["model_max_length"] = keys.whole("model_max_length", default=0, least=0)
    fields["tie_embeddings"] = _tied(config, text, fields.pop("tied", tied_by_default), field)
    fields["vision_params"], fields["images"], unsized = encoder_params(config, f"{field}.config")
    held, dtype = _stored(config, text, beside, field), _dtype(config, text, field)
    fields |= _formats(held, dtype, weights, kv_cache, field)
    fields["kv_wanted"] = held.kv if kv_cache == "auto" else ""
    names = config.get("architectures") or text.get("architectures") or [model_type]
    architecture = str(names[0]) if isinstance(names, list | tuple) and names else model_type
    spec = ModelSpec(name=name, architecture=architecture, source=source, **fields)
    _check(spec, keys, field)
    if weights.strip().lower() == "auto" or spec.weights == held.weights:
        spec = apply(spec, held)
    warnings = [f"{name}: {unsized}"] if unsized else []
    if unverified:
        warnings.append(f"{name}: architecture {model_type!r} read from fields, not verified: {spec.param_count():,} parameters")
    return replace(spec, warnings=tuple(warnings)) if warnings else spec


def _missed(spec: ModelSpec, keys: Keys) -> tuple[str, str] | None:
    """A key that promises layers of which the rule of the family has made none, and what they are."""
    mixers, mlps = [b.mixer for b in spec.blocks], [b.mlp for b in spec.blocks]
    listed = any(keys.raw.get(name) for name in _PATTERNS)  # the config names the kind of every layer
    for names, what, there in (
        (_EXPERTS, "routed experts", listed or any(isinstance(mlp, Routed) for mlp in mlps)),
        (("kv_lora_rank",), "latent attention", not all(isinstance(mixer, Attention) for mixer in mixers)),
        (_STATES, "layers that keep a state", listed or spec.state_bytes() > 0 or bool(keys.raw.get("layer_types"))),
    ):
        for name in names:
            value = keys.raw.get(name)
            if not there and value and value != 1:
                return name, what
    return None


def _check(spec: ModelSpec, keys: Keys, field: str) -> None:
    """What no rule of a family may leave wrong."""
    routed = {(b.mlp.experts, b.mlp.top_k, b.mlp.width, b.mlp.latent) for b in spec.blocks if isinstance(b.mlp, Routed)}
    if len(routed) > 1:
        raise NotModelledError(f"{field}.config", spec.name, "layers with experts of different sizes are not modelled")
    missed = _missed(spec, keys)
    if missed:
        raise NotModelledError(
            f"{keys.field}.{missed[0]}",
            keys.raw[missed[0]],
            f"{keys.raw.get('model_type') or spec.architecture} with {missed[1]} is not modelled",
        )
    if len(spec.blocks) != spec.layers:
        raise ConfigError(
            f"{field}.config.num_hidden_layers", spec.layers, f"is not the number of layers that {spec.name} describes"
        )


def _by_architecture(text: Config, model_type: str) -> str:
    """The family of ``architectures``, by which engines choose the model class, where ``model_type`` says nothing to them."""
    names = text.get("architectures")
    if isinstance(names, list | tuple) and names and isinstance(names[0], str):
        stem = names[0].lower().replace("_", "")
        for ending in ("forcausallm", "forconditionalgeneration", "lmheadmodel", "model"):
            stem = stem.removesuffix(ending)
        plain = {key.replace("_", "").replace("-", "").lower(): key for key in FAMILIES}
        return plain.get(stem, model_type)
    return model_type


def _tied(config: Config, text: Config, default: bool, field: str) -> bool:
    for owner in (text, config):
        value = owner.get("tie_word_embeddings", owner.get("use_embedding_sharing"))
        if value is not None:
            if not isinstance(value, bool):
                raise ConfigError(f"{field}.config.tie_word_embeddings", value, "must be true or false")
            return value
    return default


def _dtype(config: Config, text: Config, field: str) -> str:
    value = text.get("dtype") or text.get("torch_dtype") or config.get("dtype") or config.get("torch_dtype") or "bfloat16"
    stored_as = str(value).removeprefix("torch.")
    if stored_as not in _DTYPES and stored_as not in _STORED_FLOATS:
        raise ConfigError(f"{field}.config.torch_dtype", value, "is no number format of a checkpoint", ", ".join(_DTYPES))
    return _DTYPES.get(stored_as, "bf16")


def _stored(config: Config, text: Config, beside: Config | None, field: str) -> Stored:
    """Formats of the checkpoint: its own block first, as engines read them."""
    if isinstance(config.get("quantize"), str):  # ModelSlim, for Ascend
        return ascend(config["quantize"], f"{field}.config.quantize")
    for owner in (config, text):
        block = owner.get("quantization_config")
        if block is None:
            block = owner.get("compression_config")
        if block is not None:
            found = stored(block, f"{field}.config.quantization_config")
            if found.method or beside is None:
                if text.get("expert_dtype") is not None:  # DeepSeek V4: experts in 4 bits beside fp8
                    return found.with_experts(text["expert_dtype"], f"{field}.config.expert_dtype")
                return found
    return stored(beside, f"{field}.hf_quant_config")


def _formats(held: Stored, dtype: str, weights: str, kv_cache: str, field: str) -> Fields:
    wanted = weights.strip().lower()
    if wanted == "auto":
        wanted = held.weights or dtype
    elif wanted in ("int4", "w4a16") and held.weights.startswith("int4-"):
        wanted = held.weights
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
