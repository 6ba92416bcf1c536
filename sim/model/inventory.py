"""Every tensor of a model, once: parameter counts, weight bytes per GPU, KV bytes and GEMM shapes are sums over this list."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from sim.model import quant

if TYPE_CHECKING:
    from sim.model.spec import AttentionKind, ModelSpec

# How a tensor is cut over the tensor-parallel group.
CUT, KV, COPY, EXPERTS = "cut", "kv", "copy", "experts"


class Tensor(NamedTuple):
    """``elements`` of the uncut tensor; ``rule`` says how a GPU's part follows from it."""

    name: str
    role: str
    elements: int
    rule: str = CUT


def stages(layers: int, pp: int) -> tuple[tuple[int, int], ...]:
    """Layer ranges of the pipeline stages: left-over layers go to the stages before the last."""
    sizes = [layers // pp] * pp
    for i in range(2, layers % pp + 2):
        sizes[-i] += 1
    ends = [sum(sizes[: i + 1]) for i in range(pp)]
    return tuple((end - size, end) for size, end in zip(sizes, ends, strict=True))


def padded_vocab(vocab: int) -> int:
    """Rows of the embedding as engines allocate it: padded to a multiple of 64 (vLLM VocabParallelEmbedding)."""
    return -(-vocab // 64) * 64


@lru_cache(maxsize=256)
def layer_tensors(m: ModelSpec, kind: AttentionKind, moe: bool) -> tuple[Tensor, ...]:
    """Tensors of a layer with this attention kind, with or without routed experts."""
    return (*_attention(m, kind), *(_experts(m) if moe else _mlp(m)), Tensor("norms", quant.PLAIN, _norms(m), COPY))


def _norms(m: ModelSpec) -> int:
    return m.norms_per_layer * m.hidden * (2 if m.norm_bias else 1) + m.qk_norm


def _attention(m: ModelSpec, kind: AttentionKind) -> Iterator[Tensor]:
    if kind == "linear":
        keys, values = m.linear_key_heads * m.linear_key_dim, m.linear_value_heads * m.linear_value_dim
        yield Tensor("in_proj", quant.ATTENTION, m.hidden * (2 * keys + 2 * values))
        yield Tensor("in_proj_ba", quant.PLAIN, m.hidden * 2 * m.linear_value_heads)
        yield Tensor("conv", quant.PLAIN, (2 * keys + values) * m.linear_conv + 2 * m.linear_value_heads + m.linear_value_dim)
        yield Tensor("out_proj", quant.ATTENTION, values * m.hidden)
        return
    out = m.heads * m.v_head_dim * m.hidden
    if m.is_mla:
        query = m.heads * (m.qk_nope_head_dim + m.qk_rope_head_dim)
        if m.q_lora_rank:
            yield Tensor("q_a", quant.ATTENTION, m.hidden * m.q_lora_rank, COPY)
        yield Tensor("q_b", quant.ATTENTION, (m.q_lora_rank or m.hidden) * query)
        yield Tensor("kv_a", quant.ATTENTION, m.hidden * (m.kv_lora_rank + m.qk_rope_head_dim), COPY)
        yield Tensor("kv_b", quant.ATTENTION, m.kv_lora_rank * m.heads * (m.qk_nope_head_dim + m.v_head_dim))
        yield Tensor("mla_norms", quant.PLAIN, m.q_lora_rank + m.kv_lora_rank, COPY)
        if m.index_heads:
            index = m.q_lora_rank * m.index_heads * m.index_head_dim + m.hidden * m.index_head_dim
            yield Tensor("indexer", quant.ATTENTION, index, COPY)
            yield Tensor("indexer_weights", quant.PLAIN, m.hidden * m.index_heads + 2 * m.index_head_dim, COPY)
    else:
        yield Tensor("q", quant.ATTENTION, m.hidden * m.heads * m.head_dim * (2 if m.attention_gate else 1))
        yield Tensor("k", quant.ATTENTION, m.hidden * m.kv_heads * m.head_dim, KV)
        yield Tensor("v", quant.VALUE, m.hidden * m.kv_heads * m.v_head_dim, KV)
        if m.attention_bias:
            yield Tensor("qkv_bias", quant.PLAIN, m.heads * m.head_dim + m.kv_heads * (m.head_dim + m.v_head_dim))
    yield Tensor("o", quant.ATTENTION, out)
    if m.output_bias:
        yield Tensor("o_bias", quant.PLAIN, m.hidden, COPY)


def _mlp(m: ModelSpec) -> Iterator[Tensor]:
    yield Tensor("gate_up", quant.MLP, m.hidden * m.intermediate * (2 if m.gated_mlp else 1))
    yield Tensor("down", quant.DOWN, m.intermediate * m.hidden)
    if m.mlp_bias:
        yield Tensor("mlp_bias", quant.PLAIN, m.intermediate * (2 if m.gated_mlp else 1) + m.hidden)


def _experts(m: ModelSpec) -> Iterator[Tensor]:
    yield Tensor("router", quant.PLAIN, m.hidden * m.n_experts + m.n_experts, COPY)
    yield Tensor("expert_gate_up", quant.EXPERT, m.n_experts * m.hidden * m.moe_intermediate * (2 if m.gated_mlp else 1), EXPERTS)
    yield Tensor("expert_down", quant.EXPERT_DOWN, m.n_experts * m.moe_intermediate * m.hidden, EXPERTS)
    if m.mlp_bias:
        yield Tensor(
            "expert_bias", quant.PLAIN, m.n_experts * (m.moe_intermediate * (2 if m.gated_mlp else 1) + m.hidden), EXPERTS
        )
    if m.shared_intermediate:
        yield Tensor("shared_gate_up", quant.SHARED, m.hidden * m.shared_intermediate * (2 if m.gated_mlp else 1))
        yield Tensor("shared_down", quant.SHARED_DOWN, m.shared_intermediate * m.hidden)


def first_tensors(m: ModelSpec) -> Iterator[Tensor]:
    """Tensors before the first layer."""
    width = m.embedding_dim or m.hidden
    yield Tensor("embedding", quant.TIED if m.tie_embeddings else quant.EMBEDDING, m.vocab * width)
    if m.learned_positions:
        yield Tensor("positions", quant.PLAIN, m.learned_positions * m.hidden, COPY)
    if m.embedding_dim:
        yield Tensor("project", quant.PLAIN, 2 * width * m.hidden, COPY)
    if m.vision_params:
        yield Tensor("vision", quant.PLAIN, m.vision_params)


def last_tensors(m: ModelSpec) -> Iterator[Tensor]:
    """Tensors after the last layer."""
    yield Tensor("final_norm", quant.PLAIN, m.hidden * (2 if m.norm_bias else 1), COPY)
    if not m.tie_embeddings:
        yield Tensor("lm_head", quant.HEAD, m.vocab * m.hidden)


def _layers(m: ModelSpec, first: int, last: int) -> Iterator[tuple[Tensor, int]]:
    """Each distinct tensor of the layers ``[first, last)`` with the number of layers that have it."""
    counts: dict[tuple[AttentionKind, bool], int] = {}
    for key in zip(m.kinds[first:last], m.experts_in[first:last], strict=True):
        counts[key] = counts.get(key, 0) + 1
    for (kind, moe), n in counts.items():
        for tensor in layer_tensors(m, kind, moe):
            yield tensor, n


def param_count(m: ModelSpec) -> int:
    """All parameters."""
    ends = sum(t.elements for t in (*first_tensors(m), *last_tensors(m)))
    return ends + sum(t.elements * n for t, n in _layers(m, 0, m.layers))


def active_param_count(m: ModelSpec) -> int:
    """All parameters less the experts a token is not routed to."""
    idle = sum(t.elements * n for t, n in _layers(m, 0, m.layers) if t.rule == EXPERTS)
    return param_count(m) - (idle * (m.n_experts - m.top_k) // m.n_experts if m.n_experts else 0)


def _expert_share(m: ModelSpec, tp: int, ep: int, dp: int) -> float:
    """Fraction of all expert weights on the fullest GPU."""
    width = max(tp * dp, ep)
    return -(-m.n_experts // ep) / m.n_experts / (width // ep)


def _share(m: ModelSpec, rule: str, tp: int, ep: int, dp: int) -> float:
    if rule == CUT:
        return 1.0 / tp
    if rule == KV:
        return -(-m.kv_heads // tp) / m.kv_heads
    if rule == EXPERTS:
        return _expert_share(m, tp, ep, dp)
    return 1.0


def stage_weight_bytes(m: ModelSpec, tp: int, pp: int, ep: int, dp: int, stage: int) -> float:
    """Weight bytes of one GPU of one pipeline stage."""
    form = m.format
    first, last = stages(m.layers, pp)[stage]
    parts = list(_layers(m, first, last))
    if stage == 0:
        parts += [(t, 1) for t in first_tensors(m)]
    if stage == pp - 1:
        parts += [(t, 1) for t in last_tensors(m)]
        if m.tie_embeddings and pp > 1:
            parts += [(t, 1) for t in first_tensors(m) if t.name == "embedding"]
    return sum(form.bytes_of(t.role) * t.elements * n * _share(m, t.rule, tp, ep, dp) for t, n in parts)


def weight_bytes(m: ModelSpec, tp: int, pp: int, ep: int, dp: int, stage: int | None) -> float:
    """Weight bytes of one GPU: of a stage, or of the heaviest."""
    if stage is not None:
        return stage_weight_bytes(m, tp, pp, ep, dp, stage)
    return max(stage_weight_bytes(m, tp, pp, ep, dp, s) for s in range(pp))


def layer_bytes(m: ModelSpec) -> list[tuple[float, float]]:
    """Weight bytes of every layer on one GPU that holds it whole: without its routed experts, and of these."""
    form, known = m.format, {}
    for key in set(zip(m.kinds, m.experts_in, strict=True)):
        sizes = [(t.rule == EXPERTS, form.bytes_of(t.role) * t.elements) for t in layer_tensors(m, *key)]
        known[key] = sum(b for routed, b in sizes if not routed), sum(b for routed, b in sizes if routed)
    return [known[key] for key in zip(m.kinds, m.experts_in, strict=True)]


def end_bytes(m: ModelSpec) -> tuple[float, float]:
    """Weight bytes before the first layer and after the last; tied embeddings count on both sides."""
    form = m.format
    before = sum(form.bytes_of(t.role) * t.elements for t in first_tensors(m))
    after = sum(form.bytes_of(t.role) * t.elements for t in last_tensors(m))
    if m.tie_embeddings:
        after += sum(form.bytes_of(t.role) * t.elements for t in first_tensors(m) if t.name == "embedding")
    return before, after


def token_bytes(m: ModelSpec, tp: int) -> float:
    """KV bytes of one token in one layer on one GPU."""
    if m.is_mla:  # the latent is copied to every GPU of the group
        index = m.index_head_dim + 4 if m.index_heads else 0  # fp8 index key and its scale (DeepSeek V3.2)
        return (m.kv_lora_rank + m.qk_rope_head_dim) * m.kv_element_bytes + index
    return -(-m.kv_heads // tp) * (m.head_dim + m.v_head_dim) * m.kv_element_bytes


def kv_groups(m: ModelSpec, tp: int, pp: int) -> list[tuple[AttentionKind, int, int, float]]:
    """(kind, layers, window, bytes per token and layer) of the stage with most layers that keep keys and values."""
    first, last = max(stages(m.layers, pp), key=lambda s: sum(k != "linear" for k in m.kinds[s[0] : s[1]]))
    here = m.kinds[first:last]
    order: tuple[AttentionKind, ...] = ("full", "sliding", "chunked")
    each = token_bytes(m, tp)
    return [(k, here.count(k), 0 if k == "full" else m.window, each) for k in order if k in here]


def state_bytes(m: ModelSpec, tp: int, pp: int) -> float:
    """Recurrent state of one sequence on one GPU: fp32 matrix per value head, 16-bit convolution window (Qwen3-Next in vLLM)."""
    if "linear" not in m.kinds:
        return 0.0
    layers = max(m.kinds[a:b].count("linear") for a, b in stages(m.layers, pp))
    keys, values = m.linear_key_heads * m.linear_key_dim, m.linear_value_heads * m.linear_value_dim
    matrix = m.linear_value_heads * m.linear_key_dim * m.linear_value_dim * 4
    return layers * (matrix + (2 * keys + values) * max(m.linear_conv - 1, 0) * 2) / tp


def linear_shapes(m: ModelSpec, tp: int) -> Iterator[tuple[str, int, int, int, int, bool, bool]]:
    """(name, n, k, count, layers, quantised, all-reduce after it) of every dense GEMM of the layers."""
    softmax = sum(k != "linear" for k in m.kinds)
    if softmax:
        yield from _attention_shapes(m, tp, softmax)
    if softmax < m.layers:
        keys, values = m.linear_key_heads * m.linear_key_dim // tp, m.linear_value_heads * m.linear_value_dim // tp
        yield "linear_in", 2 * (keys + values), m.hidden, 1, m.layers - softmax, True, False
        yield "linear_ba", 2 * m.linear_value_heads // tp, m.hidden, 1, m.layers - softmax, False, False
        yield "linear_out", m.hidden, values, 1, m.layers - softmax, True, True
    gates = 2 if m.gated_mlp else 1
    moe = sum(m.experts_in)
    if moe < m.layers:
        yield "gate_up", gates * m.intermediate // tp, m.hidden, 1, m.layers - moe, True, False
        yield "down", m.hidden, m.intermediate // tp, 1, m.layers - moe, True, True
    if moe:
        yield "router", m.n_experts, m.hidden, 1, moe, False, False
    if moe and m.shared_intermediate:
        yield "shared_gate_up", gates * m.shared_intermediate // tp, m.hidden, 1, moe, True, False
        yield "shared_down", m.hidden, m.shared_intermediate // tp, 1, moe, True, False  # reduced together with the experts


def _attention_shapes(m: ModelSpec, tp: int, layers: int) -> Iterator[tuple[str, int, int, int, int, bool, bool]]:
    heads = m.heads // tp
    if m.is_mla:
        query = heads * (m.qk_nope_head_dim + m.qk_rope_head_dim)
        yield "qkv_a", m.q_lora_rank + m.kv_lora_rank + m.qk_rope_head_dim, m.hidden, 1, layers, True, False
        yield "q_b", query, m.q_lora_rank or m.hidden, 1, layers, True, False
        yield "kv_b", heads * (m.qk_nope_head_dim + m.v_head_dim), m.kv_lora_rank, 1, layers, True, False
        if m.index_heads:
            yield "index_q", m.index_heads * m.index_head_dim, m.q_lora_rank, 1, layers, True, False
            yield "index_k", m.index_head_dim + m.index_heads, m.hidden, 1, layers, True, False
    else:
        kv = -(-m.kv_heads // tp)
        width = heads * m.head_dim * (2 if m.attention_gate else 1) + kv * (m.head_dim + m.v_head_dim)
        yield "qkv", width, m.hidden, 1, layers, True, False
    yield "o", m.hidden, heads * m.v_head_dim, 1, layers, True, True


def moe_shape(m: ModelSpec, tp: int, ep: int, dp: int) -> tuple[int, int, int, int, int, bool, int] | None:
    """(experts, local experts, top_k, hidden, width on this GPU, gated, layers), or None for a dense model."""
    if not m.n_experts:
        return None
    width = max(tp * dp, ep)
    return (
        m.n_experts,
        -(-m.n_experts // ep),
        m.top_k,
        m.hidden,
        m.moe_intermediate // (width // ep),
        m.gated_mlp,
        sum(m.experts_in),
    )
