"""Decoders with ordinary attention and routed experts: Mixtral, gpt-oss, OLMoE, GLM-4.5, MiniMax, ERNIE, Hunyuan, dots, Ling, and more."""

from __future__ import annotations

from sim.model.base import (
    Family,
    Fields,
    attention_of,
    biases,
    blocks_of,
    decoder,
    experts,
    leading_dense,
    mlp_of,
    shared,
    window_everywhere,
)  # fmt: skip
from sim.model.blocks import Block
from sim.model.keys import Keys, every
from sim.model.mixers import Attention
from sim.model.mlps import Routed


def _mixtral(c: Keys) -> Fields:
    f = decoder(c)
    experts(c, f, width=("intermediate_size",))
    window_everywhere(c, f)
    return f


def _gpt_oss(c: Keys) -> Fields:
    f = decoder(c)
    experts(c, f, width=("intermediate_size",), top_k=("num_experts_per_tok", "experts_per_token"))
    f |= {"attention_bias": True, "output_bias": True, "mlp_bias": True, "sinks": f["heads"]}
    f["attention"] = f["attention"] or every(f["layers"], 2, "sliding")
    return f


def _olmoe(c: Keys) -> Fields:
    f = decoder(c)
    experts(c, f, width=("intermediate_size",))
    f["qk_norm"] = (f["heads"] + f["kv_heads"]) * f["head_dim"]
    return f


def _glm4_moe(c: Keys) -> Fields:
    f = decoder(c)
    experts(c, f)
    shared(c, f, "n_shared_experts")
    leading_dense(c, f)
    f["attention_bias"] = c.flag("attention_bias", default=False)
    f["qk_norm"] = 2 * f["head_dim"] if c.flag("use_qk_norm", default=False) else 0
    return f


def _dots(c: Keys) -> Fields:
    f = decoder(c)
    experts(c, f)
    shared(c, f, "n_shared_experts")
    leading_dense(c, f)
    f["attention_bias"] = f["output_bias"] = c.flag("attention_bias", default=False)
    f["qk_norm"] = 2 * f["head_dim"]
    if f["attention"] and "sliding" not in f["attention"]:
        f["attention"], f["window"] = (), 0
    return f


def _exaone_moe(c: Keys) -> Fields:
    f = decoder(c)
    experts(c, f)
    shared(c, f, "num_shared_experts", "n_shared_experts")
    leading_dense(c, f)
    listed = c.get("is_moe_layer")
    if listed is not None:
        f["moe_layers"] = (
            tuple(bool(v) for v in listed[: f["layers"]]) if isinstance(listed, list) and len(listed) >= f["layers"] else ()
        )
        if not f["moe_layers"]:
            raise c.error("is_moe_layer", f"does not list the {f['layers']} layers of {c.name}")
    f["qk_norm"] = 2 * f["head_dim"]
    return f


def _deepseek_moe(c: Keys) -> Fields:
    """The first DeepSeek-MoE: ordinary attention."""
    f = decoder(c)
    experts(c, f)
    shared(c, f, "n_shared_experts")
    leading_dense(c, f)
    return f


def _xverse(c: Keys) -> Fields:
    """Dense, or with experts as wide as ``intermediate_size`` and shared ones beside them."""
    f = decoder(c)
    if c.get("num_experts") is not None:
        experts(c, f, width=("intermediate_size",))
        shared(c, f, "num_shared_experts")
    f["attention"], f["window"] = (), 0
    return f


def _minimax_m2(c: Keys) -> Fields:
    f = decoder(c)
    experts(c, f, width=("intermediate_size",))
    f["qk_norm"] = (f["heads"] + f["kv_heads"]) * f["head_dim"]
    f["attention"], f["window"] = (), 0
    return f


def _minimax_m3(c: Keys) -> Fields:
    """The first layers are dense; later ones choose blocks of tokens with a small indexer and route to experts.

    *Source*: vLLM ``models/minimax_m3`` (index heads project from the hidden layer; one index key of 16 bits a token is cached).
    """
    given = c.kinds(c.whole("num_hidden_layers"), more={"minimax_m3_sparse": "full"})
    plain = Keys({k: v for k, v in c.raw.items() if k != "layer_types"}, c.name, c.field)
    f = decoder(plain)
    c.seen |= plain.seen
    experts(
        c, f, count=("num_local_experts", "num_experts", "n_routed_experts"), width=("moe_intermediate_size", "intermediate_size")
    )
    f["shared_intermediate"] = c.whole("n_shared_experts", default=0, least=0) * c.whole(
        "shared_intermediate_size", default=f["moe_intermediate"]
    )
    f["n_shared_experts"] = 1 if f["shared_intermediate"] else 0
    f["intermediate"] = c.whole("dense_intermediate_size", default=f["intermediate"])
    leading_dense(c, f)
    n, s = f["layers"], c.section("sparse_attention_config")
    if s.raw:
        used = s.flag("use_sparse_attention", default=True)
        sparse = tuple(bool(v) and used for v in s.wholes("sparse_attention_freq", n, default=1))
        index = (
            s.whole("sparse_num_index_heads"),
            s.whole("sparse_index_dim"),
            s.whole("sparse_topk_blocks") * s.whole("sparse_block_size"),
        )
    else:
        listed = c.get("layer_types") if given else None
        sparse = tuple(kind == "minimax_m3_sparse" for kind in listed[:n]) if listed else (False,) * n
        top = c.whole("index_topk_blocks", default=16) * c.whole("index_block_size", default=128)
        index = c.whole("index_n_heads", default=4), c.whole("index_head_dim", default=128), top
    norms = 2 * f["head_dim"] if c.flag("use_qk_norm", default=True) else 0
    mixers = [
        attention_of(f, index_heads=index[0], index_dim=index[1], index_top_k=index[2]) if here else attention_of(f)
        for here in sparse
    ]
    small = 2 * f["hidden"] + norms
    f["own_blocks"] = tuple(
        b._replace(small=b.small + (2 * index[1] if here else 0))
        for b, here in zip(blocks_of(f, mixers, small), sparse, strict=True)
    )
    return f


def _ernie(c: Keys) -> Fields:
    f = decoder(c)
    experts(c, f, count=("moe_num_experts",), top_k=("moe_k",))
    shared(c, f, "moe_num_shared_experts")
    f["attention_bias"] = f["output_bias"] = f["mlp_bias"] = c.flag("use_bias", default=False)
    n = f["layers"]
    start, step = c.whole("moe_layer_start_index", default=0, least=0), c.whole("moe_layer_interval", default=1)
    end = c.whole("moe_layer_end_index", default=n - 1, least=-1)
    end = n - 1 if end == -1 else end
    f["moe_layers"] = tuple(start <= i <= end and (i + 1) % step == 0 for i in range(n))
    return f


def _ernie_vl(c: Keys) -> Fields:
    """Experts of their own for text and images; tokens of text meet the first."""
    if not isinstance(c.get("moe_num_experts"), list):
        return _ernie(c)
    counts, widths = c.wholes("moe_num_experts", 2, least=1), c.wholes("moe_intermediate_size", 2, least=1)
    starts = c.wholes("moe_layer_start_index", 2, default=0)
    raw = {**c.raw, "moe_num_experts": counts[0], "moe_intermediate_size": widths[0], "moe_layer_start_index": starts[0]}
    ends = c.get("moe_layer_end_index")
    if isinstance(ends, list):
        raw["moe_layer_end_index"] = c.wholes("moe_layer_end_index", 2, default=-1)[0]
    f = _ernie(Keys(raw, c.name, c.field))
    images = counts[1] * 3 * f["hidden"] * widths[1] + f["hidden"] * counts[1]
    small = 2 * f["hidden"]
    blocks = blocks_of(f, [attention_of(f)] * f["layers"], small)
    f["own_blocks"] = tuple(b._replace(extra=images) if isinstance(b.mlp, Routed) else b for b in blocks)
    return f


def _hunyuan(c: Keys) -> Fields:
    f = decoder(c)
    n = f["layers"]
    f["qk_norm"] = 2 * f["head_dim"] if c.flag("use_qk_norm", default=False) else 0
    biases(c, f)
    every_width = set(c.wholes("moe_intermediate_size", n, default=f["intermediate"], least=1))
    every_top, every_shared = set(c.wholes("moe_topk", n, default=1, least=1)), set(c.wholes("num_shared_expert", n, default=0))
    for key, values in (("moe_intermediate_size", every_width), ("moe_topk", every_top), ("num_shared_expert", every_shared)):
        if len(values) > 1:
            raise c.error(key, f"differs between the layers of {c.name}, which is not modelled")
    f["n_experts"], f["top_k"], f["moe_intermediate"] = c.whole("num_experts"), every_top.pop(), every_width.pop()
    if f["top_k"] > f["n_experts"]:
        raise c.error("moe_topk", f"is more than the {f['n_experts']} experts of {c.name}")
    f["n_shared_experts"] = every_shared.pop() if c.flag("use_mixed_mlp_moe", default=True) else 0
    f["shared_intermediate"] = f["n_shared_experts"] * f["moe_intermediate"]
    skipped = c.whole("moe_layer_num_skipped", default=0, least=0)
    f["moe_layers"] = tuple(i >= skipped for i in range(n))
    if c.flag("use_cla", default=False):  # layers in pairs use the keys and values of the first
        factor = c.whole("cla_share_factor", default=2)
        mixers = [attention_of(f, borrows=i % factor != 0) for i in range(n)]
        f["own_blocks"] = blocks_of(f, mixers, 2 * f["hidden"] + f["qk_norm"])
    return f


def _bailing(c: Keys) -> Fields:
    """Ling and Ring."""
    f = decoder(c)
    experts(c, f)
    shared(c, f, "num_shared_experts")
    leading_dense(c, f)
    f["attention_bias"], f["output_bias"] = c.flag("use_qkv_bias", default=False), c.flag("use_bias", default=False)
    f["qk_norm"] = 2 * f["head_dim"] if c.flag("use_qk_norm", default=False) else 0
    return f


def _afmoe(c: Keys) -> Fields:
    """Trinity: gated attention, one full layer in four, four norms. *Source*: vLLM ``models/afmoe.py``."""
    f = decoder(c)
    experts(c, f)
    shared(c, f, "num_shared_experts")
    leading_dense(c, f)
    kinds = f["attention"] or every(f["layers"], c.whole("global_attn_every_n_layers", default=4), "sliding")
    mixers: list[Attention] = [attention_of(f, kind, gate="apart") for kind in kinds]
    f["own_blocks"] = blocks_of(f, list(mixers), 4 * f["hidden"] + 2 * f["head_dim"])
    return f


def _granite(c: Keys) -> Fields:
    f = decoder(c)
    experts(c, f, width=("intermediate_size",))
    f["shared_intermediate"] = c.whole("shared_intermediate_size", default=0, least=0)
    f["n_shared_experts"] = 1 if f["shared_intermediate"] else 0
    biases(c, f)
    return f


def _dbrx(c: Keys) -> Fields:
    a, m = c.section("attn_config"), c.section("ffn_config")
    f = decoder(c, intermediate=m.whole("ffn_hidden_size"), kv_heads=a.whole("kv_n_heads"), max_position=2048)
    f |= {"n_experts": m.whole("moe_num_experts"), "top_k": m.whole("moe_top_k"), "moe_intermediate": m.whole("ffn_hidden_size")}
    return f


def _grok(c: Keys) -> Fields:
    f = decoder(c)
    experts(c, f, width=("moe_intermediate_size", "intermediate_size"))
    f["norms_per_layer"] = 4
    if c.flag("residual_moe", default=False):  # a dense MLP beside the experts
        f["shared_intermediate"], f["n_shared_experts"] = f["intermediate"], 1
    f["attention"], f["window"] = (), 0
    return f


def _llama4(c: Keys) -> Fields:
    """Chunked attention except in every fourth layer, experts in every ``interleave_moe_layer_step``-th, one shared expert."""
    f = decoder(c)
    biases(c, f)
    step = c.whole("interleave_moe_layer_step", default=1, least=0)
    if not step or not c.whole("num_local_experts", default=1, least=0):  # Llama Guard 4: no experts anywhere
        f["intermediate"] = c.whole("intermediate_size_mlp", default=f["intermediate"])
        return _chunked(c, f)
    experts(c, f, count=("num_local_experts",), width=("intermediate_size",))
    f |= {"n_shared_experts": 1, "shared_intermediate": f["moe_intermediate"]}
    f["intermediate"] = c.whole("intermediate_size_mlp", default=f["intermediate"])
    listed = c.where("moe_layers")
    f["moe_layers"] = tuple(i in listed if listed else (i + 1) % step == 0 for i in range(f["layers"]))
    return _chunked(c, f)


def _chunked(c: Keys, f: Fields) -> Fields:
    f["attention"], f["window"] = (), 0
    chunk = c.get("attention_chunk_size")
    if chunk is not None:
        f["window"] = c.whole("attention_chunk_size")
        f["attention"] = c.kinds(f["layers"]) or every(f["layers"], 4, "chunked")
    return f


def _arctic(c: Keys) -> Fields:
    """A dense MLP beside the experts in every second layer."""
    f = decoder(c)
    experts(c, f, width=("intermediate_size",))
    residual = c.flag("parallel_attn_mlp_res", default=False)
    step = c.whole("moe_layer_frequency", default=2)
    f["moe_layers"] = tuple((i + 1) % step == 0 for i in range(f["layers"]))
    if residual:
        f["shared_intermediate"], f["n_shared_experts"] = f["hidden"], 1
        small = 2 * f["hidden"]
        moe = mlp_of(f, True)
        f["own_blocks"] = tuple(
            Block(attention_of(f), moe if routed else mlp_of(f, False), small + (f["hidden"] if routed else 0))
            for routed in f["moe_layers"]
        )
    return f


FAMILIES = {
    "xverse": Family(_xverse),
    "mixtral": Family(_mixtral),
    "gpt_oss": Family(_gpt_oss),
    "olmoe": Family(_olmoe),
    "flex_olmo": Family(_olmoe),
    **dict.fromkeys(("glm4_moe", "glm4v_moe_text"), Family(_glm4_moe)),
    "dots1": Family(_dots),
    "solar_open": Family(_glm4_moe),
    "exaone_moe": Family(_exaone_moe),
    "deepseek": Family(_deepseek_moe),
    "minimax_m2": Family(_minimax_m2),
    **dict.fromkeys(("minimax_m3", "minimax_m3_text", "minimax_m3_vl", "minimax_m3_vl_text"), Family(_minimax_m3)),
    "ernie4_5_moe": Family(_ernie, tied=True),
    **dict.fromkeys(("ernie4_5_moe_vl", "ernie4_5_vl_moe", "ernie4_5_vl_moe_text"), Family(_ernie_vl, tied=True)),
    **dict.fromkeys(("hunyuan", "hunyuan_v1_moe"), Family(_hunyuan)),
    **dict.fromkeys(("bailing_moe", "bailing_moe_v2"), Family(_bailing)),
    "afmoe": Family(_afmoe),
    **dict.fromkeys(("granitemoe", "granitemoeshared"), Family(_granite)),
    "dbrx": Family(_dbrx),
    **dict.fromkeys(("grok", "grok-1"), Family(_grok)),
    **dict.fromkeys(("llama4", "llama4_text"), Family(_llama4)),
    "arctic": Family(_arctic),
}
