"""Parameters of encoders of images and sound: attention, MLP and what joins them to the text. Within some per cent of published counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim.model.keys import Keys

_CONNECTORS = ("perceiver_config", "resampler_config", "qformer_config")
_VISION, _AUDIO = ("vision_config", "vision_tower_config"), ("audio_config", "sound_config")


def encoder_params(config: Mapping[str, Any], field: str) -> tuple[int, str]:
    """Parameters beside the language model, and a sentence where a section of an encoder does not tell its size.

    *Raises*: `ConfigError` naming the key.
    """
    c = Keys(config, "the model", field)
    inner = c.section("thinker_config") if config.get("thinker_config") else c
    total, unknown = 0, []
    for owner in {id(c.raw): c, id(inner.raw): inner}.values():
        for names, count in ((_VISION, _vision), (_AUDIO, _audio)):
            if owner.get(*names):
                found = count(owner.section(*names))
                total += found
                unknown += [] if found else [names[0]]
        unknown += [key for key in _CONNECTORS if owner.get(key)]
    return (
        total,
        f"the size of the encoder in {' and '.join(unknown)} is not known: its parameters are left out" if unknown else "",
    )


_PIXTRAL = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}  # configuration_pixtral.py


def _vision(v: Keys) -> int:
    """A vision transformer. ``depth`` or ``num_hidden_layers`` layers, patches, and a merger of ``spatial_merge_size`` squared patches."""
    kind = str(v.get("model_type") or "")
    if isinstance(v.get("width"), Mapping):  # towers of several kinds (DeepSeek-OCR)
        return 0
    if kind == "pixtral":
        v = Keys({**_PIXTRAL, **v.raw}, v.name, v.field)
    depth = v.whole("depth", "num_hidden_layers", "vt_num_hidden_layers", "layers", default=0, least=0)
    embed = v.get("embed_dim")
    ratio = v.number("mlp_ratio", default=4.0)
    hidden = v.whole(
        *(("embed_dim",) if embed is not None else ("hidden_size", "vt_hidden_size", "width", "mm_hidden_size")),
        default=0,
        least=0,
    )
    inner = v.whole("intermediate_size", "vt_intermediate_size", default=int(hidden * ratio), least=0)
    out = v.whole("out_hidden_size", "hidden_size" if embed is not None else "text_hidden_size", default=0, least=0)
    size = v.get("patch_size")
    side = v.whole("patch_size", default=14) if not isinstance(size, list) else v.wholes("patch_size", 1, least=1)[0]
    patch = side**2 * 3 * v.whole("temporal_patch_size", default=1) * hidden
    merged = hidden * v.whole("spatial_merge_size", default=1) ** 2
    merger = merged * (merged + out)
    deep = v.where("deepstack_visual_indexes")
    gates = (
        3
        if v.get("hidden_act", "hidden_activation") in ("silu", "gelu_pytorch_tanh_gated") or kind in ("gemma4_vision", "pixtral")
        else 2
    )
    if not depth or not hidden:
        return 0
    if kind.startswith("glm4v"):  # intermediate_size is the merger's; the layers' is out_hidden_size (modeling_glm4v.py)
        return depth * (4 * hidden * hidden + 3 * hidden * out) + patch + merged * out + out * out + 3 * out * inner
    layers = depth + v.whole("num_global_layers", default=0, least=0)
    each = 4 * hidden * hidden + gates * hidden * inner
    table = v.whole("position_embedding_size", "num_position_embeddings", default=0, least=0) * hidden
    return layers * each + patch + merger * (1 + len(deep)) + table


def _audio(a: Keys) -> int:
    """A Whisper-like or conformer encoder."""
    depth = a.whole("encoder_layers", "num_hidden_layers", "conf_num_hidden_layers", default=0, least=0)
    hidden = a.whole("d_model", "hidden_size", default=0, least=0)
    inner = a.whole("encoder_ffn_dim", "intermediate_size", default=4 * hidden, least=0)
    if not depth or not hidden:
        return 0
    out = a.whole("output_dim", "output_proj_dims", default=0, least=0)
    return depth * (4 * hidden * hidden + 2 * hidden * inner) + hidden * out + 3 * hidden * hidden
