"""What some deployments add to a step: drafts of speculative decoding, adapters, encoder tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from sim.cost import step
from sim.cost.drafts import DraftMethod
from sim.cost.layout import Layout
from sim.cost.placement import Placement
from sim.cost.profile import EngineProfile
from sim.cost.residual import Floats
from sim.cost.sampling import PLAIN, Sampling
from sim.cost.step import FLOOR
from sim.errors import ConfigError
from sim.hardware.accelerator import Accelerator
from sim.model.spec import ModelSpec

_NGRAM_STEP, _NGRAM_ROW = 60e-6, 2e-6  # look-up on the host, compiled; estimated
_ENCODER_EFFICIENCY, _ADAPTER_EFFICIENCY = 0.45, 0.4  # shares of peak FLOP/s and of bandwidth; estimated
_ADAPTER_KERNELS = (
    8.0  # a layer: shrink and expand for four groups of projections (vLLM lora/punica_wrapper, SGLang lora/backend)
)
_ADAPTER_COPY = 30e-6  # seconds to copy one matrix of an adapter to its place on the device, beside its bytes; estimated
_DISK = 2e9  # bytes per second at which adapters are read and unpacked from disk; estimated


@dataclass(frozen=True)
class Extras:
    """``draft``: the draft model of method ``draft_model``; ``draft_tokens`` proposed per row and step; ``lora_rank`` of the adapters.

    ``draft_passes``: forward passes of the draft one after the other, None: one per token. ``structured``: share of rows whose tokens must
    follow a grammar. ``sampling``: what else is asked of it.
    ``placement``: where llama.cpp keeps the layers (`sim.cost.ggml`). ``notes``: sentences for the evidence.
    """

    draft_method: DraftMethod = "none"
    draft_tokens: int = 0
    draft: ModelSpec | None = None
    lora_rank: int = 0
    placement: Placement | None = None
    structured: float = 0.0
    sampling: Sampling = PLAIN
    draft_passes: int | None = None
    notes: tuple[str, ...] = ()


class DraftShare(NamedTuple):
    """Share of the layers and of the output head of some tables that one draft pass runs through."""

    layers: float
    head: float


def pass_seconds(layers: Floats, decode: Floats, head: Floats, rows: int, share: DraftShare) -> float:
    """One forward pass of ``rows`` single tokens at a context of 1,024 through a share of the layers and the head."""
    context = 10 * step.PER_OCTAVE
    row = (rows.bit_length() - 1) * step.PER_OCTAVE
    at = min(rows, layers.shape[0] - 1)
    return float(share.layers * (layers[at, :FLOOR].sum() + decode[row, context]) + share.head * head[rows, :FLOOR].sum())


_MERGED = {"qkv": 3, "gate_up": 2, "shared_gate_up": 2}  # projections that are one product and have an adapter each
_NEVER = ("router", "linear_ba", "index_q", "index_k")  # without adapters


def adapter_widths(m: ModelSpec, tp: int = 1) -> tuple[float, int]:
    """Sum of inputs and outputs of all projections on one GPU, so that an adapter has ``rank`` times as many weights; how many there are.

    Routed experts have none here.
    """
    shapes = [(s, _MERGED.get(s.name, 1), s.repeat * s.layers) for s in m.linear_shapes(tp) if s.name not in _NEVER]
    return float(sum((s.n + parts * s.k) * count for s, parts, count in shapes)), sum(parts * count for _, parts, count in shapes)


def adapter_bytes(m: ModelSpec, rank: int, tp: int = 1) -> float:
    """Bytes of one adapter of that rank on one GPU, in 16 bits."""
    return 2.0 * rank * adapter_widths(m, tp)[0]


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
        times = extras.draft_tokens if extras.draft_passes is None else extras.draft_passes
        k[step.DRAFT_STEP], k[step.DRAFT_TOKEN] = times * (one - per_row + profile.draft_pass), per_row
    if extras.lora_rank:
        k |= _adapter_constants(m, a, layout, profile, extras.lora_rank)
    if (
        m.images.params
    ):  # all patches of a token through all weights, and attention among those of its image (4 FLOPs per pair and width)
        rate = _ENCODER_EFFICIENCY * a.peak(a.compute_dtype("bf16")) * layout.tp
        pair = 4.0 * m.images.attention * m.images.patches**2 / rate
        k[step.ENCODER_TOKEN] = 2.0 * m.images.params * m.images.patches / rate + pair * m.images.span
        k[step.ENCODER_PAIR] = 0.0 if m.images.span else pair
    return k


def _adapter_constants(m: ModelSpec, a: Accelerator, layout: Layout, profile: EngineProfile, rank: int) -> dict[int, float]:
    """A step launches its kernels once, reads the weights of every adapter once, and moves and multiplies each token's activations."""
    widths, matrices = adapter_widths(m, layout.tp)
    size = adapter_bytes(m, rank, layout.tp)
    bandwidth = _ADAPTER_EFFICIENCY * a.memory_bandwidth
    flops = 2.0 * rank * widths / (_ADAPTER_EFFICIENCY * a.peak(a.compute_dtype("bf16")))
    copy = size / max(0.7 * a.host_bandwidth, 1.0) + _ADAPTER_COPY * 2 * matrices
    return {
        step.LORA_STEP: _ADAPTER_KERNELS * m.layers * profile.small_kernel,
        step.LORA_ADAPTER: size / bandwidth,
        step.LORA_TOKEN: max(4.0 * widths / bandwidth, flops),  # inputs are read, outputs read and written, 16 bits
        step.LORA_LOAD: copy,
        step.LORA_READ: size * layout.tp / _DISK,
    }
