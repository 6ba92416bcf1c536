"""Which measurements make which fitted profile, and the writing of the profile (``.npz`` with grids, ``.yaml`` with everything else)."""

from __future__ import annotations

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

# reference: the figures that the efficiencies are relative to
STACKS: dict[str, dict[str, Any]] = {
    "h100-sxm.vllm": {"system": "h100_sxm", "framework": "vllm", "version": "0.24.0", "reference": _H100},
    "h100-sxm.sglang": {"system": "h100_sxm", "framework": "sglang", "version": "0.5.14", "reference": _H100},
    "h200-sxm.vllm": {"system": "h200_sxm", "framework": "vllm", "version": "0.24.0", "reference": _H200},
    "h200-sxm.sglang": {"system": "h200_sxm", "framework": "sglang", "version": "0.5.14", "reference": _H200},
    "a100-sxm.vllm": {"system": "a100_sxm", "framework": "vllm", "version": "0.14.0", "reference": _A100},
    "a100-sxm.sglang": {"system": "a100_sxm", "framework": "sglang", "version": "0.5.10", "reference": _A100},
    "l40s.vllm": {"system": "l40s", "framework": "vllm", "version": "0.24.0", "collectives": "0.14.0", "mla": "0.14.0", "reference": _L40S},
    "l40s.sglang": {"system": "l40s", "framework": "sglang", "version": "0.5.14", "reference": _L40S},
    "ascend-910b.vllm-ascend": {"system": "ascend_910b", "framework": "vllm-ascend", "version": "0.18.0", "reference": _910B},
    "h20.sglang": {
        "system": "h20", "framework": "deepgemm", "version": "unknown", "decode": ("flashinfer", "unknown"), "prefill": ("fa3", "unknown"),
        "reference": _H20,
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
KV_DTYPES = {"bfloat16": ("bf16", 2.0), "fp8": ("fp8", 1.0)}


def _select(data: pd.DataFrame, stack: dict[str, Any], table: str) -> pd.DataFrame:
    framework, version = stack["framework"], stack["version"]
    other = stack.get(table)
    if other is not None:
        framework, version = (framework, other) if isinstance(other, str) else other
    return data[(data.system == stack["system"]) & (data.framework == framework) & (data.version == version)]


def fit_stack(name: str, stack: dict[str, Any], folder: Path, out: Path, check: bool) -> None:
    """Fit every operator that was measured for this stack and write ``NAME.npz`` and ``NAME.yaml``."""
    results: dict[str, dict[str, Any]] = {}
    reference = stack["reference"]
    half = Machine(reference["peak"]["bf16"], reference["bandwidth"], reference["sm"])

    def read(table: str) -> pd.DataFrame:
        return _select(
            pd.read_parquet(folder / f"{table}.parquet"),
            stack,
            {"attention_prefill": "prefill", "attention_decode": "decode"}.get(table, table),
        )

    d = read("gemm")
    for dtype in sorted(map(str, d.dtype.unique()) if len(d) else ()):
        label, unit, weight, act = GEMM_DTYPES[dtype]
        hw = half._replace(peak=reference["peak"][unit])
        results[f"gemm.{label}"] = operators.gemm(d[d.dtype == dtype], hw, weight, act, check) | {
            "unit": unit,
            "weight_bytes": weight,
            "act_bytes": act,
        }
    for table, kind in (("attention_prefill", "prefill"), ("attention_decode", "decode")):
        d = read(table)
        for (dim, kv), part in d.groupby(["head_dim", "kv_dtype"], observed=True):
            part = (
                part[part.attn_dtype.astype(str) == "bfloat16"]
                if "attn_dtype" in part and (part.attn_dtype.astype(str) == "bfloat16").any()
                else part
            )
            part = part[part.window == 0]
            if len(part) < 40 or str(kv) not in KV_DTYPES:
                continue
            label, element = KV_DTYPES[str(kv)]
            done = (
                operators.prefill(part, half, int(dim), check)
                if kind == "prefill"
                else operators.decode(part, half, int(dim), element, check)
            )
            results[f"{kind}.{label}.{int(dim)}"] = done | {"unit": "bf16"}
    for table, kind in (("mla_prefill", "latent_prefill"), ("mla_decode", "latent_decode")):
        d = _select(pd.read_parquet(folder / f"{table}.parquet"), stack, "mla")
        for kv, part in d.groupby("kv_dtype", observed=True):
            label, element = KV_DTYPES[str(kv)]
            if len(part) >= 40:
                fitted = (
                    operators.latent_prefill(part, half, check)
                    if kind == "latent_prefill"
                    else operators.latent_decode(part, half, element, check)
                )
                results[f"{kind}.{label}"] = fitted | {"unit": "bf16"}
    d = read("moe")
    d = d[d.distribution.astype(str).isin(["power_law_1.2", "unknown"])]
    for dtype in sorted(map(str, d.dtype.unique()) if len(d) else ()):
        label, unit, weight, act = GEMM_DTYPES[dtype]
        hw = half._replace(peak=reference["peak"][unit])
        results[f"moe.{label}"] = operators.moe(d[d.dtype == dtype], hw, weight, check) | {
            "unit": unit,
            "weight_bytes": weight,
            "act_bytes": act,
        }
    d = read("collectives")
    d = d[(d.collective == "all_reduce") & d.backend.astype(str).str.contains("graph") & d.dtype.isin(["half", "bfloat16"])]
    if len(d):
        results["all_reduce"] = operators.all_reduce(d) | {"unit": "bf16"}
    write(name, stack, results, out)


def write(name: str, stack: dict[str, Any], results: dict[str, dict[str, Any]], out: Path) -> None:
    """The two files of a profile."""
    arrays: dict[str, Any] = {}
    text: dict[str, Any] = {
        "stack": {k: stack[k] for k in ("system", "framework", "version")},
        "reference": stack["reference"],
        "source": stack.get(
            "source",
            "operator timings of aiconfigurator@095f58a5, aiconfigurator-npu@90d7765a and InferSim@f2293dab (medians of repeats)",
        ),
        "form": "sim/cost/forms.py, residual log(measured/form) on the measured grid in the .npz",
        "operators": {},
    }
    for key, r in results.items():
        names = forms.PARAMETERS[{"latent_prefill": "prefill", "latent_decode": "decode"}.get(r["operator"], r["operator"])]
        entry = {k: r[k] for k in ("unit", "weight_bytes", "act_bytes", "rows", "error") if k in r}
        entry["parameters"] = {n: float(f"{v:.6g}") for n, v in zip(names, r["parameters"], strict=True)}
        text["operators"][key] = entry
        arrays[f"{key}/values"] = r["values"]
        if "keys" in r:
            arrays[f"{key}/keys"] = r["keys"].astype(np.float32)
        for i, axis in enumerate(r["axes"]):
            arrays[f"{key}/axis{i}"] = axis.astype(np.float32)
    out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out / f"{name}.npz", **arrays)
    (out / f"{name}.yaml").write_text(yaml.safe_dump(text, sort_keys=False, default_flow_style=None, width=140))
