"""Which measurements make which fitted profile, and the writing of the profile (``.npz`` with grids, ``.yaml`` with everything else)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from sim.cost import forms
from sim.cost.fit import operators
from sim.cost.forms import Machine

_H100 = {"peak": {"bf16": 989.4e12, "fp8": 1978.9e12}, "bandwidth": 3.35e12, "sm": 132, "link": 450e9}
_H200 = _H100 | {"bandwidth": 4.8e12}
_A100 = {"peak": {"bf16": 312e12, "int8": 624e12}, "bandwidth": 2.039e12, "sm": 108, "link": 300e9}
_L40S = {"peak": {"bf16": 362.05e12, "fp8": 733e12}, "bandwidth": 0.864e12, "sm": 142, "link": 32e9}
_910B = {"peak": {"bf16": 376e12, "int8": 752e12}, "bandwidth": 1.6e12, "sm": 24, "link": 196e9}
_H20 = {"peak": {"bf16": 148e12, "fp8": 296e12}, "bandwidth": 4.0e12, "sm": 78, "link": 450e9}

# Block-scaled GEMMs of 0.24 were timed without graphs (60 µs floor), its fp8 experts by a path slower than 16 bits: 0.19 has both right.
_VLLM_019 = {"gemm.fp8_block": "0.19.0", "moe.fp8": "0.19.0"}

# Left out: mxfp4 experts of SGLang were timed with the kernel for 16 bits (its time is that of 16-bit weights); engines run the one that vLLM's
# table has. On A100 its experts were timed with every token on the local experts, whatever the width of expert parallelism.
_NO_MXFP4: dict[str, str | None] = {"moe.mxfp4": None}

# Block-scaled experts of DeepSeek V3, evenly routed, came out at 1.7 times the bandwidth of the memory in these tables: not all of them were woken.
# vLLM 0.19 timed them all. SGLang's of the skewed routing, which is used, agree with those within 7 %.
_DEEPSEEK = (7168, 2048, 256, 8)
_INSTEAD_VLLM = {"moe.fp8_block": (_DEEPSEEK, "0.19.0")}

# Experts behind an all-to-all run grouped GEMMs (DeepGEMM); those of TensorRT-LLM are the nearest that were measured.
_GROUPED = ("trtllm", "1.3.0rc20")

# Collectives of L40S were timed in two servers. In one, four cards reach 21 GB/s of bus bandwidth, as NCCL over PCIe 4.0 does; in the other
# they lie on two sockets and reach 3.7 GB/s (kept for cards whose traffic passes through host memory), but two of one socket 19, with the
# custom kernel that engines use for a pair.
_L40S_ONE_ROOT = {2: ("vllm", "0.14.0"), 4: ("sglang", "0.5.12"), 8: ("sglang", "0.5.12")}

_SGLANG: dict[str, Any] = {
    "framework": "sglang", "version": "0.5.14", "moe_ep": _GROUPED, "dtypes": _NO_MXFP4,
}  # fmt: skip

# Experts with 4-bit weights unpack them before they multiply: 0.15 ms for one of Kimi K2 (22 MB, 9 % of the bandwidth) however few tokens it has.
# 16 dies of 910C (vllm-ascend 0.20.2rc1) have 58, 60, 70 and 87 ms a token with 1, 2, 4 and 8 requests: 53, 54, 62 and 85 with it, 53 each without.
_910B_INT4: dict[str, Any] = {
    "unit": "bf16",
    "parameters": {
        "compute_efficiency": 0.4, "bandwidth_efficiency": 0.092, "floor_us": 22.0, "p": 1.5, "token_ns": 0.0, "tile": 45.0, "weight_share": 1.0,
    },
}  # fmt: skip

# reference: the figures that the efficiencies are relative to
STACKS: dict[str, dict[str, Any]] = {
    "h100-sxm.vllm": {"system": "h100_sxm", "framework": "vllm", "version": "0.24.0", "dtypes": _VLLM_019, "instead": _INSTEAD_VLLM, "reference": _H100},
    "h100-sxm.sglang": _SGLANG | {"system": "h100_sxm", "reference": _H100},
    "h200-sxm.vllm": {"system": "h200_sxm", "framework": "vllm", "version": "0.24.0", "dtypes": _VLLM_019, "instead": _INSTEAD_VLLM, "reference": _H200},
    "h200-sxm.sglang": _SGLANG | {"system": "h200_sxm", "reference": _H200},
    "a100-sxm.vllm": {"system": "a100_sxm", "framework": "vllm", "version": "0.14.0", "reference": _A100},
    "a100-sxm.sglang": {"system": "a100_sxm", "framework": "sglang", "version": "0.5.10", "whole_experts": True, "reference": _A100},
    "l40s.vllm": {
        "system": "l40s", "framework": "vllm", "version": "0.24.0", "collectives": _L40S_ONE_ROOT, "mla": "0.14.0",
        "dtypes": {"gemm.fp8_block": None}, "instead": {"moe.fp8_block": (_DEEPSEEK, None)}, "reference": _L40S,
    },
    "l40s.sglang": {"system": "l40s", "framework": "sglang", "version": "0.5.14", "collectives": _L40S_ONE_ROOT, "dtypes": _NO_MXFP4, "reference": _L40S},
    "l40s-sockets.vllm": {"system": "l40s", "framework": "vllm", "version": "0.14.0", "only": ("collectives",), "reference": _L40S},
    "ascend-910b.vllm-ascend": {
        "system": "ascend_910b", "framework": "vllm-ascend", "version": "0.18.0", "reference": _910B, "given": {"moe.int4": _910B_INT4},
    },
    # decode attention was timed with FlashInfer, which SGLang no longer uses on Hopper: H100's FlashAttention stands in
    "h20.sglang": {
        "system": "h20", "framework": "deepgemm", "version": "unknown", "prefill": ("fa3", "unknown"),
        "quantise_us": {"gemm.fp8_block": 1.5},  # DeepGEMM was timed without the kernel that quantises its input
        "least": 10, "reference": _H20,
        "borrowed": {"gemm.bf16": ("h100-sxm.sglang", {"compute_efficiency": 0.9})},  # few, busy cores: 0.95 in its fp8 GEMM
    },
}  # fmt: skip

# measured dtype → (name in the profile, matrix-unit dtype, bytes per weight, bytes per activation)
GEMM_DTYPES = {
    "bfloat16": ("bf16", "bf16", 2.0, 2.0),
    "fp8": ("fp8", "fp8", 1.0, 1.0),
    "fp8_block": ("fp8_block", "fp8", 1.0, 1.0),
    "int8_w8a8": ("int8", "int8", 1.0, 1.0),
    "sq": ("int8", "int8", 1.0, 1.0),
    "int4_wo": ("int4", "bf16", 0.5, 2.0),
    "int8_wo": ("int8_wo", "bf16", 1.0, 2.0),
    "w4a16_mxfp4": ("mxfp4", "bf16", 4.25 / 8, 2.0),
}
_LEAST = 40  # rows from which on an operator is fitted; ``stack["least"]`` says otherwise
KV_DTYPES = {"bfloat16": ("bf16", 2.0), "fp8": ("fp8", 1.0)}


_COLUMNS = ("system", "framework", "version", "dtype", "kv_dtype", "head_dim", "window", "collective", "backend", "distribution")
Results = dict[str, operators.Result]
# Routing of the measured experts, best first. Few experts are nearly evenly used (whole steps of Mixtral, 8 experts, agree with the even tables
# within 3 %, with power-law ones they come out 10 to 20 % too slow); `operators.moe` makes it even by chance. Many experts are not: steps of
# gpt-oss and MiniMax (128 and 256) are faster for few tokens, which wake fewer of them, and slower for prompts, as in the power-law tables.
# Where many experts are spread over ranks, the power-law tables time the rank with most tokens (aiconfigurator's collector moves it to the
# front): ``skewed_beyond`` says so, or `forms.busiest` would count it twice. Bursts and loops to MiniMax M2.5 on four H100 lie on them.
_EVEN = ("balanced", "power_law_1.01", "power_law_1.2", "unknown")
_SKEWED = ("power_law_1.01", "balanced", "power_law_1.2", "unknown")
_POWER_LAWS = ("power_law_1.01", "power_law_1.2")
_FEW = 16


def _read(folder: Path, table: str) -> pd.DataFrame:
    """A table of the data folder; an absent one has no rows."""
    file = folder / f"{table}.parquet"
    return pd.read_parquet(file) if file.is_file() else pd.DataFrame({c: [] for c in _COLUMNS})


def _select(data: pd.DataFrame, stack: dict[str, Any], table: str) -> pd.DataFrame:
    """Rows of the stack; ``stack[table]`` names another version, or another (framework, version), for one table."""
    framework, version = stack["framework"], stack["version"]
    other = stack.get(table)
    if other is not None:
        framework, version = (framework, other) if isinstance(other, str) else other
    selected: pd.DataFrame = data[(data.system == stack["system"]) & (data.framework == framework) & (data.version == version)]
    return selected


def fit_stack(name: str, stack: dict[str, Any], folder: Path, out: Path, check: bool) -> None:
    """Fit every operator that was measured for this stack (``only`` names tables) and write ``NAME.npz`` and ``NAME.yaml``."""
    results = {} if "only" in stack else _kernels(stack, folder, check)
    d = _collectives(_read(folder, "collectives"), stack)
    d = d[(d.collective == "all_reduce") & d.backend.astype(str).str.contains("graph") & d.dtype.isin(["half", "bfloat16"])]
    if len(d):
        results["all_reduce"] = {**operators.all_reduce(d), "unit": "bf16"}
    write(name, stack, results, out)


def _collectives(data: pd.DataFrame, stack: dict[str, Any]) -> pd.DataFrame:
    """Rows of the stack; ``stack["collectives"]`` may name another source for each number of ranks."""
    other = stack.get("collectives")
    if not isinstance(other, dict):
        return _select(data, stack, "collectives")
    parts = [_select(data[data.gpus == n], stack | {"collectives": source}, "collectives") for n, source in other.items()]
    return pd.concat(parts)


def _kernels(stack: dict[str, Any], folder: Path, check: bool) -> Results:
    results = _by_dtype(stack, folder, "gemm", check) | _attention(stack, folder, check) | _latent(stack, folder, check)
    results |= _by_dtype(stack, folder, "moe", check)
    if "moe_ep" in stack:  # grouped GEMMs behind an all-to-all
        other = stack | {"moe": stack["moe_ep"], "dtypes": {}, "whole_experts": False, "instead": {}}
        results |= {
            k.replace("moe.", "moe_ep."): r for k, r in _by_dtype(other, folder, "moe", check).items() if k == "moe.fp8_block"
        }
    return results


def _borrowed(stack: dict[str, Any], out: Path) -> dict[str, Any]:
    """Operators that were not measured here: another stack's parameters, with some of them replaced."""
    entries: dict[str, Any] = {}
    for key, (other, changes) in stack.get("borrowed", {}).items():
        entry = yaml.safe_load((out / f"{other}.yaml").read_text(encoding="utf-8"))["operators"][key]
        entries[key] = {"unit": entry["unit"], "borrowed": other, "parameters": entry["parameters"] | changes}
    return entries


def _half(stack: dict[str, Any]) -> Machine:
    r = stack["reference"]
    return Machine(r["peak"]["bf16"], r["bandwidth"], r["sm"])


def _possible(d: pd.DataFrame, rows: pd.DataFrame, stack: dict[str, Any], operator: str) -> pd.DataFrame:
    """Rows of experts without those that cannot be: ``stack["instead"]`` names a shape and the version that has it right, if any."""
    if stack.get("whole_experts"):
        d = d[d.ep == 1]
    shape, version = stack.get("instead", {}).get(operator, (None, None))
    if shape is None:
        return d
    names = ["hidden", "inter", "experts", "topk"]
    kept = d[(d[names] != list(shape)).any(axis=1)]
    if version is None:
        return kept
    right = _select(rows, stack | {"version": version}, "moe")
    return pd.concat([kept, right[(right[names] == list(shape)).all(axis=1)]])


def _by_dtype(stack: dict[str, Any], folder: Path, table: str, check: bool) -> Results:
    """GEMM and experts: one operator per number format; ``stack["dtypes"]`` names another version for one format, or None to leave it out."""
    everything = _read(folder, table)
    out: Results = {}
    for dtype, (label, unit, weight, act) in GEMM_DTYPES.items():
        version = stack.get("dtypes", {}).get(f"{table}.{label}", stack["version"])
        rows = everything[everything.dtype.astype(str) == dtype]
        d = _select(rows, stack | {"version": version}, table)
        if table == "moe":
            d = _possible(d, rows, stack, f"{table}.{label}")
        if version is None or len(d) < 40:
            continue
        hw = _half(stack)._replace(peak=stack["reference"]["peak"][unit])
        if table == "moe":
            d, routing = _routed(d)
            result = operators.moe(d, hw, weight, check)
            result["routing"] = routing
            if (~d.even & (d.experts > _FEW) & (d.ep > 1) & d.distribution.astype(str).isin(_POWER_LAWS)).any():
                result["skewed_beyond"] = _FEW
        else:
            result = operators.gemm(d, hw, weight, act, check)
        result["parameters"][2] += stack.get("quantise_us", {}).get(f"{table}.{label}", 0.0)
        out[f"{table}.{label}"] = {**result, "unit": unit, "version": version, "weight_bytes": weight, "act_bytes": act}
    return out


def _routed(d: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Rows of the routing that is nearest to that of real models, and what it is; ``even`` marks rows that `operators.moe` corrects."""
    parts, words = [], []
    for even, order in ((True, _EVEN), (False, _SKEWED)):
        part = d[(d.experts <= _FEW) == even]
        routing = next((r for r in order if (part.distribution.astype(str) == r).any()), None)
        if routing is not None:
            part = part[part.distribution.astype(str) == routing]
            parts.append(part.assign(even=routing == "balanced"))
            words.append(f"{routing} ({'up to' if even else 'beyond'} {_FEW} experts)")
    return pd.concat(parts), ", ".join(words)


def _attention(stack: dict[str, Any], folder: Path, check: bool) -> Results:
    out: Results = {}
    for table, kind in (("attention_prefill", "prefill"), ("attention_decode", "decode")):
        data = _select(_read(folder, table), stack, kind)
        data = data[data.window == 0]
        for dim in sorted(data.head_dim.unique()):
            for kv, (label, element) in KV_DTYPES.items():
                d = data[(data.head_dim == dim) & (data.kv_dtype.astype(str) == kv)]
                if "attn_dtype" in d and (d.attn_dtype.astype(str) == "bfloat16").any():
                    d = d[d.attn_dtype.astype(str) == "bfloat16"]
                if len(d) < stack.get("least", _LEAST):
                    continue
                hw = _half(stack)
                fit = (
                    operators.prefill(d, hw, int(dim), check)
                    if kind == "prefill"
                    else operators.decode(d, hw, int(dim), element, check)
                )
                out[f"{kind}.{label}.{int(dim)}"] = {**fit, "unit": "bf16"}
    return out


def _latent(stack: dict[str, Any], folder: Path, check: bool) -> Results:
    out: Results = {}
    for table, kind in (("mla_prefill", "latent_prefill"), ("mla_decode", "latent_decode")):
        data = _select(_read(folder, table), stack, "mla")
        for kv, (label, element) in KV_DTYPES.items():
            d, hw = data[data.kv_dtype.astype(str) == kv], _half(stack)
            if len(d) >= 40:
                fit = (
                    operators.latent_prefill(d, hw, check)
                    if kind == "latent_prefill"
                    else operators.latent_decode(d, hw, element, check)
                )
                out[f"{kind}.{label}"] = {**fit, "unit": "bf16"}
    return out


def write(name: str, stack: dict[str, Any], results: Results, out: Path) -> None:
    """The two files of a profile."""
    arrays: dict[str, Any] = {}
    entries = _borrowed(stack, out) | stack.get("given", {})
    text: dict[str, object] = {
        "stack": {k: stack[k] for k in ("system", "framework", "version")},
        "reference": stack["reference"],
        "source": stack.get(
            "source",
            "operator timings of aiconfigurator@095f58a5, aiconfigurator-npu@90d7765a and InferSim@f2293dab (medians of repeats)",
        ),
        "form": "sim/cost/forms.py, residual log(measured/form) on the measured grid in the .npz",
        "operators": entries,
    }
    for key, r in results.items():
        names = forms.PARAMETERS[{"latent_prefill": "prefill", "latent_decode": "decode"}.get(r["operator"], r["operator"])]
        told: Mapping[str, object] = r
        shown = ("unit", "version", "routing", "skewed_beyond", "weight_bytes", "act_bytes", "rows", "error")
        entry: dict[str, object] = {k: told[k] for k in shown if k in told}
        entry["parameters"] = {n: float(f"{v:.6g}") for n, v in zip(names, r["parameters"], strict=True)}
        entries[key] = entry
        arrays[f"{key}/values"] = r["values"]
        if "keys" in r:
            arrays[f"{key}/keys"] = r["keys"].astype(np.float32)
        for i, axis in enumerate(r["axes"]):
            arrays[f"{key}/axis{i}"] = axis.astype(np.float32)
    out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out / f"{name}.npz", **arrays)
    (out / f"{name}.yaml").write_text(yaml.safe_dump(text, sort_keys=False, default_flow_style=None, width=140))
