"""Settings of Ollama: environment variables and model options as Ollama spells them, and the defaults it takes by memory."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sim.cost.engine_figures import version_of
from sim.cost.memory_rules import LlamaCppRule
from sim.cost.placement import Placement
from sim.engine.contract import EngineParams, Site
from sim.engine.releases import refuse_release
from sim.engine.schedulers.llamacpp.fit import on_host, place
from sim.engine.schedulers.llamacpp.params import PAD, LlamaCppParams, check_weights, check_windows
from sim.engine.schedulers.ollama.context import ONE_SLOT_FAMILIES, default_num_ctx
from sim.engine.schedulers.ollama.layout import Shard, create_layout, reserve
from sim.engine.schedulers.ollama.placement import FlashAttention, Gpu, automatic_batch, predicted_vram
from sim.errors import ConfigError, NotModelledError
from sim.units import Bytes, Seconds

_FIELD = "deployment.engine"
OWN_RUNNERS, OLDEST, NEWEST = (0, 24), (0, 30), (0, 33)
Runner = Literal["llama-server", "ollamarunner", "llamarunner"]


class OllamaParams(EngineParams):
    """Settings of Ollama. ``runner`` chooses the generation: llama-server since 0.30, Ollama's own runners up to 0.24."""

    version: str | None = Field(
        None,
        pattern=r"^\d+\.\d+(\.\d+)?$",
        description="Release, 0.30 to 0.33 (llama-server) or 0.24 (Ollama's own runners); by default the one that goes with runner.",
    )
    runner: Runner = Field(
        "llama-server", description="What serves the model: llama-server (0.30 on), ollamarunner, llamarunner (to 0.24)."
    )
    OLLAMA_NUM_PARALLEL: int = Field(1, ge=1, le=256, description="Requests a model serves at once; others wait, without limit.")
    OLLAMA_MAX_QUEUE: int = Field(
        512, ge=1, description="Requests that may wait for a model to be loaded; more are answered 503."
    )
    OLLAMA_MAX_LOADED_MODELS: int = Field(0, ge=0, description="Models loaded at once; 0: three per GPU.")
    OLLAMA_KEEP_ALIVE: Seconds = Field(300.0, description="How long an idle model stays loaded; 0: not at all.")
    OLLAMA_GPU_OVERHEAD: int = Field(0, ge=0, description="Bytes of every GPU that stay free.")
    OLLAMA_CONTEXT_LENGTH: int = Field(0, ge=0, description="Context of a request; 0: by the memory of all GPUs.")
    OLLAMA_FLASH_ATTENTION: bool | None = Field(
        None, description="Flash attention; by default where the model and all GPUs have it."
    )
    OLLAMA_MULTIUSER_CACHE: bool = Field(False, description="Own runners: copy a common prefix rather than take over its slot.")
    OLLAMA_KV_CACHE_TYPE: str | None = Field(None, description="Set `model.kv_cache` instead.")
    load_bandwidth: Bytes = Field(
        3e9,
        gt=0,
        description="Bytes per second at which a model is loaded (no setting of Ollama): disk or page cache of the host.",
    )
    num_ctx: int | None = Field(None, ge=4, description="Context of a request (model option); default OLLAMA_CONTEXT_LENGTH.")
    num_batch: int | None = Field(
        None, ge=1, description="Tokens of one step (model option); by default from context and memory."
    )
    num_keep: int = Field(4, ge=-1, description="Tokens that a context shift keeps beside the first; -1: the prompt.")
    num_gpu: int = Field(-1, ge=-1, description="Layers on the GPU, the output counted; -1: as many as fit.")
    host: str = Field("cpu-desktop", description="Processor of the machine (no setting of Ollama): an accelerator profile.")
    context_shift: bool = Field(True, description="Drop the older half of a full context instead of ending.")
    truncate: bool = Field(True, description="Shorten prompts beyond the context; otherwise they are answered 400.")

    @property
    def slot_ctx(self) -> int:
        """Tokens of one slot, only meaningful once resolved."""
        ctx = self.num_ctx or 4096
        return -(-ctx // PAD) * PAD if self.runner == "llama-server" else ctx

    @property
    def n_ctx(self) -> int:
        """Tokens of the KV cache."""
        return self.slot_ctx * self.OLLAMA_NUM_PARALLEL

    @property
    def n_ubatch(self) -> int:
        """Tokens that the compute buffer is made for."""
        return self.num_batch or 512

    def server(self) -> LlamaCppParams:
        """The command line that Ollama starts llama-server with (``startLlamaServer``). Only for resolved settings."""
        return LlamaCppParams(
            n_parallel=self.OLLAMA_NUM_PARALLEL,
            n_ctx=self.n_ctx,
            n_batch=self.n_ubatch,
            n_ubatch=self.n_ubatch,
            kv_unified=False,
            ctx_shift=self.context_shift,
            n_keep=self.num_keep,
        )


def resolve_params(p: OllamaParams, site: Site) -> OllamaParams:
    """``routes.go`` (context), ``sched.go`` (slots, batch). Raises ConfigError."""
    p = _of_release(p)
    _check(p, site)
    changes: dict[str, object] = {}
    model, accelerator = site.model, site.accelerator
    slots = p.OLLAMA_NUM_PARALLEL
    if model is not None and model.architecture.lower().replace("_", "").startswith(_ONE_SLOT):
        changes["OLLAMA_NUM_PARALLEL"] = slots = 1
    vram = site.tp * (accelerator.memory_bytes - p.OLLAMA_GPU_OVERHEAD) if accelerator is not None else 0.0
    ctx = p.num_ctx or p.OLLAMA_CONTEXT_LENGTH or default_num_ctx(vram)
    if model is not None:
        ctx = min(ctx, model.max_position)
        if model.vision_params:
            ctx = max(ctx, 2048)
    changes["num_ctx"] = ctx = max(ctx, 4)
    if p.num_batch is None:
        changes["num_batch"] = _batch(p, site, ctx, slots, vram)
    elif p.runner != "llama-server":
        changes["num_batch"] = min(p.num_batch, ctx)
    resolved = p.model_copy(update=changes)
    placement(resolved, site)
    return resolved


def _of_release(p: OllamaParams) -> OllamaParams:
    """The runner of the release. Raises ConfigError for one that it does not have, NotModelledError for other releases."""
    if p.version is None:
        return p
    release = version_of(p.version)[:2]
    if release != OWN_RUNNERS and not OLDEST <= release <= NEWEST:
        refuse_release(p.version, "0.24, 0.30 to 0.33; before 0.24 defaults differ (context, slots): set them with version 0.24")
    own = release == OWN_RUNNERS
    if "runner" not in p.model_fields_set:
        return p.model_copy(update={"runner": "ollamarunner" if own else "llama-server"})
    if (p.runner != "llama-server") is not own:
        has = "ollamarunner, llamarunner" if own else "llama-server"
        raise ConfigError(f"{_FIELD}.runner", p.runner, f"is not what release {p.version} has", has)
    return p


_ONE_SLOT = tuple(sorted(name.replace("_", "") for name in ONE_SLOT_FAMILIES))


def _batch(p: OllamaParams, site: Site, ctx: int, slots: int, vram: float) -> int:
    if p.runner != "llama-server":
        return min(512, ctx)
    model, accelerator = site.model, site.accelerator
    if model is None or accelerator is None:
        return automatic_batch(ctx, 0, 0)
    flash: FlashAttention = "auto" if p.OLLAMA_FLASH_ATTENTION is None else "enabled" if p.OLLAMA_FLASH_ATTENTION else "disabled"
    kv_heads, head_dim = model.kv_heads, model.hidden // max(model.heads, 1)
    predicted = predicted_vram(int(model.weight_bytes()), model.layers, kv_heads, head_dim, ctx, slots, model.max_position)
    cuda = int(accelerator.memory_bytes) if accelerator.vendor == "nvidia" else None
    return automatic_batch(ctx, predicted, int(vram), flash, cuda)


def memory_rule(p: OllamaParams) -> LlamaCppRule:
    """The memory rule of resolved settings, everything on the cards."""
    return LlamaCppRule(p.n_ctx, p.n_ubatch, p.OLLAMA_NUM_PARALLEL)


def placement(p: OllamaParams, site: Site) -> Placement | None:
    """Where the layers are; None without a card. From 0.30 as llama.cpp fits them, before that by `layout.create_layout`."""
    if site.model is None or site.accelerator is None or site.accelerator.is_cpu:
        return None
    rule, names = memory_rule(p), ("num_gpu", "num_ctx")
    if p.runner == "llama-server":
        return place(site, rule, p.num_gpu, 0, p.host, _FIELD, names)
    sizes = rule.sizes(site.model)
    if p.num_gpu > 0:  # forced: more than fits is allocated, and fails
        place(site, rule, p.num_gpu, 0, p.host, _FIELD, names)
    on = {i for shard in classic_layout(p, site, int(site.accelerator.memory_bytes), False) for i in shard.layers}
    n = site.model.layers
    found = Placement(None, n - sum(i < n for i in on), 0, n not in on)
    return on_host(site, sizes, found, p.host, p.n_ubatch, _FIELD, names, op_offload=bool(on))


def classic_layout(p: OllamaParams, site: Site, free: int, require_full: bool) -> tuple[Shard, ...]:
    """Ollama to 0.24: layers on the cards with ``free`` bytes each. Raises `LoadRequiredFullError`."""
    m, sizes = site.spec, memory_rule(p).sizes(site.spec)
    layers = [int(w + e + kv) for w, e, kv in zip(sizes.layers, sizes.experts, sizes.kv, strict=True)]
    # GraphSize of llama models, of which llamarunner makes its estimate; ollamarunner allocates and tries again
    graph = 4 * p.n_ubatch * max(1 + 4 * m.hidden + p.n_ctx * (1 + m.heads), m.hidden + m.vocab)
    spare = max(layers) if p.runner == "llamarunner" else 0
    metal = site.card.vendor == "apple"
    gpus = [reserve(Gpu(str(i), free), graph + spare, p.OLLAMA_GPU_OVERHEAD, metal=metal) for i in range(site.tp)]
    return create_layout([*layers, int(sizes.head)], gpus, p.num_gpu, require_full, 1 << 62)


def _check(p: OllamaParams, site: Site) -> None:
    for name in ("pp", "dp", "ep"):
        if getattr(site, name) > 1:
            raise NotModelledError(
                f"deployment.{name}", getattr(site, name), "Ollama splits one model over the cards of one host", "1"
            )
    if p.OLLAMA_KV_CACHE_TYPE is not None:
        raise ConfigError(
            f"{_FIELD}.OLLAMA_KV_CACHE_TYPE",
            p.OLLAMA_KV_CACHE_TYPE,
            "is a property of the model here",
            "null",
            "set model.kv_cache",
        )
    if p.OLLAMA_MULTIUSER_CACHE and p.runner == "llama-server":
        raise ConfigError(f"{_FIELD}.OLLAMA_MULTIUSER_CACHE", True, "llama-server has no such cache", "false, or another runner")
    if site.model is None:
        return
    check_weights(site.model)
    check_windows(site.model)
    if site.model.is_hybrid and p.runner != "llama-server":
        raise NotModelledError(
            f"{_FIELD}.runner",
            p.runner,
            "its caches of sliding windows and recurrent layers are not modelled",
            "llama-server",
            "or a model of full layers",
        )
