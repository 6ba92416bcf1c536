"""Models searched layer by layer (Nemotron NAS) and models with cross-attention (Llama 3.2 Vision)."""

from __future__ import annotations

from sim.errors import NotModelledError
from sim.model.base import Family, Fields, attention_of, biases, decoder
from sim.model.blocks import Block
from sim.model.keys import Keys
from sim.model.mixers import Cross, Mixer
from sim.model.mlps import Dense

_MULTIPLE = 256  # MLP widths are rounded up to it (configuration_decilm.py)


def _searched(c: Keys) -> Fields:
    """Blocks with fewer key/value heads, narrower MLPs, or without attention or MLP at all."""
    blocks = c.get("block_configs")
    if blocks is None and c.get("num_key_value_heads_per_layer") is not None:
        raise NotModelledError(
            f"{c.field}.num_key_value_heads_per_layer",
            "a list",
            "DeciLM's first form, whose heads engines pad, is not modelled",
            "block_configs",
        )
    if not isinstance(blocks, list) or not blocks:
        raise c.error("block_configs", f"must list the layers of {c.name}")
    f = decoder(
        c, layers=len(blocks), intermediate=c.whole("intermediate_size", default=1), kv_heads=c.whole("num_attention_heads")
    )
    if len(blocks) != f["layers"]:
        raise c.error("num_hidden_layers", f"is not the number of block_configs of {c.name}", str(len(blocks)))
    biases(c, f)
    found = []
    for i, block in enumerate(blocks):
        if not isinstance(block, dict):
            raise c.error("block_configs", f"must list mappings; number {i} is none")
        b = Keys(block, c.name, f"{c.field}.block_configs[{i}]")
        found.append(_block(f, b.section("attention"), b.section("ffn")))
    f |= {"own_blocks": tuple(found), "attention": (), "window": 0}
    groups = [b.mixer.kv_heads for b in found if b.mixer is not None and hasattr(b.mixer, "kv_heads")]
    f["kv_heads"] = max(groups, default=1)
    f["intermediate"] = max((b.mlp.width for b in found if isinstance(b.mlp, Dense)), default=1)
    return f


def _block(f: Fields, attention: Keys, ffn: Keys) -> Block:
    for part in (attention, ffn):
        if part.get("replace_with_linear"):
            raise NotModelledError(
                f"{part.field}.replace_with_linear", True, "layers replaced by a matrix are not modelled", "false"
            )
    mixer: Mixer | None = None
    if not attention.flag("no_op", default=False):
        group = attention.whole("n_heads_in_group", default=0, least=0)
        kv = f["heads"] // group if group else attention.whole("num_key_value_heads")
        if not kv or f["heads"] % kv:
            raise attention.error("n_heads_in_group", f"must divide the {f['heads']} attention heads")
        window = attention.whole("window_length", "window_size", default=0, least=0)
        mixer = attention_of(f, "sliding", window=window, kv_heads=kv) if window else attention_of(f, kv_heads=kv)
    mlp: Dense | None = None
    if not ffn.flag("no_op", default=False):
        width = ffn.whole("intermediate_size", default=0, least=0)
        if not width:
            width = int(2 * ffn.number("ffn_mult") * f["hidden"] / 3)
            width = -(-width // _MULTIPLE) * _MULTIPLE
        mlp = Dense(width, f.get("gated_mlp", True), f["mlp_bias"])
    return Block(mixer, mlp, f["hidden"] * ((mixer is not None) + (mlp is not None)))


def _mllama(c: Keys) -> Fields:
    """Some layers attend to the image instead of the text: they keep no keys and values of it."""
    f = decoder(c)
    here = c.where("cross_attention_layers")
    if any(not 0 <= i < f["layers"] for i in here):
        raise c.error("cross_attention_layers", f"names layers beyond the {f['layers']} of {c.name}")
    cross = Cross(f["heads"], f["kv_heads"], f["head_dim"])
    small = 2 * f["hidden"]
    mlp = Dense(f["intermediate"])
    f["own_blocks"] = tuple(
        Block(cross, mlp, small + 2 * f["head_dim"] + 2) if i in here else Block(attention_of(f), mlp, small)
        for i in range(f["layers"])
    )
    f["other_params"] = 8 * f["hidden"]  # image tokens
    return f


FAMILIES = {
    **dict.fromkeys(("nemotron-nas", "nemotron_nas", "deci", "decilm"), Family(_searched)),
    **dict.fromkeys(("mllama", "mllama_text_model"), Family(_mllama)),
}
