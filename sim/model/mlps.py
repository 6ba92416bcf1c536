"""What follows the mixer in a layer: a dense MLP, or routed experts with those that every token uses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sim.model import quant
from sim.model.tensors import COPY, EXPERTS, Product, Tensor

_AT = ("mlp", "feed_forward", "block_sparse_moe", "mixer", "ffn", "moe")


def _names(*names: str) -> tuple[str, ...]:
    return tuple(f"{at}.{n}" for n in names for at in _AT)


def _shared_names(apart: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What checkpoints call the matrices into and out of the shared part."""
    into, out = ("gate_proj", "up_proj", "gate_up_proj"), ("down_proj",)
    if apart:
        return tuple(f"mlp.{n}" for n in into), tuple(f"mlp.{n}" for n in out)
    inside = ("shared_experts", "shared_expert", "shared_mlp")
    alone = ("share_expert",)
    found = [
        (*(f"{s}.{n}" for s in alone for n in names), *_names(*(f"{s}.{n}" for s in inside for n in names)))
        for names in (into, out)
    ]
    return found[0], found[1]


@dataclass(frozen=True)
class Dense:
    """An MLP of ``width`` inner features; ``gated`` ones have two matrices in."""

    width: int
    gated: bool = True
    bias: bool = False

    @property
    def _into(self) -> int:
        return 2 if self.gated else 1

    def tensors(self, hidden: int) -> Iterator[Tensor]:
        """In, out, biases."""
        up = _names("gate_proj", "up_proj", "gate_up_proj", "w1", "w3", "fc1")
        yield Tensor("gate_up", quant.MLP, hidden * self.width * self._into, modules=up)
        yield Tensor("down", quant.DOWN, self.width * hidden, modules=_names("down_proj", "w2", "fc2"))
        if self.bias:
            yield Tensor("mlp_bias", quant.PLAIN, self.width * self._into + hidden)

    def products(self, hidden: int, tp: int) -> Iterator[Product]:
        """In and out."""
        yield Product("gate_up", self._into * self.width // tp, hidden, "gate_up")
        yield Product("down", hidden, self.width // tp, "down", all_reduce=True)


@dataclass(frozen=True)
class Routed:
    """Routed experts: ``top_k`` of ``experts`` per token, each ``width`` wide; ``shared`` features that every token uses.

    ``latent``: the experts work in so many features, with one projection in and out of them (Kimi K3, Nemotron 3 Super).
    ``apart``: the experts are a module beside the MLP that every token uses (Gemma 4), not inside it.
    """

    experts: int
    top_k: int
    width: int
    gated: bool = True
    bias: bool = False
    shared: int = 0
    latent: int = 0
    apart: bool = False

    @property
    def _into(self) -> int:
        return 2 if self.gated else 1

    def inside(self, hidden: int) -> int:
        """Features the experts work in."""
        return self.latent or hidden

    def tensors(self, hidden: int) -> Iterator[Tensor]:
        """Router, experts, shared part."""
        inside, n = self.inside(hidden), self.experts
        yield Tensor("router", quant.PLAIN, hidden * n + n, COPY)
        if self.latent:
            yield Tensor(
                "latent",
                quant.SHARED,
                2 * hidden * self.latent,
                COPY,
                modules=_names("fc1_latent_proj", "routed_expert_down_proj"),
            )
        into = ("experts", "experts.0.gate_proj", "experts.0.up_proj", "experts.0.w1", "experts.0.w3", "experts.gate_up_proj")
        out = ("experts", "experts.0.down_proj", "experts.0.w2", "experts.down_proj")
        up, down = (into, out) if self.apart else (_names(*into), _names(*out))
        yield Tensor("expert_gate_up", quant.EXPERT, n * inside * self.width * self._into, EXPERTS, n, up)
        yield Tensor("expert_down", quant.EXPERT_DOWN, n * self.width * inside, EXPERTS, n, down)
        if self.bias:
            yield Tensor("expert_bias", quant.PLAIN, n * (self.width * self._into + inside), EXPERTS, n)
        if self.shared:
            up, down = _shared_names(self.apart)
            yield Tensor("shared_gate_up", quant.SHARED, hidden * self.shared * self._into, modules=up)
            yield Tensor("shared_down", quant.SHARED_DOWN, self.shared * hidden, modules=down)

    def products(self, hidden: int, tp: int) -> Iterator[Product]:
        """All but the experts' own."""
        yield Product("router", self.experts, hidden, "router", False)
        if self.latent:
            yield Product("latent_in", self.latent, hidden, "latent")
            yield Product("latent_out", hidden, self.latent, "latent")
        if self.shared:
            yield Product("shared_gate_up", self._into * self.shared // tp, hidden, "shared_gate_up")
            yield Product("shared_down", hidden, self.shared // tp, "shared_down")  # reduced together with the experts
