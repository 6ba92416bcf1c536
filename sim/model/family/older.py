"""Decoders of the first generation: OPT, BLOOM, GPT-2, GPT-J, GPT-NeoX, StarCoder, MPT, Falcon, Phi."""

from __future__ import annotations

from sim.model.base import Family, Fields, decoder, experts, window_everywhere
from sim.model.keys import Keys


def _all_biases(f: Fields) -> Fields:
    f |= {"gated_mlp": False, "attention_bias": True, "output_bias": True, "mlp_bias": True, "norm_bias": True}
    f["attention"], f["window"] = (), 0
    return f


def _four_times(c: Keys) -> int:
    """An MLP four times as wide as the hidden layer, where its width is left out."""
    return 4 * c.whole("hidden_size", "n_embd", "n_embed", "d_model")


def _opt(c: Keys) -> Fields:
    f = _all_biases(decoder(c))
    f["learned_positions"] = f["max_position"] + 2
    width = c.whole("word_embed_proj_dim", default=f["hidden"])
    f["embedding_dim"] = width if width != f["hidden"] else 0
    return f


def _bloom(c: Keys) -> Fields:
    return _all_biases(decoder(c, intermediate=_four_times(c), max_position=2048)) | {
        "other_params": 2 * c.whole("hidden_size", "n_embed")
    }


def _gpt2(c: Keys) -> Fields:
    f = _all_biases(decoder(c, intermediate=_four_times(c), max_position=1024))
    if c.flag("multi_query", default=False):
        f["kv_heads"] = 1
    f["learned_positions"] = f["max_position"]
    return f


def _gptj(c: Keys) -> Fields:
    f = _all_biases(decoder(c, intermediate=_four_times(c), max_position=2048))
    return f | {"attention_bias": False, "output_bias": False, "norms_per_layer": 1, "head_bias": True}


def _jais(c: Keys) -> Fields:
    """GPT-2 with a gated MLP and ALiBi. *Source*: vLLM ``models/jais.py``."""
    f = _all_biases(decoder(c, intermediate=_four_times(c), max_position=2048))
    f["gated_mlp"] = c.get("activation_function") == "swiglu"
    f["learned_positions"] = 0 if c.get("position_embedding_type") == "alibi" else f["max_position"]
    return f


def _persimmon(c: Keys) -> Fields:
    f = _all_biases(decoder(c, max_position=16384))
    if c.flag("qk_layernorm", default=True):
        f["qk_norm"] = 4 * f["head_dim"]
    return f


def _neox(c: Keys) -> Fields:
    f = _all_biases(decoder(c, max_position=2048))
    f["attention_bias"] = f["output_bias"] = c.flag("attention_bias", default=True)
    return f


def _starcoder2(c: Keys) -> Fields:
    f = decoder(c, max_position=4096)
    bias = c.flag("use_bias", default=True)
    f |= {"gated_mlp": False, "attention_bias": bias, "output_bias": bias, "mlp_bias": bias, "norm_bias": True}
    window_everywhere(c, f)
    f["tied"] = f["hidden"] < 6144  # checkpoints of 3.03 and 7.17 B are tied, the one of 15.96 B has a head of its own
    return f


def _mpt(c: Keys) -> Fields:
    ratio = c.whole("expansion_ratio", default=4)
    f = decoder(c, intermediate=ratio * c.whole("d_model"), max_position=2048)
    attention = c.section("attn_config")
    f["kv_heads"] = attention.whole(
        "kv_n_heads", default=1 if attention.get("attn_type") == "multiquery_attention" else f["heads"]
    )
    bias = not c.flag("no_bias", default=True)
    return f | {"gated_mlp": False, "attention_bias": bias, "output_bias": bias, "mlp_bias": bias, "norm_bias": bias}


def _falcon(c: Keys) -> Fields:
    new = c.flag("new_decoder_architecture", default=False)
    heads = c.whole("num_attention_heads", "n_head")
    kv = c.whole("num_kv_heads", "n_head_kv", default=heads) if new else 1 if c.flag("multi_query", default=True) else heads
    f = decoder(c, intermediate=_four_times(c), max_position=2048)
    bias = c.flag("bias", default=False)
    one = c.flag("parallel_attn", default=True) and not (new and c.whole("num_ln_in_parallel_attn", default=2) == 2)
    f |= {"kv_heads": kv, "gated_mlp": False, "attention_bias": bias, "output_bias": bias, "mlp_bias": bias, "norm_bias": True}
    return f | {"norms_per_layer": 1 if one else 2}


def _phi(c: Keys) -> Fields:
    return _all_biases(decoder(c, max_position=2048)) | {"norms_per_layer": 1}


def _phi3(c: Keys) -> Fields:
    f = decoder(c, max_position=4096)
    window_everywhere(c, f)
    return f


def _phimoe(c: Keys) -> Fields:
    f = decoder(c)
    experts(c, f, width=("intermediate_size",))
    f["attention_bias"] = f["output_bias"] = c.flag("attention_bias", default=False)
    f |= {"norm_bias": True, "head_bias": c.flag("lm_head_bias", default=False)}
    window_everywhere(c, f)
    return f


FAMILIES = {
    "opt": Family(_opt, tied=True),
    "bloom": Family(_bloom, tied=True),
    "gpt2": Family(_gpt2, tied=True),
    "gpt_bigcode": Family(_gpt2, tied=True),
    **dict.fromkeys(("gptj", "codegen"), Family(_gptj)),
    "jais": Family(_jais, tied=True),
    "persimmon": Family(_persimmon),
    "gpt_neox": Family(_neox),
    "starcoder2": Family(_starcoder2, tied=True),
    "mpt": Family(_mpt, tied=True),
    "falcon": Family(_falcon, tied=True),
    "RefinedWeb": Family(_falcon, tied=True),
    "RefinedWebModel": Family(_falcon, tied=True),
    "phi": Family(_phi),
    "phi3": Family(_phi3),
    "phi3_v": Family(_phi3),
    "phimoe": Family(_phimoe),
}
