"""Where Ollama 0.30 and later puts a model, and with which batch size: one GPU, a group of GPUs, or first evict others.

*Source*: ollama/ollama fb3076099687 server/sched.go (``availableMemoryForLoad``, ``selectLlamaServerPlacement``,
``automaticGenerationBatch``), llm/llama_server.go (``PredictServerVRAM``). All sizes in bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

GIB, MIB = 1 << 30, 1 << 20
FlashAttention = Literal["auto", "enabled", "disabled"]


@dataclass(frozen=True)
class Gpu:
    """One GPU as discovery reports it: ``free`` is the smaller of what it reports and its total less the VRAM of loaded runners."""

    id: str
    free: int
    library: str = ""
    integrated: bool = False
    total: int = 0

    def usable(self, system_free: int) -> int:
        """An integrated GPU shares the system's memory, so it has no more than that has left."""
        return min(self.free, system_free) if self.integrated and system_free > 0 else self.free


class Available(NamedTuple):
    """Bytes for a load, what the GPUs report, and whether the system's memory is the limit."""

    available: int
    gpu_free: int
    system_limited: bool


class Placement(NamedTuple):
    """The chosen GPUs, of one library; ``main_gpu``: the model goes to this one of its library alone, None: its layers are split."""

    gpus: tuple[Gpu, ...]
    main_gpu: int | None


def available_memory(gpus: Sequence[Gpu], system_free: int) -> Available:
    """Memory for a load on ``gpus``."""
    shared = sum(g.free for g in gpus if g.integrated)
    discrete = sum(g.free for g in gpus if not g.integrated)
    limited = 0 < system_free < shared
    return Available(discrete + (system_free if limited else shared), discrete + shared, limited)


def predicted_vram(
    file_bytes: int, layers: int, kv_heads: int, head_dim: int, num_ctx: int, num_parallel: int, train_ctx: int
) -> int:
    """``PredictServerVRAM``: the file and a 16-bit KV cache of all slots, whatever ``OLLAMA_KV_CACHE_TYPE`` says."""
    tokens = min(num_ctx, train_ctx) * num_parallel
    return file_bytes + 2 * layers * max(kv_heads, 1) * head_dim * tokens * 2


def batch_surcharge(num_batch: int) -> int:
    """What a large batch is taken to need beside the prediction."""
    return 2 * GIB if num_batch >= 2048 else 768 * MIB if num_batch >= 1024 else 0


def automatic_batch(
    ctx: int, predicted: int, available: int, flash: FlashAttention = "auto", cuda_free: int | None = None
) -> int:
    """``num_batch`` where it was not set. ``cuda_free``: of the CUDA GPU with the least, None without CUDA. Unknown sizes (0) fit."""
    if flash == "disabled" and cuda_free is not None:
        return 256 if ctx > 4096 and 0 < cuda_free <= 8 * GIB else 512
    batch = 2048 if ctx > 32768 else 1024 if ctx > 4096 else 512
    while batch > 512 and not _batch_fits(batch, predicted, available):
        batch //= 2
    return batch


def _batch_fits(batch: int, predicted: int, available: int) -> bool:
    if predicted == 0 or available == 0:
        return True
    most = available * 80 // 100
    share = 60 if batch >= 2048 else 75
    return predicted <= most and predicted <= available * share // 100 and batch_surcharge(batch) <= most - predicted


def must_evict(predicted: int, num_batch: int, available: int) -> bool:
    """``requireFull``: with other models loaded, one of them goes first."""
    return predicted + batch_surcharge(num_batch) > available * 80 // 100


def select_placement(
    gpus: Sequence[Gpu], predicted: int, system_free: int, main_gpu: int | None = None, spread: bool = False
) -> Placement:
    """``selectLlamaServerPlacement``: the named GPU, else the roomiest one that holds the prediction, else the best group."""
    groups: dict[str, list[Gpu]] = {}
    for g in gpus:
        groups.setdefault(g.library, []).append(g)

    def rank(g: Gpu) -> tuple[bool, int]:
        return not g.integrated, g.usable(system_free)

    if main_gpu is not None:
        named = [group[main_gpu] for group in groups.values() if main_gpu < len(group)]
        if named:
            return Placement((max(named, key=rank),), 0)
    elif not spread and predicted > 0:
        fitting = [g for group in groups.values() for g in group if predicted <= g.usable(system_free) * 80 // 100]
        if fitting:
            return Placement((max(fitting, key=rank),), 0)
    if not groups:
        return Placement((), None)

    def worth(group: list[Gpu]) -> tuple[bool, int]:
        return any(not g.integrated for g in group), available_memory(group, system_free).available

    return Placement(tuple(max(groups.values(), key=worth)), None)
