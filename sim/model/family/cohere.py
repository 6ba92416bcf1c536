"""Command: attention and MLP in parallel behind one norm without bias, tied embeddings."""

from __future__ import annotations

from sim.model.base import Family, Fields, decoder
from sim.model.keys import Keys, every


def _cohere(c: Keys) -> Fields:
    f = decoder(c)
    f["max_position"] = c.whole("model_max_length", default=f["max_position"])  # what vLLM derives the context from
    f["norms_per_layer"] = 1
    f["attention_bias"] = f["output_bias"] = c.flag("attention_bias", default=False)
    f["qk_norm"] = (f["heads"] + f["kv_heads"]) * f["head_dim"] if c.flag("use_qk_norm", default=False) else 0
    return f


def _cohere2(c: Keys) -> Fields:
    f = _cohere(c)
    if not f["attention"] and f["window"]:
        f["attention"] = every(f["layers"], c.whole("sliding_window_pattern", default=4), "sliding")
    return f


FAMILIES = {
    "cohere": Family(_cohere, tied=True),
    **dict.fromkeys(("cohere2", "cohere2_text"), Family(_cohere2, tied=True)),
}
