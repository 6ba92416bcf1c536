"""Closed forms of the operators of a layer: seconds from sizes, a few fitted numbers and the figures of an accelerator.

Every form is a floor time plus a p-norm of compute time and memory time, so it tends to the roofline at both ends and is smooth between.
All take and return NumPy arrays (or floats) and broadcast. ``q`` is the tuple of fitted parameters in the order of `PARAMETERS`.

*Source*: forms c1 and c2 of the operator study that the fitted profiles come from (see `profiles/fitted/*.yaml` for data and error).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from sim.cost.residual import Floats, Numbers

Parameters: TypeAlias = "Sequence[float] | Floats"

PARAMETERS = {
    "gemm": (
        "compute_efficiency",
        "bandwidth_efficiency",
        "floor_us",
        "p",
        "wave_exponent",
        "k_half",
    ),  # and tile_m where it is not 64, and reread_bytes where a kernel waits for its tiles
    "prefill": ("compute_efficiency", "bandwidth_efficiency", "floor_us", "length_half", "p"),
    "decode": (
        "compute_efficiency",
        "bandwidth_efficiency",
        "floor_us",
        "serial_ns",
        "p",
        "group_min",
        "split_exponent",
        "row_head_ns",
    ),
    "moe": ("compute_efficiency", "bandwidth_efficiency", "floor_us", "p", "token_ns", "tile", "weight_share"),
    "all_reduce": ("one_shot_us", "one_shot_us_per_rank", "one_shot_gb_per_s", "ring_us", "ring_us_per_rank", "ring_gb_per_s"),
}
TILE_M, TILE_N = 64, 128


class Machine(NamedTuple):
    """What the forms need to know of an accelerator: FLOP/s of the dtype, bytes/s, streaming multiprocessors (or cores)."""

    peak: float
    bandwidth: float
    sm: float


class Times(NamedTuple):
    """``total`` seconds of an operator, and its compute and memory terms alone (they say what the time was spent on)."""

    total: Floats
    compute: Numbers
    memory: Numbers


def gemm(
    q: Parameters, hw: Machine, m: Numbers, n: Numbers, k: Numbers, weight_bytes: float = 2.0, act_bytes: float = 2.0
) -> Times:
    """``m × k`` times ``k × n``: tiles of 64 × 128, a wave of tiles fills the multiprocessors. Bytes are per element; output in 16 bits.

    ``reread_bytes`` are read per FLOP, as tiles read their operands again, by kernels that do not compute meanwhile.
    """
    tile = q[6] if len(q) > 6 else TILE_M
    mm, nn = np.ceil(m / tile) * tile, np.ceil(n / TILE_N) * TILE_N
    waves = mm / tile * nn / TILE_N / hw.sm
    filled = waves / np.ceil(waves)
    compute = 2.0 * mm * nn * k / (hw.peak * q[0]) * filled ** -q[4] * (1.0 + q[5] / k)
    if len(q) > 7:
        compute = compute + 2.0 * mm * nn * k * q[7] / hw.bandwidth
    memory = (act_bytes * m * k + weight_bytes * n * k + 2.0 * m * n) / (hw.bandwidth * q[1])
    return Times(q[2] * 1e-6 + _norm(q[3], compute, memory), compute, memory)


def prefill(
    q: Parameters,
    hw: Machine,
    rows: Numbers,
    length: Numbers,
    heads: float,
    kv_heads: float,
    dim: float,
    v_dim: float | None = None,
) -> Times:
    """Causal attention of ``rows`` prompts of ``length`` tokens over nothing cached."""
    v_dim = dim if v_dim is None else v_dim
    flops = rows * heads * (dim + v_dim) * length * length
    size = 2.0 * rows * length * (heads + kv_heads) * (dim + v_dim)
    compute = flops * (1.0 + q[3] / length) / (hw.peak * q[0])
    memory = size / (hw.bandwidth * q[1])
    return Times(q[2] * 1e-6 + _norm(q[4], compute, memory), compute, memory)


def decode(
    q: Parameters,
    hw: Machine,
    rows: Numbers,
    context: Numbers,
    heads: float,
    kv_heads: float,
    dim: float,
    element: float = 2.0,
) -> Times:
    """One query token for each of ``rows`` sequences of (mean) ``context`` tokens, keys and values split over the multiprocessors."""
    group = max(heads / kv_heads, q[5])
    memory = (2.0 * element * rows * context * kv_heads * dim + 4.0 * rows * heads * dim) / (hw.bandwidth * q[1])
    compute = 4.0 * rows * kv_heads * dim * context * group / (hw.peak * q[0])
    split = np.maximum(1.0, np.minimum(hw.sm / (rows * kv_heads), context / 256.0))
    serial = q[3] * 1e-9 * context / split ** q[6]
    total = q[2] * 1e-6 + _norm(q[4], compute, memory, serial) + q[7] * 1e-9 * rows * kv_heads
    return Times(total, compute, memory)


def latent_decode(
    q: Parameters,
    hw: Machine,
    rows: Numbers,
    context: Numbers,
    heads: float,
    latent: float,
    rope: float,
    element: float = 2.0,
) -> Times:
    """Absorbed multi-head latent attention: all heads read one latent vector of ``latent + rope`` elements per token (DeepSeek)."""
    memory = element * rows * context * (latent + rope) / (hw.bandwidth * q[1])
    compute = 2.0 * rows * np.maximum(heads, q[5]) * context * (2 * latent + rope) / (hw.peak * q[0])
    split = np.maximum(1.0, np.minimum(hw.sm / rows, context / 256.0))
    serial = q[3] * 1e-9 * context / split ** q[6]
    return Times(q[2] * 1e-6 + _norm(q[4], compute, memory, serial) + q[7] * 1e-9 * rows, compute, memory)


def active_experts(tokens: Numbers, experts: Numbers, top_k: Numbers) -> Floats:
    """Expected number of experts that at least one of ``tokens`` is routed to, routing independent and even."""
    return experts * (1.0 - (1.0 - top_k / experts) ** tokens)


# Models of more experts than these do not use them evenly. Requests that resemble each other wake fewer than the skewed routing that kernels were timed
# with, most so where half of them are awake: MiniMax M2.5, gpt-oss 120B and DeepSeek R1 under vLLM 0.16 to 0.18 and SGLang 0.5 on H100, H200 and B300,
# 4 to 64 clients, 90 operating points (fitted).
_EVEN, _ALIKE = 16, 0.1


def resemblance(awake: Floats, experts: int) -> Numbers:
    """Time of routed experts relative to kernels timed with a skewed routing that is independent from token to token."""
    share = awake / experts
    return 1.0 - _ALIKE * 4.0 * share * (1.0 - share) if experts > _EVEN else 1.0


# Expected largest of n independent standard normal variables, by n.
_LARGEST_OF = (
    (1, 0.0),
    (2, 0.5642),
    (4, 1.0294),
    (8, 1.4236),
    (16, 1.7660),
    (32, 2.0697),
    (64, 2.3439),
    (128, 2.5946),
    (256, 2.8262),
)


def busiest(tokens: Numbers, experts: float, top_k: float, ranks: float) -> Floats:
    """Tokens of the busiest of ``ranks`` that share experts over the mean, when routing is even but by chance (balls in bins).

    A token goes to ``top_k`` different experts of ``experts``; a rank's load is a sum of hypergeometric draws, taken as normal, and loads add
    up to a constant. Agrees with drawing within 8 % for up to 8 ranks; for 64 ranks and few tokens it is up to a quarter too low.
    """
    if ranks <= 1:
        return np.ones_like(np.asarray(tokens, float))
    share = 1.0 / ranks
    per_token = top_k * share * (1.0 - share) * (experts - top_k) / max(experts - 1.0, 1.0)
    largest = np.interp(np.log2(ranks), [np.log2(n) for n, _ in _LARGEST_OF], [x for _, x in _LARGEST_OF])
    mean = np.maximum(np.asarray(tokens, float), 1.0) * top_k * share
    spread = np.sqrt(np.maximum(np.asarray(tokens, float), 1.0) * per_token / (1.0 - share))
    load: Floats = np.clip(1.0 + largest * spread / mean, np.minimum(1.0 / mean, ranks), ranks)
    return load


def moe(
    q: Parameters,
    hw: Machine,
    tokens: Numbers,
    hidden: Numbers,
    width: Numbers,
    experts: Numbers,
    top_k: Numbers,
    ep: Numbers,
    element: float = 2.0,
    gates: float = 3.0,
    shared: float = 0.0,
) -> Times:
    """Routed experts of one rank, and ``shared`` ones beside them: ``tokens`` of the whole expert-parallel group, ``width`` of an expert on this rank."""
    active = active_experts(tokens, experts, top_k) / ep
    weights = gates * hidden * width
    padded = active * np.maximum(tokens * top_k / ep / np.maximum(active, 1e-9), q[5]) + shared * np.maximum(tokens, q[5])
    active, top_k = active + shared, top_k + shared * ep
    compute = 2.0 * weights * padded / (hw.peak * q[0])
    memory = (element * active * weights * q[6] + 4.0 * tokens * hidden) / (hw.bandwidth * q[1])
    total = q[2] * 1e-6 + q[4] * 1e-9 * tokens * top_k / ep + _norm(q[3], compute, memory)
    return Times(total, compute, memory)


def all_reduce(q: Parameters, size: Numbers, ranks: Numbers) -> Floats:
    """Seconds to add up ``size`` bytes over ``ranks``: the faster of one-shot (everyone reads everyone) and ring."""
    one_shot = (q[0] + q[1] * ranks) * 1e-6 + (ranks - 1) * size / (q[2] * 1e9)
    ring = (q[3] + q[4] * ranks) * 1e-6 + 2.0 * (ranks - 1) / ranks * size / (q[5] * 1e9)
    faster: Floats = np.minimum(one_shot, ring)
    return faster


def _norm(p: float, *terms: Numbers) -> Floats:
    largest = np.maximum.reduce(np.broadcast_arrays(*terms))
    safe = np.maximum(largest, 1e-30)
    together: Floats = safe * sum((np.asarray(t) / safe) ** p for t in terms) ** (1.0 / p)
    return together
