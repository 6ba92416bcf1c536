"""Which pools an SGLang server keeps for a model, and how large they are.

Models of listed architectures have a pool for their window layers, models with recurrent layers one of slots for states; for all others every
layer keeps every token, whatever it attends to. *Source*: SGLang 0.5.23 ``configs/model_config.py: is_hybrid_swa_model``,
``arg_groups/model_overrides`` (Gemma-2 and -3, EXAONE-4, OLMo-2 force one pool), ``arg_groups/overrides.py: _mamba_radix_cache_resolution``,
``model_executor/pool_configurator.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm
from typing import TYPE_CHECKING

from sim.cost.sglang_pools import Keeps
from sim.engine.contract import Site
from sim.engine.schedulers.sglang.state import PLAIN, STATES, WINDOW
from sim.errors import ConfigError, NotModelledError
from sim.model.spec import ModelSpec

if TYPE_CHECKING:
    from sim.engine.schedulers.sglang.params import SglangParams

_WINDOWED = ("llama4", "gptoss", "mimov2", "step3p5", "gemma4", "laguna", "mellum", "museglimmer", "inkling")
_TRACKS = (
    "qwen3next",
    "qwen35",
    "qwen36",
    "interns2preview",
    "minicpmv46",
    "bailingmoev25",
    "falconh1",
    "granitemoehybrid",
    "nemotronh",
)
_GRID = 64  # FLA_CHUNK_SIZE
_MAMBA2_GRID = (("nemotronh", 128), ("falconh1", 256), ("granitemoehybrid", 256))  # mamba_chunk_size of the checkpoints


@dataclass(frozen=True)
class Second:
    """A pool beside that of full KV: ``size`` in tokens or states, ``tracking`` slots of a request, tracked every so many tokens."""

    kind: int
    size: int
    window: int = 0
    grid: int = 1
    tracking: int = 0
    every: int = 0
    lazy: bool = False


def _named(model: ModelSpec, names: tuple[str, ...]) -> bool:
    return model.architecture.lower().replace("_", "").replace(".", "").startswith(names)


def unmodelled(params: SglangParams, model: ModelSpec) -> str:
    """Why the pools of such a model are approximated under these settings; empty: they are not."""
    if params.speculative_algorithm is not None:
        return "speculative decoding"
    if params._role:
        return "prefill and decode sides"
    return "DeepSeek V4's own pools" if _named(model, ("deepseekv4",)) else ""


def kind_of(params: SglangParams, model: ModelSpec | None) -> int:
    """What there is beside the pool of full KV."""
    if not isinstance(model, ModelSpec) or unmodelled(params, model):
        return PLAIN
    if "linear" in model.kinds:
        return STATES
    windowed = {"sliding", "chunked"} & set(model.kinds) and "full" in model.kinds
    return WINDOW if windowed and not params.disable_hybrid_swa_memory and _named(model, _WINDOWED) else PLAIN


def kept(params: SglangParams, model: ModelSpec) -> tuple[str, ...]:
    """Kinds of layer that forget whose memory is managed as the engine does it."""
    return () if unmodelled(params, model) else ("sliding", "chunked", "linear")


def keeps(params: SglangParams, model: ModelSpec) -> Keeps:
    """What the memory is divided into (`sim.cost.sglang_pools`)."""
    if unmodelled(params, model):
        return "mean"
    return {WINDOW: "window", STATES: "states"}.get(kind_of(params, model), "all")


def window_of(model: ModelSpec) -> int:
    """Tokens a window pool keeps for a sequence: SGLang's windows do not count the token itself; Llama 4 keeps a chunk."""
    return model.window if "chunked" in model.kinds else model.window - 1


def with_strategy(params: SglangParams, model: ModelSpec | None) -> dict[str, object]:
    """What ``auto`` for the states in the cache becomes, and what follows from it. Raises ConfigError, NotModelledError."""
    if model is None or kind_of(params, model) != STATES or params.disable_radix_cache:
        return {}
    field, wanted = "engine.mamba_radix_cache_strategy", params.mamba_radix_cache_strategy
    tracks = _named(model, _TRACKS) and params.linear_attn_backend == "triton"
    if wanted == "auto":
        overlap, paged = not params.disable_overlap_schedule, params.page_size > 1
        wanted = "extra_buffer" if (overlap or paged) and tracks else "no_buffer"
    elif wanted != "no_buffer" and not tracks:
        raise ConfigError(
            field, wanted, f"SGLang does not support it for {model.name} with {params.linear_attn_backend}", "no_buffer"
        )
    if wanted == "extra_buffer_lazy" and params.disable_overlap_schedule:
        raise ConfigError(field, wanted, "needs the overlap schedule", "extra_buffer")
    if wanted == "no_buffer":
        if params.page_size > 1:
            raise ConfigError("engine.page_size", params.page_size, f"the states of {model.name} need pages of one token", "1")
        return {"mamba_radix_cache_strategy": wanted, "disable_overlap_schedule": True}
    if params.enable_mixed_chunk:
        raise NotModelledError(
            "engine.enable_mixed_chunk", True, "tracked states in mixed batches are not modelled", "false, or mamba_radix_cache_strategy no_buffer"
        )  # fmt: skip
    return {"mamba_radix_cache_strategy": wanted}


def slots_of_request(params: SglangParams) -> int:
    """Slots that a running request may need: its own, those that track, and states it keeps others from evicting."""
    if params.disable_radix_cache:
        return 1
    if params.mamba_radix_cache_strategy == "no_buffer":
        return 3
    return 5 if params.mamba_radix_cache_strategy == "extra_buffer" and not params.disable_overlap_schedule else 4


def second_pool(params: SglangParams, site: Site, tokens: int) -> Second | None:
    """The pool beside ``tokens`` of full KV; None: there is none. Sizes as the memory budget has them. Raises ConfigError."""
    model, page, extra = site.model, params.page_size, site.extra
    kind = kind_of(params, model)
    if "swa" in extra or kind == WINDOW:
        given = extra.get("swa")
        window = given["window"] if given else window_of(model)
        size = int(given["swa_tokens"] if given else tokens * params.swa_full_tokens_ratio) // page * page
        if window + page >= size:
            raise ConfigError(
                "engine.swa_full_tokens_ratio", params.swa_full_tokens_ratio,
                f"leaves {size} tokens for window layers, and a window and a page are {window + page}", "a larger ratio or more memory",
            )  # fmt: skip
        return Second(WINDOW, size, window)
    if "mamba" not in extra and kind != STATES:
        return None
    slots = (
        extra["mamba"]["slots"]
        if "mamba" in extra
        else extra.get("pools", {}).get("recurrent states", params.max_mamba_cache_size)
    )
    if slots is None:
        raise ConfigError(
            "engine.max_mamba_cache_size", None, "is needed where there is no memory budget to derive it from", "a number"
        )
    strategy = "no_buffer" if params.disable_radix_cache else params.mamba_radix_cache_strategy
    grid = max(_GRID if model is None else grid_of(model), page)
    grid = lcm(grid, page)
    if strategy in ("no_buffer", "auto"):
        return Second(STATES, slots, 0, grid)
    lazy = strategy == "extra_buffer_lazy"
    every = lcm(grid, params.mamba_track_interval)
    return Second(STATES, slots, 0, grid, 1 if lazy or params.disable_overlap_schedule else 2, every, lazy)


def grid_of(model: ModelSpec) -> int:
    """Tokens between two lengths at which a prompt's state can be kept."""
    return next((grid for name, grid in _MAMBA2_GRID if _named(model, (name,))), _GRID)
