"""What some deployments add to a step: drafts of speculative decoding, adapters, encoder tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sim.cost import step
from sim.cost.layout import Layout
from sim.cost.placement import Placement
from sim.cost.profile import EngineProfile
from sim.cost.residual import Floats
from sim.cost.step import FLOOR
from sim.errors import ConfigError
from sim.hardware.accelerator import Accelerator
from sim.model.spec import ModelSpec

DraftMethod = Literal["none", "ngram", "eagle", "mtp", "draft_model"]
_NGRAM_STEP, _NGRAM_ROW = 60e-6, 2e-6  # look-up on the host, compiled; estimated
_PATCHES = 4  # patches that become one language-model token (Qwen2-VL, Llama 4 merge 2 × 2)
_ENCODER_EFFICIENCY, _ADAPTER_EFFICIENCY = 0.45, 0.4  # shares of peak FLOP/s and of bandwidth; estimated


@dataclass(frozen=True)
class Extras:
    """``draft``: the draft model of method ``draft_model``; ``draft_tokens`` proposed per row and step; ``lora_rank`` of the adapters.

    ``structured``: share of rows whose tokens must follow a grammar. ``placement``: where llama.cpp keeps the layers (`sim.cost.ggml`).
    """

    draft_method: DraftMethod = "none"
    draft_tokens: int = 0
    draft: ModelSpec | None = None
    lora_rank: int = 0
    placement: Placement | None = None
    structured: float = 0.0


def pass_seconds(layers: Floats, decode: Floats, head: Floats, rows: int, share: float) -> float:
    """One forward pass of ``rows`` single tokens at a context of 1,024 through ``share`` of the layers and the head."""
    context = 10 * step.PER_OCTAVE
    row = (rows.bit_length() - 1) * step.PER_OCTAVE
    at = min(rows, layers.shape[0] - 1)
    return float(share * (layers[at, :FLOOR].sum() + decode[row, context]) + head[rows, :FLOOR].sum())


def extra_constants(
    m: ModelSpec, a: Accelerator, layout: Layout, profile: EngineProfile, extras: Extras, passes: tuple[float, float]
) -> dict[int, float]:
    """Entries of the step cost's constants. ``passes``: seconds of one draft pass for 1 and for 64 rows. Raises `ConfigError`."""
    k: dict[int, float] = {}
    if extras.draft_method != "none" and extras.draft_tokens < 1:
        raise ConfigError("num_speculative_tokens", extras.draft_tokens, "must be at least 1 with a draft method")
    if extras.draft_method == "ngram":
        k[step.DRAFT_STEP], k[step.DRAFT_TOKEN] = _NGRAM_STEP, _NGRAM_ROW / extras.draft_tokens
    elif extras.draft_method != "none":
        one, many = passes
        per_row = max(many - one, 0.0) / 63.0
        k[step.DRAFT_STEP], k[step.DRAFT_TOKEN] = extras.draft_tokens * (one - per_row), per_row
    if extras.lora_rank:
        widths = sum((s.n + s.k) * s.repeat * s.layers for s in m.linear_shapes(layout.tp))
        k[step.LORA_STEP] = 8.0 * m.layers * profile.small_kernel  # shrink and expand for four groups of projections
        k[step.LORA_ROW] = 2.0 * extras.lora_rank * widths / (_ADAPTER_EFFICIENCY * a.memory_bandwidth)
    if m.vision_params:
        peak = a.peak(a.compute_dtype("bf16"))
        k[step.ENCODER_TOKEN] = 2.0 * m.vision_params * _PATCHES / (_ENCODER_EFFICIENCY * peak * layout.tp)
    return k
