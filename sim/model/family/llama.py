"""Llama and the dense decoders that differ from it in biases, norms and windows."""

from __future__ import annotations

from sim.model.base import Family, Fields, biases, decoder, window_everywhere
from sim.model.keys import Keys, every


def _llama(c: Keys) -> Fields:
    f = decoder(c, max_position=2048)
    biases(c, f)
    return f


def _mistral(c: Keys) -> Fields:
    f = decoder(c, head_dim=0)
    window_everywhere(c, f)
    return f


def _windowless(c: Keys) -> Fields:
    f = _llama(c)
    f["attention"], f["window"] = (), 0
    return f


def _internlm3(c: Keys) -> Fields:
    f = decoder(c)
    f["attention_bias"] = c.flag("qkv_bias", default=False)
    f["output_bias"] = f["mlp_bias"] = c.flag("bias", default=False)
    return f


def _internlm2(c: Keys) -> Fields:
    f = decoder(c)
    f["attention_bias"] = f["output_bias"] = c.flag("bias", default=False)
    return f


def _seed_oss(c: Keys) -> Fields:
    f = decoder(c)
    f["attention_bias"], f["output_bias"] = c.flag("attention_bias", default=True), c.flag("attention_out_bias", default=False)
    f["mlp_bias"] = c.flag("mlp_bias", default=False)
    return f


def _not_gated(c: Keys) -> Fields:
    f = _windowless(c)
    f["gated_mlp"] = False
    return f


def _nemotron(c: Keys) -> Fields:
    f = _not_gated(c)
    f["norm_bias"] = True
    return f


def _apertus(c: Keys) -> Fields:
    f = _not_gated(c)
    f["qk_norm"] = 2 * f["head_dim"]
    return f


def _stablelm(c: Keys) -> Fields:
    f = decoder(c)
    f["attention_bias"], f["norm_bias"] = c.flag("use_qkv_bias", default=False), True
    f["norms_per_layer"] = 1 if c.flag("use_parallel_residual", default=False) else 2
    if c.flag("qk_layernorm", default=False):
        f["qk_norm"] = (f["heads"] + f["kv_heads"]) * f["head_dim"]
    return f


def _exaone4(c: Keys) -> Fields:
    f = decoder(c)
    f["qk_norm"] = 2 * f["head_dim"]
    pattern = c.get("sliding_window_pattern")
    if not f["attention"] and f["window"] and pattern is not None:
        if isinstance(pattern, str) and pattern and set(pattern) <= set("LG"):
            letters = [pattern[i % len(pattern)] for i in range(f["layers"])]
            letters[-1] = "G"
            f["attention"] = tuple("sliding" if letter == "L" else "full" for letter in letters)
        else:
            f["attention"] = every(f["layers"], c.whole("sliding_window_pattern"), "sliding")
    if not f["attention"]:
        f["window"] = 0
    return f


def _olmo(c: Keys) -> Fields:
    f = _windowless(c)
    f["norms_per_layer"] = 0  # norms without parameters
    return f


def _olmo2(c: Keys) -> Fields:
    f = _llama(c)
    f["qk_norm"] = (f["heads"] + f["kv_heads"]) * f["head_dim"]
    if not f["attention"] and f["window"]:
        f["attention"] = every(f["layers"], 4, "sliding")
    return f


def _minicpm(c: Keys) -> Fields:
    return _windowless(c)


def _orion(c: Keys) -> Fields:
    f = _windowless(c)
    f["norm_bias"] = True
    return f


def _baichuan(c: Keys) -> Fields:
    return decoder(c, max_position=4096)


def _ernie(c: Keys) -> Fields:
    f = decoder(c)
    f["attention_bias"] = f["output_bias"] = f["mlp_bias"] = c.flag("use_bias", default=False)
    return f


def _mimo(c: Keys) -> Fields:
    """Qwen2 with draft layers in the checkpoint, which its published size counts (vLLM ``models/mimo.py`` skips them, ``mimo_mtp.py`` loads them)."""
    f = decoder(c)
    f["attention_bias"] = c.flag("attention_bias", default=True)
    f["attention"], f["window"] = (), 0
    h, kv = f["hidden"], f["kv_heads"] * f["head_dim"]
    layer = 2 * h * f["heads"] * f["head_dim"] + 2 * h * kv + 3 * h * f["intermediate"] + 2 * h * h
    f["draft_params"] = c.whole("num_nextn_predict_layers", default=0, least=0) * layer
    return f


def _cwm(c: Keys) -> Fields:
    f = _llama(c)
    if not f["attention"] and f["window"]:  # configuration_cwm.py: the first of four sees everything
        f["attention"] = tuple("sliding" if i % 4 else "full" for i in range(f["layers"]))
    return f


def _telechat(c: Keys) -> Fields:
    """Biases of the output and of the last matrix of the MLP alone (vLLM ``models/telechat2.py``)."""
    f = _windowless(c)
    f["other_params"] = 2 * f["hidden"] * f["layers"]
    return f


def _hyperclovax(c: Keys) -> Fields:
    f = _windowless(c)
    f["norms_per_layer"] = 4 if c.flag("use_post_norm", default=False) else 2
    return f


def _hunyuan_dense(c: Keys) -> Fields:
    f = _windowless(c)
    f["qk_norm"] = 2 * f["head_dim"] if c.flag("use_qk_norm", default=True) else 0
    return f


FAMILIES = {
    "llama": Family(_llama),
    "aquila": Family(_windowless),
    "cwm": Family(_cwm),
    "helium": Family(_windowless),
    "hyperclovax": Family(_hyperclovax),
    **dict.fromkeys(("telechat", "telechat2"), Family(_telechat)),
    "smollm3": Family(_windowless, tied=True),
    "granite": Family(_windowless),
    "exaone": Family(_windowless),
    "exaone4": Family(_exaone4),
    "mistral": Family(_mistral),
    "ministral": Family(_mistral),
    "ministral3": Family(_mistral),
    "internlm": Family(_internlm2),
    "internlm2": Family(_internlm2),
    "internlm3": Family(_internlm3),
    "seed_oss": Family(_seed_oss),
    "arcee": Family(_not_gated),
    "nemotron": Family(_nemotron),
    "apertus": Family(_apertus),
    "stablelm": Family(_stablelm),
    "stablelm_epoch": Family(_stablelm),
    "olmo": Family(_olmo),
    "olmo2": Family(_olmo2),
    "olmo3": Family(_olmo2),
    "minicpm": Family(_minicpm, tied=True),
    "baichuan": Family(_baichuan),
    "orion": Family(_orion),
    "ernie4_5": Family(_ernie, tied=True),
    "mimo": Family(_mimo),
    "hunyuan_v1_dense": Family(_hunyuan_dense, tied=True),
}
