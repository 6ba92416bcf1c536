"""GLM: ChatGLM 2 and 3, GLM-4 in both forms, and the text towers of their vision models."""

from __future__ import annotations

from sim.model.base import Family, Fields, decoder
from sim.model.keys import Keys


def _chatglm(c: Keys) -> Fields:
    f = decoder(c)
    if not c.flag("multi_query_attention", default=False):
        f["kv_heads"] = f["heads"]
    bias = c.flag("add_bias_linear", default=False)
    f["attention_bias"] = bias or c.flag("add_qkv_bias", default=False)
    f["output_bias"] = f["mlp_bias"] = bias
    return f


def _glm(c: Keys) -> Fields:
    f = decoder(c)
    f["attention_bias"] = c.flag("attention_bias", default=True)
    return f


def _glm4(c: Keys) -> Fields:
    f = decoder(c)
    f["attention_bias"] = c.flag("attention_bias", default=False)
    f["norms_per_layer"] = 4
    return f


FAMILIES = {
    "chatglm": Family(_chatglm),
    "glm": Family(_glm),
    **dict.fromkeys(("glm4", "glm4v", "glm4v_text", "glm_ocr_text"), Family(_glm4)),
}
