"""Number formats of weights and KV caches: bits per weight for each role a tensor can play, and the dtype its kernels multiply in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

from sim.errors import NotModelledError, UnknownNameError, did_you_mean

# Roles of tensors. `inventory` gives every tensor one of them.
ATTENTION, VALUE, MLP, DOWN, EXPERT, EXPERT_DOWN = "attention", "value", "mlp", "down", "expert", "expert_down"
SHARED, SHARED_DOWN, EMBEDDING, HEAD, TIED, PLAIN = "shared", "shared_down", "embedding", "head", "tied", "plain"
LINEAR_ROLES = (ATTENTION, VALUE, MLP, DOWN, EXPERT, EXPERT_DOWN, SHARED, SHARED_DOWN)


@dataclass(frozen=True)
class WeightFormat:
    """Bits per weight, scales and zero points included.

    ``bits`` holds the roles that are quantised; every other tensor stays in the 16-bit dtype of the model.
    ``compute`` is the dtype of the matrix units (``model``: the model's own 16-bit dtype, weights are unpacked on the way).
    """

    name: str
    bits: Mapping[str, float] = field(hash=False)
    compute: str
    source: str

    def bytes_of(self, role: str) -> float:
        """Bytes of one weight that plays this role."""
        return self.bits.get(role, 16.0) / 8.0

    @property
    def quantised(self) -> bool:
        """Whether any weights are stored in fewer bits than they are computed in."""
        return bool(self.bits)


def _linear(name: str, bits: float, compute: str, source: str) -> WeightFormat:
    return WeightFormat(name, MappingProxyType(dict.fromkeys(LINEAR_ROLES, bits)), compute, source)


def _experts(name: str, bits: float, compute: str, source: str) -> WeightFormat:
    return WeightFormat(name, MappingProxyType({EXPERT: bits, EXPERT_DOWN: bits}), compute, source)


_GGML = "ggml-common.h block layouts"


def _gguf(name: str, bits: float, better: float, output: float) -> WeightFormat:
    """``better``: mean bits of the value and down projections, of which mixes give half the layers a finer type."""
    table = dict.fromkeys((*LINEAR_ROLES, EMBEDDING), bits)
    table |= {VALUE: better, DOWN: better, EXPERT_DOWN: better, SHARED_DOWN: better, HEAD: output, TIED: output}
    return WeightFormat(name, MappingProxyType(table), "int8", f"{_GGML}; mixture rules of llama-quant.cpp")


# Block types: bytes per block / weights per block. K-quants: 256 weights a block.
_Q2, _Q3, _Q4, _Q5, _Q6, _Q8 = 84 * 8 / 256, 110 * 8 / 256, 144 * 8 / 256, 176 * 8 / 256, 210 * 8 / 256, 34 * 8 / 32
_AWQ = 4 + (16 + 4) / 128  # group 128: one 16-bit scale and one 4-bit zero point
_FORMATS = (
    WeightFormat("bf16", MappingProxyType({}), "model", "16 bits"),
    WeightFormat("fp16", MappingProxyType({}), "model", "16 bits"),
    WeightFormat("fp32", MappingProxyType(dict.fromkeys((*LINEAR_ROLES, EMBEDDING, HEAD, TIED, PLAIN), 32.0)), "fp32", "32 bits"),
    _linear(
        "fp8",
        8 + 32 / 128**2,
        "fp8",
        "8 bits and one fp32 scale per 128 × 128 block (DeepSeek, Qwen); less with per-tensor scales",
    ),
    WeightFormat(
        "fbgemm-fp8",
        MappingProxyType({MLP: 8 + 32 / 4096, DOWN: 8 + 32 / 4096}),
        "fp8",
        "FBGEMM: 8 bits and one fp32 scale per output channel; attention stays in 16 bits (Meta's FP8 checkpoint of Llama 3.1 405B)",
    ),
    _linear("w8a8", 8 + 32 / 4096, "int8", "8 bits and one fp32 scale per output channel"),
    _linear("w8a16", 8 + 32 / 4096, "model", "8 bits and one fp32 scale per output channel, 16-bit activations"),
    _linear("w4a8", 4 + 16 / 128, "int8", "4 bits, group 128 with a 16-bit scale"),
    _linear("w4a8-fp8", 4 + 16 / 128, "fp8", "4 bits, group 128 with a 16-bit scale, fp8 activations (ModelOpt W4A8_AWQ)"),
    _linear("mxfp8", 8 + 8 / 32, "fp8", "OCP microscaling: blocks of 32 with an 8-bit exponent"),
    _linear("mxfp4-linear", 4 + 8 / 32, "model", "OCP microscaling: blocks of 32 with an 8-bit exponent, in every linear layer"),
    _linear("awq-int4", _AWQ, "model", "AutoAWQ, group 128: 16-bit scale and 4-bit zero point"),
    _linear("gptq-int4", _AWQ, "model", "GPTQ, group 128: 16-bit scale and 4-bit zero point"),
    _linear("gptq-int3", 3 + (16 + 3) / 128, "model", "GPTQ, group 128: 16-bit scale and 3-bit zero point"),
    _linear("gptq-int8", 8 + (16 + 8) / 128, "model", "GPTQ, group 128: 16-bit scale and 8-bit zero point"),
    _experts(
        "int4-experts",
        4 + 16 / 32,
        "model",
        "compressed-tensors: experts in 4 bits, group 32 with a 16-bit scale (Kimi-K2-Thinking)",
    ),
    _experts("mxfp4", 4 + 8 / 32, "model", "OCP microscaling: blocks of 32 with an 8-bit exponent; experts only (gpt-oss)"),
    _linear(
        "w4-24",
        3 + 16 / 128,
        "model",
        "4 bits, every second pair zero (2:4): 2 bits of values, 1 of places, group 128 with a 16-bit scale",
    ),
    _linear("nf4", 4 + 8 / 64 + 32 / 64 / 256, "model", "bitsandbytes: blocks of 64 with a quantised scale"),
    _linear("fp4-bnb", 4 + 32 / 64, "model", "bitsandbytes: blocks of 64 with an fp32 scale"),
    _linear("bnb-int8", 8 + 32 / 4096, "model", "bitsandbytes LLM.int8: one scale per output channel"),
    _linear("nvfp4-wo", 4 + 8 / 16, "model", "NVIDIA: blocks of 16 with an fp8 scale, 16-bit activations"),
    _linear("nvfp4", 4 + 8 / 16, "fp4", "NVIDIA: blocks of 16 with an fp8 scale"),
    _gguf("q8_0", _Q8, _Q8, _Q8),
    _gguf("q6_k", _Q6, _Q6, _Q6),
    _gguf("q5_k_m", _Q5, (_Q5 + _Q6) / 2, _Q6),
    _gguf("q5_k_s", _Q5, _Q5, _Q6),
    _gguf("q5_0", 5.5, 5.5, _Q6),
    _gguf("q4_k_m", _Q4, (_Q4 + _Q6) / 2, _Q6),
    _gguf("q4_k_s", _Q4, (7 * _Q4 + _Q5) / 8, _Q6),
    _gguf("q4_0", 4.5, 4.5, _Q6),
    _gguf("q4_1", 5.0, 5.0, _Q6),
    _gguf("q3_k_m", _Q3, (_Q4 + _Q5) / 2, _Q6),
    _gguf("q3_k_s", _Q3, _Q3, _Q6),
    _gguf("q2_k", _Q2, (_Q3 + _Q4) / 2, _Q6),
)
WEIGHT_FORMATS: Mapping[str, WeightFormat] = MappingProxyType({f.name: f for f in _FORMATS})
GGUF_FORMATS = ("bf16", "fp16", "fp32", "mxfp4", *(f.name for f in _FORMATS if f.source.startswith(_GGML)))
"""What a GGUF file may hold of these."""
WEIGHT_ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "bfloat16": "bf16", "float16": "fp16", "half": "fp16", "f16": "fp16", "float32": "fp32", "f32": "fp32",
        "fp8_e4m3": "fp8", "fp8-block": "fp8", "int8": "w8a8", "w8a8_dynamic": "w8a8", "awq": "awq-int4", "int4": "awq-int4", "w4a16": "awq-int4",
        "gptq": "gptq-int4", "mxfp4-experts": "mxfp4",
    }
)  # fmt: skip

_KV_BITS = {"bf16": 16.0, "fp16": 16.0, "fp32": 32.0, "fp8": 8.0, "int8": 8.0, "q8_0": _Q8, "q5_0": 5.5, "q4_0": 4.5}
_KV_ALIASES = {
    "bfloat16": "bf16", "float16": "fp16", "half": "fp16", "f16": "fp16", "float32": "fp32", "f32": "fp32",
    "fp8_e4m3": "fp8", "fp8_e5m2": "fp8", "c8": "int8",
}  # fmt: skip


def _plain(name: str) -> str:
    return name.strip().lower()


def integer_format(bits: int, group: int, zeros: bool, wide: bool = False) -> str:
    """Name of weights in ``bits`` with a 16-bit scale (and a zero point, ``wide``: of 16 bits) per ``group`` weights; group 0: per output channel."""
    return f"int{bits}-{f'g{group}' if group > 0 else 'channel'}{('zz' if wide else 'z') if zeros else ''}"


@lru_cache(maxsize=256)
def _integers(name: str) -> WeightFormat | None:
    found = re.fullmatch(r"int([2-8])-(?:g([1-9]\d{0,4})|channel)(z{0,2})", name)
    if not found:
        return None
    bits, group = int(found[1]), int(found[2] or 4096)
    zeros = {"": 0, "z": bits, "zz": 16}[found[3]]
    size = bits + (16 + zeros) / group
    says = f"group {group}" if found[2] else "one group per output channel"
    return _linear(name, size, "model", f"{bits} bits, {says}: 16-bit scale{f' and {zeros}-bit zero point' if zeros else ''}")


def weight_format(name: str, field: str = "model.weights") -> WeightFormat:
    """The format of that name or alias, or of an `integer_format`. Raises `UnknownNameError`."""
    key = _plain(name)
    key = WEIGHT_ALIASES.get(key, key)
    if key not in WEIGHT_FORMATS:
        other = _integers(key)
        if other is not None:
            return other
        raise UnknownNameError(field, name, [*WEIGHT_FORMATS, *WEIGHT_ALIASES])
    return WEIGHT_FORMATS[key]


def kv_dtype(name: str, field: str = "model.kv_cache") -> str:
    """Canonical name of a KV-cache dtype. Raises `UnknownNameError`."""
    key = _plain(name)
    key = _KV_ALIASES.get(key, key)
    if key not in _KV_BITS:
        raise UnknownNameError(field, name, ["auto", *_KV_BITS, *_KV_ALIASES])
    return key


def kv_element_bytes(name: str) -> float:
    """Bytes of one element of the KV cache, block scales included."""
    return _KV_BITS[kv_dtype(name)] / 8.0


def not_known(field: str, kind: str, known: Iterable[str]) -> NotModelledError:
    """The error for a number format of a checkpoint that is none of those ``known``."""
    known = sorted(known)
    return NotModelledError(field, kind, "this number format is not modelled", ", ".join(known), did_you_mean(kind, known))
