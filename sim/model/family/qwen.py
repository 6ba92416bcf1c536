"""Qwen: 1, 1.5, 2, 2.5, 3, Next, 3.5, 3.6, dense and with experts, and the text towers of their vision and omni models."""

from __future__ import annotations

from sim.model.base import Family, Fields, decoder, experts
from sim.model.keys import Keys, every


def _qwen(c: Keys) -> Fields:
    """The first Qwen: ``intermediate_size`` counts both halves of the gated MLP."""
    f = decoder(c, max_position=8192)
    if f["intermediate"] % 2:
        raise c.error("intermediate_size", "must be even: it counts both halves of the gated MLP")
    f["intermediate"] //= 2
    f["kv_heads"], f["attention_bias"] = f["heads"], True
    f["output_bias"] = f["mlp_bias"] = not c.flag("no_bias", default=True)
    return f


def _window(c: Keys, f: Fields) -> None:
    if not c.flag("use_sliding_window", default=False):
        f["attention"], f["window"] = (), 0
        return
    if not f["attention"] and f["window"]:
        full = c.whole("max_window_layers", default=28, least=0)
        f["attention"] = tuple("full" if i < full else "sliding" for i in range(f["layers"]))
        if full >= f["layers"]:
            f["attention"], f["window"] = (), 0


def _qwen2(c: Keys) -> Fields:
    f = decoder(c)
    f["attention_bias"] = c.flag("qkv_bias", default=True)
    _window(c, f)
    return f


def _qwen3(c: Keys) -> Fields:
    f = decoder(c)
    f["attention_bias"] = f["output_bias"] = c.flag("attention_bias", default=False)
    f["qk_norm"] = 2 * f["head_dim"]
    _window(c, f)
    return f


def _routed(c: Keys, f: Fields) -> None:
    experts(c, f)
    f["shared_intermediate"] = c.whole("shared_expert_intermediate_size", default=0, least=0)
    f["n_shared_experts"] = 1 if f["shared_intermediate"] else 0
    step, dense = c.whole("decoder_sparse_step", default=1), c.where("mlp_only_layers")
    f["moe_layers"] = tuple(i not in dense and (i + 1) % step == 0 for i in range(f["layers"]))


def _qwen2_moe(c: Keys) -> Fields:
    f = _qwen2(c)
    _routed(c, f)
    return f


def _without_dense(c: Keys) -> dict[str, int]:
    """Configs of models that are experts throughout leave the width of the dense MLP out."""
    return {"intermediate": c.whole("moe_intermediate_size", default=0, least=0)} if c.get("intermediate_size") is None else {}


def _qwen3_moe(c: Keys) -> Fields:
    f = decoder(c, **_without_dense(c))
    f["attention_bias"] = f["output_bias"] = c.flag("attention_bias", default=False)
    f["qk_norm"] = 2 * f["head_dim"]
    _window(c, f)
    _routed(c, f)
    return f


def _delta(c: Keys, f: Fields) -> None:
    """Three gated DeltaNet layers to one gated attention layer."""
    kinds = f["attention"] or c.kinds(f["layers"]) or every(f["layers"], c.whole("full_attention_interval", default=4), "linear")
    f |= {
        "attention": kinds,
        "window": 0,
        "qk_norm": 2 * f["head_dim"],
        "attention_gate": c.flag("attn_output_gate", default=True),
    }
    f |= {"linear_key_heads": c.whole("linear_num_key_heads"), "linear_value_heads": c.whole("linear_num_value_heads")}
    f |= {"linear_key_dim": c.whole("linear_key_head_dim"), "linear_value_dim": c.whole("linear_value_head_dim")}
    f["linear_conv"] = c.whole("linear_conv_kernel_dim")
    f["attention_bias"] = f["output_bias"] = c.flag("attention_bias", default=False)


def _next(c: Keys) -> Fields:
    f = decoder(c)
    _delta(c, f)
    return f


def _next_moe(c: Keys) -> Fields:
    f = decoder(c, **_without_dense(c))
    _delta(c, f)
    _routed(c, f)
    return f


FAMILIES = {
    "qwen": Family(_qwen),
    **dict.fromkeys(("qwen2", "qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text", "qwen2_5_omni_text"), Family(_qwen2)),
    **dict.fromkeys(("qwen2_audio", "qwen2_5_omni_thinker", "dots_ocr"), Family(_qwen2)),
    "qwen2_moe": Family(_qwen2_moe),
    **dict.fromkeys(("qwen3", "qwen3_vl", "qwen3_vl_text", "qwen3_asr_text"), Family(_qwen3)),
    **dict.fromkeys(("Keye", "KeyeVL1_5", "keye_vl"), Family(_qwen3)),
    **dict.fromkeys(("qwen3_moe", "qwen3_vl_moe", "qwen3_vl_moe_text", "qwen3_omni_moe_text"), Family(_qwen3_moe)),
    "qwen3_next": Family(_next_moe),
    **dict.fromkeys(("qwen3_5", "qwen3_5_text", "qwen3_6", "qwen3_6_text"), Family(_next)),
    **dict.fromkeys(("qwen3_5_moe", "qwen3_5_moe_text", "qwen3_6_moe", "qwen3_6_moe_text"), Family(_next_moe)),
}
