"""DeepSeek V2, V3, V3.2 and V4, and the models built on their latent attention: Kimi K2, GLM-5, GLM-4.7-Flash, MiniCPM3, LongCat."""

from __future__ import annotations

from sim.model.base import Family, Fields, decoder, experts, leading_dense, mlp_of, shared
from sim.model.blocks import Block
from sim.model.keys import Keys
from sim.model.mixers import Compressed, Latent
from sim.model.mlps import Routed


def latent(c: Keys, f: Fields) -> None:
    """Fields of multi-head latent attention, with its indexer where it has one."""
    f |= {"q_lora_rank": c.whole("q_lora_rank", default=0, least=0), "kv_lora_rank": c.whole("kv_lora_rank")}
    f |= {"qk_nope_head_dim": c.whole("qk_nope_head_dim"), "qk_rope_head_dim": c.whole("qk_rope_head_dim")}
    f["v_head_dim"] = c.whole("v_head_dim")
    f["head_dim"] = f["qk_nope_head_dim"] + f["qk_rope_head_dim"]
    f["kv_heads"] = f["heads"]
    if c.get("index_n_heads") is not None:
        f |= {
            "index_heads": c.whole("index_n_heads"),
            "index_head_dim": c.whole("index_head_dim"),
            "index_top_k": c.whole("index_topk"),
        }
    f["attention"], f["window"] = (), 0


def _sizes(c: Keys, **defaults: object) -> Fields:
    """Sizes; the head size follows from latent attention, and its key may say something else (GLM-5)."""
    hidden = {k: v for k, v in c.raw.items() if k not in ("head_dim", "num_key_value_heads", "layer_types", "sliding_window")}
    inner = Keys(hidden, c.name, c.field)
    f = decoder(inner, head_dim=1, **defaults)
    c.seen |= inner.seen
    return f


def _deepseek(c: Keys) -> Fields:
    if c.get("kv_lora_rank") is None and not c.flag("use_mla", default=True):  # the smallest DeepSeek-VL2: ordinary attention
        f = decoder(Keys({k: v for k, v in c.raw.items() if k != "head_dim"}, c.name, c.field))
        experts(c, f, count=("n_routed_experts",))
        shared(c, f, "n_shared_experts")
        leading_dense(c, f)
        return f
    f = _sizes(c, **({"intermediate": 0} if c.get("intermediate_size") is None and not c.get("first_k_dense_replace") else {}))
    latent(c, f)
    experts(c, f, count=("n_routed_experts", "num_experts", "num_local_experts"))
    shared(c, f, "n_shared_experts", "num_shared_experts")
    leading_dense(c, f)
    return f


def _sparse(c: Keys) -> Fields:
    """GLM-5: as V3.2; later versions share the choice of an indexer between layers."""
    f = _deepseek(c)
    own = _own_indexers(c, f["layers"])
    if f.get("index_heads") and not all(own):
        args = (f["heads"], f["q_lora_rank"], f["kv_lora_rank"], f["qk_nope_head_dim"], f["qk_rope_head_dim"], f["v_head_dim"])
        index = (f["index_heads"], f["index_head_dim"], f["index_top_k"])
        f["own_blocks"] = tuple(
            Block(Latent(*args, *index, index_own=here), mlp_of(f, routed), 2 * f["hidden"])
            for here, routed in zip(own, f["moe_layers"], strict=True)
        )
    return f


def _own_indexers(c: Keys, layers: int) -> tuple[bool, ...]:
    """Which layers choose for themselves (``indexer_types``: full or shared; ``index_topk_freq``, ``index_topk_pattern``)."""
    kinds = c.labels("indexer_types", layers, ("full", "shared"))
    if kinds is not None:
        return tuple(kind == "full" for kind in kinds)
    pattern = c.get("index_topk_pattern")
    if pattern is not None:
        if not isinstance(pattern, str) or len(pattern) < layers or not set(pattern) <= set("FS"):
            raise c.error("index_topk_pattern", f"must have one letter, F or S, for each of the {layers} layers of {c.name}")
        return tuple(letter == "F" for letter in pattern[:layers])
    freq, offset = c.whole("index_topk_freq", default=1), c.whole("index_skip_topk_offset", default=2, least=0)
    return tuple(max(i - offset + 1, 0) % freq == 0 for i in range(layers))


def _v4(c: Keys) -> Fields:
    """Windows and compressed entries instead of a latent; four residual streams; experts in 4 bits beside fp8."""
    f = decoder(c, intermediate=c.whole("moe_intermediate_size"), kv_heads=1)
    n, hidden = f["layers"], f["hidden"]
    experts(c, f)
    shared(c, f, "n_shared_experts")
    ratios = c.wholes("compress_ratios", n)
    if not set(ratios) <= {0, 4, 128}:
        raise c.error("compress_ratios", f"must be 0, 4 or 128 in the config of {c.name}", "0, 4, 128")
    rope = c.whole("qk_rope_head_dim")
    streams = c.whole("hc_mult", default=1)
    mixing = (
        2 * ((2 + streams) * streams * (streams * hidden + 1) + 3) if streams > 1 else 0
    )  # before attention and before the MLP
    hashed = c.whole("num_hash_layers", default=0, least=0)
    mlp = Routed(f["n_experts"], f["top_k"], f["moe_intermediate"], shared=f["shared_intermediate"])
    blocks = []
    for i, ratio in enumerate(ratios):
        mixer = Compressed(
            f["heads"], f["head_dim"], rope, c.whole("q_lora_rank"), c.whole("o_lora_rank"), c.whole("o_groups"), c.whole("sliding_window"),
            ratio, c.whole("index_n_heads"), c.whole("index_head_dim"), c.whole("index_topk"),
        )  # fmt: skip
        table = f["vocab"] * f["top_k"] if i < hashed else 0  # experts by token id
        blocks.append(Block(mixer, mlp, 2 * hidden + mixing + table))
    f |= {"own_blocks": tuple(blocks), "attention": (), "moe_layers": (), "kv_heads": 1}
    f["other_params"] = streams * (streams * hidden + 1) + 1 if streams > 1 else 0
    return f


def _minicpm3(c: Keys) -> Fields:
    f = _sizes(c)
    latent(c, f)
    return f


def _longcat(c: Keys) -> Fields:
    """Two attention and MLP pairs per layer with routed experts beside them; some experts pass their input on, which costs nothing."""
    pairs = c.whole("num_layers", "num_hidden_layers", most=500)
    raw = {k: v for k, v in c.raw.items() if k not in ("num_layers", "head_dim", "num_key_value_heads")}
    f = decoder(
        Keys({**raw, "num_hidden_layers": 2 * pairs}, c.name, c.field), head_dim=1, intermediate=c.whole("ffn_hidden_size")
    )
    latent(c, f)
    f["intermediate"] = c.whole("ffn_hidden_size")
    experts(c, f, width=("expert_ffn_hidden_size", "moe_intermediate_size"), top_k=("moe_topk", "num_experts_per_tok"))
    idle = c.whole("zero_expert_num", default=0, least=0)
    f["top_k"] = max(f["top_k"] * f["n_experts"] // (f["n_experts"] + idle), 1)
    f["shared_intermediate"], f["n_shared_experts"] = f["intermediate"], 1
    mixer = Latent(f["heads"], f["q_lora_rank"], f["kv_lora_rank"], f["qk_nope_head_dim"], f["qk_rope_head_dim"], f["v_head_dim"])
    small = 2 * f["hidden"]
    beside = Routed(f["n_experts"], f["top_k"], f["moe_intermediate"], shared=f["intermediate"], apart=True)
    pair = Block(mixer, mlp_of(f, False), small), Block(mixer, beside, small + idle * (f["hidden"] + 1))
    f["own_blocks"] = pair * pairs
    return f


FAMILIES = {
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "deepseek_v32", "kimi_k2", "axk1"), Family(_deepseek)),
    **dict.fromkeys(("glm4_moe_lite", "mistral4"), Family(_deepseek)),
    **dict.fromkeys(("longcat_flash", "longcat_causal_lm"), Family(_longcat)),
    "glm_moe_dsa": Family(_sparse),
    "deepseek_v4": Family(_v4),
    "minicpm3": Family(_minicpm3, tied=True),
}
