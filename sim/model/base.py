"""What most decoders have in common: sizes, attention kinds, experts. Families start from here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sim.model.blocks import Block
from sim.model.keys import Keys
from sim.model.mixers import Attention
from sim.model.mlps import Dense, Routed
from sim.model.tensors import AttentionKind

Fields = dict[str, Any]
Rule = Callable[[Keys], Fields]


class Family(NamedTuple):
    """``rule`` turns keys into fields of a `ModelSpec`; ``tied``: input and output embeddings are one tensor unless the config says."""

    rule: Rule
    tied: bool = False


def decoder(c: Keys, **defaults: object) -> Fields:
    """Sizes of a decoder under the usual names. ``defaults``: what the family's configuration class has where a key is missing."""
    d: Mapping[str, Any] = defaults
    f: Fields = {}
    f["layers"] = _size(c, d, "layers", "num_hidden_layers", "n_layer", "num_layers", "n_layers", most=1000)
    f["hidden"] = _size(c, d, "hidden", "hidden_size", "n_embd", "n_embed", "d_model")
    f["heads"] = _size(c, d, "heads", "num_attention_heads", "n_head", "n_heads")
    f["kv_heads"] = c.whole(
        "num_key_value_heads", "num_kv_heads", "multi_query_group_num", default=d.get("kv_heads") or f["heads"]
    )
    width = c.whole("head_dim", "attention_head_dim", "kv_channels", "head_size", default=d.get("head_dim") or 0)
    if not width:
        if f["hidden"] % f["heads"]:
            raise c.error("head_dim", f"missing, and hidden_size {f['hidden']} is no multiple of {f['heads']} heads")
        width = f["hidden"] // f["heads"]
    if f["kv_heads"] > f["heads"] or f["heads"] % f["kv_heads"]:
        raise c.error("num_key_value_heads", f"must divide the {f['heads']} attention heads of {c.name}")
    f["head_dim"] = f["v_head_dim"] = width
    f["intermediate"] = _size(c, d, "intermediate", "intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")
    f["vocab"] = _size(c, d, "vocab", "vocab_size", "padded_vocab_size")
    lengths = ("max_position_embeddings", "n_positions", "seq_length", "max_seq_len")
    several = [c.whole(key) for key in lengths if c.get(key) is not None]
    f["max_position"] = (
        min(several)
        if several
        else _size(
            c, d, "max_position", "max_position_embeddings", "n_positions", "seq_length", "max_seq_len", "model_max_length"
        )
    )
    f["window"] = c.whole("sliding_window", default=d.get("window") or 0)
    f["attention"] = c.kinds(f["layers"])
    if f["attention"] and set(f["attention"]) == {"full"}:
        f["attention"], f["window"] = (), 0
    if "sliding" in f["attention"] and not f["window"]:
        raise c.error("sliding_window", f"is missing in the config of {c.name}, whose layer_types name sliding layers")
    return f


def _size(c: Keys, defaults: Mapping[str, object], ours: str, *names: str, most: int = 10**8) -> int:
    if ours in defaults:
        return c.whole(*names, default=defaults[ours], most=most)
    return c.whole(*names, most=most)


def biases(c: Keys, f: Fields, default: bool = False) -> None:
    """``attention_bias`` of all four projections and ``mlp_bias``, as in Llama."""
    f["attention_bias"] = f["output_bias"] = c.flag("attention_bias", "use_bias", default=default)
    f["mlp_bias"] = c.flag("mlp_bias", default=False)


def window_everywhere(c: Keys, f: Fields) -> None:
    """A window in every layer, unless the config says which layers have it or does not use it."""
    used = c.flag("use_sliding_window", default=True)
    if f["window"] and used and f["window"] < f["max_position"] and not f["attention"]:
        f["attention"] = ("sliding",) * f["layers"]


def experts(
    c: Keys,
    f: Fields,
    count: tuple[str, ...] = ("num_experts", "n_routed_experts", "num_local_experts"),
    width: tuple[str, ...] = ("moe_intermediate_size",),
    top_k: tuple[str, ...] = ("num_experts_per_tok", "num_experts_per_token", "moe_top_k", "moe_topk", "moe_k"),
) -> None:
    """Routed experts in every layer; `leading_dense` and the family say where else."""
    f["n_experts"], f["top_k"] = c.whole(*count, most=10**5), c.whole(*top_k, most=10**5)
    f["moe_intermediate"] = c.whole(*width)
    if f["top_k"] > f["n_experts"]:
        raise c.error(top_k[0], f"is more than the {f['n_experts']} experts of {c.name}")


def shared(c: Keys, f: Fields, *names: str) -> None:
    """Shared experts, each as wide as a routed one."""
    f["n_shared_experts"] = c.whole(*names, default=0, least=0)
    f["shared_intermediate"] = f["n_shared_experts"] * f["moe_intermediate"]


def leading_dense(c: Keys, f: Fields) -> None:
    """The first layers are dense, or a list says which have experts."""
    n = f["layers"]
    listed = c.get("moe_layer_freq")
    if isinstance(listed, list | tuple):
        f["moe_layers"] = tuple(bool(v) for v in c.wholes("moe_layer_freq", n))
        return
    kinds = c.labels("mlp_layer_types", n, ("dense", "sparse", "moe"))
    if kinds is not None:
        f["moe_layers"] = tuple(kind != "dense" for kind in kinds)
        return
    first = c.whole("first_k_dense_replace", "num_dense_layers", default=0, least=0)
    step = c.whole("moe_layer_freq", default=1)
    f["moe_layers"] = tuple(i >= first and i % step == 0 for i in range(n))


def blocks_of(
    f: Fields,
    mixers: list[Any],
    small: int = 0,
    extra: tuple[int, ...] | None = None,
) -> tuple[Block, ...]:
    """Layers with these mixers and the MLPs of the fields. ``small``: elements of norms."""
    routed = f.get("moe_layers") or (bool(f.get("n_experts")),) * f["layers"]
    return tuple(
        Block(mixer, mlp_of(f, experts_here), small, extra[i] if extra else 0)
        for i, (mixer, experts_here) in enumerate(zip(mixers, routed, strict=True))
    )


def mlp_of(f: Fields, routed: bool) -> Dense | Routed:
    """The MLP that the fields describe."""
    gated, bias = f.get("gated_mlp", True), f.get("mlp_bias", False)
    if routed:
        return Routed(f["n_experts"], f["top_k"], f["moe_intermediate"], gated, bias, f.get("shared_intermediate", 0))
    return Dense(f["intermediate"], gated, bias)


def attention_of(f: Fields, kind: AttentionKind = "full", **own: object) -> Attention:
    """The attention that the fields describe, with what differs."""
    fields = {
        "heads": f["heads"], "kv_heads": f["kv_heads"], "head_dim": f["head_dim"], "v_head_dim": f["v_head_dim"], "looks": kind,
        "window": 0 if kind == "full" else f["window"], "bias": f.get("attention_bias", False), "output_bias": f.get("output_bias", False),
    }  # fmt: skip
    return Attention(**{**fields, **own})
