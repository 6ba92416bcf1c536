"""Shared experts that a kernel of routed experts computes with them: one more expert, which every token goes to.

*Source*: SGLang ``determine_num_fused_shared_experts`` of models/deepseek_v2.py (pull requests 4918 and, for Hopper, 5571): DeepSeek V3 and R1, 256
routed experts and one as wide beside them, on NVIDIA cards, unless experts are spread over ranks.
"""

from __future__ import annotations

from sim.cost.layout import Layout
from sim.hardware.accelerator import Accelerator
from sim.model.spec import LinearShape, ModelSpec, MoeShape

_ROUTED = 256


def fused(model: ModelSpec, accelerator: Accelerator, layout: Layout) -> int:
    """Number of shared experts that a kernel with this ability takes."""
    alike = model.is_mla and model.n_experts == _ROUTED and model.shared_intermediate == model.moe_intermediate
    return int(alike and accelerator.vendor == "nvidia" and layout.ep <= 1 and layout.dp == 1)


def linear_shapes(model: ModelSpec, tp: int, taken: int) -> tuple[LinearShape, ...]:
    """The products of a layer without those of ``taken`` shared experts."""
    return tuple(s for s in model.linear_shapes(tp) if not (taken and s.name.startswith("shared_")))


def moe_shape(model: ModelSpec, layout: Layout, taken: int) -> MoeShape | None:
    """The experts of a rank, with ``taken`` shared ones."""
    shape = model.moe_shape(layout.tp, layout.ep, layout.dp)
    return shape._replace(shared=taken) if shape else None
