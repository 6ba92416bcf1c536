"""Time of the attention of all layers: two surfaces each for decode and prompts, one of what grows with the context, one of windows."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.cost.kernels import Kernels
from sim.cost.launches import WITHOUT_SINKS
from sim.cost.profile import EngineProfile
from sim.cost.step import CONTEXT_GRID, ROWS_GRID, grid_point
from sim.hardware.accelerator import Accelerator
from sim.model.mixers import Attention, Compressed, Cross, Latent, Mixer
from sim.model.recurrent import Beside
from sim.model.spec import ModelSpec

if TYPE_CHECKING:
    from sim.cost.residual import Numbers

_TILE_PER_HEAD = 32  # query rows of a tile per head of the group
# FlashAttention 3 cuts the context into blocks of so many keys (hopper/tile_size.h: pages of one token, 128 dimensions), and gives every
# multiprocessor so many of all rows' blocks, a tenth more than its share, rounded up (flash_prepare_scheduler.cu).
_BLOCK_KEYS, _BLOCK_MARGIN = 128, 1.1
_TILE_EFFICIENCY = (
    1.0  # of the matrix units' datasheet figure; prompt attention of the same kernel reaches 0.94 (FlashAttention 3 on H20)
)
_UNSPLIT_EFFICIENCY = 0.3  # of one multiprocessor: gemma-3-4b on A100 (vLLM 0.10), 6 single requests of 256 to 4,160 tokens
_FLASH_2 = ("sm_80", "sm_86", "sm_89", "sm_120")  # generations on which vLLM takes FlashAttention 2
_LONG_KERNEL = 50e-6  # seconds of prompt attention in a layer from which on it is taken to be bound by compute
_INDEX_LAUNCH = 5e-6

Floats = NDArray[np.float64]


class Surfaces(NamedTuple):
    """Seconds by rows and context (`step.grid_point`) of all layers; ``window`` tokens are seen by the windowed ones.

    ``full`` and ``windowed`` say whether there are any of either; ``notes`` are sentences for people.
    """

    decode: Floats
    decode_window: Floats
    prefill: Floats
    prefill_window: Floats
    window: float
    full: int
    windowed: int
    notes: tuple[str, ...]


def surfaces(m: ModelSpec, a: Accelerator, tp: int, kernels: Kernels, profile: EngineProfile) -> Surfaces:
    """The surfaces of a model whose attention heads are cut over ``tp`` GPUs."""
    return _Surfaces(m, a, tp, kernels, profile).build()


class _Surfaces:
    def __init__(self, m: ModelSpec, a: Accelerator, tp: int, kernels: Kernels, profile: EngineProfile) -> None:
        self.m, self.a, self.tp, self.kernels, self.profile = m, a, tp, kernels, profile
        self.rows = np.array([grid_point(i) for i in range(ROWS_GRID)])[:, None]
        self.context = np.array([grid_point(i) for i in range(CONTEXT_GRID)])[None, :]
        self.kv = "fp8" if m.kv_element_bytes <= 1.1 else "bf16"
        self.sums: list[Numbers] = [0.0, 0.0, 0.0, 0.0]
        self.full = self.windowed = 0
        self.notes: list[str] = []

    def build(self) -> Surfaces:
        mixers = Counter(b.mixer for b in self.m.blocks if b.mixer is not None and b.kind != "linear")
        self.window = self._main_window(mixers)
        kernels: dict[tuple[int, ...], tuple[Floats, Floats]] = {}
        for mixer, n in mixers.items():
            if isinstance(mixer, Compressed):
                self._compressed(mixer, n)
                continue
            if isinstance(mixer, Cross):
                self.notes.append("cross-attention: prompts carry no images, these layers pass their input on")
                continue
            if isinstance(mixer, Beside):
                mixer = mixer.attention
            key = _shape(mixer)
            if key not in kernels:
                kernels[key] = self._kernel(mixer, self.rows, self.context)
            self._add(mixer, n, *kernels[key])
        scale = self.profile.attention_scale
        a, b, c, d = (np.ascontiguousarray(np.broadcast_to(s * scale, (ROWS_GRID, CONTEXT_GRID))) for s in self.sums)
        return Surfaces(a, b, c, d, float(self.window), self.full, self.windowed, tuple(self.notes))

    def _main_window(self, mixers: Counter[Mixer]) -> float:
        """The window of most windowed layers: it stays a parameter of the step; others are folded into the surfaces."""
        seen: Counter[float] = Counter()
        for mixer, n in mixers.items():
            if isinstance(mixer, Attention) and mixer.looks != "full":
                seen[max(mixer.window / 2.0, 1.0) if mixer.looks == "chunked" else float(mixer.window)] += n
            elif isinstance(mixer, Attention | Latent) and mixer.index_top_k:
                seen[float(mixer.index_top_k)] += n
        if any(isinstance(x, Attention) and x.looks == "chunked" for x in mixers):
            self.notes.append("chunked attention looks back half a chunk on average")
        return seen.most_common(1)[0][0] if seen else 0.0

    def _put(self, n: int, decode: Floats, prefill: Floats, windowed: bool) -> None:
        at = 1 if windowed else 0
        self.sums[at] = self.sums[at] + decode * n
        self.sums[2 + at] = self.sums[2 + at] + prefill * n
        self.windowed += n if windowed else 0
        self.full += 0 if windowed else n

    def _add(self, mixer: Mixer, n: int, decode: Floats, prefill: Floats) -> None:
        """``n`` layers of ordinary or latent attention."""
        assert isinstance(mixer, Attention | Latent)
        if mixer.index_top_k:
            self._put(n if _indexes(mixer) else 0, *self._indexer(mixer, self.rows, self.context), windowed=False)
            self.full = max(self.full, 1)
            self.notes.append(
                "sparse attention: indexer estimated from bytes and FLOPs, then dense attention over the chosen tokens"
            )
        looks = mixer.looks if isinstance(mixer, Attention) else "full"
        seen = float(mixer.index_top_k) if mixer.index_top_k else 0.0
        if looks != "full" and isinstance(mixer, Attention):
            seen = max(mixer.window / 2.0, 1.0) if looks == "chunked" else float(mixer.window)
        if seen and seen != self.window:
            self._put(n, *self._windowed(mixer, seen), windowed=False)
        else:
            if seen and isinstance(mixer, Attention):
                decode = np.maximum(decode, self._unsplit(mixer, self.context))
            self._put(n, decode, prefill, windowed=bool(seen))

    def _kernel(self, mixer: Mixer, rows: Floats, context: Floats) -> tuple[Floats, Floats]:
        """Seconds of one layer over the whole context: decode and prompts."""
        m, a, tp = self.m, self.a, self.tp
        if isinstance(mixer, Latent):
            heads = mixer.heads // tp
            decode = self.kernels.latent_decode(rows, context, heads, mixer.kv_lora, mixer.rope, self.kv, m.kv_element_bytes)
            prefill = self.kernels.latent_prefill(rows, context, heads, self.kv, bool(mixer.index_top_k))
        else:
            assert isinstance(mixer, Attention)
            heads, kv_heads = mixer.heads // tp, max(-(-mixer.kv_heads // tp), 1)
            decode = self.kernels.decode(rows, context, heads, kv_heads, mixer.head_dim, self.kv, m.kv_element_bytes)
            decode = np.maximum(decode, decode.min() + self._whole_tiles(rows, context, heads, kv_heads, mixer.head_dim))
            decode = np.maximum(decode, self.profile.serial_token * context)  # a head's context in one block
            prefill = self.kernels.prefill(rows, context, heads, kv_heads, mixer.head_dim, mixer.v_head_dim, self.kv)
            slower = self.profile.prefill_scale
            if mixer.sinks and a.generation in WITHOUT_SINKS:
                slower *= self.profile.sinks_prefill
            prefill = prefill + (slower - 1.0) * (prefill - prefill.min())
            if self.profile.prefill_masked:
                work = 2.0 * heads * (mixer.head_dim + mixer.v_head_dim) * rows * context**2
                prefill = np.maximum(prefill, work / (self.profile.prefill_masked * a.peak("bf16")))
        return decode, prefill * (1.0 + (1.0 / a.sustained_compute - 1.0) * prefill / (prefill + _LONG_KERNEL))

    def _windowed(self, mixer: Mixer, window: float) -> tuple[Floats, Floats]:
        """A layer that sees ``window`` tokens, on the grid of the whole context."""
        seen = np.minimum(self.context, window)
        decode, _ = self._kernel(mixer, self.rows, seen)
        if isinstance(mixer, Attention):
            decode = np.maximum(decode, self._unsplit(mixer, seen))
        _, prefill = self._kernel(mixer, self.rows, np.sqrt(np.maximum(2.0 * self.context * seen - seen**2, 1.0)))
        return decode, prefill

    def _unsplit(self, mixer: Attention, context: Floats) -> Numbers:
        """Least time of decode attention in a window under FlashAttention 2, where its rows are cut neither over multiprocessors nor heads packed.

        Each query head of a row is a tile of ``window_tile`` rows on a multiprocessor of its own, one part of the context after the other.
        *Source*: vllm-flash-attention csrc/flash_attn/flash_api.cpp mha_varlen_fwd (``seqlenq_ngroups_swapped`` needs a window of -1 on both
        sides, and only then keys are split), flash_fwd_launch_template.h run_mha_fwd_splitkv_dispatch (tiles of 64 rows).
        """
        tile = self.profile.window_tile
        if not tile or mixer.looks != "sliding" or mixer.sinks or self.kv == "fp8" or self.a.generation not in _FLASH_2:
            return 0.0
        one = 4.0 * mixer.head_dim * tile * self.a.sm_count / (_UNSPLIT_EFFICIENCY * self.a.peak("bf16"))
        return context * one * np.maximum(self.rows * (mixer.heads // self.tp) / self.a.sm_count, 1.0)

    def _whole_tiles(self, rows: Floats, context: Floats, heads: int, kv_heads: int, dim: int) -> Numbers:
        """Least time of decode attention, beyond its launch, where it multiplies whole tiles of queries by whole blocks of keys.

        A multiprocessor takes one block after the other. Nothing is added where reading a block takes longer than computing it: that was measured.
        """
        if not self.profile.decode_tile or self.a.generation != "sm_90":
            return 0.0
        tile = min(_TILE_PER_HEAD * heads / kv_heads, self.profile.decode_tile)
        block = _BLOCK_KEYS * 2.0 * dim * self.a.sm_count
        peak = self.a.peak(self.a.compute_dtype("fp8") if self.kv == "fp8" else "bf16")
        compute = block * 2.0 * tile / (_TILE_EFFICIENCY * peak)
        if compute <= block * self.m.kv_element_bytes / self.a.memory_bandwidth:
            return 0.0
        blocks = rows * kv_heads * np.ceil(context / _BLOCK_KEYS)
        return np.ceil(_BLOCK_MARGIN * blocks / self.a.sm_count) * compute

    def _indexer(self, mixer: Attention | Latent | Compressed, rows: Floats, context: Floats) -> tuple[Floats, Floats]:
        """Scores of every cached token in one layer (DeepSeek V3.2): 8-bit keys, a small dot product per index head; decode and prompt."""
        a = self.a
        peak = 0.4 * a.peak(a.compute_dtype("fp8"))
        flops = 2.0 * mixer.index_heads * mixer.index_dim
        seen = rows * context
        decode = _INDEX_LAUNCH + np.maximum(seen * (mixer.index_dim + 4) / (0.6 * a.memory_bandwidth), seen * flops / peak)
        return decode, _INDEX_LAUNCH + rows * context**2 / 2.0 * flops / peak

    def _compressed(self, mixer: Compressed, n: int) -> None:
        """DeepSeek V4: a window and compressed entries, seen by the kernel of latent attention."""
        heads, element = mixer.heads // self.tp, self.m.kv_element_bytes
        entries = self.context / mixer.ratio if mixer.ratio else 0.0 * self.context
        chosen = np.minimum(entries, mixer.index_top_k) if mixer.indexed else entries
        seen = np.minimum(self.context, mixer.window) + chosen
        latent = mixer.head_dim - mixer.rope
        decode = self.kernels.latent_decode(self.rows, seen, heads, latent, mixer.rope, self.kv, element)
        length = np.sqrt(np.maximum(2.0 * self.context * seen, 1.0))
        prefill = self.kernels.latent_prefill(self.rows, length, heads, self.kv, chosen=True)
        if mixer.indexed:
            index_decode, index_prefill = self._indexer(mixer, self.rows, entries)
            decode, prefill = decode + index_decode, prefill + index_prefill * mixer.ratio
        self._put(n, decode, prefill, windowed=False)
        self.notes.append(
            "compressed attention: the measured kernel of latent attention over window and compressed entries (estimated)"
        )


def _shape(mixer: Mixer) -> tuple[int, ...]:
    """What decides the kernel of a layer."""
    if isinstance(mixer, Latent):
        return mixer.heads, mixer.kv_lora, mixer.rope
    assert isinstance(mixer, Attention)
    return mixer.heads, mixer.kv_heads, mixer.head_dim, mixer.v_head_dim


def _indexes(mixer: Attention | Latent) -> bool:
    return mixer.index_own if isinstance(mixer, Latent) else mixer.index_heads > 0
