"""Layers that attend to tokens: ordinary attention, latent attention (MLA), compressed attention, cross-attention.

A mixer says what tensors a layer has, what products it computes, and what it keeps of every token. Elements and bytes; one GPU where
``tp`` is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sim.model import quant
from sim.model.tensors import COPY, KV, AttentionKind, Cut, Kept, Product, Tensor

_INDEX_SCALE = 4  # bytes of the scale of an 8-bit index key (DeepSeek V3.2)


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _names(*names: str) -> tuple[str, ...]:
    """Names of a projection in the attention modules of the field."""
    return tuple(f"{at}.{n}" for n in names for at in ("self_attn", "attention", "attn", "mixer"))


@dataclass(frozen=True)
class Mixer:
    """What mixes tokens in a layer. Attention kinds keep something per token, recurrent ones a state per sequence."""

    @property
    def kind(self) -> AttentionKind:
        """Kind of layer, as schedulers of caches tell them apart."""
        return "full"

    def tensors(self, hidden: int) -> Iterator[Tensor]:
        """Tensors of the layer, norms apart."""
        raise NotImplementedError

    def products(self, hidden: int, tp: int) -> Iterator[Product]:
        """Matrix products on one GPU."""
        raise NotImplementedError

    def kept(self, tp: int, element: float) -> Iterator[Kept]:
        """What is kept of every token, with ``element`` bytes of one element."""
        yield from ()

    def state(self) -> tuple[int, int]:
        """Elements of state of one sequence, uncut: of convolutions and of the recurrence."""
        return 0, 0

    def cuts(self) -> Iterator[Cut]:
        """What tensor parallelism divides."""
        yield from ()


@dataclass(frozen=True)
class Attention(Mixer):
    """Multi-head attention with grouped keys and values.

    ``gate``: ``wide`` (the query projection is twice as wide: Qwen3-Next), ``head`` (one gate per head: Step-3.5), ``apart`` (a projection
    of its own). ``keys_are_values``: no value projection (Gemma 4). ``borrows``: keys and values of an earlier layer are used, none are
    kept; ``lends``: the same, but the checkpoint has the projections. ``q_lora``: queries go through so many features (Step-3).
    ``index_heads``: an indexer chooses ``index_top_k`` tokens (MiniMax-M3). ``sinks``: elements of learned sinks.
    """

    heads: int
    kv_heads: int
    head_dim: int
    v_head_dim: int
    looks: AttentionKind = "full"
    window: int = 0
    bias: bool = False
    output_bias: bool = False
    gate: str = ""
    keys_are_values: bool = False
    borrows: bool = False
    lends: bool = False
    q_lora: int = 0
    index_heads: int = 0
    index_dim: int = 0
    index_top_k: int = 0
    index_kept: bool = True
    sinks: int = 0

    @property
    def kind(self) -> AttentionKind:
        """Full, sliding or chunked."""
        return self.looks

    def tensors(self, hidden: int) -> Iterator[Tensor]:
        """Query, key, value, output, biases."""
        wide = 2 if self.gate == "wide" else 1
        into = self.q_lora or hidden
        if self.q_lora:
            yield Tensor("q_a", quant.ATTENTION, hidden * self.q_lora, COPY, modules=_names("q_proj", "qkv_proj"))
        names = _names("wq") if self.q_lora else _names("q_proj", "qkv_proj", "c_attn", "W_pack", "query_key_value")
        yield Tensor("q", quant.ATTENTION, into * self.heads * self.head_dim * wide, modules=names)
        if not self.borrows:
            yield Tensor(
                "k", quant.ATTENTION, hidden * self.kv_heads * self.head_dim, KV, self.kv_heads, _names("k_proj", "qkv_proj")
            )
            if not self.keys_are_values:
                yield Tensor(
                    "v", quant.VALUE, hidden * self.kv_heads * self.v_head_dim, KV, self.kv_heads, _names("v_proj", "qkv_proj")
                )
        if self.bias:
            kv = 0 if self.borrows else self.kv_heads * (self.head_dim + (0 if self.keys_are_values else self.v_head_dim))
            yield Tensor("qkv_bias", quant.PLAIN, self.heads * self.head_dim + kv)
        if self.gate == "head":
            yield Tensor("gate", quant.ATTENTION, hidden * self.heads, modules=_names("g_proj"))
        if self.gate == "apart":
            yield Tensor("gate", quant.ATTENTION, hidden * self.heads * self.v_head_dim, modules=_names("g_proj", "gate_proj"))
        yield Tensor("o", quant.ATTENTION, self.heads * self.v_head_dim * hidden, modules=_names("o_proj", "dense", "out_proj"))
        if self.output_bias:
            yield Tensor("o_bias", quant.PLAIN, hidden, COPY)
        if self.sinks:
            yield Tensor("sinks", quant.PLAIN, self.sinks)
        if self.index_heads:
            width = (self.index_heads + 1) * self.index_dim
            yield Tensor("indexer", quant.ATTENTION, hidden * width, COPY, modules=_names("index_q_proj", "indexer"))

    def products(self, hidden: int, tp: int) -> Iterator[Product]:
        """One product for query, key and value, one for the output."""
        heads, kv = self.heads // tp, 0 if self.borrows or self.lends else _ceil(self.kv_heads, tp)
        width = heads * self.head_dim * (2 if self.gate == "wide" else 1)
        keys = kv * (self.head_dim + (0 if self.keys_are_values else self.v_head_dim))
        if self.q_lora:
            yield Product("qkv_a", self.q_lora + keys, hidden, "q_a")
            yield Product("q_b", width, self.q_lora, "q")
        else:
            yield Product("qkv", width + keys, hidden, "q")
        if self.gate in ("head", "apart"):
            yield Product("gate", heads * (1 if self.gate == "head" else self.v_head_dim), hidden, "gate")
        yield Product("o", hidden, heads * self.v_head_dim, "o", all_reduce=True)
        if self.index_heads:
            yield Product("index", (self.index_heads + 1) * self.index_dim, hidden, "indexer")

    def kept(self, tp: int, element: float) -> Iterator[Kept]:
        """Keys and values of the heads of one GPU."""
        if not self.borrows and not self.lends:
            index = self.index_dim * element if self.index_heads and self.index_kept else 0.0
            each = _ceil(self.kv_heads, tp) * (self.head_dim + self.v_head_dim) * element
            yield Kept(self.looks, 0 if self.looks == "full" else self.window, each + index)

    def cuts(self) -> Iterator[Cut]:
        """Query heads are divided, key/value heads divided or copied."""
        yield Cut("attention heads", self.heads)
        yield Cut("key/value heads", self.kv_heads, copies=True)


@dataclass(frozen=True)
class Latent(Mixer):
    """Multi-head latent attention (DeepSeek): keys and values are one compressed vector, copied to every GPU.

    ``index_heads``: a sparse-attention indexer (V3.2) chooses ``index_top_k`` tokens; ``index_own`` is False where the layer uses the
    choice of an earlier one. ``gated``: an output gate as wide as the values.
    """

    heads: int
    q_lora: int
    kv_lora: int
    nope: int
    rope: int
    v_head_dim: int
    index_heads: int = 0
    index_dim: int = 0
    index_top_k: int = 0
    index_own: bool = True
    gated: bool = False

    def tensors(self, hidden: int) -> Iterator[Tensor]:
        """Down- and up-projections of queries and of the latent, output, indexer."""
        if self.q_lora:
            yield Tensor("q_a", quant.ATTENTION, hidden * self.q_lora, COPY, modules=_names("q_a_proj", "fused_qkv_a_proj"))
        q = self.heads * (self.nope + self.rope)
        yield Tensor("q_b", quant.ATTENTION, (self.q_lora or hidden) * q, modules=_names("q_b_proj" if self.q_lora else "q_proj"))
        yield Tensor(
            "kv_a",
            quant.ATTENTION,
            hidden * (self.kv_lora + self.rope),
            COPY,
            modules=_names("kv_a_proj_with_mqa", "fused_qkv_a_proj"),
        )
        yield Tensor(
            "kv_b", quant.ATTENTION, self.kv_lora * self.heads * (self.nope + self.v_head_dim), modules=_names("kv_b_proj")
        )
        yield Tensor("mla_norms", quant.PLAIN, self.q_lora + self.kv_lora, COPY)
        if self.index_heads and self.index_own:
            index = self.q_lora * self.index_heads * self.index_dim + hidden * self.index_dim
            yield Tensor("indexer", quant.ATTENTION, index, COPY, modules=_names("indexer", "indexer.wq_b", "indexer.wk"))
            yield Tensor("indexer_weights", quant.PLAIN, hidden * self.index_heads + 2 * self.index_dim, COPY)
        if self.gated:
            yield Tensor("gate", quant.ATTENTION, hidden * self.heads * self.v_head_dim, modules=_names("g_proj"))
        yield Tensor("o", quant.ATTENTION, self.heads * self.v_head_dim * hidden, modules=_names("o_proj"))

    def products(self, hidden: int, tp: int) -> Iterator[Product]:
        """As engines fuse them."""
        heads = self.heads // tp
        yield Product("qkv_a", self.q_lora + self.kv_lora + self.rope, hidden, "kv_a")
        yield Product("q_b", heads * (self.nope + self.rope), self.q_lora or hidden, "q_b")
        yield Product("kv_b", heads * (self.nope + self.v_head_dim), self.kv_lora, "kv_b")
        if self.index_heads and self.index_own:
            yield Product("index_q", self.index_heads * self.index_dim, self.q_lora, "indexer")
            yield Product("index_k", self.index_dim + self.index_heads, hidden, "indexer")
        if self.gated:
            yield Product("gate", heads * self.v_head_dim, hidden, "gate")
        yield Product("o", hidden, heads * self.v_head_dim, "o", all_reduce=True)

    def kept(self, tp: int, element: float) -> Iterator[Kept]:
        """The latent and the rotary key; with an indexer an 8-bit index key and its scale."""
        index = self.index_dim + _INDEX_SCALE if self.index_heads and self.index_own else 0
        yield Kept("full", 0, (self.kv_lora + self.rope) * element + index)

    def cuts(self) -> Iterator[Cut]:
        """Query heads; the latent is copied."""
        yield Cut("attention heads", self.heads)


@dataclass(frozen=True)
class Compressed(Mixer):
    """DeepSeek V4: one shared key/value vector, a window, and one entry per ``ratio`` tokens (0: the window only).

    At ratio 4 an indexer chooses ``index_top_k`` entries and compressors overlap (twice as wide). The output is projected in
    ``o_groups`` through ``o_lora``. *Source*: vLLM ``models/deepseek_v4/{attention,compressor}.py``.
    """

    heads: int
    head_dim: int
    rope: int
    q_lora: int
    o_lora: int
    o_groups: int
    window: int
    ratio: int = 0
    index_heads: int = 0
    index_dim: int = 0
    index_top_k: int = 0

    @property
    def kind(self) -> AttentionKind:
        """Sliding where nothing is compressed."""
        return "compressed" if self.ratio else "sliding"

    @property
    def indexed(self) -> bool:
        """Whether an indexer chooses entries."""
        return self.ratio == 4

    def _compressors(self, hidden: int) -> int:
        if not self.ratio:
            return 0
        wide = 2 if self.indexed else 1
        dims = self.head_dim + (self.index_dim if self.indexed else 0)
        return 2 * hidden * wide * dims + self.ratio * wide * dims

    def tensors(self, hidden: int) -> Iterator[Tensor]:
        """Low-rank query, shared key/value, compressors, indexer, grouped low-rank output."""
        inner = self.heads * self.head_dim
        yield Tensor("q_a", quant.ATTENTION, hidden * self.q_lora, COPY, modules=_names("wq_a", "q_a_proj"))
        yield Tensor("q_b", quant.ATTENTION, self.q_lora * inner, modules=_names("wq_b", "q_b_proj"))
        yield Tensor("kv", quant.ATTENTION, hidden * self.head_dim, COPY, modules=_names("wkv", "kv_proj"))
        yield Tensor("o_a", quant.ATTENTION, inner * self.o_lora, modules=_names("wo_a", "o_a_proj"))
        yield Tensor("o_b", quant.ATTENTION, self.o_groups * self.o_lora * hidden, modules=_names("wo_b", "o_b_proj"))
        yield Tensor("small", quant.PLAIN, self.q_lora + self.head_dim + self.heads, COPY)
        if self.ratio:
            yield Tensor("compressor", quant.PLAIN, self._compressors(hidden), COPY)
        if self.indexed:
            yield Tensor(
                "indexer", quant.ATTENTION, self.q_lora * self.index_heads * self.index_dim, COPY, modules=_names("indexer")
            )
            yield Tensor("indexer_weights", quant.PLAIN, hidden * self.index_heads, COPY)

    def products(self, hidden: int, tp: int) -> Iterator[Product]:
        """As in the tensors; the output in two steps."""
        inner = self.heads * self.head_dim // tp
        yield Product("qkv_a", self.q_lora + self.head_dim, hidden, "q_a")
        yield Product("q_b", inner, self.q_lora, "q_b")
        if self.ratio:
            wide = 2 if self.indexed else 1
            yield Product(
                "compress", 2 * wide * (self.head_dim + (self.index_dim if self.indexed else 0)), hidden, "compressor", False
            )
        if self.indexed:
            yield Product("index_q", self.index_heads * self.index_dim, self.q_lora, "indexer")
        yield Product("o_a", self.o_lora, inner, "o_a")
        yield Product("o_b", hidden, max(self.o_groups // tp, 1) * self.o_lora, "o_b", all_reduce=True)

    def _entry(self, element: float) -> float:
        """Bytes of one vector: in 8 bits the rotary part stays in 16 and each 64 elements have a scale (padded to 8 bytes)."""
        if element >= 2.0:
            return self.head_dim * element
        return (self.head_dim - self.rope) + 2 * self.rope + (self.head_dim - self.rope) // 64 + 1

    def kept(self, tp: int, element: float) -> Iterator[Kept]:
        """The window, and a compressed entry (with its index key) per ``ratio`` tokens; copied to every GPU."""
        yield Kept("sliding", self.window, self._entry(element))
        if self.ratio:
            index = (self.index_dim + _INDEX_SCALE if element < 2.0 else self.index_dim * element) if self.indexed else 0
            yield Kept("full", 0, (self._entry(element) + index) / self.ratio)

    def state(self) -> tuple[int, int]:
        """Keys and scores of the open window of each compressor, in 32 bits."""
        if not self.ratio:
            return 0, 0
        wide = 2 if self.indexed else 1
        dims = self.head_dim + (self.index_dim if self.indexed else 0)
        return 0, 2 * wide * self.ratio * wide * dims

    def cuts(self) -> Iterator[Cut]:
        """Query heads and output groups."""
        yield Cut("attention heads", self.heads)


@dataclass(frozen=True)
class Cross(Mixer):
    """Cross-attention to an image (Llama 3.2 Vision): keys and values of the image, none per token of text."""

    heads: int
    kv_heads: int
    head_dim: int

    @property
    def kind(self) -> AttentionKind:
        """Cross."""
        return "cross"

    def _like(self) -> Attention:
        return Attention(self.heads, self.kv_heads, self.head_dim, self.head_dim)

    def tensors(self, hidden: int) -> Iterator[Tensor]:
        """As ordinary attention; a gate and two norms are counted with the norms."""
        yield from self._like().tensors(hidden)

    def products(self, hidden: int, tp: int) -> Iterator[Product]:
        """Query and output; keys and values are made once per image."""
        yield Product("q", self.heads // tp * self.head_dim, hidden, "q")
        yield Product("o", hidden, self.heads // tp * self.head_dim, "o", all_reduce=True)

    def cuts(self) -> Iterator[Cut]:
        """As ordinary attention."""
        yield from self._like().cuts()
