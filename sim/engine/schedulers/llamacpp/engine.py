"""The llama.cpp server as a registered engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sim.cost.extras import Extras
from sim.cost.memory_rules import LlamaCppRule
from sim.engine.contract import Scheduler, Site
from sim.engine.kv.token_lists import TokenLists, new_token_lists
from sim.engine.outline import addresses
from sim.engine.schedulers.llamacpp.params import LlamaCppParams, memory_rule, placement, resolve_params
from sim.engine.schedulers.llamacpp.state import LlamaCppState, new_llamacpp_state
from sim.registry import register

MIB = 2**20


@register("engine")
class LlamaCpp(Scheduler):
    """llama-server: slots with longest-common-prefix choice, decode before prompts, context shift, prompt cache in RAM."""

    name = "llamacpp"
    Params = LlamaCppParams
    version = "0c1e570"
    models = "llama.cpp 0c1e570 (llama-cpp-python 0.3.36): tools/server/server-context.cpp, server-queue.cpp, server-task.cpp, common/fit.cpp"
    not_modelled = (
        "one layer split between card and CPU",
        "cache_reuse",
        "context checkpoints of sliding-window and recurrent models",
        "speculative decoding",
        "several completions of one prompt (n_cmpl)",
        "embedding and reranking tasks",
        "micro-batches as steps of their own",
    )
    rule = LlamaCppRule
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
    def new_state(cls, params: LlamaCppParams, site: Site, blocks: int, replica: int, recorder: Any, cost: Any) -> Any:
        """One server; its KV cache is ``n_ctx`` tokens, whatever else would fit."""
        return server_state(params, site, replica, recorder, cost)

    @classmethod
    def max_context(cls, params: LlamaCppParams, site: Site) -> int:
        """Context of one slot."""
        limit = params.slot_ctx
        return limit if site.model is None else min(limit, int(site.model.max_position))

    @classmethod
    def max_batch_tokens(cls, params: LlamaCppParams, site: Site) -> int:
        """``n_batch``, and one token of each slot."""
        return max(params.n_batch, params.n_parallel)


def server_state(
    params: LlamaCppParams,
    site: Site,
    replica: int,
    recorder: Any,
    cost: Any,
    fifo: bool = False,
    truncate: bool = False,
    ctx: int | None = None,
) -> Any:
    """The compiled state of one server; ``ctx``: a slot's context, where it is known.

    Behind Ollama, requests wait for a slot before the server sees them (``fifo``) and prompts are cut to the context (``truncate``).
    """
    p = params
    ctx = LlamaCpp.max_context(p, site) if ctx is None else ctx
    token_bytes = 0.0 if site.model is None else float(site.model.kv_bytes_per_token())
    numbers = (p.n_parallel, ctx, p.n_ctx, p.n_batch, p.n_keep, p.n_discard, int(truncate))
    flags = (bool(p.kv_unified), p.ctx_shift, p.cache_prompt, p.cache_ram_mib != 0, p.cache_idle_slots, fifo)
    ram_limit = float(p.cache_ram_mib) * MIB if p.cache_ram_mib > 0 else -1.0
    lists = new_token_lists(addresses(TokenLists), p.n_parallel + 8)
    return new_llamacpp_state(
        replica, recorder, cost, addresses(LlamaCppState), lists, numbers, flags, p.slot_prompt_similarity, ram_limit, token_bytes
    )
