"""Gemma 1 to 4. Published configs leave out what equals the defaults of transformers' configuration classes."""

from __future__ import annotations

from dataclasses import replace

from sim.model.base import Family, Fields, attention_of, decoder
from sim.model.blocks import Block
from sim.model.keys import Keys, every
from sim.model.mixers import Attention, Mixer
from sim.model.mlps import Dense, Routed


def _gemma(c: Keys) -> Fields:
    f = decoder(c, vocab=256000, max_position=8192, head_dim=256)
    f["attention_bias"] = f["output_bias"] = c.flag("attention_bias", default=False)
    return f


def _gemma2(c: Keys) -> Fields:
    f = decoder(c, vocab=256000, max_position=8192, head_dim=256, kv_heads=4, heads=8, window=4096)
    f["attention_bias"] = f["output_bias"] = c.flag("attention_bias", default=False)
    f["norms_per_layer"] = 4
    f["attention"] = c.kinds(f["layers"]) or every(f["layers"], 2, "sliding")
    return f


def _gemma3(c: Keys) -> Fields:
    f = decoder(
        c,
        vocab=262208,
        heads=8,
        kv_heads=4,
        head_dim=256,
        max_position=131072,
        window=4096,
    )
    f["attention_bias"] = f["output_bias"] = c.flag("attention_bias", default=False)
    f |= {"norms_per_layer": 4, "qk_norm": 2 * f["head_dim"]}
    f["attention"] = c.kinds(f["layers"]) or every(f["layers"], c.whole("sliding_window_pattern", default=6), "sliding")
    return f


def _gemma4(c: Keys) -> Fields:
    """Wider heads in full layers, which may use keys as values; late layers may borrow keys and values; per-layer embeddings."""
    f = decoder(
        c,
        vocab=262144,
        heads=8,
        kv_heads=4,
        head_dim=256,
        max_position=131072,
        window=512,
    )
    n, hidden = f["layers"], f["hidden"]
    kinds = list(c.kinds(n) or every(n, 6, "sliding"))
    kinds[-1] = "full"
    same = c.flag("attention_k_eq_v", default=False)
    wide = c.whole("global_head_dim", default=512)
    wide_kv = c.whole("num_global_key_value_heads", default=f["kv_heads"]) if same else f["kv_heads"]
    own = n - c.whole("num_kv_shared_layers", default=0, least=0)
    if own < 1:
        raise c.error("num_kv_shared_layers", f"leaves none of the {n} layers of {c.name} with keys and values")
    double = c.flag("use_double_wide_mlp", default=False)
    bias = c.flag("attention_bias", default=False)
    f["attention_bias"] = f["output_bias"] = bias
    per_layer = c.whole("hidden_size_per_layer_input", default=256, least=0)
    routed = c.flag("enable_moe_block", default=False)
    blocks = []
    for i, kind in enumerate(kinds):
        borrows = i >= own
        dim, kv = (wide, wide_kv) if kind == "full" else (f["head_dim"], f["kv_heads"])
        mixer: Mixer = attention_of(
            f, kind, kv_heads=kv, head_dim=dim, v_head_dim=dim, keys_are_values=same and kind == "full", borrows=borrows
        )
        width = f["intermediate"] * (2 if double and borrows else 1)
        small = 4 * hidden + dim + (0 if borrows else dim) + 1
        mlp: Dense | Routed = Dense(width)
        if routed:  # beside the dense MLP, which every token uses
            count, top_k = c.whole("num_experts"), c.whole("top_k_experts")
            if top_k > count:
                raise c.error("top_k_experts", f"is more than the {count} experts of {c.name}")
            mlp = Routed(count, top_k, c.whole("moe_intermediate_size"), shared=width, apart=True)
            small += 4 * hidden
        blocks.append(Block(mixer, mlp, small + (hidden if per_layer else 0), 2 * hidden * per_layer))
    f |= {"own_blocks": tuple(blocks), "attention": (), "window": f["window"]}
    if routed:
        f |= {
            "n_experts": c.whole("num_experts"),
            "top_k": c.whole("top_k_experts"),
            "moe_intermediate": c.whole("moe_intermediate_size"),
        }
        f["shared_intermediate"], f["n_shared_experts"] = f["intermediate"], 1
    if per_layer:
        rows = c.whole("vocab_size_per_layer_input", default=f["vocab"])
        f["other_params"] = rows * n * per_layer + hidden * n * per_layer + per_layer
    return f


def _gemma3n(c: Keys) -> Fields:
    """Alternating updates over several streams, learned residuals of low rank, per-layer embeddings; late layers borrow keys and values.

    Their tensors are counted; the time of the streams and of the low-rank residuals is not. *Source*: transformers ``modular_gemma3n.py``.
    """
    widths = c.wholes("intermediate_size", c.whole("num_hidden_layers"), least=1)
    f = decoder(
        Keys({**c.raw, "intermediate_size": widths[0]}, c.name, c.field),
        vocab=262400,
        max_position=32768,
        head_dim=256,
        window=512,
    )
    n, hidden = f["layers"], f["hidden"]
    kinds = f["attention"] or every(n, 5, "sliding")
    own = n - c.whole("num_kv_shared_layers", default=15, least=0)
    if own < 1:
        raise c.error("num_kv_shared_layers", f"leaves none of the {n} layers of {c.name} with keys and values")
    each, rows = c.whole("hidden_size_per_layer_input", default=256), c.whole("vocab_size_per_layer_input", default=262144)
    streams, rank = c.whole("altup_num_inputs", default=4), c.whole("laurel_rank", default=64)
    alt = hidden + streams**2 + streams**3 + streams * hidden + hidden
    small = 4 * hidden + 2 * f["head_dim"] + alt + 2 * hidden
    extra = 2 * hidden * each + 2 * hidden * rank
    f["own_blocks"] = tuple(
        Block(_lent(attention_of(f, kind), i >= own), Dense(widths[i]), small, extra) for i, kind in enumerate(kinds)
    )
    f["other_params"] = rows * n * each + hidden * n * each + each + 2 * (streams - 1) * hidden**2
    f["attention"] = ()
    return f


def _lent(mixer: Attention, borrows: bool) -> Attention:
    """A layer that keeps its projections but neither uses nor caches its own keys and values."""
    return replace(mixer, lends=True) if borrows else mixer


FAMILIES = {
    "gemma": Family(_gemma, tied=True),
    "gemma2": Family(_gemma2, tied=True),
    "gemma3": Family(_gemma3, tied=True),
    "gemma3_text": Family(_gemma3, tied=True),
    "gemma3n": Family(_gemma3n, tied=True),
    "gemma3n_text": Family(_gemma3n, tied=True),
    "gemma4": Family(_gemma4, tied=True),
    "gemma4_text": Family(_gemma4, tied=True),
    "gemma4_unified_text": Family(_gemma4, tied=True),
}
