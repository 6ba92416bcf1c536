"""Number formats of checkpoints quantised by PyTorch's own tools: torchao and HQQ.

*Source*: torchao ``quantization/quant_api.py`` (configs are stored as ``_type`` and ``_data``); transformers ``TorchAoConfig``, ``HqqConfig``; vLLM
``quantization/torchao.py``, ``hqq_marlin.py`` (4 bits in groups of 64 is all the latter runs).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim.errors import ConfigError, NotModelledError
from sim.model.quant import integer_format, not_known

Block = Mapping[str, Any]
Group = tuple[tuple[str, ...], str]

_CONFIGS = {
    "Int8WeightOnlyConfig": "w8a16",
    "Int8DynamicActivationInt8WeightConfig": "w8a8",
    "Float8WeightOnlyConfig": "w8a16",  # 8 bits with 16-bit activations, as integers
    "Float8DynamicActivationFloat8WeightConfig": "fp8",
    "Float8StaticActivationFloat8WeightConfig": "fp8",
    "Float8DynamicActivationInt4WeightConfig": "w4a8-fp8",
    "NVFP4InferenceConfig": "nvfp4",
    "NVFP4DynamicActivationNVFP4WeightConfig": "nvfp4",
    "NVFP4WeightOnlyConfig": "nvfp4-wo",
}
_NAMES = {  # before torchao 0.10 a name and arguments
    "int4_weight_only": "Int4WeightOnlyConfig",
    "int8_weight_only": "Int8WeightOnlyConfig",
    "int8_dynamic_activation_int8_weight": "Int8DynamicActivationInt8WeightConfig",
    "float8_weight_only": "Float8WeightOnlyConfig",
    "float8_dynamic_activation_float8_weight": "Float8DynamicActivationFloat8WeightConfig",
}
_BY_MODULE = ("ModuleFqnToConfig", "FqnToConfig")
_GROUP_TORCHAO, _GROUP_HQQ = 128, 64


def torchao(block: Block, field: str) -> tuple[str, tuple[Group, ...], tuple[str, ...]]:
    """(format of most modules, modules in other formats, modules in 16 bits) of a torchao checkpoint.

    Raises `NotModelledError` for a config that is not modelled, `ConfigError` for one that cannot be read.
    """
    kind = block.get("quant_type")
    if isinstance(kind, str):
        if kind not in _NAMES:
            raise not_known(f"{field}.quant_type", kind, _NAMES)
        return _format(_NAMES[kind], block.get("quant_type_kwargs") or {}, f"{field}.quant_type"), (), ()
    said = kind.get("default") if isinstance(kind, Mapping) else None
    if not isinstance(said, Mapping) or not isinstance(said.get("_type"), str):
        raise ConfigError(f"{field}.quant_type.default", said, "must name a config of torchao (_type)")
    place = f"{field}.quant_type.default"
    if said["_type"] not in _BY_MODULE:
        return _format(said["_type"], _data(said, place), place), (), ()
    data = _data(said, place)
    modules = next((data[k] for k in ("module_fqn_to_config", "fqn_to_config") if isinstance(data.get(k), Mapping)), None)
    if modules is None:
        raise ConfigError(f"{place}._data.module_fqn_to_config", None, "must map names of modules to configs")
    rest, groups, plain = "", [], []
    for name, config in modules.items():
        where = f"{place}._data.module_fqn_to_config.{name}"
        form = ""
        if config is not None:
            if not isinstance(config, Mapping) or not isinstance(config.get("_type"), str):
                raise ConfigError(where, config, "must name a config of torchao (_type)")
            form = _format(config["_type"], _data(config, where), where)
        if name == "_default":
            rest = form
        elif form:
            groups.append(((str(name),), form))
        else:
            plain.append(str(name))
    most = rest or (groups[0][1] if groups else "")
    return most, ((*groups, (("*",), rest)) if groups else ()), tuple(plain)


def hqq(block: Block, field: str) -> tuple[str, tuple[str, ...]]:
    """(format, modules in 16 bits) of an HQQ checkpoint. Raises as `torchao`."""
    config = block.get("quant_config")
    weights = config.get("weight_quant_params") if isinstance(config, Mapping) else None
    if not isinstance(weights, Mapping):
        raise ConfigError(f"{field}.quant_config.weight_quant_params", weights, "must be a mapping")
    for key, want in (("nbits", 4), ("group_size", _GROUP_HQQ)):
        if weights.get(key) != want:
            raise NotModelledError(
                f"{field}.quant_config.weight_quant_params.{key}", weights.get(key), "is run by no engine here", str(want)
            )
    skipped = block.get("skip_modules") or []
    if not isinstance(skipped, list) or not all(isinstance(name, str) for name in skipped):
        raise ConfigError(f"{field}.skip_modules", skipped, "must be a list of module names")
    return integer_format(4, _GROUP_HQQ, True, wide=True), tuple(skipped)


def _data(config: Block, field: str) -> Block:
    data = config.get("_data") or {}
    if not isinstance(data, Mapping):
        raise ConfigError(f"{field}._data", data, "must be a mapping")
    return data


def _format(kind: str, data: Block, field: str) -> str:
    if not isinstance(data, Mapping):
        raise ConfigError(field, data, "must be a mapping")
    if kind == "Int4WeightOnlyConfig":
        group = data.get("group_size", _GROUP_TORCHAO)
        if group not in (32, 64, 128, 256):
            raise ConfigError(f"{field}.group_size", group, "must be a group of torchao's 4-bit kernels", "32, 64, 128, 256")
        return integer_format(4, group, True, wide=True)
    if kind not in _CONFIGS:
        raise not_known(f"{field}._type", kind, ["Int4WeightOnlyConfig", *_CONFIGS, *_BY_MODULE])
    return _CONFIGS[kind]
