"""Settings of ``llama-server``, spelled as in ``common_params``, and the defaults it takes by model and hardware."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field

from sim.cost.memory_rules import LlamaCppRule
from sim.cost.placement import Placement
from sim.engine.contract import EngineParams, Site
from sim.engine.effect import inert
from sim.engine.releases import refuse_release
from sim.engine.schedulers.llamacpp.fit import fit_context, place
from sim.errors import ConfigError, NotModelledError
from sim.model.quant import EXPERT, GGUF_FORMATS, MLP, WEIGHT_FORMATS

if TYPE_CHECKING:
    from sim.model.spec import ModelSpec

_FIELD = "deployment.engine"
BUILD = "0c1e570"
PAD = 256  # contexts are rounded up to a multiple of this


class LlamaCppParams(EngineParams):
    """Settings of the llama.cpp server; the long option is in each description."""

    version: str = Field(
        BUILD,
        pattern=r"^[0-9a-z._-]{1,40}$",
        description="Build or commit; one is modelled. Defaults of others differ (slots, prompt cache in RAM, context shift).",
        json_schema_extra=inert("one build is modelled"),
    )
    n_parallel: int = Field(-1, ge=-1, le=256, description="Slots (--parallel); -1: four, with a unified KV cache.")
    n_ctx: int = Field(0, ge=0, description="Context of all slots together (--ctx-size); 0: the model's, less what does not fit.")
    n_batch: int = Field(2048, ge=1, description="Most tokens of one step (--batch-size).")
    n_ubatch: int = Field(512, ge=1, description="Tokens computed at once (--ubatch-size): sizes the compute buffer.")
    kv_unified: bool | None = Field(None, description="Slots share one KV cache (--kv-unified); by default with automatic slots.")
    ctx_shift: bool = Field(False, description="Drop the older half of a full context instead of ending (--context-shift).")
    n_keep: int = Field(0, ge=-1, description="Tokens that a context shift keeps (--keep); -1: the prompt.")
    n_discard: int = Field(0, ge=0, description="Tokens that a context shift drops; 0: half.")
    slot_prompt_similarity: float = Field(
        0.1, ge=0, le=1, description="Share of the prompt that a slot must hold to be chosen for it (--slot-prompt-similarity)."
    )
    cache_prompt: bool = Field(True, description="Reuse what the slot holds (--cache-prompt).")
    cache_ram_mib: int = Field(8192, ge=-1, description="Prompt cache in RAM in MiB (--cache-ram); 0: none, -1: by tokens.")
    cache_idle_slots: bool = Field(True, description="Save idle slots to the prompt cache at each launch (--cache-idle-slots).")
    n_cache_reuse: int = Field(0, ge=0, description="Chunk size for reuse by shifting (--cache-reuse); only 0 is modelled.")
    swa_full: bool = Field(
        False, description="Full-size cache for sliding-window layers (--swa-full), so that any prefix is reusable."
    )
    n_ctx_checkpoints: int = Field(
        32, ge=0, le=1024, description="Copies of window or recurrent state that a slot keeps (--ctx-checkpoints)."
    )
    cont_batching: bool = Field(True, description="Prompts join running batches (--cont-batching); only true is modelled.")
    n_gpu_layers: int = Field(
        -1, ge=-1, description="Layers on the accelerator, the output counted (--n-gpu-layers); -1: as many as fit."
    )
    n_cpu_moe: int = Field(0, ge=0, description="Layers, from the first, whose experts stay on the CPU (--n-cpu-moe).")
    op_offload: bool = Field(
        True, description="Large batches of layers on the CPU are computed on the accelerator (--op-offload)."
    )
    host: str = Field("cpu-desktop", description="Processor of the machine (no setting of llama.cpp): an accelerator profile.")
    n_predict: int = Field(
        -1, ge=-1, description="Most tokens to generate (--predict); -1: the client's limit. Only -1 is modelled."
    )

    @property
    def slot_ctx(self) -> int:
        """Context of one slot, before the cap at the model's own; only meaningful once resolved."""
        if self.kv_unified:
            return self.n_ctx
        return -(-(self.n_ctx // self.n_parallel) // PAD) * PAD


def resolve_params(p: LlamaCppParams, site: Site) -> LlamaCppParams:
    """``server.cpp`` (automatic slots), ``llama_context`` (padding) and ``common/fit.cpp``. Raises ConfigError."""
    _check(p, site)
    changes: dict[str, object] = {}
    auto = p.n_parallel < 1
    changes["n_parallel"] = slots = 4 if auto else p.n_parallel
    changes["kv_unified"] = unified = auto if p.kv_unified is None else p.kv_unified
    n_ctx = p.n_ctx
    if n_ctx == 0:
        if site.model is None:
            raise ConfigError(f"{_FIELD}.n_ctx", 0, "needs a model to take its context from", "1 or more")
        n_ctx = fit_context(site, LlamaCppRule(PAD, p.n_ubatch, slots, unified))
    n_ctx = -(-n_ctx // PAD) * PAD
    changes["n_ctx"] = n_ctx
    changes["n_batch"] = min(p.n_batch, n_ctx)
    changes["n_ubatch"] = min(p.n_ubatch, p.n_batch)
    resolved = p.model_copy(update=changes)
    if not unified:
        resolved = resolved.model_copy(update={"n_ctx": resolved.slot_ctx * slots})
    placement(resolved, site)
    return resolved


def memory_rule(p: LlamaCppParams) -> LlamaCppRule:
    """The memory rule of resolved settings, everything on the cards."""
    return LlamaCppRule(p.n_ctx, p.n_ubatch, p.n_parallel, bool(p.kv_unified))


def placement(p: LlamaCppParams, site: Site) -> Placement | None:
    """Where the layers are; None without a card. Raises ConfigError where they go nowhere."""
    if site.model is None or site.accelerator is None or site.accelerator.is_cpu:
        return None
    found = place(site, memory_rule(p), p.n_gpu_layers, p.n_cpu_moe, p.host, _FIELD, ("n_gpu_layers", "n_ctx"))
    return found if p.op_offload else replace(found, op_offload=False)


def _check(p: LlamaCppParams, site: Site) -> None:
    if p.version != BUILD:
        refuse_release(p.version, f"{BUILD} (as in llama-cpp-python 0.3.36); others by setting what they set by default")
    for name in ("pp", "dp", "ep"):
        if getattr(site, name) > 1:
            raise NotModelledError(
                f"deployment.{name}", getattr(site, name), "llama.cpp splits one model over the cards of one host", "1"
            )
    if p.n_cache_reuse:
        raise NotModelledError(f"{_FIELD}.n_cache_reuse", p.n_cache_reuse, "reuse of shifted chunks is not modelled", "0")
    if not p.cont_batching:
        raise NotModelledError(f"{_FIELD}.cont_batching", False, "batches that wait for each other are not modelled", "true")
    if p.n_predict != -1:
        raise NotModelledError(f"{_FIELD}.n_predict", p.n_predict, "the limit is the traffic's", "-1")
    check_weights(site.model)
    check_windows(site.model, p.swa_full)


def check_weights(model: ModelSpec | None) -> None:
    """Raise `ConfigError` for weights that no GGUF file holds; of the formats it may hold the one of the nearest size is named."""
    if model is None or model.format.name in GGUF_FORMATS:
        return
    here = model.format.bytes_of(EXPERT if model.is_moe else MLP)
    small = [WEIGHT_FORMATS[name] for name in ("q4_k_m", *GGUF_FORMATS) if WEIGHT_FORMATS[name].compute == "int8"]
    nearest = min(small, key=lambda f: abs(f.bytes_of(MLP) - here))
    raise ConfigError(
        "model.weights",
        model.format.name,
        "llama.cpp, and Ollama with it, reads GGUF files, which hold no such weights",
        ", ".join(GGUF_FORMATS),
        f"the nearest in size is {nearest.name}",
    )


WINDOWED = ("gemma2", "gemma3", "gemma4", "gptoss", "cohere2", "exaone4", "olmo3")
"""Beginnings of the model types whose windows llama.cpp knows (``set_swa_pattern``); it computes full attention for the others."""


def check_windows(model: ModelSpec | None, swa_full: bool = False) -> None:
    """Raise `NotModelledError` for windows that llama.cpp treats in another way than is modelled."""
    if model is None or not {"sliding", "chunked"} & set(model.kinds):
        return
    if "linear" in model.kinds:
        raise NotModelledError("model", model.name, "windows beside recurrent layers are not modelled here", "one of them")
    if "chunked" in model.kinds:
        raise NotModelledError(
            "model", model.name, "caches of chunked attention are not modelled here", "full or sliding windows"
        )
    if not model.architecture.lower().replace("_", "").replace("-", "").startswith(WINDOWED):
        raise NotModelledError(
            "model",
            model.name,
            "llama.cpp gives this model no windows",
            ", ".join(WINDOWED),
            "a config.json without sliding_window",
        )
    if swa_full:
        raise NotModelledError(
            f"{_FIELD}.swa_full", True, "attention over full-size caches of windowed layers is not modelled", "false"
        )
