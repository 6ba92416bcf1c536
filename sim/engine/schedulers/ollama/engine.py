"""Ollama as a registered engine: one loaded model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sim.cost.extras import Extras
from sim.cost.memory_rules import LlamaCppRule
from sim.engine.contract import Scheduler, Site
from sim.engine.kv.token_lists import TokenLists, new_token_lists
from sim.engine.outline import addresses
from sim.engine.schedulers.llamacpp.engine import server_state
from sim.engine.schedulers.ollama.params import OllamaParams, memory_rule, placement, resolve_params
from sim.engine.schedulers.ollama.runner import RunnerSettings, RunnerState, new_runner_state
from sim.jit import by_name
from sim.registry import register

if TYPE_CHECKING:
    from sim.cost.step import StepCost
    from sim.engine.recorder import Recorder
    from sim.engine.state import EngineState


@register("engine")
class Ollama(Scheduler[OllamaParams]):
    """Ollama with one model loaded: llama-server behind a semaphore (0.30 and later) or Ollama's own runners (to 0.24)."""

    name = "ollama"
    context_setting = "OLLAMA_CONTEXT_LENGTH"
    Params = OllamaParams
    version = "0.33.0-rc2"
    models = (
        "Ollama fb307609 (0.33.0-rc2): server/sched.go, llm/llama_server.go, with llama.cpp 0c1e570 tools/server; "
        "Ollama 0.24.0: runner/ollamarunner, runner/llamarunner, llm/server.go"
    )
    not_modelled = (
        "one layer split between card and CPU",
        "sliding windows and recurrent layers of the own runners",
        "embedding requests",
        "draft models",
        "the cap of num_predict at ten contexts, and the end after 30 identical tokens",
        "the time between a semaphore's release and the next request's arrival at the server",
    )
    rule = LlamaCppRule
    own_caches = ("sliding", "linear")

    @classmethod
    def resolve(cls, params: OllamaParams, site: Site) -> OllamaParams:
        """Context, slots and batch by model and memory."""
        return resolve_params(params, site)

    @classmethod
    def memory_rule(cls, params: OllamaParams, site: Site) -> LlamaCppRule:
        """Cells for the whole context, and what is not on the cards."""
        return replace(memory_rule(params), placement=placement(params, site))

    @classmethod
    def extras(cls, params: OllamaParams, site: Site) -> Extras:
        """Where the layers are."""
        return Extras(placement=placement(params, site))

    @classmethod
    def new_state(
        cls, params: OllamaParams, site: Site, blocks: int, replica: int, recorder: Recorder, cost: StepCost
    ) -> EngineState:
        """One loaded model."""
        p = params
        if p.runner == "llama-server":
            cut = p.truncate and p.context_shift  # without the shift, prompts that are too long are answered 400
            return server_state(p.server(), site, replica, recorder, cost, fifo=True, truncate=cut, ctx=_context(p, site))
        lists = new_token_lists(addresses(TokenLists), p.OLLAMA_NUM_PARALLEL + 8)
        told = by_name(
            RunnerSettings,
            parallel=p.OLLAMA_NUM_PARALLEL,
            ctx=p.slot_ctx,
            batch_size=p.n_ubatch,
            n_keep=p.num_keep,
            each=p.runner == "llamarunner",
            shift=p.context_shift,
            truncate=p.truncate,
            multiuser=p.OLLAMA_MULTIUSER_CACHE,
        )
        return new_runner_state(replica, recorder, cost, addresses(RunnerState), lists, told)

    cut_context = ("num_ctx",)

    @classmethod
    def max_context(cls, params: OllamaParams, site: Site) -> int:
        """Context of one request; where it is shifted, answers and prompts may go beyond it."""
        if params.context_shift and site.model is not None:
            return int(site.model.max_position)
        return _context(params, site)

    @classmethod
    def beyond_context(cls, params: OllamaParams, site: Site) -> tuple[int, str] | None:
        """What Ollama does without a word."""
        if not params.context_shift:
            return None
        prompts = "prompts are shortened to it" if params.truncate else "prompts beyond it are answered 400"
        return _context(params, site), f"{prompts}, and the older half of a full context is dropped"

    @classmethod
    def max_batch_tokens(cls, params: OllamaParams, site: Site) -> int:
        """The largest step."""
        per_sequence = params.OLLAMA_NUM_PARALLEL if params.runner == "llamarunner" else 1
        return max(params.n_ubatch * per_sequence, params.OLLAMA_NUM_PARALLEL)


def _context(p: OllamaParams, site: Site) -> int:
    """Tokens of one request."""
    return p.slot_ctx if site.model is None else min(p.slot_ctx, int(site.model.max_position))
