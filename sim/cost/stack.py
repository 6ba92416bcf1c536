"""Fitted profiles (`profiles/fitted/*.yaml` and ``.npz``): reading them. Which one an accelerator takes is in `sim.cost.machines`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import yaml

from sim.cost.forms import Machine
from sim.cost.residual import Residual, ShapeGrid
from sim.resources import path

if TYPE_CHECKING:
    from sim.ledger import Values

# Order in which other stacks of the same accelerator are asked for an operator that the own stack lacks.
STACK_ORDER = ("vllm", "sglang", "vllm-ascend")


class Reference(TypedDict):
    """The accelerator that was measured: FLOP/s by unit, bytes per second, multiprocessors."""

    peak: Mapping[str, float]
    bandwidth: float
    sm: float


@dataclass(frozen=True)
class FittedOperator:
    """One entry of a fitted profile: parameters of the form, and the residual grid where there is one.

    ``skewed_beyond``: of more experts than that, spread over ranks, the busiest rank was timed, under skewed routing.
    """

    stack: str
    name: str
    q: tuple[float, ...]
    unit: str
    reference: Reference = field(hash=False)
    error: Mapping[str, float] = field(hash=False)
    residual: Residual | ShapeGrid | None = None
    skewed_beyond: float = inf

    @property
    def system(self) -> str:
        """First part of the stack's name."""
        return self.stack.partition(".")[0]

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
    data = yaml.load(text.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    grids = path("profiles", "fitted", f"{name}.npz")
    arrays: dict[str, Values] = {}
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
        skewed = entry.get("skewed_beyond", inf)
        out[key] = FittedOperator(
            name, key, q, entry.get("unit", "bf16"), data["reference"], entry.get("error", {}), residual, skewed
        )
    return out
