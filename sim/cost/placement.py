"""Where llama.cpp keeps the layers of a model: on the cards, on the CPU, or their experts there; and how many bytes each part takes.

*Source*: llama.cpp 0c1e570 src/llama-model.cpp ``load_tensors`` (the input embedding stays on the CPU, a tied one is copied for the output;
the last ``n_gpu_layers`` of the layers and the output are on the cards), src/llama-kv-cache-iswa.cpp (cells of windowed layers).
"""

from __future__ import annotations

from dataclasses import dataclass

from sim.hardware import Accelerator
from sim.model import ModelSpec

_PAD = 256


@dataclass(frozen=True)
class Placement:
    """The first ``cpu_layers`` layers are on the CPU (``host``); of ``cpu_experts`` of the others the routed experts are there.

    ``head_on_cpu``: the output layer too. ``op_offload``: products of `sim.cost.ggml.MIN_BATCH` and more tokens with weights in system memory
    are computed on the card, to which the weights are copied for each micro-batch of ``n_ubatch`` tokens. Several cards hold their layers one
    after the other (``--split-mode layer``).
    """

    host: Accelerator | None = None
    cpu_layers: int = 0
    cpu_experts: int = 0
    head_on_cpu: bool = False
    n_ubatch: int = 512
    op_offload: bool = True

    @property
    def whole(self) -> bool:
        """Whether everything is on the cards."""
        return not (self.cpu_layers or self.cpu_experts or self.head_on_cpu)


@dataclass(frozen=True)
class Sizes:
    """Bytes of a model's parts: ``layers`` without routed experts, ``experts`` and ``kv`` of every layer, ``head`` the output layer."""

    layers: tuple[float, ...]
    experts: tuple[float, ...]
    kv: tuple[float, ...]
    head: float
    input: float

    @classmethod
    def of(cls, model: ModelSpec, n_ctx: int, streams: int = 1, sequences: int = 1, n_ubatch: int = 512) -> Sizes:
        """With a KV cache of ``n_ctx`` tokens in ``streams`` equal parts, together for ``sequences``."""
        weights = model.layer_weight_bytes()
        before, after = model.end_weight_bytes()
        windowed = min(window_cells(model, n_ctx, streams, sequences, n_ubatch) * streams, n_ctx)
        kv = [
            state * sequences + sum(kept.bytes_per_token * (windowed if kept.window else n_ctx) for kept in layer)
            for layer, state in zip(model.layer_kept(), model.layer_state_bytes(), strict=True)
        ]
        return cls(tuple(w for w, _ in weights), tuple(e for _, e in weights), tuple(kv), after, before)

    def on_card(self, p: Placement | None) -> tuple[float, float]:
        """Bytes of weights and of KV cache on the cards."""
        p = p or Placement()
        n, first = len(self.layers), p.cpu_layers
        moved = sum(sorted((e for e in self.experts[first:] if e), reverse=True)[: p.cpu_experts])
        weights = sum(self.layers[first:n]) + sum(self.experts[first:n]) - moved + (0.0 if p.head_on_cpu else self.head)
        return weights, sum(self.kv[first:n])

    def on_host(self, p: Placement | None) -> float:
        """Bytes of weights and KV cache in system memory."""
        weights, kv = self.on_card(p)
        return self.input + self.total - weights - kv

    @property
    def total(self) -> float:
        """Everything but the input embedding."""
        return sum(self.layers) + sum(self.experts) + sum(self.kv) + self.head


def window_cells(model: ModelSpec, n_ctx: int, streams: int, sequences: int, n_ubatch: int) -> int:
    """Cells of the cache of windowed layers, of each stream: the window of all its sequences and a micro-batch."""
    window = int(model.window) * (sequences if streams == 1 else 1)
    return -(-min(n_ctx // max(streams, 1), window + n_ubatch) // _PAD) * _PAD
