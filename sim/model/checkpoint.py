"""What a checkpoint says of its number formats: ``quantization_config`` of ``config.json``, or ``hf_quant_config.json`` beside it.

*Source*: the quantisation configs of vLLM (``model_executor/layers/quantization``) and SGLang; llm-compressor; NVIDIA ModelOpt; AMD Quark.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sim.errors import ConfigError, NotModelledError
from sim.model.checkpoint_torch import hqq, torchao
from sim.model.quant import integer_format, not_known

Block = Mapping[str, Any]

_MODELOPT = {
    "FP8": "fp8", "FP8_PER_CHANNEL_PER_TOKEN": "fp8", "FP8_PB_WO": "fp8", "FP8_PB_REAL": "fp8", "FP8_BLOCK_SCALES": "fp8", "MXFP8": "mxfp8",
    "NVFP4": "nvfp4", "NVFP4_AWQ": "nvfp4", "W4A16_NVFP4": "nvfp4-wo", "MXFP4": "mxfp4-linear", "W4A16_MXFP4": "mxfp4-linear",
    "W4A8_MXFP4_FP8": "mxfp4-linear", "W4A16_AWQ": "awq-int4", "W4A16": "awq-int4", "W4A8_AWQ": "w4a8-fp8", "W8A16": "w8a16",
    "W8A8_SQ_PER_CHANNEL": "w8a8", "INT8_SQ": "w8a8", "UNQUANTIZED": "",
}  # fmt: skip
_FORMATS = (
    "float-quantized", "naive-quantized", "int-quantized", "pack-quantized", "nvfp4-pack-quantized", "mxfp4-pack-quantized",
    "mxfp8-quantized", "marlin-24", "mixed-precision",
)  # fmt: skip
_METHODS = (
    "auto-round", "awq", "awq_marlin", "bitsandbytes", "compressed-tensors", "fbgemm_fp8", "fp8", "gptq", "gptq_marlin", "marlin", "modelopt",
    "hqq", "modelopt_fp4", "mxfp4", "mxfp8", "quark", "torchao", "w4afp8",
)  # fmt: skip
ALL = ("*",)


@dataclass(frozen=True)
class Stored:
    """Number formats of a checkpoint.

    ``weights``: of most linear layers (empty: 16 bits). ``groups``: (patterns, format) tried in order where modules differ; a module that
    no group names stays in 16 bits. ``ignore``: patterns of modules in 16 bits. ``kv``: of the KV cache (empty: it says nothing).
    Patterns are as `sim.model.quantised` reads them.
    """

    weights: str = ""
    kv: str = ""
    method: str = ""
    ignore: tuple[str, ...] = ()
    groups: tuple[tuple[tuple[str, ...], str], ...] = ()

    def over(self, rest: str) -> Stored:
        """The same with what no group names in the format ``rest``."""
        return replace(self, groups=(*self.groups, (ALL, rest)))

    def with_experts(self, dtype: object, field: str) -> Stored:
        """The same with routed experts in a format of their own (DeepSeek V4)."""
        known = {"fp4": "mxfp4-linear", "fp8": "fp8", "bf16": ""}
        if not isinstance(dtype, str) or dtype not in known:
            raise not_known(field, str(dtype), known)
        if self.weights != "fp8" or self.groups:
            return self
        return replace(self, groups=((("re:.*\\.experts.*",), known[dtype]), (ALL, self.weights)))


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
        return _modelopt(inner, "modelopt", field)
    method = str(block.get("quant_method") or "").lower()
    if not method and block.get("quant_algo"):
        method = "modelopt"
    if not method and block.get("config_groups"):
        method = "compressed-tensors"
    if method.startswith("modelopt"):
        return _modelopt(block, method, field)
    if method in ("compressed-tensors", "compressed_tensors"):
        return _compressed(block, field)
    if method in ("awq", "awq_marlin", "gptq", "gptq_marlin", "marlin", "auto-round", "intel/auto-round"):
        return _integers(block, method, field)
    if method == "fp8" and block.get("quantized_layers"):  # experts requantised, the rest as it was
        return replace(_mixed(block, "", field), ignore=(), method="fp8").over("fp8")
    if method in ("fp8", "mxfp4", "mxfp8", "fbgemm_fp8"):
        return Stored("fp8" if method == "fbgemm_fp8" else method, "", method, _names(block, field))
    if method == "w4afp8":  # SGLang: experts in 4 bits, the rest in fp8
        return Stored("fp8", "", method, _names(block, field), ((("re:.*\\.experts.*",), "w4a8-fp8"), (ALL, "fp8")))
    if method == "bitsandbytes":
        return _bitsandbytes(block, field)
    if method == "quark":
        return _quark(block, field)
    if method == "torchao":
        weights, groups, plain = torchao(block, field)
        return Stored(weights, "", method, (*_names(block, field), *plain), groups)
    if method == "hqq":
        weights, plain = hqq(block, field)
        return Stored(weights, "", method, (*_names(block, field), *plain))
    raise not_known(f"{field}.quant_method", method, _METHODS)


def _names(block: Block, field: str) -> tuple[str, ...]:
    """Modules left in the 16-bit dtype, under the names that the tools give the list."""
    found: list[str] = []
    for key in ("ignore", "exclude_modules", "modules_to_not_convert", "ignored_layers", "exclude", "llm_int8_skip_modules"):
        value = block.get(key)
        if value is None:
            continue
        if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
            raise ConfigError(f"{field}.{key}", value, "must be a list of module names")
        found += value
    return tuple(found)


def _whole(block: Block, key: str, field: str, allowed: tuple[int, ...], default: int) -> int:
    value = block.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
        raise NotModelledError(f"{field}.{key}", value, "is not modelled", ", ".join(map(str, allowed)))
    return value


_ASCEND = {
    "w8a8": "w8a8",
    "w8a8_dynamic": "w8a8",
    "w8a16": "w8a16",
    "w4a8": "w4a8",
    "w4a8_dynamic": "w4a8",
    "w4a16": "awq-int4",
    "float": "",
}


def ascend(kind: str, field: str) -> Stored:
    """The format named under ``quantize`` by ModelSlim (vllm-ascend, MindIE)."""
    if kind.lower() not in _ASCEND:
        raise not_known(field, kind, _ASCEND)
    return Stored(_ASCEND[kind.lower()], "", "modelslim")


# ---- ModelOpt


def _modelopt(block: Block, method: str, field: str) -> Stored:
    algo = str(block.get("quant_algo") or ("NVFP4" if method == "modelopt_fp4" else "")).upper()
    kv = block.get("kv_cache_quant_algo") or ""
    scheme = block.get("kv_cache_scheme")
    if isinstance(scheme, str):
        kv = kv or scheme
    elif scheme:
        kv = kv or _scheme(scheme, field)
    if kv and str(kv).upper() not in ("FP8", "NONE"):
        raise not_known(f"{field}.kv_cache_quant_algo", str(kv), ["FP8"])
    held = "fp8" if str(kv).upper() == "FP8" else ""
    if algo == "MIXED_PRECISION":
        return _mixed(block, held, field)
    if algo and algo not in _MODELOPT:
        raise not_known(f"{field}.quant_algo", algo, [*_MODELOPT, "MIXED_PRECISION"])
    return Stored(_MODELOPT.get(algo, ""), held, "modelopt", _names(block, field))


def _mixed(block: Block, kv: str, field: str) -> Stored:
    """``quantized_layers`` name every quantised module with its algorithm; without them the groups do."""
    layers = block.get("quantized_layers")
    if layers is None:
        return replace(_compressed({**block, "format": "mixed-precision"}, field), kv=kv, method="modelopt")
    if not isinstance(layers, Mapping) or not layers:
        raise ConfigError(f"{field}.quantized_layers", layers, "must name the quantised modules")
    by_format: dict[str, list[str]] = {}
    for name, said in layers.items():
        algo = str(said.get("quant_algo") if isinstance(said, Mapping) else said).upper()
        if algo not in _MODELOPT:
            raise not_known(f"{field}.quantized_layers.{name}", algo, _MODELOPT)
        by_format.setdefault(_MODELOPT[algo], []).append(str(name))
    groups = tuple((tuple(names), form) for form, names in by_format.items())
    most = max(by_format, key=lambda form: len(by_format[form]))
    return Stored(most, kv, "modelopt", _names(block, field), groups)


def _scheme(scheme: object, field: str) -> str:
    """Dtype of a ``kv_cache_scheme``."""
    if not isinstance(scheme, Mapping):
        raise ConfigError(f"{field}.kv_cache_scheme", scheme, "must be a mapping")
    kind, bits = scheme.get("type"), scheme.get("num_bits")
    if (kind, bits) != ("float", 8):
        raise not_known(f"{field}.kv_cache_scheme", f"{kind} {bits}", ["float 8"])
    return "fp8"


# ---- compressed-tensors (llm-compressor)


def _compressed(block: Block, field: str) -> Stored:
    form = str(block.get("format") or "")
    if form not in _FORMATS:
        raise not_known(f"{field}.format", form, _FORMATS)
    ignore, scheme = _names(block, field), block.get("kv_cache_scheme")
    kv = _scheme(scheme, field) if scheme else ""
    groups = block.get("config_groups")
    if groups is None:
        groups = {}
    if not isinstance(groups, Mapping) or not all(isinstance(g, Mapping) for g in groups.values()):
        raise ConfigError(f"{field}.config_groups", groups, "must map names to groups")
    found = [_group(g, form, f"{field}.config_groups.{name}") for name, g in groups.items()]
    if not found:
        found = [_group({}, form, f"{field}.config_groups")]
    if len({f for _, f in found}) == 1 and any(_everything(targets) for targets, _ in found):
        return Stored(found[0][1], kv, "compressed-tensors", ignore)
    narrow_first = sorted(found, key=lambda g: _everything(g[0]))
    return Stored(found[0][1], kv, "compressed-tensors", ignore, tuple(narrow_first))


def _everything(targets: tuple[str, ...]) -> bool:
    return any(t in ("*", "Linear", "re:.*") for t in targets)


def _group(group: Block, form: str, field: str) -> tuple[tuple[str, ...], str]:
    """(targets, format) of one group."""
    targets = group.get("targets", ["Linear"])
    if not isinstance(targets, list | tuple) or not all(isinstance(t, str) for t in targets):
        raise ConfigError(f"{field}.targets", targets, "must be a list of module names")
    weights, inputs = group.get("weights") or {}, group.get("input_activations") or {}
    if group and (not isinstance(weights, Mapping) or weights.get("num_bits") is None):
        raise ConfigError(f"{field}.weights.num_bits", weights, "is missing")
    for key, value in (("weights", weights), ("input_activations", inputs)):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{field}.{key}", value, "must be a mapping")
    form = str(group.get("format") or form)
    if form == "mixed-precision":
        form = "" if weights else "float-quantized"
    return tuple(targets), _group_format(form, weights, inputs, field)


def _group_format(form: str, weights: Block, inputs: Block, field: str) -> str:
    said = {"nvfp4-pack-quantized": "nvfp4" if inputs or not weights else "nvfp4-wo", "mxfp4-pack-quantized": "mxfp4-linear"}
    said |= {"mxfp8-quantized": "mxfp8", "marlin-24": "w4-24"}
    if form in said:
        return said[form]
    kind = str(weights.get("type") or ("int" if form in ("int-quantized", "pack-quantized") else "float"))
    default = 4 if form == "pack-quantized" else 8
    bits = _whole(weights, "num_bits", f"{field}.weights", (3, 4, 8), default)
    group = weights.get("group_size")
    group = 128 if form == "pack-quantized" and not weights else group if isinstance(group, int) and group > 0 else 0
    if kind == "float":
        if bits == 8:
            return "fp8"
        return "nvfp4" if group == 16 else "mxfp4-linear" if group == 32 else _refuse(f"{kind} {bits} group {group}", field)
    if kind != "int":
        raise not_known(f"{field}.weights.type", kind, ["int", "float"])
    acts, act_kind = inputs.get("num_bits"), inputs.get("type")
    if not weights and form == "int-quantized":
        return "w8a8"
    if bits == 8:
        return "w8a8" if acts == 8 else "w8a16" if not group else integer_format(8, group, False)
    if acts == 8:
        return "w4a8" if act_kind == "int" else "w4a8-fp8"
    if acts is not None:
        return _refuse(f"{bits} bits with {acts}-bit activations", field)
    if bits == 4 and group == 128 and weights.get("symmetric") is not False:
        return "awq-int4"
    return integer_format(bits, group, weights.get("symmetric") is False)


def _refuse(kind: str, field: str) -> str:
    raise not_known(f"{field}.weights", kind, ["int 3, 4, 8", "float 8", "float 4 group 16", "float 4 group 32"])


# ---- integers, bitsandbytes, Quark


def _integers(block: Block, method: str, field: str) -> Stored:
    key = "w_bit" if "w_bit" in block and "bits" not in block else "bits"
    family = "awq" if method.startswith("awq") else "gptq"
    allowed = {"awq": (4,), "gptq": (3, 4, 8)}[family] if "round" not in method else (2, 3, 4, 8)
    bits = _whole(block, key, field, allowed, 4)
    group = block.get("group_size", block.get("q_group_size", 128))
    if isinstance(group, bool) or not isinstance(group, int) or group < -1:
        raise ConfigError(f"{field}.group_size", group, "must be a whole number, or -1 for one group per channel")
    name = f"{family}-int{bits}" if group == 128 and "round" not in method else integer_format(bits, max(group, 0), True)
    ignore = _names(block, field)
    dynamic = block.get("dynamic")
    if isinstance(dynamic, Mapping):  # GPTQModel: "-:pattern" leaves modules out
        ignore += tuple(f"re:{p[2:]}" for p in dynamic if isinstance(p, str) and p.startswith("-:"))
    groups = ((("lm_head",), name), (ALL, name)) if block.get("lm_head") is True else ()
    return Stored(name, "", method, ignore, groups)


def _bitsandbytes(block: Block, field: str) -> Stored:
    four = block.get("load_in_4bit", block.get("_load_in_4bit", False))
    eight = block.get("load_in_8bit", block.get("_load_in_8bit", False))
    if not four and not eight:
        raise ConfigError(f"{field}.load_in_4bit", four, "neither load_in_4bit nor load_in_8bit is true")
    name = "bnb-int8"
    if four:
        name = "nf4" if block.get("bnb_4bit_use_double_quant") else "fp4-bnb"
    return Stored(name, "", "bitsandbytes", _names(block, field))


_QUARK = {
    "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8",
    "fp4": "mxfp4-linear",
    "mxfp4": "mxfp4-linear",
    "int8": "w8a8",
    "int4": "awq-int4",
    "uint4": "awq-int4",
}


def _quark(block: Block, field: str) -> Stored:
    default = _quark_format(block.get("global_quant_config"), f"{field}.global_quant_config")
    layers = block.get("layer_quant_config") or {}
    if not isinstance(layers, Mapping):
        raise ConfigError(f"{field}.layer_quant_config", layers, "must map module names to formats")
    own = tuple(((str(p),), _quark_format(g, f"{field}.layer_quant_config.{p}")) for p, g in layers.items())
    groups = (*own, (ALL, default)) if any(form != default for _, form in own) else ()
    return Stored(default, "", "quark", _names(block, field), groups)


def _quark_format(group: object, field: str) -> str:
    weight = group.get("weight") if isinstance(group, Mapping) else None
    if isinstance(weight, list | tuple) and weight:
        weight = weight[0]
    if not isinstance(weight, Mapping):
        raise ConfigError(f"{field}.weight", weight, "must be a mapping")
    dtype = str(weight.get("dtype") or "").lower()
    if dtype not in _QUARK:
        raise not_known(f"{field}.weight.dtype", dtype, _QUARK)
    return _QUARK[dtype]
