"""The llama.cpp server as a registered engine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sim.cost.extras import Extras
from sim.cost.memory_rules import LlamaCppRule
from sim.cost.placement import window_cells
from sim.engine.contract import Scheduler, Site
from sim.engine.kv.token_lists import TokenLists, new_token_lists
from sim.engine.outline import addresses
from sim.engine.schedulers.llamacpp.params import BUILD, LlamaCppParams, memory_rule, placement, resolve_params
from sim.engine.schedulers.llamacpp.state import LlamaCppSettings, LlamaCppState, new_llamacpp_state
from sim.jit import by_name
from sim.registry import register

if TYPE_CHECKING:
    from sim.cost.step import StepCost
    from sim.engine.recorder import Recorder
    from sim.engine.state import EngineState
    from sim.model.spec import ModelSpec

MIB = 2**20


@register("engine")
class LlamaCpp(Scheduler[LlamaCppParams]):
    """llama-server: slots with longest-common-prefix choice, decode before prompts, context shift, prompt cache in RAM."""

    name = "llamacpp"
    context_setting = "n_ctx"
    aliases = ("llama.cpp", "llama-server")
    Params = LlamaCppParams
    version = BUILD
    notices_after = 1.0  # HTTP_POLLING_SECONDS
    models = "llama.cpp 0c1e570 (llama-cpp-python 0.3.36): tools/server/server-context.cpp, server-queue.cpp, server-task.cpp, common/fit.cpp"
    not_modelled = (
        "one layer split between card and CPU",
        "cache_reuse",
        "checkpoints at the beginnings of chat messages",
        "speculative decoding",
        "several completions of one prompt (n_cmpl)",
        "embedding and reranking tasks",
        "micro-batches as steps of their own",
    )
    rule = LlamaCppRule
    own_caches = ("sliding", "linear")
    profile = "llama.cpp"

    @classmethod
    def resolve(cls, params: LlamaCppParams, site: Site) -> LlamaCppParams:
        """Slots, context and batch as the server starts with."""
        return resolve_params(params, site)

    @classmethod
    def memory_rule(cls, params: LlamaCppParams, site: Site) -> LlamaCppRule:
        """Cells for the whole context, and what is not on the cards."""
        return replace(memory_rule(params), placement=placement(params, site))

    @classmethod
    def extras(cls, params: LlamaCppParams, site: Site) -> Extras:
        """Where the layers are."""
        return Extras(placement=placement(params, site))

    @classmethod
    def new_state(
        cls, params: LlamaCppParams, site: Site, blocks: int, replica: int, recorder: Recorder, cost: StepCost
    ) -> EngineState:
        """One server; its KV cache is ``n_ctx`` tokens, whatever else would fit."""
        return server_state(params, site, replica, recorder, cost)

    @classmethod
    def max_context(cls, params: LlamaCppParams, site: Site) -> int:
        """Context of one slot; with ``ctx_shift`` answers may go beyond it, and prompts that do are refused by the server."""
        if params.ctx_shift and site.model is not None:
            return int(site.model.max_position)
        return slot_context(params, site)

    @classmethod
    def beyond_context(cls, params: LlamaCppParams, site: Site) -> tuple[int, str] | None:
        """The older half of a full context is dropped."""
        return (slot_context(params, site), "the older half of a full context is dropped") if params.ctx_shift else None

    @classmethod
    def max_batch_tokens(cls, params: LlamaCppParams, site: Site) -> int:
        """``n_batch``, and one token of each slot."""
        return max(params.n_batch, params.n_parallel)


def slot_context(p: LlamaCppParams, site: Site) -> int:
    """Tokens of one slot: no more than the model's own context."""
    return p.slot_ctx if site.model is None else min(p.slot_ctx, int(site.model.max_position))


def server_state(
    params: LlamaCppParams,
    site: Site,
    replica: int,
    recorder: Recorder,
    cost: StepCost,
    fifo: bool = False,
    truncate: bool = False,
    ctx: int | None = None,
) -> EngineState:
    """The compiled state of one server; ``ctx``: a slot's context, where it is known.

    Behind Ollama, requests wait for a slot before the server sees them (``fifo``) and prompts are cut to the context (``truncate``).
    """
    p = params
    ctx = slot_context(p, site) if ctx is None else ctx
    window, figures = _window(p, site.model)
    swa, cells, n_ubatch, max_ckpt = window
    token_bytes, copy_share, state_bytes = figures
    shift = p.ctx_shift and (
        swa == 0 or cells >= (p.n_ctx if p.kv_unified else p.slot_ctx)
    )  # caches of two sizes cannot be shifted
    told = by_name(
        LlamaCppSettings,
        slots=p.n_parallel,
        ctx=ctx,
        cells=p.n_ctx,
        n_batch=p.n_batch,
        n_keep=p.n_keep,
        n_discard=p.n_discard,
        truncate=truncate,
        unified=bool(p.kv_unified),
        shift=shift,
        caching=p.cache_prompt,
        ram=p.cache_ram_mib != 0,
        save_idle=p.cache_idle_slots,
        fifo=fifo,
        similarity=p.slot_prompt_similarity,
        ram_limit=p.cache_ram_mib * MIB if p.cache_ram_mib > 0 else -1.0,
        token_bytes=token_bytes,
        copy_share=copy_share,
        state_bytes=state_bytes,
        swa=swa,
        swa_cells=cells,
        n_ubatch=n_ubatch,
        max_ckpt=max_ckpt,
    )
    lists = new_token_lists(addresses(TokenLists), p.n_parallel + 8)
    return new_llamacpp_state(
        replica,
        recorder,
        cost,
        addresses(LlamaCppState),
        lists,
        told,
    )


def _window(p: LlamaCppParams, model: ModelSpec | None) -> tuple[tuple[int, int, int, int], tuple[float, float, float]]:
    """Window (0: states), its cells per sequence, ``n_ubatch``, checkpoints; bytes of a token in the prompt cache, blocks copied per token of a
    checkpoint, bytes of one."""
    if model is None:
        return (0, 0, p.n_ubatch, 0), (0.0, 0.0, 0.0)
    groups = {g.kind: g.layers * g.bytes_per_token for g in model.kv_groups()}
    windowed = groups.pop("sliding", 0.0)
    token = float(sum(groups.values()))
    state = float(model.state_bytes())
    if state:
        return (0, 1, p.n_ubatch, p.n_ctx_checkpoints), (token, state / token / 16.0 if token else 0.0, state)
    if not windowed:
        return (0, 0, p.n_ubatch, 0), (token, 0.0, 0.0)
    # one cache for all: a slot is sure of its window and what is left beside the windows of the others
    cells = window_cells(model, p.n_ctx, p.n_parallel, 1, p.n_ubatch)
    blocks = windowed / (windowed + token) / 16.0
    return (int(model.window), cells, p.n_ubatch, p.n_ctx_checkpoints), (token, blocks, windowed * model.window)
