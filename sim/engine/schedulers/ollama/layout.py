"""Which layers Ollama up to 0.24 puts on which GPU; the others run on the CPU.

*Source*: ollama/ollama v0.24.0 llm/server.go ``createLayout``, ``assignLayers``, ``findBestFit``, ``greedyFit``. Sizes in bytes: of a layer
its weights and its KV cache, the last entry the output layer. Go computes the capacity in 32-bit floats, and so does this.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sim.engine.schedulers.ollama.placement import Gpu

MINIMUM_MEMORY = 457 << 20
MINIMUM_MEMORY_METAL = 512 << 20
_FORCED, _PRECISION = 1000.0, 1e-6


class LoadRequiredFullError(Exception):
    """``ErrLoadRequiredFull``: not all layers fit beside the loaded models, so one of these is evicted."""


@dataclass(frozen=True)
class Shard:
    """Layers (numbers, ascending) on one GPU."""

    gpu: str
    layers: tuple[int, ...]


def _f32(x: float) -> float:
    return float(struct.unpack("f", struct.pack("f", x))[0])


def _placed(shards: Sequence[Shard]) -> int:
    return sum(len(s.layers) for s in shards)


def reserve(gpu: Gpu, graph: int = 0, overhead: int = 0, backoff: float = 0.0, metal: bool = False) -> Gpu:
    """``gpu`` less what is not for layers: a backed-off share, the minimum, ``OLLAMA_GPU_OVERHEAD``, the compute graph."""
    minimum = MINIMUM_MEMORY_METAL if metal else MINIMUM_MEMORY
    taken = int(gpu.free * backoff) + minimum + overhead + graph
    return replace(gpu, free=max(gpu.free - taken, 0))


def create_layout(
    layers: Sequence[int], gpus: Sequence[Gpu], num_gpu: int, require_full: bool, system_free: int, spread: bool = False
) -> tuple[Shard, ...]:
    """Shards in the order of the model's layers, from GPUs whose ``free`` is what is left for layers (`reserve`).

    ``num_gpu`` negative: as many layers as fit. Raises `LoadRequiredFullError` if ``require_full`` and something would have to run on the CPU.
    """
    ordered = sorted(gpus, key=lambda g: (g.integrated, -g.free))
    best: list[Shard] = []
    for library in dict.fromkeys(g.library for g in ordered):
        found = _assign(list(layers), [g for g in ordered if g.library == library], require_full, num_gpu, spread)
        if _placed(found) > _placed(best):
            best = found
    placed = _placed(best)
    on_gpu = {i for s in best for i in s.layers}
    on_cpu = sum(size for i, size in enumerate(layers) if i not in on_gpu)
    if require_full:
        lacking = bool(gpus) and placed < len(layers) and (num_gpu < 0 or placed < num_gpu)
        if lacking or on_cpu > system_free:
            raise LoadRequiredFullError
    return tuple(s for s in best if s.layers)


def _assign(layers: list[int], gpus: list[Gpu], require_full: bool, num_gpu: int, spread: bool) -> list[Shard]:
    """The shortest beginning of the list of GPUs that holds everything; failing that, once more without the output layer."""
    if num_gpu >= 0 or spread:
        gpus = [replace(g, integrated=False) for g in gpus]
    found: list[Shard] = []
    for _ in range(2):
        wanted = min(len(layers), num_gpu)
        for n in [len(gpus)] if spread else range(1, len(gpus) + 1):
            found = _best_fit(layers, gpus[:n], wanted, n == len(gpus) and not require_full)
            if _placed(found) in (len(layers), wanted):
                break
        if _placed(found) == len(layers):
            return found
        layers = layers[:-1]
        num_gpu = wanted
    return found


def _best_fit(layers: list[int], gpus: list[Gpu], wanted: int, forced: bool) -> list[Shard]:
    """The smallest share of the capacity that still holds the most layers, so that GPUs are filled evenly; discrete ones first."""
    shards: list[Shard] = []
    for kind in dict.fromkeys(g.integrated for g in gpus):
        group = [g for g in gpus if g.integrated == kind]
        high, low = _FORCED if wanted >= 0 and forced else 1.0, 0.0
        best = _greedy(layers, group, high, wanted)
        most = _placed(best)
        while _f32(high - low) > _PRECISION:
            middle = _f32((low + high) / 2)
            if middle in (low, high):  # a forced factor above 16, where 32-bit floats are coarser; upstream never ends here
                break
            found = _greedy(layers, group, middle, wanted)
            if _placed(found) == most:
                high, best = middle, found
            else:
                low = middle
        layers = layers[: len(layers) - most]
        wanted -= most
        shards = best + shards
    return shards


def _greedy(layers: list[int], gpus: list[Gpu], capacity: float, wanted: int) -> list[Shard]:
    """From the last layer backwards, from the last GPU (the one with the least) to the first."""
    n = len(gpus) - 1
    filled: list[list[int]] = [[]]
    free = int(_f32(_f32(gpus[n].free) * capacity))
    for done, i in enumerate(range(len(layers) - 1, -1, -1)):
        if 0 <= wanted <= done:
            break
        while n >= 0 and layers[i] > free:
            n -= 1
            if n >= 0:
                filled.append([])
                free = int(_f32(_f32(gpus[n].free) * capacity))
        if n < 0:
            break
        filled[-1].append(i)
        free -= layers[i]
    names = [g.id for g in reversed(gpus)]
    return [Shard(name, tuple(reversed(part))) for name, part in zip(names, filled, strict=False)][::-1]
