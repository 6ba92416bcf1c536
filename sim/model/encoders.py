"""Parameters of encoders of images and sound: attention, MLP and what joins them to the text. Within some per cent of published counts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sim.model.keys import Keys
from sim.model.spec import NO_IMAGES, Images

if TYPE_CHECKING:
    from sim.document import Json

_CONNECTORS = ("perceiver_config", "resampler_config", "qformer_config")
_VISION, _AUDIO = ("vision_config", "vision_tower_config", "vit_config"), ("audio_config", "sound_config")
_SPEAKS = ("talker_config", "token2wav_config", "code2wav_config")


def encoder_params(config: Mapping[str, Json], field: str) -> tuple[int, Images, str]:
    """Parameters beside the language model, what the encoder of images is, and a sentence where a section does not tell its size.

    *Raises*: `ConfigError` naming the key.
    """
    c = Keys(config, "the model", field)
    inner = c.section("thinker_config") if config.get("thinker_config") else c
    total, unknown, images = 0, [], NO_IMAGES
    for owner in {id(c.raw): c, id(inner.raw): inner}.values():
        for names, count in ((_VISION, _vision), (_AUDIO, _audio)):
            if owner.get(*names):
                section = owner.section(*names)
                found = count(section)
                total += found
                if found and count is _vision:
                    images = _images(owner, section, found)
                unknown += [] if found else [names[0]]
        unknown += [key for key in _CONNECTORS if owner.get(key)]
        named = _by_name(owner)
        total += _projector(owner) + named
        tokenizer = (
            owner.section("visual_tokenizer_config") if isinstance(owner.get("visual_tokenizer_config"), Mapping) else None
        )
        if tokenizer is not None:  # Ovis 1 and 2: the tower stands inside
            tower = tokenizer.section("backbone_config")
            total, images = total + (found := _vision(tower)), _images(owner, tower, found)
            unknown += [] if found else ["visual_tokenizer_config"]
        images = Images(named, 4.0, _CLIP_WIDTHS, 144.0) if named else images
    said = [f"the size of the encoder in {' and '.join(unknown)} is not known: its parameters are left out"] if unknown else []
    speaks = [key for key in _SPEAKS if c.get(key)]
    if speaks:
        said.append(f"what speaks ({', '.join(speaks)}) is left out: engines that write text do not load it")
    return total, images, "; ".join(said)


def _images(owner: Keys, v: Keys, params: int) -> Images:
    """What one token of an image costs: how many patches are merged into it, and over how much of the image they attend.

    Towers with a fixed ``image_size`` see one tile at a time; those that take any size (Qwen, Pixtral, MoonViT) all of it, in the
    layers of ``fullatt_block_indexes`` where they have windows. Towers of several kinds and convolutions are not known.
    """
    if isinstance(v.get("width"), Mapping) or v.get("architecture"):
        return NO_IMAGES
    v = _filled(v)
    depth, width = _layers(v)
    full = len(v.where("fullatt_block_indexes")) if v.get("window_size") and v.get("fullatt_block_indexes") else depth
    size, side = (_side(v, key) for key in ("image_size", "patch_size"))
    whole = (size // side) ** 2 if size and side and str(v.get("model_type")) != "pixtral" else 0
    patches = _merged(owner, v, whole)
    return Images(params, patches, full * width, whole / patches)


def _merged(owner: Keys, v: Keys, whole: int) -> float:
    kernel = v.get("merge_kernel_size")
    if isinstance(kernel, list) and kernel:
        return float(v.wholes("merge_kernel_size", len(kernel), least=1)[0] ** 2)
    for keys, name in (
        (v, "spatial_merge_size"),
        (owner, "spatial_merge_size"),
        (owner, "scale_factor"),
        (owner, "downsample_factor"),
    ):
        if keys.get(name) is not None:
            return float(keys.whole(name) ** 2)
    for keys, name in ((owner, "downsample_ratio"), (v, "pixel_shuffle_ratio")):
        if keys.get(name) is not None:
            return max(1.0, keys.number(name, default=1.0) ** -2)
    if whole and owner.get("mm_tokens_per_image") is not None:
        return max(1.0, whole / owner.whole("mm_tokens_per_image"))
    return 4.0 if str(owner.get("model_type")) in _ALIGNED else 1.0


def _side(v: Keys, key: str) -> int:
    if isinstance(v.get(key), list):
        return v.wholes(key, 1, least=1)[0] if len(v.get(key)) == 1 else v.wholes(key, 2, least=1)[0]
    return v.whole(key, default=0, least=0)


def _by_name(c: Keys) -> int:
    """Phi-3 and 3.5 Vision name their tower, and join four of its patches by two layers."""
    named = c.section("img_processor") if isinstance(c.get("img_processor"), Mapping) else None
    if named is None or named.get("name") != "clip_vision_model":
        return 0
    hidden = c.whole("hidden_size", default=3072)
    return _CLIP_L + 4 * named.whole("image_dim_out", default=1024) * hidden + hidden * hidden


def _projector(c: Keys) -> int:
    """What stands beside the towers: Cohere's gated projector of ``downsample_factor`` squared patches, Ovis's table of visual words."""
    if c.get("visual_vocab_size") is not None:
        return _ovis(c, c.whole("visual_vocab_size"), c.section("vit_config"), c.section("vit_config"))
    if isinstance(c.get("visual_tokenizer_config"), Mapping):
        v = c.section("visual_tokenizer_config")
        return _ovis(c, v.whole("vocab_size", default=0, least=0), v, v.section("backbone_config"))
    if str(c.get("model_type")) not in _ALIGNED:
        return 0
    vision, text = c.section("vision_config"), c.section("text_config")
    width = c.whole("alignment_intermediate_size", default=_ALIGNED[str(c.get("model_type"))])
    merged = vision.whole("hidden_size", default=1152) * c.whole("downsample_factor", default=2) ** 2
    return merged * width + width // 2 * text.whole("hidden_size", default=4096)


def _ovis(c: Keys, words: int, shape: Keys, tower: Keys) -> int:
    """A head that turns ``hidden_stride`` squared patches into a visual word, and the table of those words (vLLM ``models/ovis.py``)."""
    inner = c.section("llm_config") if c.get("llm_config") else c
    merged = tower.whole("hidden_size", default=0, least=0) * shape.whole("hidden_stride", default=1) ** 2
    return words * (merged + inner.whole("hidden_size", default=0, least=0))


_CLIP_L, _CLIP_WIDTHS = 303_500_000, 24 * 1024  # CLIP ViT-L/14 at 336 pixels, 576 patches
_ALIGNED = {"aya_vision": 28672, "cohere2_vision": 36864}  # configuration_aya_vision.py, configuration_cohere2_vision.py


_PIXTRAL = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}  # configuration_pixtral.py


def _filled(v: Keys) -> Keys:
    """The section with what the tower's configuration class has where keys are missing."""
    return Keys({**_PIXTRAL, **v.raw}, v.name, v.field) if str(v.get("model_type")) == "pixtral" else v


def _layers(v: Keys) -> tuple[int, int]:
    """(number, width) of a tower's layers; 0 where the section does not say."""
    depth = v.whole("depth", "num_hidden_layers", "vt_num_hidden_layers", "layers", default=0, least=0)
    return depth, v.whole("embed_dim", "hidden_size", "vt_hidden_size", "width", "mm_hidden_size", default=0, least=0)


def _vision(v: Keys) -> int:
    """A vision transformer. ``depth`` or ``num_hidden_layers`` layers, patches, and a merger of ``spatial_merge_size`` squared patches."""
    kind = str(v.get("model_type") or "")
    if isinstance(v.get("width"), Mapping):  # towers of several kinds (DeepSeek-OCR), each of standard shape
        towers = [Keys(t, v.name, v.field) for t in v.get("width").values() if isinstance(t, Mapping)]
        return sum(12 * t.whole("layers", default=0, least=0) * t.whole("width", default=0, least=0) ** 2 for t in towers)
    named = re.search(r"_(\d+)m(_|$)", str(v.get("architecture") or ""))
    if named:  # timm's names tell the size: mobilenetv5_300m_enc
        return int(named[1]) * 1_000_000
    v = _filled(v)
    depth, hidden = _layers(v)
    embed = v.get("embed_dim")
    ratio = v.number("mlp_ratio", default=4.0)
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
        if v.get("hidden_act", "hidden_activation") in ("silu", "gelu_pytorch_tanh_gated")
        or kind in ("gemma4_vision", "pixtral", "dots_vit", "aimv2")
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
    each = 4 * hidden * hidden + 2 * hidden * inner
    if a.get("conf_num_hidden_layers") is not None:  # a conformer: two MLPs around the attention, and a convolution
        each += 2 * hidden * inner + 3 * hidden * hidden
    return depth * each + hidden * out + 3 * hidden * hidden
