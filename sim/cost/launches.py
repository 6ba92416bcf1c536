"""What the host needs to launch kernels one by one: those of whole layers beyond the captured sizes, and those that graphs leave out."""

from __future__ import annotations

from sim.cost.profile import EngineProfile
from sim.hardware.accelerator import Accelerator
from sim.model.mixers import Attention
from sim.model.recurrent import Recurrent
from sim.model.spec import ModelSpec

WITHOUT_SINKS = ("sm_80", "sm_86", "sm_89")
"""Generations whose FlashAttention (2) knows no sinks: such attention runs in Triton."""


def eager(p: EngineProfile, m: ModelSpec) -> float:
    """Seconds to launch the kernels of all layers."""
    return p.eager_layer * m.layers + p.eager_expert_layer * sum(m.experts_in)


def piecewise(p: EngineProfile, m: ModelSpec, a: Accelerator, prompts: bool = False) -> float:
    """Seconds to launch what graphs of pieces leave out: none where a whole decode step is one graph; steps with ``prompts`` never are."""
    if p.decode_graph == "full" and not prompts:
        return 0.0
    triton = sum(isinstance(b.mixer, Attention) and b.mixer.sinks > 0 for b in m.blocks) if a.generation in WITHOUT_SINKS else 0
    return p.piecewise_layer * m.layers + p.sinks_layer * triton


def chunked(p: EngineProfile, m: ModelSpec) -> float:
    """Seconds that steps with prompts take beside either, to launch the chunked form of recurrent layers: no graph holds it."""
    return p.recurrent_layer * sum(isinstance(b.mixer, Recurrent) for b in m.blocks)
