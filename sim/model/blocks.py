"""A layer: what mixes tokens, what follows, its small tensors, and the number formats of single tensors."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from sim.model import quant
from sim.model.mixers import Attention, Latent, Mixer
from sim.model.mlps import Dense, Routed
from sim.model.recurrent import DeltaNet
from sim.model.tensors import COPY, AttentionKind, Tensor

if TYPE_CHECKING:
    from sim.model.spec import ModelSpec


class Block(NamedTuple):
    """One layer. ``small``: elements of norms and other tensors that are never quantised, copied to every GPU.

    ``extra``: elements of small dense tensors that are cut (per-layer embeddings of Gemma 4). ``formats``: (tensor, number format) where
    a tensor is not in the format of the model.
    """

    mixer: Mixer | None
    mlp: Dense | Routed | None
    small: int = 0
    extra: int = 0
    formats: tuple[tuple[str, str], ...] = ()

    @property
    def kind(self) -> AttentionKind:
        """Kind of its mixer; ``none`` without one."""
        return self.mixer.kind if self.mixer is not None else "none"

    def form_of(self, tensor: str) -> str:
        """The number format of a tensor where it is not the model's; else empty."""
        return dict(self.formats).get(tensor, "")


@lru_cache(maxsize=4096)
def block_tensors(block: Block, hidden: int) -> tuple[Tensor, ...]:
    """Every tensor of a layer."""
    mixer = tuple(block.mixer.tensors(hidden)) if block.mixer is not None else ()
    mlp = tuple(block.mlp.tensors(hidden)) if block.mlp is not None else ()
    extra = (Tensor("extra", quant.PLAIN, block.extra),) if block.extra else ()
    return (*mixer, *mlp, *extra, Tensor("norms", quant.PLAIN, block.small, COPY))


def uniform_blocks(m: ModelSpec) -> tuple[Block, ...]:
    """The layers of a model that its plain fields describe: one kind of attention per layer, experts or not."""
    known: dict[tuple[AttentionKind, bool], Block] = {}
    everywhere: tuple[AttentionKind, ...] = ("full",)
    kinds = m.attention or everywhere * m.layers
    small = m.norms_per_layer * m.hidden * (2 if m.norm_bias else 1) + m.qk_norm
    for key in dict.fromkeys(zip(kinds, m.experts_in, strict=True)):
        known[key] = Block(_mixer(m, key[0]), _mlp(m, key[1]), small)
    return tuple(known[key] for key in zip(kinds, m.experts_in, strict=True))


def _mixer(m: ModelSpec, kind: AttentionKind) -> Mixer:
    if kind == "linear":
        return DeltaNet(m.linear_key_heads, m.linear_value_heads, m.linear_key_dim, m.linear_value_dim, m.linear_conv)
    if m.is_mla:
        return Latent(
            m.heads, m.q_lora_rank, m.kv_lora_rank, m.qk_nope_head_dim, m.qk_rope_head_dim, m.v_head_dim,
            m.index_heads, m.index_head_dim, m.index_top_k,
        )  # fmt: skip
    gate = "wide" if m.attention_gate else ""
    window = 0 if kind == "full" else m.window
    return Attention(
        m.heads, m.kv_heads, m.head_dim, m.v_head_dim, kind, window, m.attention_bias, m.output_bias, gate, sinks=m.sinks
    )


def _mlp(m: ModelSpec, routed: bool) -> Dense | Routed:
    if routed:
        return Routed(m.n_experts, m.top_k, m.moe_intermediate, m.gated_mlp, m.mlp_bias, m.shared_intermediate)
    return Dense(m.intermediate, m.gated_mlp, m.mlp_bias)
