# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""vLLM V1, one engine core, step by step (0.33; older releases as profiles).

**What is modelled** (upstream modules under ``vllm/``)

- One token budget for prompts and outputs, running requests first, chunked prefill, head-of-line admission, full-sequence reserve,
  watermark, ``max_num_active_seqs``, ``long_prefill_token_threshold`` (also adaptive), ``prefill_schedule_interval`` (local form), adapter
  limit: `v1/core/sched/scheduler.py`.
- Preemption by recompute; fcfs and priority queues: `v1/core/sched/request_queue.py`.
- Paged KV blocks, prefix caching by chained hashes of full blocks exact to the token, free-queue order, eviction, duplicates:
  `v1/core/{kv_cache_manager,single_type_kv_cache_manager,block_pool,kv_cache_utils}.py`.
- Models whose layers forget (sliding windows, chunks, recurrent states): groups with one pool of blocks, `groups/`, planned by `kv_layers.py`:
  `v1/core/{kv_cache_planning,kv_cache_coordinator}.py`.
- Synchronous and asynchronous scheduling, batch queue of pipeline parallelism and its stagger: `v1/engine/core.py`,
  `v1/core/sched/async_scheduler.py`.
- Speculative decoding (ngram, EAGLE, MTP with one module, draft model): draft slots, lookahead blocks, lookahead hashes, placeholders;
  the number of accepted drafts is drawn per verify step from ``acceptance_rate``.
- Data-parallel ranks (``deployment.dp``) behind the internal load balancer: engines of their own for dense models; in lock-step for mixtures
  of experts, with dummy batches, finish detection every ``dp_sync_interval`` steps, token counts padded where graphs are replayed and
  ``prefill_schedule_interval`` counted on all ranks together: `v1/engine/core.py` DPEngineCoreProc, `v1/worker/gpu/dp_utils.py`.
- Prefill and decode side of a disaggregated deployment with a pulling KV connector, alone with fixed transfer times or between the pools of a
  fleet (`sides.py`): `v1/core/sched/scheduler.py`, `distributed/kv_transfer/kv_connector/v1/nixl`. P samples a token that is thrown away
  (``max_tokens`` 1), D pulls and samples the first; a request that D preempts is computed again there. No lease: P keeps KV until it is read.
- Defaults by hardware, usage and version: `engine/arg_utils.py`, `config/{vllm,scheduler,cache}.py`.
- Context: ``max_model_len`` above the length derived from the config is refused unless ``VLLM_ALLOW_LONG_MAX_MODEL_LEN``; ``hf_overrides`` of
  lengths and RoPE scaling (`config/model.py`). ``auto`` for the KV cache follows the checkpoint (ModelOpt, compressed-tensors).

**Versions.** ``version`` switches what changed: asynchronous scheduling by default from 0.14; full-sequence reserve from 0.19; blocks without
a hash to the front of the free queue from 0.21, also without prefix caching (where the order decides nothing); from 0.24
``gpu_memory_utilization`` 0.92, watermark, interval, active limit, exemption of a lone request from the threshold, lookahead hashes (before:
the last block of a hit is computed again when drafting). Numbers above 0.19 are inferred from the dates of the changes.

**What is not**: V0 (0.2 to 0.7), which is an engine of its own and reached by ``version``: `sim.engine.schedulers.vllm_v0`; encoders of sound
and video and the budget of the encoder cache, structured output, prompt log-probabilities, connectors but NIXL's, native offloading's and
LMCache's (`tiered/`), the idle pause of 1 ms without a connector, ``data_parallel_rank`` of a request. Settings for them do not exist here or
are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sim.cost.drafts import acceptance, estimate_note
from sim.cost.extras import Extras
from sim.cost.memory_rules import VllmCpuRule, VllmRule
from sim.engine.adapters import Adapters
from sim.engine.contract import Ranks, Scheduler, Site
from sim.engine.schedulers.vllm import inside as _inside  # noqa: F401  (attaches its functions)
from sim.engine.schedulers.vllm import params as settings
from sim.engine.schedulers.vllm.connectors import tiers_of
from sim.engine.schedulers.vllm.kv_layers import KvLayout, kv_layout, refuse_idle
from sim.engine.schedulers.vllm.making import core_arguments, new_groups, pool_of
from sim.engine.schedulers.vllm.params import V, VllmParams, is_v0
from sim.engine.schedulers.vllm.plain_caches import plain_caches
from sim.engine.schedulers.vllm.plan import plan_step
from sim.engine.schedulers.vllm.ranks import at_rest_vllm, confer_vllm, heed_vllm, unfinished_vllm
from sim.engine.schedulers.vllm.sides import compute_here_vllm, drop_remote_vllm, kv_arrived_vllm, release_kept_vllm
from sim.engine.schedulers.vllm.state import VllmState, grow_vllm, new_vllm
from sim.engine.schedulers.vllm.steady import apply_vllm, steady_vllm
from sim.engine.schedulers.vllm.update import complete_step, enqueue_vllm
from sim.engine.seam import Group
from sim.engine.sides import HandOver, Role
from sim.errors import ConfigError, NotModelledError
from sim.jit import implement
from sim.model import load_model
from sim.registry import register

if TYPE_CHECKING:
    from typing import ClassVar

    from sim.cost.memory import Rule
    from sim.cost.profile import EngineProfile
    from sim.cost.shared import SharedCost
    from sim.cost.step import StepCost
    from sim.engine.recorder import Recorder
    from sim.engine.state import EngineState
    from sim.engine.tiers.plan import TierPlan

implement(
    VllmState,
    enqueue=enqueue_vllm,
    plan=plan_step,
    complete=complete_step,
    steady_steps=steady_vllm,
    apply_steady=apply_vllm,
    grow=grow_vllm,
    release_kept=release_kept_vllm,
    kv_arrived=kv_arrived_vllm,
    drop_remote=drop_remote_vllm,
    compute_here=compute_here_vllm,
    confer=confer_vllm,
    heed=heed_vllm,
    unfinished=unfinished_vllm,
    at_rest=at_rest_vllm,
)
plain_caches(VllmState)


@register("engine")
class Vllm(Scheduler[V]):
    """vLLM V1: one token budget for everything, paged KV, prefix caching, recompute preemption."""

    name = "vllm"
    context_setting = "max_model_len"
    Params: ClassVar[type[VllmParams]] = VllmParams
    version = "0.33.0"
    models = (
        "vLLM 0.33.0: v1/core/sched/{scheduler,async_scheduler}.py, v1/core/{kv_cache_manager,block_pool}.py, v1/engine/core.py"
    )
    rule = VllmRule
    follows_checkpoint_kv = True
    encodes = True
    hands_over = HandOver(first="prefill", first_token="decode", alone=True, orphan_s=480.0)  # VLLM_NIXL_ABORT_REQUEST_TIMEOUT
    not_modelled = (
        "encoders of sound and video, the budget of the encoder cache",
        "structured output",
        "enable_mamba_shared_prefix_checkpoint, DeepSeek-V4's own KV groups",
        "speculation or pipeline parallelism on a disaggregated side",
    )

    @classmethod
    def edition(cls, settings: Mapping[str, object]) -> type[Scheduler[Any]]:
        """V0 for versions 0.2 to 0.7."""
        if cls is Vllm and is_v0(settings.get("version")):
            from sim.engine.schedulers.vllm_v0 import VllmV0

            return VllmV0
        return cls

    @classmethod
    def resolve(cls, params: V, site: Site) -> V:
        """Engine arguments with vLLM's defaults for hardware, model and version."""
        resolved = settings.resolve(params, site)
        if not site.extra.get("recording"):
            layout = cls.layout(resolved, site)
            refuse_idle(resolved, site, layout)
            if layout is not None and layout.plan is not None and tiers_of(resolved, site) is not None:
                why = "tiers behind the KV cache of a model with layers that forget are not modelled"
                raise NotModelledError("engine.kv_transfer_config", "tiers", why, "null", "disable_hybrid_kv_cache_manager: true")
        return resolved

    @classmethod
    def memory_rule(cls, params: V, site: Site) -> Rule | None:
        """The rule of the version, or of the CPU platform."""
        if site.accelerator is not None and site.accelerator.is_cpu:
            return VllmCpuRule(
                VLLM_CPU_KVCACHE_SPACE=params.VLLM_CPU_KVCACHE_SPACE
                or (params.kv_cache_memory_bytes / 2**30 if params.kv_cache_memory_bytes else None),
                max_num_batched_tokens=params.max_num_batched_tokens or 2048,
                block_size=params.block_size,
                version=(0, params.minor),
            )
        layout = cls.layout(params, site)
        return VllmRule(
            pool=None if layout is None else pool_of(layout, params, site),
            gpu_memory_utilization=params.gpu_memory_utilization or 0.92,
            max_num_batched_tokens=params.max_num_batched_tokens or 8192,
            max_num_seqs=params.max_num_seqs or 256,
            block_size=params.block_size if layout is None else layout.block_size,
            enforce_eager=params.enforce_eager,
            version=(0, params.minor),
            kv_cache_memory_bytes=params.kv_cache_memory_bytes,
        )

    @classmethod
    def layout(cls, params: V, site: Site) -> KvLayout | None:
        """How the caches of a model with windows or states are laid out; None: as if all layers had full attention."""
        return None if site.accelerator is not None and site.accelerator.is_cpu else kv_layout(params, site)

    @classmethod
    def cache_notes(cls, params: V, site: Site) -> tuple[str, ...]:
        """What is left out of the groups, or that there are none."""
        layout = cls.layout(params, site)
        return super().cache_notes(params, site) if layout is None else layout.notes

    @classmethod
    def new_state(cls, params: V, site: Site, blocks: int, replica: int, recorder: Recorder, cost: StepCost) -> EngineState:
        """One engine core. ``blocks``: KV blocks including the null block, as vLLM logs them."""
        p = params
        blocks = p.num_gpu_blocks_override or blocks
        arguments = core_arguments(p, site, blocks, replica, recorder, cost, cls.balances(p))
        plan = site.extra.get("kv_plan")
        if plan is None and (layout := cls.layout(p, site)) is not None:
            plan = layout.plan
        if plan is not None:
            return new_groups(plan, p, site, arguments)
        usable = blocks - 1
        if usable * p.block_size < (p.max_model_len or 0) and not site.extra.get("recording"):
            raise ConfigError(
                "deployment.kv_blocks",
                blocks,
                f"one request of max_model_len {p.max_model_len} does not fit",
                hint=f"set engine.max_model_len to at most {usable * p.block_size}",
            )
        if (tiers := tiers_of(p, site)) is not None:
            from sim.engine.schedulers.vllm.tiered import new_tiered
            from sim.engine.schedulers.vllm.tiered.making import tier_settings

            return new_tiered(*arguments, tier_settings(p, tiers))
        return cls.constructor(p)(*arguments)

    @classmethod
    def recomputes(cls, params: V) -> bool:
        """``kv_load_failure_policy``."""
        c = params.kv_transfer_config
        return c is not None and c.kv_load_failure_policy == "recompute"

    @classmethod
    def tiers(cls, params: V, site: Site, blocks: int) -> TierPlan | None:
        """Host memory and more behind the KV cache."""
        return tiers_of(params, site)

    @classmethod
    def group(cls, states: Sequence[EngineState], recorder: Recorder) -> Group:
        """Engines with KV groups can say what each of them holds."""
        if type(states[0]).__name__.startswith("TieredState"):
            from sim.engine.schedulers.vllm.tiered.group import TieredEngines

            return TieredEngines(states, recorder)
        if not type(states[0]).__name__.startswith("GroupState"):
            return super().group(states, recorder)
        from sim.engine.schedulers.vllm.groups.held import GroupedEngines

        return GroupedEngines(states, recorder)

    @classmethod
    def lockstep(
        cls, states: Sequence[EngineState], recorder: Recorder, ranks: int, shared: SharedCost | None, interval: int
    ) -> Group:
        """As `group`."""
        if type(states[0]).__name__.startswith("TieredState"):
            from sim.engine.schedulers.vllm.tiered.group import TieredRanks

            return TieredRanks(states, recorder, ranks, shared, interval)
        if not type(states[0]).__name__.startswith("GroupState"):
            return super().lockstep(states, recorder, ranks, shared, interval)
        from sim.engine.schedulers.vllm.groups.held import GroupedRanks

        return GroupedRanks(states, recorder, ranks, shared, interval)

    @classmethod
    def balances(cls, params: V) -> bool:
        """Whether no data-parallel rank admits while another's batch is full: not in vLLM itself."""
        return False

    @classmethod
    def ranks(cls, params: V, site: Site) -> Ranks | None:
        """Ranks of a mixture of experts share the experts and step together; those of a dense model are engines of their own."""
        if site.dp == 1:
            return super().ranks(params, site)
        together = bool(site.spec.is_moe)
        if together and site.pp > 1:
            raise NotModelledError("deployment.pp", site.pp, "pipeline stages of ranks that step together are not modelled", "1")
        servers = {"api_server_count": params.api_server_count or site.dp}
        return Ranks(site.dp, together, "vllm_dp", servers, params.dp_sync_interval or 16)

    @classmethod
    def constructor(cls, params: V) -> Callable[..., EngineState]:
        """The kernel that makes a state: variants with a schedule of their own have their own (see `VllmFields`)."""
        return new_vllm

    @classmethod
    def host(cls, params: V, profile: EngineProfile) -> EngineProfile:
        """The profile with the graphs of these settings: decode batches are padded to the next captured size."""
        made = super().host(params, profile)
        if params.VLLM_MXFP4_USE_MARLIN is not None:
            made = made.changed({"mxfp4_marlin": params.VLLM_MXFP4_USE_MARLIN})
        if not made.graph_sizes:
            return made
        return made.adapted(
            graph_sizes=tuple(settings.capture_sizes(params)), graph_mode=params.compilation_config.cudagraph_mode
        )

    @classmethod
    def overlaps(cls, params: V) -> bool | None:
        """``async_scheduling``."""
        return params.async_scheduling

    @classmethod
    def eager(cls, params: V) -> bool:
        """``enforce_eager``."""
        return params.enforce_eager

    @classmethod
    def most_running(cls, params: V) -> int:
        """``max_num_seqs``."""
        return params.max_num_seqs or 0

    @classmethod
    def must_fit(cls, params: V) -> int | None:
        """``max_model_len``."""
        return params.max_model_len

    @classmethod
    def extras(cls, params: V, site: Site) -> Extras:
        """Drafts and adapters."""
        lora_rank = params.max_lora_rank if params.enable_lora else 0
        s = params.speculative_config
        if s is None:
            return Extras(lora_rank=lora_rank)
        draft = load_model(s.model) if s.model is not None else None
        notes = ()
        if s.acceptance_rate is None:
            notes = (estimate_note(s.method, acceptance(s.method, s.num_speculative_tokens)),)
        return Extras(s.method, s.num_speculative_tokens, draft, lora_rank, notes=notes)

    @classmethod
    def adapters(cls, params: V) -> Adapters | None:
        """``max_loras`` on the device, ``max_cpu_loras`` in host memory."""
        return settings.adapters_of(params)

    @classmethod
    def as_side(cls, params: V, role: Role) -> V:
        """With the connector of the role; times of its own would contradict those of the fleet's links."""
        return settings.as_side(params, role)

    @classmethod
    def max_context(cls, params: V, site: Site) -> int:
        """``max_model_len``, which the model's length may be below where the check is overridden."""
        return int(params.max_model_len or site.spec.max_position)

    @classmethod
    def max_batch_tokens(cls, params: V, site: Site) -> int:
        """The token budget of a step."""
        return int(params.max_num_batched_tokens or 8192)
