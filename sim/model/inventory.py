"""Sums over the layers of a model: parameters, weight bytes per GPU, KV bytes, states and GEMM shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sim.model import quant
from sim.model.blocks import Block, block_tensors
from sim.model.mlps import Dense, Routed
from sim.model.quant import weight_format
from sim.model.tensors import COPY, CUT, EXPERTS, KV, AttentionKind, Cut, Product, Tensor

if TYPE_CHECKING:
    from sim.model.spec import ModelSpec

_CONV_BYTES = 2  # of an element of a convolution's state, in the 16-bit dtype of the model


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


def first_tensors(m: ModelSpec) -> Iterator[Tensor]:
    """Tensors before the first layer."""
    width = m.embedding_dim or m.hidden
    yield Tensor("embedding", quant.TIED if m.tie_embeddings else quant.EMBEDDING, m.vocab * width)
    if m.learned_positions:
        yield Tensor("positions", quant.PLAIN, m.learned_positions * m.hidden, COPY)
    if m.embedding_dim:
        yield Tensor("project", quant.PLAIN, 2 * width * m.hidden, COPY)
    if m.other_params:
        yield Tensor("other", quant.PLAIN, m.other_params)
    if m.vision_params:
        yield Tensor("vision", quant.PLAIN, m.vision_params)


def last_tensors(m: ModelSpec) -> Iterator[Tensor]:
    """Tensors after the last layer."""
    yield Tensor("final_norm", quant.PLAIN, m.hidden * (2 if m.norm_bias else 1), COPY)
    if not m.tie_embeddings:
        yield Tensor("lm_head", quant.HEAD, m.vocab * m.hidden)
    if m.head_bias:
        yield Tensor("lm_head_bias", quant.PLAIN, m.vocab)


def _layers(m: ModelSpec, first: int, last: int) -> Iterator[tuple[Tensor, Block | None, int]]:
    """Each distinct tensor of the layers ``[first, last)``, its layer, and the number of such layers."""
    for block, n in Counter(m.blocks[first:last]).items():
        for tensor in block_tensors(block, m.hidden):
            yield tensor, block, n


def _element_bytes(m: ModelSpec, tensor: Tensor, block: Block | None) -> float:
    """Bytes of one element of a tensor, in the format of the model or its own."""
    if block is None:
        own = dict(m.end_formats).get(tensor.name, "")
        return weight_format(own).bytes_of(quant.ATTENTION) if own else m.format.bytes_of(tensor.role)
    own = block.form_of(tensor.name)
    return (weight_format(own) if own else m.format).bytes_of(tensor.role)


def param_count(m: ModelSpec) -> int:
    """All parameters."""
    ends = sum(t.elements for t in (*first_tensors(m), *last_tensors(m)))
    return ends + m.draft_params + sum(t.elements * n for t, _, n in _layers(m, 0, m.layers))


def active_param_count(m: ModelSpec) -> int:
    """All parameters less the experts a token is not routed to."""
    idle: Counter[tuple[int, int]] = Counter()
    for t, block, n in _layers(m, 0, m.layers):
        if t.rule == EXPERTS and block is not None and isinstance(block.mlp, Routed):
            idle[block.mlp.experts, block.mlp.top_k] += t.elements * n
    return param_count(m) - m.draft_params - sum(held * (experts - top_k) // experts for (experts, top_k), held in idle.items())


def _expert_share(experts: int, tp: int, ep: int, dp: int) -> float:
    """Fraction of all expert weights on the fullest GPU."""
    width = max(tp * dp, ep)
    return -(-experts // ep) / experts / (width // ep)


def _share(t: Tensor, tp: int, ep: int, dp: int) -> float:
    if t.rule == CUT:
        return 1.0 / tp
    if t.rule == KV:
        return -(-t.parts // tp) / t.parts
    if t.rule == EXPERTS:
        return _expert_share(t.parts, tp, ep, dp)
    return 1.0


def stage_weight_bytes(m: ModelSpec, tp: int, pp: int, ep: int, dp: int, stage: int) -> float:
    """Weight bytes of one GPU of one pipeline stage."""
    first, last = stages(m.layers, pp)[stage]
    parts = list(_layers(m, first, last))
    if stage == 0:
        parts += [(t, None, 1) for t in first_tensors(m)]
    if stage == pp - 1:
        parts += [(t, None, 1) for t in last_tensors(m)]
        if m.tie_embeddings and pp > 1:
            parts += [(t, None, 1) for t in first_tensors(m) if t.name == "embedding"]
    return sum(_element_bytes(m, t, block) * t.elements * n * _share(t, tp, ep, dp) for t, block, n in parts)


def weight_bytes(m: ModelSpec, tp: int, pp: int, ep: int, dp: int, stage: int | None) -> float:
    """Weight bytes of one GPU: of a stage, or of the heaviest."""
    if stage is not None:
        return stage_weight_bytes(m, tp, pp, ep, dp, stage)
    return max(stage_weight_bytes(m, tp, pp, ep, dp, s) for s in range(pp))


def layer_bytes(m: ModelSpec) -> list[tuple[float, float]]:
    """Weight bytes of every layer on one GPU that holds it whole: without its routed experts, and of these."""
    known = {}
    for block in set(m.blocks):
        sizes = [(t.rule == EXPERTS, _element_bytes(m, t, block) * t.elements) for t in block_tensors(block, m.hidden)]
        known[block] = sum(b for routed, b in sizes if not routed), sum(b for routed, b in sizes if routed)
    return [known[block] for block in m.blocks]


def end_bytes(m: ModelSpec) -> tuple[float, float]:
    """Weight bytes before the first layer and after the last; tied embeddings count on both sides."""
    before = sum(_element_bytes(m, t, None) * t.elements for t in first_tensors(m))
    after = sum(_element_bytes(m, t, None) * t.elements for t in last_tensors(m))
    if m.tie_embeddings:
        after += sum(_element_bytes(m, t, None) * t.elements for t in first_tensors(m) if t.name == "embedding")
    return before, after


def kv_groups(m: ModelSpec, tp: int, pp: int) -> list[tuple[AttentionKind, int, int, float]]:
    """(kind, layers, window, mean bytes per token and layer) of the stage that keeps most per token."""
    held = [_kept(m, tp, first, last) for first, last in stages(m.layers, pp)]
    fullest = max(held, key=lambda groups: sum(size for _, size in groups.values()))
    order: tuple[AttentionKind, ...] = ("full", "sliding", "chunked")
    found = sorted(fullest.items(), key=lambda item: (order.index(item[0][0]), item[0][1]))
    return [(kind, n, window, size / n) for (kind, window), (n, size) in found]


def _kept(m: ModelSpec, tp: int, first: int, last: int) -> dict[tuple[AttentionKind, int], tuple[int, float]]:
    """(layers, bytes per token) by kind and window."""
    groups: dict[tuple[AttentionKind, int], tuple[int, float]] = {}
    for block, n in Counter(m.blocks[first:last]).items():
        for kept in block.mixer.kept(tp, m.kv_element_bytes) if block.mixer is not None else ():
            layers, size = groups.get((kept.kind, kept.window), (0, 0.0))
            groups[kept.kind, kept.window] = layers + n, size + n * kept.bytes_per_token
    return groups


def layer_states(m: ModelSpec) -> list[float]:
    """Recurrent state of one sequence in every layer: convolution windows in 16 bits, recurrences in ``m.state_dtype``."""
    each = quant.kv_element_bytes(m.state_dtype)
    states = [block.mixer.state() if block.mixer is not None else (0, 0) for block in m.blocks]
    return [conv * _CONV_BYTES + matrix * each for conv, matrix in states]


def state_bytes(m: ModelSpec, tp: int, pp: int) -> float:
    """Recurrent state of one sequence on one GPU of the fullest stage."""
    states = layer_states(m)
    return max(sum(states[first:last]) for first, last in stages(m.layers, pp)) / tp


def cuts(m: ModelSpec) -> list[Cut]:
    """What tensor parallelism divides in some layer, each once."""
    found = [cut for block in dict.fromkeys(m.blocks) if block.mixer is not None for cut in block.mixer.cuts()]
    for block in dict.fromkeys(m.blocks):
        if isinstance(block.mlp, Dense):
            found.append(Cut("MLP width", block.mlp.width))
        elif block.mlp is not None and block.mlp.shared:
            found.append(Cut("shared-expert width", block.mlp.shared))
    return list(dict.fromkeys(found))


def linear_shapes(m: ModelSpec, tp: int) -> Iterator[tuple[str, int, int, int, int, bool, bool, str]]:
    """(name, n, k, count, layers, quantised, all-reduce after it, own format) of every dense GEMM of the layers."""
    found: Counter[tuple[Product, str]] = Counter()
    blocks = list(Counter(m.blocks).items())
    attending = [(b, n) for b, n in blocks if b.kind != "linear"]
    recurrent = [(b, n) for b, n in blocks if b.kind == "linear"]
    bits = m.format.bits
    mixers = m.dtype if quant.MLP in bits and quant.ATTENTION not in bits else ""  # attention left in 16 bits
    for block, n in (*attending, *recurrent):
        for product in block.mixer.products(m.hidden, tp) if block.mixer is not None else ():
            found[product, block.form_of(product.tensor) or mixers] += n
    dense = [(b, n) for b, n in blocks if isinstance(b.mlp, Dense)]
    routed = [(b, n) for b, n in blocks if isinstance(b.mlp, Routed)]
    for block, n in (*dense, *routed):
        for product in block.mlp.products(m.hidden, tp) if block.mlp is not None else ():
            found[product, block.form_of(product.tensor)] += n
    for (p, own), layers in found.items():
        plain = bool(own) and not weight_format(own).quantised
        yield p.name, p.n, p.k, 1, layers, p.quantised and not plain, p.all_reduce, "" if plain or not p.quantised else own


def moe_shape(m: ModelSpec, tp: int, ep: int, dp: int) -> tuple[int, int, int, int, int, bool, int] | None:
    """(experts, local experts, top_k, hidden, width on this GPU, gated, layers), or None for a dense model."""
    routed = [b.mlp for b in m.blocks if isinstance(b.mlp, Routed)]
    if not routed:
        return None
    each, width = routed[0], max(tp * dp, ep)
    inside = each.inside(m.hidden)
    return each.experts, -(-each.experts // ep), each.top_k, inside, each.width // (width // ep), each.gated, len(routed)
