"""BladeLLM, the engine of Alibaba PAI-EAS. It is closed: what is documented and what is assumed is said here rule by rule.

**Documented** (PAI help pages "service deployment parameter configuration" and the engine's limits; AlibabaPAI/llumnix 24220fb8
``llumnix/backends/bladellm`` for its hooks): names of the settings; continuous batching over a paged KV cache with a running list in order of
arrival and a waiting heap; ``ragged_flash_max_batch_tokens`` is the cap of tokens in one step, prompts are cut to it (ragged prefill);
the prompt cache is on unless ``disable_prompt_cache``; preemption by recompute or swap; speculative decoding with a draft model (``decode_algo
sps``, ``gamma`` drafts); text models of the Qwen and Llama families; not on P100, P4, V100, T4; GPU memory at least 1.7 × the weights.

**Assumed**: one token budget with running requests first and head-of-line admission, blocks of 16 tokens, hashed full blocks in the prompt
cache: as vLLM V1 (`sim.engine.schedulers.vllm`), whose compiled functions it runs, with synchronous scheduling; ``AUTO`` preempts by recompute;
0.85 of the memory (as in Llumnix's tests); every default that is not published; the host's times (`profiles/engines/bladellm.yaml`).

**Not modelled**, and refused: swapping (of requests and of the prompt cache), ``look_ahead`` decoding, ``max_queue_time``, micro-batches of the
pipeline, attention data parallelism inside one engine, prefill and decode roles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sim.cost.memory_rules import VllmRule
from sim.engine.contract import EngineParams, Scheduler, Site
from sim.engine.effect import inert
from sim.engine.releases import refuse_release
from sim.engine.schedulers.vllm import Vllm
from sim.engine.schedulers.vllm.params import SpeculativeConfig, VllmParams
from sim.errors import ConfigError, NotModelledError
from sim.registry import register
from sim.units import Seconds

if TYPE_CHECKING:
    from sim.cost.extras import Extras
    from sim.cost.memory import Rule
    from sim.cost.profile import EngineProfile
    from sim.cost.step import StepCost
    from sim.engine.recorder import Recorder
    from sim.engine.state import EngineState

_TOO_OLD = ("p100", "p4", "v100", "t4")
_FAMILIES = ("qwen", "llama", "deepseek-r1-distill")
_MEMORY = 1.7


class BladellmParams(EngineParams):
    """Settings as ``blade_llm_server`` spells them. Numeric defaults are not published; those here are assumed."""

    tensor_parallel_size: int | None = Field(None, ge=1, description="must equal deployment.tp where it is given")
    pipeline_parallel_size: int | None = Field(None, ge=1, description="must equal deployment.pp where it is given")
    pipeline_micro_batch: int = Field(1, ge=1, description="only 1 is modelled")
    attention_dp_size: int = Field(1, ge=1, description="only 1 is modelled")
    max_gpu_memory_utilization: float = Field(0.85, gt=0, le=1, description="share of GPU memory in use (assumed default)")
    preempt_strategy: Literal["AUTO", "RECOMPUTE", "SWAP"] = Field(
        "AUTO", description="AUTO is taken as RECOMPUTE; SWAP is not modelled"
    )
    ragged_flash_max_batch_tokens: int = Field(8192, ge=1, description="most tokens in one step (assumed default)")
    max_batch_size: int = Field(256, ge=1, description="most requests running at once (assumed: no published option)")
    decode_algo: Literal["normal", "sps", "look_ahead"] = Field(
        "normal", description="sps: drafts of a small model; look_ahead is not modelled"
    )
    gamma: int = Field(3, ge=1, le=64, description="drafts per step with sps (assumed default)")
    draft_model: str | None = Field(None, description="name of the draft model of sps (draft.* on the command line)")
    acceptance_rate: float | None = Field(
        None, ge=0, le=1, description="probability that a draft is accepted if the one before it was; by default estimated"
    )
    disable_prompt_cache: bool = Field(False, description="no reuse of equal prefixes")
    prompt_cache_enable_swap: bool = Field(False, description="only false is modelled")
    max_queue_time: Seconds | None = Field(None, gt=0, description="only null is modelled")
    enable_llumnix: bool = Field(
        False, description="requests may be migrated", json_schema_extra=inert("the router migrates: llumnix or llumnix_v0")
    )
    kv_cache_quant: Literal["no_quant"] = Field(
        "no_quant", description="only this value", json_schema_extra=inert("model.kv_cache says it and changes sizes and times")
    )
    version: str | None = Field(
        None,
        description="only null: nothing is published of its releases",
        json_schema_extra=inert("every figure and decision is assumed"),
    )
    disable_cuda_graph: bool = Field(False, description="launch every kernel")
    cuda_graph_max_batch_size: int = Field(256, ge=1, description="largest batch that graphs are captured for (assumed default)")
    max_model_len: int | None = Field(None, ge=2, description="longest prompt and output together; default from the model")


def _vllm(p: BladellmParams) -> VllmParams:
    speculative = None
    if p.decode_algo == "sps":
        rate = p.acceptance_rate
        speculative = SpeculativeConfig(
            method="draft_model", model=p.draft_model, num_speculative_tokens=p.gamma, acceptance_rate=rate
        )
    return VllmParams(
        max_num_batched_tokens=max(p.ragged_flash_max_batch_tokens, p.max_batch_size),
        max_num_seqs=p.max_batch_size,
        max_model_len=p.max_model_len,
        VLLM_ALLOW_LONG_MAX_MODEL_LEN=True,  # what BladeLLM refuses is not known: requests end at the model's length
        gpu_memory_utilization=p.max_gpu_memory_utilization,
        enforce_eager=p.disable_cuda_graph,
        enable_prefix_caching=not p.disable_prompt_cache,
        async_scheduling=False,
        speculative_config=speculative,
    )


def _refuse(p: BladellmParams, site: Site) -> None:
    if p.version is not None:
        refuse_release(p.version, "null", "nothing is published of BladeLLM's releases: what is known is assumed")
    for name, plain in (
        ("pipeline_micro_batch", 1),
        ("attention_dp_size", 1),
        ("prompt_cache_enable_swap", False),
        ("max_queue_time", None),
    ):
        if getattr(p, name) != plain:
            raise NotModelledError(f"engine.{name}", getattr(p, name), "is not modelled", str(plain))
    if p.preempt_strategy == "SWAP":
        raise NotModelledError("engine.preempt_strategy", "SWAP", "swapping is not modelled", "AUTO, RECOMPUTE")
    if p.decode_algo == "look_ahead":
        raise NotModelledError("engine.decode_algo", "look_ahead", "its acceptance is not known", "normal, sps")
    if (p.decode_algo == "sps") != (p.draft_model is not None):
        raise ConfigError("engine.draft_model", p.draft_model, "a draft model goes with decode_algo sps, and only with it")
    for name, width in (("tensor_parallel_size", site.tp), ("pipeline_parallel_size", site.pp)):
        if getattr(p, name) not in (None, width):
            raise ConfigError(f"engine.{name}", getattr(p, name), "differs from the deployment's", str(width))
    model, accelerator = site.model, site.accelerator
    if accelerator is not None and accelerator.name.split("-")[0] in _TOO_OLD:
        raise ConfigError("deployment.accelerator", accelerator.name, "BladeLLM does not run on it", "A, H and L series")
    if model is not None and not str(model.name).lower().startswith(_FAMILIES):
        raise ConfigError("model.name", model.name, "BladeLLM serves text models of the Qwen and Llama families", "qwen…, llama…")
    if model is not None and accelerator is not None:
        weights = model.weight_bytes(site.tp, site.pp, site.ep)
        if accelerator.memory_bytes < _MEMORY * weights:
            need = f"at least {_MEMORY} × the weights, {_MEMORY * weights / 2**30:.1f} GiB per GPU"
            raise ConfigError("deployment.accelerator", accelerator.name, "has too little memory for BladeLLM", need)


@register("engine")
class Bladellm(Scheduler[BladellmParams]):
    """BladeLLM as vLLM V1 with its own settings and limits; documented and assumed rules are listed in the module."""

    name = "bladellm"
    context_setting = "max_model_len"
    Params = BladellmParams
    version = "assumed"
    models = "BladeLLM (closed): settings and limits as documented by PAI, scheduling assumed as vLLM V1"
    rule = VllmRule
    not_modelled = ("swapping", "look_ahead decoding", "max_queue_time", "pipeline_micro_batch", "attention_dp_size", "P/D roles")

    @classmethod
    def resolve(cls, params: BladellmParams, site: Site) -> BladellmParams:
        """The model's length. Raises `ConfigError` and `NotModelledError`."""
        _refuse(params, site)
        length = Vllm.resolve(_vllm(params), site).max_model_len
        return params.model_copy(update={"max_model_len": length})

    @classmethod
    def memory_rule(cls, params: BladellmParams, site: Site) -> Rule | None:
        """As vLLM's, with its own share."""
        return Vllm.memory_rule(Vllm.resolve(_vllm(params), site), site)

    @classmethod
    def new_state(
        cls, params: BladellmParams, site: Site, blocks: int, replica: int, recorder: Recorder, cost: StepCost
    ) -> EngineState:
        """One engine."""
        return Vllm.new_state(Vllm.resolve(_vllm(params), site), site, blocks, replica, recorder, cost)

    @classmethod
    def max_context(cls, params: BladellmParams, site: Site) -> int:
        """``max_model_len``, at most the model's context."""
        return min(params.max_model_len or int(site.spec.max_position), int(site.spec.max_position))

    @classmethod
    def must_fit(cls, params: BladellmParams) -> int | None:
        """``max_model_len``."""
        return params.max_model_len

    @classmethod
    def host(cls, params: BladellmParams, profile: EngineProfile) -> EngineProfile:
        """Graphs up to ``cuda_graph_max_batch_size``."""
        sizes = tuple(n for n in profile.graph_sizes if n <= params.cuda_graph_max_batch_size)
        return profile.adapted(graphs=False if params.disable_cuda_graph else None, graph_sizes=sizes)

    @classmethod
    def extras(cls, params: BladellmParams, site: Site) -> Extras | None:
        """Drafts."""
        return Vllm.extras(Vllm.resolve(_vllm(params), site), site)

    @classmethod
    def max_batch_tokens(cls, params: BladellmParams, site: Site) -> int:
        """The token budget of a step."""
        return max(params.ragged_flash_max_batch_tokens, params.max_batch_size)
