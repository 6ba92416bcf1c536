"""Layers with a state of fixed size instead of keys and values: gated delta rules, Mamba, short convolutions, lightning attention.

State of one sequence in elements: (of the convolutions, of the recurrence). *Source*: vLLM ``layers/mamba/mamba_utils.py``
(MambaStateShapeCalculator), transformers modelling files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sim.model import quant
from sim.model.mixers import Attention, Mixer
from sim.model.tensors import COPY, AttentionKind, Cut, Kept, Product, Tensor


def _names(*names: str) -> tuple[str, ...]:
    return tuple(f"{at}.{n}" for n in names for at in ("linear_attn", "mixer", "mamba", "self_attn", "conv"))


@dataclass(frozen=True)
class Recurrent(Mixer):
    """A mixer that keeps a state."""

    @property
    def kind(self) -> AttentionKind:
        """Linear: nothing is kept per token."""
        return "linear"


@dataclass(frozen=True)
class DeltaNet(Recurrent):
    """Gated DeltaNet (Qwen3-Next, Qwen3.5)."""

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    conv: int

    @property
    def _widths(self) -> tuple[int, int]:
        return self.key_heads * self.key_dim, self.value_heads * self.value_dim

    def tensors(self, hidden: int) -> Iterator[Tensor]:
        """Projections of q, k, v and the output gate; of the two gates; convolution; output."""
        keys, values = self._widths
        yield Tensor(
            "in_proj",
            quant.ATTENTION,
            hidden * (2 * keys + 2 * values),
            modules=_names("in_proj_qkvz", "in_proj_qkv", "in_proj_z"),
        )
        yield Tensor("in_proj_ba", quant.PLAIN, hidden * 2 * self.value_heads)
        yield Tensor("conv", quant.PLAIN, (2 * keys + values) * self.conv + 2 * self.value_heads + self.value_dim)
        yield Tensor("out_proj", quant.ATTENTION, values * hidden, modules=_names("out_proj"))

    def products(self, hidden: int, tp: int) -> Iterator[Product]:
        """As engines fuse them."""
        keys, values = self.key_heads * self.key_dim // tp, self.value_heads * self.value_dim // tp
        yield Product("linear_in", 2 * (keys + values), hidden, "in_proj")
        yield Product("linear_ba", 2 * self.value_heads // tp, hidden, "in_proj_ba", False)
        yield Product("linear_out", hidden, values, "out_proj", all_reduce=True)

    def state(self) -> tuple[int, int]:
        """A matrix per value head."""
        keys, values = self._widths
        return (2 * keys + values) * max(self.conv - 1, 0), self.value_heads * self.key_dim * self.value_dim

    def cuts(self) -> Iterator[Cut]:
        """Key heads."""
        yield Cut("linear-attention key heads", self.key_heads)


@dataclass(frozen=True)
class Kda(Recurrent):
    """Kimi delta attention: a decay per channel. ``full_gate``: the output gate is one matrix (K3), else of rank ``head_dim``."""

    heads: int
    head_dim: int
    conv: int
    full_gate: bool = False

    def tensors(self, hidden: int) -> Iterator[Tensor]:
        """q, k, v with convolutions, decay gate of low rank, beta, output gate, output."""
        inner = self.heads * self.head_dim
        low = self.head_dim * (hidden + inner)
        yield Tensor("in_proj", quant.ATTENTION, 3 * hidden * inner, modules=_names("q_proj", "k_proj", "v_proj"))
        yield Tensor("decay", quant.ATTENTION, low, modules=_names("f_a_proj", "f_b_proj"))
        yield Tensor(
            "gate", quant.ATTENTION, hidden * inner if self.full_gate else low, modules=_names("g_proj", "g_a_proj", "g_b_proj")
        )
        yield Tensor("small", quant.PLAIN, hidden * self.heads + 3 * inner * self.conv + inner + self.heads + self.head_dim)
        yield Tensor("out_proj", quant.ATTENTION, inner * hidden, modules=_names("o_proj"))

    def products(self, hidden: int, tp: int) -> Iterator[Product]:
        """As in the tensors."""
        inner = self.heads * self.head_dim // tp
        yield Product("linear_in", 3 * inner, hidden, "in_proj")
        yield Product("linear_ba", self.heads // tp, hidden, "small", False)
        yield Product("decay_a", self.head_dim, hidden, "decay")
        yield Product("decay_b", inner, self.head_dim, "decay")
        if self.full_gate:
            yield Product("gate", inner, hidden, "gate")
        else:
            yield Product("gate_a", self.head_dim, hidden, "gate")
            yield Product("gate_b", inner, self.head_dim, "gate")
        yield Product("linear_out", hidden, inner, "out_proj", all_reduce=True)

    def state(self) -> tuple[int, int]:
        """A matrix per head."""
        return 3 * self.heads * self.head_dim * max(self.conv - 1, 0), self.heads * self.head_dim**2

    def cuts(self) -> Iterator[Cut]:
        """Heads."""
        yield Cut("linear-attention heads", self.heads)


@dataclass(frozen=True)
class Mamba2(Recurrent):
    """Mamba-2 (state-space duality): ``heads × head_dim`` channels, ``groups`` share their input and output matrices."""

    heads: int
    head_dim: int
    groups: int
    states: int
    conv: int
    conv_bias: bool = True
    bias: bool = False
    normed: bool = True

    @property
    def _inner(self) -> int:
        return self.heads * self.head_dim

    @property
    def _convolved(self) -> int:
        return self._inner + 2 * self.groups * self.states

    def tensors(self, hidden: int) -> Iterator[Tensor]:
        """Input (gate, channels, B, C, time step), convolution, output."""
        width = self._inner + self._convolved + self.heads
        yield Tensor("in_proj", quant.ATTENTION, hidden * width, modules=_names("in_proj"))
        small = (
            self._convolved * (self.conv + (1 if self.conv_bias else 0)) + 3 * self.heads + (self._inner if self.normed else 0)
        )
        yield Tensor("conv", quant.PLAIN, small + ((width + hidden) if self.bias else 0))
        yield Tensor("out_proj", quant.ATTENTION, self._inner * hidden, modules=_names("out_proj"))

    def products(self, hidden: int, tp: int) -> Iterator[Product]:
        """Input and output."""
        yield Product("linear_in", (self._inner + self._convolved + self.heads) // tp, hidden, "in_proj")
        yield Product("linear_out", hidden, self._inner // tp, "out_proj", all_reduce=True)

    def state(self) -> tuple[int, int]:
        """``states`` numbers per channel."""
        return self._convolved * max(self.conv - 1, 0), self._inner * self.states

    def cuts(self) -> Iterator[Cut]:
        """Heads."""
        yield Cut("state-space heads", self.heads)


@dataclass(frozen=True)
class Mamba1(Recurrent):
    """Mamba (selective state spaces), as in Jamba."""

    inner: int
    states: int
    conv: int
    rank: int
    bias: bool = False
    normed: bool = True

    def tensors(self, hidden: int) -> Iterator[Tensor]:
        """Input, convolution, selection, output."""
        yield Tensor("in_proj", quant.ATTENTION, 2 * hidden * self.inner, modules=_names("in_proj"))
        yield Tensor(
            "select", quant.ATTENTION, self.inner * (2 * self.rank + 2 * self.states), modules=_names("x_proj", "dt_proj")
        )
        small = self.inner * (self.conv + self.states + 3) + (self.rank + 2 * self.states if self.normed else 0)
        yield Tensor("conv", quant.PLAIN, small)
        yield Tensor("out_proj", quant.ATTENTION, self.inner * hidden, modules=_names("out_proj"))

    def products(self, hidden: int, tp: int) -> Iterator[Product]:
        """As in the tensors."""
        inner = self.inner // tp
        yield Product("linear_in", 2 * inner, hidden, "in_proj")
        yield Product("select_x", self.rank + 2 * self.states, inner, "select", all_reduce=True)
        yield Product("select_dt", inner, self.rank, "select")
        yield Product("linear_out", hidden, inner, "out_proj", all_reduce=True)

    def state(self) -> tuple[int, int]:
        """``states`` numbers per channel."""
        return self.inner * max(self.conv - 1, 0), self.inner * self.states

    def cuts(self) -> Iterator[Cut]:
        """Channels."""
        yield Cut("state-space channels", self.inner)


@dataclass(frozen=True)
class ShortConv(Recurrent):
    """A gated short convolution (LFM2)."""

    width: int
    conv: int
    bias: bool = False

    def tensors(self, hidden: int) -> Iterator[Tensor]:
        """Input, convolution, output."""
        yield Tensor("in_proj", quant.ATTENTION, 3 * hidden * self.width, modules=_names("in_proj"))
        yield Tensor("conv", quant.PLAIN, self.width * self.conv + (3 * self.width + self.width + hidden if self.bias else 0))
        yield Tensor("out_proj", quant.ATTENTION, self.width * hidden, modules=_names("out_proj"))

    def products(self, hidden: int, tp: int) -> Iterator[Product]:
        """Input and output."""
        yield Product("linear_in", 3 * self.width // tp, hidden, "in_proj")
        yield Product("linear_out", hidden, self.width // tp, "out_proj", all_reduce=True)

    def state(self) -> tuple[int, int]:
        """The last inputs of the convolution."""
        return self.width * max(self.conv - 1, 0), 0

    def cuts(self) -> Iterator[Cut]:
        """Channels."""
        yield Cut("convolution channels", self.width)


@dataclass(frozen=True)
class Beside(Mixer):
    """Attention and Mamba-2 side by side on the same input (Falcon-H1): keys and values, and a state."""

    attention: Attention
    mamba: Mamba2

    def tensors(self, hidden: int) -> Iterator[Tensor]:
        """Of both."""
        yield from self.attention.tensors(hidden)
        yield from self.mamba.tensors(hidden)

    def products(self, hidden: int, tp: int) -> Iterator[Product]:
        """Of both; their sum is reduced once."""
        yield from self.attention.products(hidden, tp)
        yield from (product._replace(all_reduce=False) for product in self.mamba.products(hidden, tp))

    def kept(self, tp: int, element: float) -> Iterator[Kept]:
        """Keys and values."""
        yield from self.attention.kept(tp, element)

    def state(self) -> tuple[int, int]:
        """Of Mamba."""
        return self.mamba.state()

    def cuts(self) -> Iterator[Cut]:
        """Of both."""
        yield from self.attention.cuts()
        yield from self.mamba.cuts()


@dataclass(frozen=True)
class Lightning(Recurrent):
    """Lightning attention (MiniMax-Text-01, Ling linear): a decaying sum of key-value products per head."""

    heads: int
    head_dim: int

    def tensors(self, hidden: int) -> Iterator[Tensor]:
        """q, k, v, output gate, norm, output."""
        inner = self.heads * self.head_dim
        yield Tensor("in_proj", quant.ATTENTION, 3 * hidden * inner, modules=_names("qkv_proj", "query_key_value"))
        yield Tensor("gate", quant.ATTENTION, hidden * inner, modules=_names("output_gate", "g_proj"))
        yield Tensor("norm", quant.PLAIN, inner, COPY)
        yield Tensor("out_proj", quant.ATTENTION, inner * hidden, modules=_names("out_proj", "dense"))

    def products(self, hidden: int, tp: int) -> Iterator[Product]:
        """As in the tensors."""
        inner = self.heads * self.head_dim // tp
        yield Product("linear_in", 3 * inner, hidden, "in_proj")
        yield Product("gate", inner, hidden, "gate")
        yield Product("linear_out", hidden, inner, "out_proj", all_reduce=True)

    def state(self) -> tuple[int, int]:
        """A matrix per head."""
        return 0, self.heads * self.head_dim**2

    def cuts(self) -> Iterator[Cut]:
        """Heads."""
        yield Cut("linear-attention heads", self.heads)
