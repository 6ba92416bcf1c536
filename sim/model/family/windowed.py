"""Models whose windowed layers have heads of their own: MiMo-V2 and Step-3.5."""

from __future__ import annotations

from sim.model.base import Family, Fields, attention_of, blocks_of, decoder, experts, leading_dense, shared
from sim.model.keys import Keys
from sim.model.tensors import AttentionKind


def _mimo_v2(c: Keys) -> Fields:
    """A hybrid pattern of 0 (full) and 1 (window); keys wider than values; sinks in windowed layers."""
    f = decoder(c)
    n = f["layers"]
    f["v_head_dim"] = c.whole("v_head_dim", default=f["head_dim"])
    f["window"] = c.whole("sliding_window", "sliding_window_size")
    pattern = c.wholes("hybrid_layer_pattern", n)
    if not set(pattern) <= {0, 1}:
        raise c.error("hybrid_layer_pattern", f"must be 0 (full) or 1 (window) for the {n} layers of {c.name}", "0, 1")
    experts(c, f)
    shared(c, f, "n_shared_experts")
    leading_dense(c, f)
    f["attention_bias"] = c.flag("attention_bias", default=False)
    own = {
        "heads": c.whole("swa_num_attention_heads", default=f["heads"]), "kv_heads": c.whole("swa_num_key_value_heads", default=f["kv_heads"]),
        "head_dim": c.whole("swa_head_dim", default=f["head_dim"]), "v_head_dim": c.whole("swa_v_head_dim", default=f["v_head_dim"]),
    }  # fmt: skip
    sinks = own["heads"] if c.flag("add_swa_attention_sink_bias", default=False) else 0
    full_sinks = f["heads"] if c.flag("add_full_attention_sink_bias", default=False) else 0
    windowed = attention_of(f, "sliding", sinks=sinks, **own)
    mixers = [windowed if here else attention_of(f, sinks=full_sinks) for here in pattern]
    f |= {"own_blocks": blocks_of(f, mixers, 2 * f["hidden"]), "attention": ()}
    return f


def _step(c: Keys) -> Fields:
    """More query heads in windowed layers, a gate per head, one shared expert. *Source*: vLLM ``models/step3p5.py``."""
    groups = c.whole("num_attention_groups", "num_key_value_heads")
    plain = Keys({**c.raw, "num_key_value_heads": groups}, c.name, c.field)
    f = decoder(plain)
    c.seen |= plain.seen
    n = f["layers"]
    experts(c, f, count=("moe_num_experts", "num_experts", "n_routed_experts"))
    f["shared_intermediate"] = c.whole("share_expert_dim", "share_expert_dims", default=0, least=0)
    f["n_shared_experts"] = 1 if f["shared_intermediate"] else 0
    listed = c.where("moe_layers_enum")
    if listed:
        f["moe_layers"] = tuple(i in listed for i in range(n))
    else:
        leading_dense(c, f)
    everywhere: tuple[AttentionKind, ...] = ("full",)
    kinds = f["attention"] or everywhere * n
    other = c.section("attention_other_setting")
    heads = other.whole("num_attention_heads", default=c.whole("swa_num_attention_heads", default=f["heads"]))
    kv = other.whole("num_attention_groups", default=f["kv_heads"])
    gate = "head" if c.flag("use_head_wise_attn_gate", default=False) else ""
    mixers = [
        attention_of(f, kind, gate=gate, **({"heads": heads, "kv_heads": kv} if kind == "sliding" else {})) for kind in kinds
    ]
    f |= {"own_blocks": blocks_of(f, mixers, 2 * f["hidden"] + 2 * f["head_dim"]), "attention": ()}
    return f


def _step3(c: Keys) -> Fields:
    """Step-3: one shared key/value head, queries through ``share_q_dim`` features."""
    groups = c.whole("num_attention_groups", default=1)
    raw = {**c.raw, "num_key_value_heads": groups}
    f = decoder(Keys(raw, c.name, c.field), max_position=c.whole("max_seq_len", "max_position_embedding", default=65536))
    experts(c, f, count=("moe_num_experts", "n_routed_experts"))
    f["shared_intermediate"] = c.whole("share_expert_dim", default=f["moe_intermediate"])
    f["n_shared_experts"] = 1
    listed = c.where("moe_layers_enum") or frozenset(range(1, f["layers"]))
    f["moe_layers"] = tuple(i in listed for i in range(f["layers"]))
    share = c.whole("share_q_dim")
    mixers = [attention_of(f, q_lora=share)] * f["layers"]
    f |= {"own_blocks": blocks_of(f, mixers, 2 * f["hidden"] + share), "attention": (), "window": 0}
    return f


FAMILIES = {
    **dict.fromkeys(("step3_text", "step3_vl"), Family(_step3)),
    **dict.fromkeys(("mimo_v2_flash", "mimo_v2"), Family(_mimo_v2)),
    **dict.fromkeys(("step3p5", "step3p7", "step3p7_text"), Family(_step)),
}
