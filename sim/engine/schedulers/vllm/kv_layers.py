"""From a model's layers to KV groups: specs, page unification, grouping, bytes of a block.

*Source*: vLLM 0.33 ``model_executor/layers/attention/attention.py``, ``model_executor/layers/mamba``, ``platforms/interface.py``
(``_align_hybrid_block_size``), ``v1/core/kv_cache_planning.py``. Versions before 0.24 are taken to do the same with every window and state cached
(no retention interval) and without prefix caching where there are recurrent layers; from 0.10 on there are groups at all. These borders are
inferred from release notes and logs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, gcd
from typing import TYPE_CHECKING, NamedTuple

from sim.engine.contract import Site
from sim.engine.schedulers.vllm.kv_plan import Group, GroupPlan, hash_block_size
from sim.errors import ConfigError
from sim.model import load_model, quant
from sim.model.mixers import Attention
from sim.model.recurrent import Beside, DeltaNet, Kda, Mamba2
from sim.model.spec import ModelSpec

if TYPE_CHECKING:
    from sim.engine.schedulers.vllm.params import VllmParams
    from sim.model.mixers import Mixer

FIRST_GROUPS = 10
"""Minor version from which layers are managed in groups."""
_KERNEL_BLOCK = 16
_MLA_BLOCK = 128
_CONV_BYTES = 2
_DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


class Spec(NamedTuple):
    """What one layer keeps: of every token (``per_token`` bytes), or a state of ``page`` bytes."""

    kind: str
    window: int
    block_size: int
    per_token: float
    page: float
    draft: bool = False


@dataclass(frozen=True)
class KvLayout:
    """How a model's caches are laid out. ``plan`` None: one table per request, all layers as if they had full attention."""

    plan: GroupPlan | None
    block_size: int
    bytes_per_block: float
    notes: tuple[str, ...] = ()


def _state_element(model: ModelSpec, p: VllmParams) -> float:
    """Bytes of an element of a recurrence. ``auto``: as the config says (Qwen3.5, Nemotron-H), 32 bits (Kimi delta), else as the convolution."""
    if p.mamba_ssm_cache_dtype != "auto":
        return quant.kv_element_bytes(_DTYPES[p.mamba_ssm_cache_dtype])
    name = model.architecture.lower().replace("_", "")
    asked = name.startswith(("qwen35", "qwen36", "nemotronh")) or any(isinstance(b.mixer, Kda) for b in model.blocks)
    return quant.kv_element_bytes(model.state_dtype) if asked else _CONV_BYTES


def _state_bytes(mixer: Mixer, element: float, tp: int, drafts: int) -> float:
    """One layer's state of one sequence on one GPU; drafts lengthen the convolution."""
    conv, matrix = mixer.state()
    kernel = max(getattr(getattr(mixer, "mamba", mixer), "conv", 2) - 1, 1)
    return (conv * _CONV_BYTES * (kernel + drafts) / kernel + matrix * element) / tp


def _drafts(p: VllmParams) -> int:
    return p.speculative_config.num_speculative_tokens if p.speculative_config is not None else 0


def _specs_of(model: ModelSpec, p: VllmParams, tp: int, draft: bool = False) -> list[list[Spec]]:
    """Specs of every layer, block sizes not yet known."""
    element, out = _state_element(model, p), []
    for block in model.blocks:
        mixer, found = block.mixer, []
        if mixer is not None:
            if any(mixer.state()):
                found.append(Spec("linear", 0, 0, 0.0, _state_bytes(mixer, element, tp, _drafts(p)), draft))
            found += [Spec(k.kind, k.window, 0, k.bytes_per_token, 0.0, draft) for k in mixer.kept(tp, model.kv_element_bytes)]
        out.append(found)
    return out


def _draft_specs(model: ModelSpec, p: VllmParams, tp: int) -> list[Spec]:
    """Layers of the drafting model, on the last stage: one with full attention of the target's heads, or those of a draft model."""
    s = p.speculative_config
    if s is None or s.method == "ngram":
        return []
    if s.model is not None:
        return [spec for layer in _specs_of(load_model(s.model), p, tp, True) for spec in layer]
    full = next((x for layer in _specs_of(model, p, tp) for x in layer if x.kind == "full"), None)
    return [full._replace(draft=True)] if full is not None else []


def _aligned(specs: list[Spec], p: VllmParams, mla: bool) -> int:
    """Block size of a model with recurrent layers: one attention page is at least one state."""
    state = max(s.page for s in specs if s.kind == "linear")
    attention = [s.per_token for s in specs if s.kind != "linear"]
    if not attention:
        return int(p.block_size)
    unit = max(_MLA_BLOCK if mla else _KERNEL_BLOCK, p.block_size)
    return int(unit * ceil(state / (unit * max(attention))))


def _sized(specs: list[Spec], p: VllmParams, block: int) -> list[Spec]:
    """Block sizes and pages, unified to the largest page."""
    full = [s.per_token for s in specs if s.kind == "full"]
    out = []
    for s in specs:
        size = block
        if s.kind == "linear":
            size = block if p.enable_prefix_caching else p.max_model_len
        elif s.kind == "sliding" and full and s.per_token != full[0]:
            size = max(int(block * full[0] / s.per_token) // _KERNEL_BLOCK, 1) * _KERNEL_BLOCK
        out.append(s._replace(block_size=size, page=s.page if s.kind == "linear" else size * s.per_token))
    if len({(s.kind, s.window, s.block_size) for s in out}) == 1 and out[0].kind != "linear":
        return out  # of one type: each layer has pages of its own
    largest = max(s.page for s in out)
    unified = []
    for s in out:
        times = largest / s.page
        if s.kind != "linear" and times.is_integer():
            s = s._replace(block_size=s.block_size * int(times))
        unified.append(s._replace(page=largest))
    return unified


def _formed(layers: list[tuple[int, Spec]]) -> list[list[tuple[int, Spec]]]:
    """Groups of (stage, spec) in the order of their ids."""
    buckets: dict[Spec, list[tuple[int, Spec]]] = {}
    for stage, spec in layers:
        buckets.setdefault(spec._replace(draft=False), []).append((stage, spec))
    if len({(s.kind, s.window, s.block_size) for s in buckets}) == 1:
        return [layers]
    counts = [len(b) for b in buckets.values()]
    size = max(counts) if max(counts) < 1.5 * min(counts) else min(counts)
    groups = []
    for bucket in buckets.values():
        n = ceil(len(bucket) / size)
        groups += [bucket[i::n] for i in range(n)]
    return groups


def _off(model: ModelSpec, p: VllmParams) -> str:
    """Why windows and chunks are cached as full attention; empty where they are not."""
    if p.disable_hybrid_kv_cache_manager:
        return "disable_hybrid_kv_cache_manager"
    if "chunked" in model.kinds:
        if not p.VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE:
            return "chunked attention, as by default"
        s = p.speculative_config
        if s is not None and s.num_speculative_tokens and s.method in ("eagle", "eagle3", "mtp"):
            return "chunked attention with drafts"
    return ""


def _understood(model: ModelSpec) -> bool:
    """Whether each layer keeps keys and values of one kind, or a state: models with a grouping of their own are not understood."""
    known = all(b.mixer is None or isinstance(b.mixer, Attention | Beside) or b.kind in ("linear", "full") for b in model.blocks)
    return known and all(
        len(layer) <= 1 or isinstance(b.mixer, Beside) for b, layer in zip(model.blocks, model.layer_kept(), strict=True)
    )


def kv_layout(p: VllmParams, site: Site) -> KvLayout | None:
    """The layout of a model some of whose layers forget; None for others, and where it is not known. Raises `ConfigError`."""
    model = site.model
    if not isinstance(model, ModelSpec) or not model.is_hybrid:
        return None
    told = (
        p if p.hf_overrides is None else p.model_copy(update={"hf_overrides": None})
    )  # the model heeds it; a mapping has no hash
    return _layout(told, model, site.tp, site.pp)


@lru_cache(maxsize=64)
def _layout(p: VllmParams, model: ModelSpec, tp: int, pp: int) -> KvLayout | None:
    """Once for all replicas of a pool."""
    if not _understood(model):
        return None
    recurrent = "linear" in model.kinds
    if p.minor < FIRST_GROUPS and recurrent:
        return None
    layers = _specs_of(model, p, tp)
    stages = [s for s, (first, last) in enumerate(model.stages(pp)) for _ in range(last - first)]
    placed = [(stage, spec) for stage, found in zip(stages, layers, strict=True) for spec in found]
    placed += [(pp - 1, spec) for spec in _draft_specs(model, p, tp)]
    off = _off(model, p) if p.minor >= FIRST_GROUPS else "before 0.10"
    if off:
        if p.disable_hybrid_kv_cache_manager and recurrent:
            raise ConfigError(
                "engine.disable_hybrid_kv_cache_manager", True, "recurrent layers cannot be cached as attention", "false"
            )
        placed = [(stage, s._replace(kind="full" if s.kind != "linear" else s.kind, window=0)) for stage, s in placed]
    specs = [s for _, s in placed]
    block = _aligned(specs, p, model.is_mla) if recurrent else p.block_size
    sized = _sized(specs, p, block)
    groups = _formed([(stage, s) for (stage, _), s in zip(placed, sized, strict=True)])
    per_block = max(sum(s.page for stage, s in g if stage == k) for k in range(pp) for g in groups)
    if len(groups) == 1 and groups[0][0][1].kind == "full":
        return KvLayout(None, sized[0].block_size, per_block)
    made = tuple(
        Group(g[0][1].kind, len(g), g[0][1].block_size, g[0][1].page, g[0][1].window, any(s.draft for _, s in g)) for g in groups
    )
    chunk = max((s.window for s in specs if s.kind == "chunked"), default=0)
    plan = GroupPlan(made, 0, chunk=chunk, checkpoint=_checkpoint(model, p))
    return KvLayout(_hashed(plan, p, recurrent), plan.least, per_block, _notes(model, p, recurrent))


_OF_GROUPS = (
    "prefix_cache_retention_interval",
    "prefix_match_unit",
    "disable_hybrid_kv_cache_manager",
    "VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE",
    "mamba_ssm_cache_dtype",
)


def refuse_idle(p: VllmParams, site: Site, layout: KvLayout | None) -> None:
    """Raise `ConfigError` for settings of KV groups that change nothing where there are none."""
    kinds = getattr(site.model, "kinds", ())
    for name in _OF_GROUPS:
        info = type(p).model_fields.get(name)
        value = getattr(p, name, None)
        if info is None or value in (None, info.default):
            continue
        needed = {"mamba_ssm_cache_dtype": "linear", "prefix_match_unit": "linear"}.get(name)
        chunked = name.startswith("VLLM_ALLOW_CHUNKED")
        if layout is None or (needed is not None and needed not in kinds) or (chunked and "chunked" not in kinds):
            raise ConfigError(
                f"engine.{name}", value, f"changes nothing for {getattr(site.model, 'name', 'this model')} here: no KV groups of that kind", str(info.default)
            )  # fmt: skip


def _checkpoint(model: ModelSpec, p: VllmParams) -> int:
    """Mamba-2 layers export states from inside a chunk, anywhere."""
    mixers = [getattr(b.mixer, "mamba", b.mixer) for b in model.blocks if b.kind == "linear" or isinstance(b.mixer, Beside)]
    return 1 if p.enable_prefix_caching and p.minor >= 24 and mixers and all(isinstance(m, Mamba2) for m in mixers) else 0


def _hashed(plan: GroupPlan, p: VllmParams, recurrent: bool) -> GroupPlan:
    """With the unit of the hash chain. Raises `ConfigError` for intervals and units that vLLM refuses."""
    unit, interval = p.prefix_match_unit, p.prefix_cache_retention_interval
    if interval and interval % plan.grid:
        raise ConfigError(
            "engine.prefix_cache_retention_interval", interval, "must be a multiple of the scheduler's block size", f"0, {plan.grid}, {2 * plan.grid}, …, null"
        )  # fmt: skip
    if unit is not None:
        if any(g.block_size % unit for g in plan.groups):
            raise ConfigError(
                "engine.prefix_match_unit",
                unit,
                "must divide the block size of every group",
                str(gcd(*(g.block_size for g in plan.groups))),
            )
        if unit < plan.least and any(g.kind not in ("full", "linear") for g in plan.groups):
            raise ConfigError(
                "engine.prefix_match_unit", unit, "hits inside blocks go with full attention and recurrent layers only", "null"
            )
    states = recurrent and p.enable_prefix_caching
    return replace(
        plan, hash_block_size=hash_block_size(plan.groups, unit, p.enable_prefix_caching, states), fine=unit is not None
    )


def _notes(model: ModelSpec, p: VllmParams, recurrent: bool) -> tuple[str, ...]:
    """What of the caches is approximated."""
    notes = []
    if p.minor < 24:
        notes.append(
            f"KV groups of {model.name}: those of vLLM 0.33, with every window and state cached as before the retention interval; "
            f"what {p.version} did otherwise is not known"
        )
    if recurrent and p.enable_prefix_caching and any(isinstance(b.mixer, DeltaNet) for b in model.blocks):
        notes.append(
            f"recurrent layers of {model.name} are taken to export no states from inside a chunk, as with the default kernels: "
            "FlashInfer's save the extra step at the end of a prompt"
        )
    if p.kv_transfer_config is not None:
        notes.append(f"transfers of {model.name} count every token in every layer: windows and states would send less")
    return tuple(notes)
