"""What the host needs to launch kernels one by one: those of whole layers beyond the captured sizes, and those that graphs leave out."""

from __future__ import annotations

from sim.cost.profile import EngineProfile
from sim.hardware.accelerator import Accelerator
from sim.model.mixers import Attention
from sim.model.recurrent import Recurrent
from sim.model.spec import ModelSpec

WITHOUT_SINKS = ("sm_80", "sm_86", "sm_89")
"""Generations whose FlashAttention (2) knows no sinks: such attention runs in Triton."""


def eager(p: EngineProfile, m: ModelSpec, prompts: bool = False) -> float:
    """Seconds to launch the kernels of all layers, in a step that computes ``prompts`` or only decodes."""
    recurrent = p.recurrent_layer * _recurrent(m) if prompts else 0.0
    return p.eager_layer * m.layers + p.eager_expert_layer * sum(m.experts_in) + recurrent


def piecewise(p: EngineProfile, m: ModelSpec, a: Accelerator, prompts: bool = False) -> float:
    """Seconds to launch what graphs of pieces leave out: attention; in steps with ``prompts`` the chunked form of recurrent layers too.

    Steps with prompts never are one graph; of decode steps nothing is left out where a whole one is.
    """
    recurrent = p.recurrent_layer * _recurrent(m) if prompts else 0.0
    if p.decode_graph == "full" and not prompts:
        return 0.0
    triton = sum(isinstance(b.mixer, Attention) and b.mixer.sinks > 0 for b in m.blocks) if a.generation in WITHOUT_SINKS else 0
    return p.piecewise_layer * m.layers + p.sinks_layer * triton + recurrent


def _recurrent(m: ModelSpec) -> int:
    """Layers with a recurrent state."""
    return sum(isinstance(b.mixer, Recurrent) for b in m.blocks)
