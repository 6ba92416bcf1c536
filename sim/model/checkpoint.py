"""What a checkpoint says of its number formats: ``quantization_config`` of ``config.json``, or ``hf_quant_config.json`` beside it.

*Source*: the quantisation configs of vLLM (``model_executor/layers/quantization``) and SGLang; llm-compressor; NVIDIA ModelOpt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sim.errors import ConfigError, NotModelledError, did_you_mean

Block = Mapping[str, Any]

_MODELOPT = {
    "FP8": "fp8",
    "FP8_PER_CHANNEL_PER_TOKEN": "fp8",
    "FP8_PB_WO": "fp8",
    "NVFP4": "nvfp4",
    "NVFP4_AWQ": "nvfp4",
    "W4A16_AWQ": "awq-int4",
    "W4A8_AWQ": "w4a8-fp8",
    "MXFP8": "mxfp8",
}
_COMPRESSED = (
    "float-quantized",
    "naive-quantized",
    "int-quantized",
    "pack-quantized",
    "nvfp4-pack-quantized",
    "mxfp4-pack-quantized",
)
_METHODS = (
    "awq", "awq_marlin", "bitsandbytes", "compressed-tensors", "fbgemm_fp8", "fp8", "gptq", "gptq_marlin", "marlin", "modelopt", "modelopt_fp4",
    "mxfp4", "quark",
)  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """Number formats of a checkpoint: ``weights`` (empty: 16 bits), ``kv`` (empty: it says nothing), modules left in 16 bits."""

    weights: str = ""
    kv: str = ""
    method: str = ""
    ignore: tuple[str, ...] = ()


def stored(block: object, field: str) -> Stored:
    """The formats in a ``quantization_config`` (or ``hf_quant_config.json``).

    *Raises*: `NotModelledError` naming the kind that is not modelled; `ConfigError` for a block that cannot be read.
    """
    if block is None or block == {}:
        return Stored()
    if not isinstance(block, Mapping):
        raise ConfigError(field, block, "must be a mapping")
    inner = block.get("quantization")
    if isinstance(inner, Mapping):  # hf_quant_config.json
        return _modelopt(inner, field)
    method = str(block.get("quant_method") or "").lower()
    if not method and block.get("quant_algo"):
        method = "modelopt"
    if method.startswith("modelopt"):
        return _modelopt(block, field)
    if method in ("compressed-tensors", "compressed_tensors"):
        return _compressed(block, field)
    if method in ("awq", "awq_marlin", "gptq", "gptq_marlin", "marlin"):
        return _integers(block, method, field)
    if method in ("fp8", "mxfp4", "fbgemm_fp8"):
        weights = "fp8" if method == "fbgemm_fp8" else method
        return Stored(weights, "", method, _names(block, field))
    raise _unknown(f"{field}.quant_method", method, _METHODS)


def _unknown(field: str, kind: str, known: Iterable[str]) -> NotModelledError:
    known = sorted(known)
    return NotModelledError(field, kind, "this number format is not modelled", ", ".join(known), did_you_mean(kind, known))


def _names(block: Block, field: str) -> tuple[str, ...]:
    """Modules left in the 16-bit dtype, under the names that the tools give the list."""
    found: list[str] = []
    for key in ("ignore", "exclude_modules", "modules_to_not_convert", "ignored_layers", "exclude"):
        value = block.get(key)
        if value is None:
            continue
        if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
            raise ConfigError(f"{field}.{key}", value, "must be a list of module names")
        found += value
    return tuple(found)


def _modelopt(block: Block, field: str) -> Stored:
    algo = str(block.get("quant_algo") or "").upper()
    kv = block.get("kv_cache_quant_algo") or ""
    scheme = block.get("kv_cache_scheme")
    if isinstance(scheme, str):
        kv = kv or scheme
    elif scheme:
        kv = kv or _scheme(scheme, field)
    if algo and algo not in _MODELOPT:
        raise _unknown(f"{field}.quant_algo", algo, _MODELOPT)
    if kv and str(kv).upper() not in ("FP8", "NONE"):
        raise _unknown(f"{field}.kv_cache_quant_algo", str(kv), ["FP8"])
    return Stored(_MODELOPT.get(algo, ""), "fp8" if str(kv).upper() == "FP8" else "", "modelopt", _names(block, field))


def _scheme(scheme: object, field: str) -> str:
    """Dtype of a ``kv_cache_scheme``."""
    if not isinstance(scheme, Mapping):
        raise ConfigError(f"{field}.kv_cache_scheme", scheme, "must be a mapping")
    kind, bits = scheme.get("type"), scheme.get("num_bits")
    if (kind, bits) != ("float", 8):
        raise _unknown(f"{field}.kv_cache_scheme", f"{kind} {bits}", ["float 8"])
    return "fp8"


def _compressed(block: Block, field: str) -> Stored:
    form = str(block.get("format") or "")
    if form not in _COMPRESSED:
        raise _unknown(f"{field}.format", form, _COMPRESSED)
    ignore = _names(block, field)
    weights = {
        "float-quantized": "fp8",
        "int-quantized": "w8a8",
        "nvfp4-pack-quantized": "nvfp4",
        "mxfp4-pack-quantized": "mxfp4-linear",
    }.get(form)
    if form == "pack-quantized":
        bits = _weight_bits(block, field)
        weights = "w8a16" if bits == 8 else "int4-experts" if any("self_attn" in i for i in ignore) else "awq-int4"
    if form == "naive-quantized":
        weights = "fp8"
    scheme = block.get("kv_cache_scheme")
    return Stored(weights or "", _scheme(scheme, field) if scheme else "", "compressed-tensors", ignore)


def _weight_bits(block: Block, field: str) -> int:
    """Bits of packed weights in all groups of a compressed-tensors checkpoint."""
    groups = block.get("config_groups") or {}
    found = {
        g.get("weights", {}).get("num_bits")
        for g in groups.values()
        if isinstance(g, Mapping) and isinstance(g.get("weights"), Mapping)
    }
    bits = found or {4}
    if not bits <= {4, 8} or len(bits) > 1:
        raise _unknown(f"{field}.config_groups", f"{sorted(map(str, bits))} bits", ["4", "8"])
    return int(bits.pop())


def _integers(block: Block, method: str, field: str) -> Stored:
    bits = block.get("bits", block.get("w_bit", 4))
    family = "awq" if method.startswith("awq") else "gptq"
    allowed = (4,) if family == "awq" else (3, 4, 8)
    if isinstance(bits, bool) or bits not in allowed:
        raise NotModelledError(
            f"{field}.bits", bits, f"{method} weights of so many bits are not modelled", ", ".join(map(str, allowed))
        )
    return Stored(f"{family}-int{bits}", "", method, _names(block, field))
