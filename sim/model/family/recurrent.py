"""Hybrids with states: Nemotron-H, Jamba, Granite 4, Falcon-H1, Kimi Linear and K3, LFM2, MiniMax-Text; and pure Mamba."""

from __future__ import annotations

from dataclasses import replace

from sim.errors import NotModelledError
from sim.model.base import Family, Fields, attention_of, biases, blocks_of, decoder, experts, leading_dense, mlp_of, shared
from sim.model.blocks import Block
from sim.model.family.deepseek import latent
from sim.model.keys import Keys
from sim.model.mixers import Latent, Mixer
from sim.model.mlps import Dense, Routed
from sim.model.recurrent import Beside, Kda, Lightning, Mamba1, Mamba2, ShortConv

_LETTERS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
_DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def _state_dtype(c: Keys, *names: str) -> str:
    stored = c.text(*names, default="float32").removeprefix("torch.")
    if stored not in _DTYPES:
        raise c.error(names[0], f"must be a number format in the config of {c.name}", ", ".join(_DTYPES))
    return _DTYPES[stored]


def _nemotron_h(c: Keys) -> Fields:
    """Every layer is one of Mamba-2 (M), attention (*), MLP (-) or experts (E); MLPs are not gated; one norm each."""
    pattern = c.get("hybrid_override_pattern", "layers_block_type")
    if isinstance(pattern, str):
        wrong = set(pattern) - set(_LETTERS)
        names = [_LETTERS.get(letter, letter) for letter in pattern]
    else:
        names = list(pattern) if isinstance(pattern, list | tuple) else []
        wrong = {str(name) for name in names} - set(_LETTERS.values())
    if wrong or not names:
        raise NotModelledError(f"{c.field}.hybrid_override_pattern", pattern, "unknown kind of layer", ", ".join(_LETTERS))
    n = c.whole("num_hidden_layers", default=len(names), most=1000)
    if len(names) != n:
        raise c.error("hybrid_override_pattern", f"names {len(names)} layers of the {n} of {c.name}")
    missing = {} if "mlp" in names else {"intermediate": c.whole("intermediate_size", default=1)}
    f = decoder(Keys({**c.raw, "num_hidden_layers": n}, c.name, c.field), **missing)
    f |= {"gated_mlp": False, "attention": (), "window": 0, "norms_per_layer": 1}
    f["attention_bias"] = f["output_bias"] = c.flag("attention_bias", default=False)
    f["mlp_bias"] = c.flag("mlp_bias", default=False)
    mamba = Mamba2(
        c.whole("mamba_num_heads"), c.whole("mamba_head_dim"), c.whole("n_groups"), c.whole("ssm_state_size"), c.whole("conv_kernel"),
        c.flag("use_conv_bias", default=True), c.flag("use_bias", "mamba_proj_bias", default=False),
    ) if "mamba" in names else None  # fmt: skip
    routed: Routed | None = None
    if "moe" in names:
        experts(c, f, count=("n_routed_experts",))
        f["shared_intermediate"] = c.whole("moe_shared_expert_intermediate_size", default=0, least=0) * max(
            c.whole("n_shared_experts", default=1, least=0), 0
        )
        f["n_shared_experts"] = 1 if f["shared_intermediate"] else 0
        inside = c.whole("moe_latent_size", default=0, least=0)
        routed = Routed(f["n_experts"], f["top_k"], f["moe_intermediate"], False, f["mlp_bias"], f["shared_intermediate"], inside)
    parts: dict[str, tuple[Mixer | None, Dense | Routed | None]] = {
        "mamba": (mamba, None), "attention": (attention_of(f), None), "mlp": (None, Dense(f["intermediate"], False, f["mlp_bias"])), "moe": (None, routed),
    }  # fmt: skip
    f["own_blocks"] = tuple(Block(*parts[name], f["hidden"]) for name in names)
    f["state_dtype"] = _state_dtype(c, "mamba_ssm_cache_dtype")
    return f


def _jamba(c: Keys) -> Fields:
    f = decoder(c, max_position=262144)
    n = f["layers"]
    experts(c, f, width=("intermediate_size",))
    step, offset = c.whole("expert_layer_period", default=2), c.whole("expert_layer_offset", default=1, least=0)
    f["moe_layers"] = tuple(i % step == offset and f["n_experts"] > 1 for i in range(n))
    every, first = c.whole("attn_layer_period", default=8), c.whole("attn_layer_offset", default=4, least=0)
    rank = c.get("mamba_dt_rank")
    rank = -(-f["hidden"] // 16) if rank in (None, "auto") else c.whole("mamba_dt_rank")
    inner = c.whole("mamba_expand", default=2) * f["hidden"]
    mamba = Mamba1(inner, c.whole("mamba_d_state", default=16), c.whole("mamba_d_conv", default=4), rank)
    mixers: list[Mixer] = [attention_of(f) if i % every == first else mamba for i in range(n)]
    f |= {"own_blocks": blocks_of(f, mixers, 2 * f["hidden"]), "attention": (), "window": 0}
    if f["n_experts"] == 1:
        f |= {"n_experts": 0, "top_k": 0, "moe_intermediate": 0, "moe_layers": ()}
    return f


def _granite_hybrid(c: Keys) -> Fields:
    """Granite 4: Mamba-2 or attention, then experts and an MLP that every token uses (or that MLP alone)."""
    f = decoder(
        Keys({k: v for k, v in c.raw.items() if k != "layer_types"}, c.name, c.field),
        intermediate=c.whole("shared_intermediate_size"),
    )
    n = f["layers"]
    kinds = c.kinds(n, "layer_types", {"mamba": "linear"}) or c.kinds(n, "layers_block_type", {"mamba": "linear"})
    if not kinds:
        raise c.error("layer_types", f"is missing in the config of {c.name}")
    wide = c.whole("shared_intermediate_size")
    f["intermediate"] = wide
    count = c.whole("num_local_experts", default=0, least=0)
    if count:
        experts(c, f, count=("num_local_experts",), width=("intermediate_size",))
        f["shared_intermediate"], f["n_shared_experts"] = wide, 1
    mamba = Mamba2(
        c.whole("mamba_n_heads"), c.whole("mamba_d_head", default=c.whole("mamba_expand", default=2) * f["hidden"] // c.whole("mamba_n_heads")),
        c.whole("mamba_n_groups"), c.whole("mamba_d_state"), c.whole("mamba_d_conv"),
        c.flag("mamba_conv_bias", default=True), c.flag("mamba_proj_bias", default=False),
    ) if "linear" in kinds else None  # fmt: skip
    f["attention_bias"] = f["output_bias"] = c.flag("attention_bias", default=False)
    small = 2 * f["hidden"]
    f["own_blocks"] = tuple(
        Block(mamba if kind == "linear" else attention_of(f), mlp_of(f, bool(count)), small) for kind in kinds
    )
    f["attention"] = ()
    return f


def _bamba(c: Keys) -> Fields:
    f = decoder(c)
    n = f["layers"]
    here = c.where("attn_layer_indices")
    mamba = Mamba2(
        c.whole("mamba_n_heads"), c.whole("mamba_d_head", default=c.whole("mamba_expand", default=2) * f["hidden"] // c.whole("mamba_n_heads")),
        c.whole("mamba_n_groups"), c.whole("mamba_d_state"), c.whole("mamba_d_conv"),
        c.flag("mamba_conv_bias", default=True), c.flag("mamba_proj_bias", default=False),
    )  # fmt: skip
    mixers: list[Mixer] = [attention_of(f) if i in here else mamba for i in range(n)]
    f |= {"own_blocks": blocks_of(f, mixers, 2 * f["hidden"]), "attention": (), "window": 0}
    return f


def _falcon_h1(c: Keys) -> Fields:
    """Attention and Mamba-2 beside each other in every layer."""
    f = decoder(c)
    heads = c.whole("mamba_n_heads")
    inner = c.whole("mamba_d_ssm", default=c.whole("mamba_expand", default=2) * f["hidden"])
    mamba = Mamba2(
        heads, c.whole("mamba_d_head", default=inner // heads), c.whole("mamba_n_groups"), c.whole("mamba_d_state"), c.whole("mamba_d_conv"),
        c.flag("mamba_conv_bias", default=True), c.flag("mamba_proj_bias", default=False), c.flag("mamba_rms_norm", default=False),
    )  # fmt: skip
    biases(c, f)
    f |= {
        "own_blocks": blocks_of(f, [Beside(attention_of(f), mamba)] * f["layers"], 2 * f["hidden"]),
        "attention": (),
        "window": 0,
    }
    return f


def _kimi_mixers(c: Keys, f: Fields) -> list[Mixer]:
    n, s = f["layers"], c.section("linear_attn_config")
    recurrent, full = s.where("kda_layers"), s.where("full_attn_layers")
    if recurrent & full or (recurrent | full) != frozenset(range(1, n + 1)):
        raise s.error("kda_layers", f"and full_attn_layers must name each of the {n} layers of {c.name} once, from 1")
    kda = Kda(
        s.whole("num_heads"), s.whole("head_dim"), s.whole("short_conv_kernel_size"), s.flag("use_full_rank_gate", default=False)
    )
    attend = Latent(
        f["heads"], f["q_lora_rank"], f["kv_lora_rank"], f["qk_nope_head_dim"], f["qk_rope_head_dim"], f["v_head_dim"],
        gated=c.flag("mla_use_output_gate", default=False),
    )  # fmt: skip
    return [kda if i + 1 in recurrent else attend for i in range(n)]


def _kimi_linear(c: Keys) -> Fields:
    """Kimi Linear and K3: delta attention and latent attention; K3's experts work in a narrower space.

    *Source*: vLLM ``models/kimi_linear.py``, SGLang ``models/kimi_k3.py``; tensor names of the published checkpoint.
    """
    plain = {k: v for k, v in c.raw.items() if k not in ("head_dim", "num_key_value_heads")}
    f = decoder(Keys(plain, c.name, c.field), head_dim=1, max_position=c.whole("model_max_length", default=1048576))
    latent(c, f)
    experts(c, f)
    shared(c, f, "num_shared_experts")
    leading_dense(c, f)
    inside = c.whole("routed_expert_hidden_size", default=0, least=0)
    small = 2 * f["hidden"]
    blocks = blocks_of(f, _kimi_mixers(c, f), small)
    f["own_blocks"] = tuple(
        b._replace(mlp=replace(b.mlp, latent=inside)) if inside and isinstance(b.mlp, Routed) else b for b in blocks
    )
    return f


def _lfm2(c: Keys) -> Fields:
    """Short convolutions and attention; the width of the MLP is two thirds of what the config says, rounded up."""
    raw = {k: v for k, v in c.raw.items() if k != "layer_types"}
    f = decoder(Keys(raw, c.name, c.field), intermediate=c.whole("block_ff_dim", "intermediate_size"))
    n = f["layers"]
    kinds = c.kinds(n, more={"conv": "linear"})
    if not kinds:
        here = c.where("full_attn_idxs")
        if not here:
            raise c.error("layer_types", f"is missing in the config of {c.name}")
        kinds = tuple("full" if i in here else "linear" for i in range(n))
    width = c.whole("block_ff_dim", "intermediate_size")
    if c.get("num_experts") is None and c.flag("block_auto_adjust_ff_dim", default=True):
        multiple = c.whole("block_multiple_of", default=256)
        width = int(c.number("block_ffn_dim_multiplier", default=1.0) * (2 * width // 3))
        width = -(-width // multiple) * multiple
    f["intermediate"] = width
    if c.get("num_experts") is not None:
        experts(c, f)
        leading_dense(c, f)
    conv = ShortConv(f["hidden"], c.whole("conv_L_cache", default=3), c.flag("conv_bias", default=False))
    mixers: list[Mixer] = [conv if kind == "linear" else attention_of(f) for kind in kinds]
    f |= {"own_blocks": blocks_of(f, mixers, 2 * f["hidden"] + 2 * f["head_dim"]), "attention": ()}
    return f


def _minimax_text(c: Keys) -> Fields:
    """MiniMax-Text-01 and M1: lightning attention (0) and softmax attention (1)."""
    raw = {k: v for k, v in c.raw.items() if k != "layer_types"}
    f = decoder(Keys(raw, c.name, c.field))
    n = f["layers"]
    if c.get("attn_type_list") is not None:
        attend = [bool(v) for v in c.wholes("attn_type_list", n)]
    else:
        kinds = c.kinds(n)
        if not kinds:
            raise c.error("attn_type_list", f"is missing in the config of {c.name}")
        attend = [kind == "full" for kind in kinds]
    experts(c, f, width=("intermediate_size",))
    mixers: list[Mixer] = [attention_of(f) if here else Lightning(f["heads"], f["head_dim"]) for here in attend]
    f |= {"own_blocks": blocks_of(f, mixers, 2 * f["hidden"]), "attention": (), "window": 0}
    return f


def _mamba(c: Keys) -> Fields:
    raise NotModelledError(
        f"{c.field}.model_type", c.get("model_type"), "a model of state-space layers alone has no KV cache to schedule, which is not modelled",
        hint="nearest modelled family: nemotron_h",
    )  # fmt: skip


FAMILIES = {
    **dict.fromkeys(("nemotron_h", "nemotron_h_moe"), Family(_nemotron_h)),
    "jamba": Family(_jamba),
    "granitemoehybrid": Family(_granite_hybrid),
    "bamba": Family(_bamba),
    "falcon_h1": Family(_falcon_h1),
    **dict.fromkeys(("kimi_linear", "kimi_k3"), Family(_kimi_linear)),
    **dict.fromkeys(("lfm2", "lfm2_moe"), Family(_lfm2, tied=True)),
    **dict.fromkeys(("minimax", "minimax_text_01", "minimax_m1"), Family(_minimax_text)),
    **dict.fromkeys(("mamba", "mamba2", "falcon_mamba"), Family(_mamba)),
}
