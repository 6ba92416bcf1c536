"""Fitted profiles (`profiles/fitted/*.yaml` and ``.npz``): reading them, and which one stands in for an accelerator that has none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import yaml

from sim.cost.forms import Machine
from sim.cost.residual import Residual, ShapeGrid
from sim.errors import ServesimError
from sim.hardware.accelerator import Accelerator
from sim.hardware.load import load_accelerator
from sim.resources import path

# Order in which other stacks of the same accelerator are asked for an operator that the own stack lacks.
STACK_ORDER = ("vllm", "sglang", "vllm-ascend")


@dataclass(frozen=True)
class FittedOperator:
    """One entry of a fitted profile: parameters of the form, and the residual grid where there is one."""

    stack: str
    name: str
    q: tuple[float, ...]
    unit: str
    reference: Mapping[str, Any] = field(hash=False)
    error: Mapping[str, Any] = field(hash=False)
    residual: Residual | ShapeGrid | None = None

    @property
    def machine(self) -> Machine:
        """The accelerator it was measured on."""
        return Machine(self.reference["peak"][self.unit], self.reference["bandwidth"], self.reference["sm"])


@lru_cache(maxsize=32)
def load_stack(name: str) -> dict[str, FittedOperator]:
    """Operators of a fitted profile; empty if there is none of that name."""
    text = path("profiles", "fitted", f"{name}.yaml")
    if not text.is_file():
        return {}
    data = yaml.load(text.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    grids = path("profiles", "fitted", f"{name}.npz")
    arrays: dict[str, Any] = {}
    if grids.is_file():
        with np.load(grids) as file:
            arrays = {k: file[k] for k in file.files}
    out: dict[str, FittedOperator] = {}
    for key, entry in data["operators"].items():
        axes = tuple(arrays[f"{key}/axis{i}"].astype(float) for i in range(4) if f"{key}/axis{i}" in arrays)
        residual: Residual | ShapeGrid | None = None
        if f"{key}/keys" in arrays:
            residual = Residual(arrays[f"{key}/keys"].astype(float), axes, arrays[f"{key}/values"])
        elif axes:
            residual = ShapeGrid(axes, arrays[f"{key}/values"])
        q = tuple(entry["parameters"].values())
        out[key] = FittedOperator(name, key, q, entry.get("unit", "bf16"), data["reference"], entry.get("error", {}), residual)
    return out


# Accelerators with fitted profiles: name → first part of the stack's name.
MEASURED = {
    "h100-sxm": "h100-sxm",
    "h200-sxm": "h200-sxm",
    "a100-sxm-80g": "a100-sxm",
    "l40s": "l40s",
    "h20": "h20",
    "ascend-910b2": "ascend-910b",
}


def measured_as(name: str) -> str:
    """First part of the stack's name of an accelerator with fitted profiles, or an empty string."""
    return MEASURED.get(name, "") or (name if any(load_stack(f"{name}.{f}") for f in STACK_ORDER) else "")


def stand_in(a: Accelerator) -> tuple[str, str]:
    """Whose kernels stand in for an accelerator without any: its proxy's, the proxy's proxy's …, else the nearest by kind."""
    seen, here = {a.name}, a
    while here.proxy and here.proxy.name not in seen:
        if own := measured_as(here.proxy.name):
            return own, here.proxy.reason
        seen.add(here.proxy.name)
        try:
            here = load_accelerator(here.proxy.name)
        except ServesimError:
            break
    if a.vendor.lower().startswith("huawei"):
        return "ascend-910b", "the only Ascend with measured kernels"
    hbm = a.memory_bandwidth >= 1.2e12 and a.vendor.lower() == "nvidia" and a.compute_capability < "8.6"
    if hbm or a.vendor.lower() != "nvidia":
        return "a100-sxm", "nearest measured kernels"
    if a.compute_capability.startswith(("9", "10")):
        return "h100-sxm", "nearest NVIDIA generation with measured kernels"
    return "l40s", "nearest GPU with GDDR memory and measured kernels"
