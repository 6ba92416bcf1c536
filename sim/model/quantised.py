"""Which tensors of a checkpoint are in which number format: lists of modules matched layer by layer, as engines match them.

A pattern is a module name (all of it, or some whole parts: ``self_attn`` stands for every module inside one), a shell pattern with ``*``, or
``re:`` and a regular expression that must match from the start. Names are tried under the prefixes that model classes use; draft layers
(``mtp.``) and encoders are not the model's.
"""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from sim.errors import ConfigError
from sim.model import quant
from sim.model.blocks import Block, block_tensors
from sim.model.checkpoint import Stored
from sim.model.quant import weight_format
from sim.model.spec import ModelSpec
from sim.model.tensors import Tensor

_PREFIXES = (
    "model.", "language_model.model.", "model.language_model.", "language_model.", "", "backbone.", "transformer.", "thinker.model.",
    "llm.model.", "gpt_neox.", "model.language_model.model.", "model.decoder.", "thinker.", "transformer.encoder.", "model.model.",
)  # fmt: skip
_ANY = {"*", "Linear", "re:.*"}
_IN_LAYER = re.compile(r"(.*?)(?:layers|h)\.(\d+)\.(.+)")


class Matcher:
    """Whether modules of layers, or others, match one of some patterns."""

    def __init__(self, patterns: Iterable[str], field: str) -> None:
        self.all = False
        self.exact: set[str] = set()  # of modules anywhere, and of parts of their names
        self.layers: dict[int, tuple[set[str], list[str]]] = {}  # exact names and shell patterns inside one layer
        shell: list[str] = []
        self.starts: list[re.Pattern[str]] = []
        for p in patterns:
            inside = _IN_LAYER.fullmatch(p) if not p.startswith("re:") else None
            if p in _ANY:
                self.all = True
            elif p.startswith("re:"):
                self.starts.append(_compiled(p[3:], p, field))
            elif inside is not None and (inside[1] in _PREFIXES or set(inside[1]) & set("*?[")):
                names, globs = self.layers.setdefault(int(inside[2]), (set(), []))
                if set(inside[3]) & set("*?["):
                    globs.append(inside[3])
                else:
                    names.add(inside[3])
            elif any(ch in p for ch in "*?["):
                shell.append(fnmatch.translate(p))
            else:
                self.exact.add(p)
        self.shell = re.compile("|".join(shell)) if shell else None

    def __bool__(self) -> bool:
        return bool(self.all or self.exact or self.layers or self.shell or self.starts)

    def has(self, layer: int, module: str) -> bool:
        """Whether a module of a layer is meant (``self_attn.q_proj``)."""
        if self.all:
            return True
        parts = module.split(".")
        names, globs = self.layers.get(layer, (set(), []))
        if names and any(".".join(parts[:end]) in names for end in range(1, len(parts) + 1)):
            return True
        if any(fnmatch.fnmatchcase(module, g) for g in globs):
            return True
        if self.exact and any(
            ".".join(parts[i:j]) in self.exact for i in range(len(parts)) for j in range(i + 1, len(parts) + 1)
        ):
            return True
        return bool(self.shell or self.starts) and any(
            self._free(f"{prefix}{stack}.{layer}.{module}") for prefix in _PREFIXES for stack in ("layers", "h")
        )

    def names(self, module: str) -> bool:
        """Whether a module beside the layers is named (``lm_head``)."""
        return any(f"{prefix}{module}" in self.exact or self._free(f"{prefix}{module}") for prefix in _PREFIXES)

    def _free(self, name: str) -> bool:
        return (self.shell is not None and self.shell.match(name) is not None) or any(p.match(name) for p in self.starts)


def _compiled(pattern: str, whole: str, field: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as problem:
        raise ConfigError(field, whole, f"is no regular expression: {problem}") from None


def apply(spec: ModelSpec, held: Stored, field: str = "model.config.quantization_config") -> ModelSpec:
    """The model with every tensor in the format the checkpoint stores it in; ``weights`` names the format of most bytes."""
    if not held.weights or (not held.ignore and not held.groups):
        return spec
    ignored = Matcher(held.ignore, f"{field}.ignore")
    groups = [(Matcher(patterns, f"{field}.config_groups"), form) for patterns, form in held.groups]
    known: dict[tuple[Block, tuple[str, ...]], Block] = {}
    blocks, sizes = [], Counter[str]()
    for i, block in enumerate(spec.blocks):
        tensors = [t for t in block_tensors(block, spec.hidden) if t.modules]
        forms = tuple(_form(t, i, held, ignored, groups) for t in tensors)
        for t, form in zip(tensors, forms, strict=True):
            sizes[form] += t.elements
        key = (block, forms)
        if key not in known:
            known[key] = block._replace(formats=tuple(zip((t.name for t in tensors), forms, strict=True)))
        blocks.append(known[key])
    main = _main(spec, sizes)
    own = tuple(block._replace(formats=_differing(spec, block, main)) for block in blocks)
    ends = _ends(held, ignored, groups)
    if all(not b.formats for b in own):
        return replace(spec, weights=main, end_formats=ends)
    return replace(spec, weights=main, own_blocks=own, end_formats=ends)


def _form(tensor: Tensor, layer: int, held: Stored, ignored: Matcher, groups: list[tuple[Matcher, str]]) -> str:
    """The number format of a tensor; empty for 16 bits."""
    if tensor.role == quant.PLAIN:
        return ""
    if ignored and any(ignored.has(layer, module) for module in tensor.modules):
        return ""
    if not groups:
        return held.weights
    for matcher, form in groups:
        if any(matcher.has(layer, module) for module in tensor.modules):
            return form
    return ""


def _main(spec: ModelSpec, sizes: Counter[str]) -> str:
    """The format of most elements that are quantised."""
    quantised = [(n, form) for form, n in sizes.items() if form]
    if not quantised:
        return spec.dtype
    most = max(quantised)[1]
    return "int4-experts" if most == "int4-g32" and _experts_alone(spec, sizes, most) else most


def _experts_alone(spec: ModelSpec, sizes: Counter[str], form: str) -> bool:
    experts = sum(
        t.elements for b in spec.blocks for t in block_tensors(b, spec.hidden) if t.role in (quant.EXPERT, quant.EXPERT_DOWN)
    )
    return sizes[form] == experts


def _differing(spec: ModelSpec, block: Block, main: str) -> tuple[tuple[str, str], ...]:
    """The formats of a layer that are not those of ``main``, by what they weigh."""
    roles = {t.name: t.role for t in block_tensors(block, spec.hidden)}
    common = weight_format(main)
    out = []
    for tensor, form in block.formats:
        own = form or spec.dtype
        if own != main and weight_format(own).bytes_of(roles[tensor]) != common.bytes_of(roles[tensor]):
            out.append((tensor, own))
    return tuple(out)


def _ends(held: Stored, ignored: Matcher, groups: list[tuple[Matcher, str]]) -> tuple[tuple[str, str], ...]:
    """The head, where a group names it."""
    if ignored.names("lm_head"):
        return ()
    for matcher, form in groups:
        if not matcher.all and form and matcher.names("lm_head"):
            return (("lm_head", form),)
    return ()
