"""How long a context engines derive from a config, and what they refuse: ``max_model_len``, ``--context-length``, RoPE scaling.

*Source*: vLLM ``config/model.py`` (``_get_and_verify_max_len``, 0.2 to 0.33); SGLang ``utils/hf_transformers_utils.py`` (``get_context_length``)
and ``configs/model_config.py`` (0.4 to 0.5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sim.errors import ConfigError, NotModelledError
from sim.model.keys import Keys
from sim.model.spec import ModelSpec

if TYPE_CHECKING:
    from sim.document import Json

_SECTIONS = ("text_config", "language_config", "llm_config")
_UNSCALED = ("", "default", "su", "longrope", "llama3", "mrope", "proportional")


def rope_fields(c: Keys) -> dict[str, Json]:
    """``rope_kind``, ``rope_factor`` and ``rope_original`` of a config: from ``rope_scaling`` or ``rope_parameters``."""
    found = c.section("rope_scaling", "rope_parameters")
    if isinstance(found.raw.get("full_attention"), Mapping):  # by kind of layer
        found = found.section("full_attention")
    kind = found.text("rope_type", "type", default="")
    factor = found.number("factor", default=1.0) if found.get("factor") is not None else 1.0
    original = found.whole("original_max_position_embeddings", default=0, least=0)
    return {"rope_kind": kind.lower(), "rope_factor": factor, "rope_original": original}


def overridden(model: ModelSpec, overrides: Mapping[str, Any] | None, field: str) -> ModelSpec:
    """The model under overrides of its config (``--hf-overrides``, ``--json-model-override-args``): RoPE scaling and lengths.

    *Raises*: `NotModelledError` for any other key; `ConfigError` for a malformed value.
    """
    if not overrides:
        return model
    inner = dict(overrides)
    for section in _SECTIONS:
        if isinstance(inner.get(section), Mapping):
            inner |= inner.pop(section)
    known = ("rope_scaling", "rope_parameters", "rope_theta", "max_position_embeddings", "model_max_length")
    for key in inner:
        if key not in known:
            raise NotModelledError(
                f"{field}.{key}", inner[key], "only lengths and RoPE scaling can be overridden", ", ".join(known)
            )
    c = Keys(inner, model.name, field)
    new: dict[str, Any] = {}
    if c.get("rope_scaling", "rope_parameters") is not None:
        new |= rope_fields(c)
    if c.get("max_position_embeddings") is not None:
        new["max_position"] = c.whole("max_position_embeddings")
    if c.get("model_max_length") is not None:
        new["model_max_length"] = c.whole("model_max_length")
    return replace(model, **new)


def vllm_derived(model: ModelSpec) -> int:
    """VLLM's derived length: the model's, times the factor of RoPE scaling; YaRN starts from the original length."""
    if model.rope_kind in _UNSCALED or model.architecture.startswith("Gemma3"):
        return model.max_position
    base = model.rope_original or model.max_position if model.rope_kind == "yarn" else model.max_position
    return int(base * model.rope_factor)


def sglang_derived(model: ModelSpec) -> int:
    """SGLang's derived length: a factor counts only where the config does not name the original length."""
    if model.rope_original or model.rope_kind == "llama3":
        return model.max_position
    return int(model.max_position * model.rope_factor)


def vllm_length(model: ModelSpec, wanted: int | None, allow_long: bool = False, field: str = "engine") -> int:
    """``max_model_len`` as vLLM takes it. Raises `ConfigError` where it refuses."""
    derived = vllm_derived(model)
    if wanted is None or wanted <= max(derived, model.model_max_length) or allow_long:
        return derived if wanted is None else wanted
    raise ConfigError(
        f"{field}.max_model_len", wanted,
        f"is greater than the derived max_model_len ({derived}) of {model.name}: wrong output beyond it, or an index error on the GPU",
        f"2..{derived}", f"scale RoPE with {field}.hf_overrides, or override the check with {field}.VLLM_ALLOW_LONG_MAX_MODEL_LEN",
    )  # fmt: skip


def sglang_length(model: ModelSpec, wanted: int | None, allow_long: bool = False, field: str = "engine") -> int:
    """``context_length`` as SGLang takes it. Raises `ConfigError` where it refuses."""
    derived = sglang_derived(model)
    if wanted is None or wanted <= derived or allow_long:
        return derived if wanted is None else wanted
    raise ConfigError(
        f"{field}.context_length", wanted,
        f"is greater than the derived context_length ({derived}) of {model.name}: wrong output beyond it, or CUDA errors",
        f"1..{derived}", f"override the check with {field}.SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN",
    )  # fmt: skip
