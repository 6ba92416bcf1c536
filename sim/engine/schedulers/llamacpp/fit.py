"""What fits on the card: context and layers. The margin of 1 GiB per device stays free.

*Source*: llama.cpp 0c1e570 common/fit.cpp (defaults of ``common_params_fit``): the context first, if it was not set, then whole layers
from the back of the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sim.cost.memory import GIB, Deployment
from sim.cost.memory_rules import LlamaCppRule

MARGIN = 1.0 * GIB
MIN_CTX = 4096  # per stream
_PAD = 256


@dataclass(frozen=True)
class LayerFit:
    """``n_gpu_layers`` counts the output layer too; bytes of weights and KV on the cards and on the host."""

    n_gpu_layers: int
    gpu_bytes: float
    cpu_bytes: float


def _room(model: Any, accelerator: Any, n_ubatch: int, tp: int) -> tuple[float, float]:
    """Bytes over all cards for weights and KV, and the bytes of the weights."""
    d = Deployment(model, accelerator, tp=tp)
    rule = LlamaCppRule(n_ctx=_PAD, n_ubatch=n_ubatch)
    fixed = sum(line.bytes for line in rule.parts(d)[1:])
    return tp * (accelerator.memory_bytes - fixed - MARGIN), float(model.weight_bytes())


def fit_context(model: Any, accelerator: Any, streams: int, n_ubatch: int, tp: int = 1) -> int:
    """``n_ctx`` over all slots that fits with the margin: between 4,096 per stream and the model's own."""
    top = int(model.max_position)
    if accelerator is None:
        return top
    room, weights = _room(model, accelerator, n_ubatch, tp)
    step = _PAD * streams
    fits = int((room - weights) / max(model.kv_bytes_per_token(), 1e-9)) // step * step
    return min(top, max(fits, min(MIN_CTX * streams, top)))


def fit_layers(model: Any, accelerator: Any, n_ctx: int, n_ubatch: int, tp: int = 1) -> LayerFit:
    """Whole layers on the cards, from the output layer backwards, for a KV cache of ``n_ctx`` tokens."""
    room, weights = _room(model, accelerator, n_ubatch, tp)
    kv = float(model.kv_bytes_per_token()) * n_ctx
    if weights + kv <= room:
        return LayerFit(model.layers + 1, weights + kv, 0.0)
    head = min(2.0 * model.vocab * model.hidden, weights / 2)  # the output layer, taken as 16-bit
    layer = (weights - head + kv) / model.layers
    on, used = 0, 0.0
    for size in [head] + [layer] * model.layers:
        if used + size > room:
            break
        used += size
        on += 1
    return LayerFit(on, used, weights + kv - used)
