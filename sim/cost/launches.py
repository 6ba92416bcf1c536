"""Launches of kernels: what the host needs for those beyond the captured sizes and those that graphs leave out; how many small ones there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.cost.formats import Gemm
from sim.cost.forms import active_experts
from sim.cost.profile import EngineProfile
from sim.hardware.accelerator import Accelerator
from sim.model.mixers import Attention
from sim.model.mlps import Dense
from sim.model.recurrent import Recurrent
from sim.model.spec import ModelSpec, MoeShape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sim.cost.residual import Floats

    Ints = NDArray[np.int64]

WITHOUT_SINKS = ("sm_80", "sm_86", "sm_89")
"""Generations whose FlashAttention (2) knows no sinks: such attention runs in Triton."""


GROUPED_FROM = 128
"""Tokens from which on vLLM takes grouped products for 8-bit experts (DeepGEMM's alignment, ``fused_moe/deep_gemm_moe.py: _valid_deep_gemm_shape``)."""


def eager(p: EngineProfile, m: ModelSpec, tokens: Ints, prompts: bool = False) -> Floats:
    """Seconds to launch the kernels of all layers in steps of ``tokens``, with ``prompts`` or without; fused kernels for few tokens are fewer."""
    few = p.eager_expert_layer if p.eager_expert_few is None else p.eager_expert_few
    experts: Floats = np.where(tokens < GROUPED_FROM, few, p.eager_expert_layer) * sum(m.experts_in)
    latent = p.eager_latent_layer * m.layers if m.is_mla else 0.0
    layer = p.eager_layer + (p.eager_prompt_layer if prompts else 0.0)
    return layer * m.layers + experts + latent


def piecewise(p: EngineProfile, m: ModelSpec, a: Accelerator, prompts: bool = False) -> float:
    """Seconds to launch what graphs of pieces leave out: none where a whole decode step is one graph; steps with ``prompts`` never are."""
    if p.decode_graph == "full" and not prompts:
        return 0.0
    triton = sum(isinstance(b.mixer, Attention) and b.mixer.sinks > 0 for b in m.blocks) if a.generation in WITHOUT_SINKS else 0
    return p.piecewise_layer * m.layers + p.sinks_layer * triton


def chunked(p: EngineProfile, m: ModelSpec) -> float:
    """Seconds that steps with prompts take beside either, to launch the chunked form of recurrent layers: no graph holds it."""
    return p.recurrent_layer * sum(isinstance(b.mixer, Recurrent) for b in m.blocks)


def around_experts(p: EngineProfile, shape: MoeShape, fmt: Gemm, tokens: Floats, ep: int) -> Floats:
    """Seconds of one layer of experts beside the kernels that were measured. ``tokens`` of all ranks that share them."""
    t: Floats = p.expert_layer + p.expert_token * tokens
    if fmt.act_bytes < 2.0:
        t = t + p.expert_quantising
    t = t + p.expert_element * shape.hidden * tokens
    if fmt.weight_bytes < 0.9 and fmt.act_bytes >= 2.0:
        t = t + p.int4_expert_layer + p.int4_expert_token * tokens
    if p.expert_group:
        t = t + p.expert_group * active_experts(tokens, shape.experts, shape.top_k) / ep
    return t


def quantised_inputs(p: EngineProfile, m: ModelSpec, tp: int) -> tuple[float, float]:
    """Kernels that quantise the inputs of products in 8 bits, of all layers, and bytes that they move for a token: 16 bits are read, 8 are written."""
    if not p.quantise_inputs or m.format.compute != "int8":
        return 0.0, 0.0
    wide = sum(b.mlp.width for b in m.blocks if isinstance(b.mlp, Dense)) / tp
    dense = sum(isinstance(b.mlp, Dense) for b in m.blocks)
    elements = m.layers * (m.hidden + m.heads * m.head_dim / tp) + dense * m.hidden + wide
    return 2.0 * (m.layers + dense), 3.0 * elements


def small_kernels(p: EngineProfile, m: ModelSpec) -> float:
    """How many norms, rotary embeddings, activations and copies all layers launch beside products, attention and collectives."""
    latent = p.latent_kernels * m.layers if m.is_mla else 0.0
    return p.small_kernels_per_layer * m.layers + latent + 4.0 * sum(m.experts_in)
