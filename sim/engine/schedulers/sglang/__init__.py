# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""SGLang 0.5.23, one scheduler process, decision by decision.

**What is modelled** (upstream modules under ``sglang/srt/``)

- Overlap and normal event loop, `managers/scheduler.py: event_loop_overlap, event_loop_normal`: under overlap a decision is taken one
  forward early, length finishes in flight are skipped, a stop token costs one wasted decode row.
- Radix cache exact to the token or page with splits, locks, hit counts and lru, lfu, slru, fifo, mru, filo, priority eviction,
  `mem_cache/unified_radix_cache.py`, `unified_cache/unified_tree_core.py`, `mem_cache/evict_policy.py`.
- Queue order fcfs, lpm, dfs-weight, lof, random, hrrn, shortest-prefill-first, priorities, refresh of waiting prefixes,
  `managers/schedule_policy.py: SchedulePolicy`.
- Admission budgets, chunked prefill, ``max_prefill_tokens``, ``prefill_max_requests``, ``min_free_slots_delay``,
  ``prefill_decode_interval``, preemption by priority, `managers/schedule_policy.py: PrefillAdder`, `mem_cache/prefill_budget.py`.
- ``new_token_ratio`` with its decay and reset, retraction, mixed chunks, `managers/schedule_batch.py`,
  `managers/scheduler_components/new_token_ratio_tracker.py`, `batch_result_processor.py`.
- A ``context_length`` above the derived one is refused unless ``SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN``; ``json_model_override_args`` of
  lengths and RoPE scaling; ``auto`` for the KV cache follows the checkpoint: `configs/model_config.py`, `model_executor/model_runner.py`.
- Limits of intake (``context_length``, ``max_queued_requests``), defaults by GPU memory, `arg_groups/memory_hook.py`.
- Speculative decoding as a number of accepted tokens per step (drawn per request and position with ``speculative_accept_rate``, or as is
  usual for the algorithm, its depth and tree), the passes of the draft, the tokens verified and the KV reserve it needs,
  `allocation_sizing.py`, `speculative/eagle_worker.py`. Read from the source, not checked against recordings.

- Pipeline parallelism: micro-batch slots visited in turn, `managers/scheduler_pp_mixin.py: event_loop_pp`. The adapter limit
  ``max_loras_per_batch`` (adapters separate the cache in any case) and ``scheduler_recv_interval``. Read from the source as well.
- Data-parallel ranks (``deployment.dp``) behind the data-parallel controller, `managers/data_parallel_controller.py`: schedulers of their own,
  or with ``enable_dp_attention`` in lock-step, `scheduler_components/dp_attn.py`. ``chunked_prefill_size`` and ``max_running_requests`` are then
  divided by the ranks. Read from the source too.
- HiCache: copies in host memory, three write policies, loading back layer by layer; storage behind it (file, Mooncake store, 3FS), fetched
  from while a request waits, `mem_cache/unified_radix_cache.py`, `managers/cache_controller.py`. Read from the source.
- Prefill and decode sides: memory on the decode side first, ``num_reserved_decode_tokens``, chunks sent as they complete, retraction to host
  memory, `disaggregation/{prefill,decode}.py`. Read from the source as well.

**What is not**: dynamic chunking, the radix cache of a decode side, further kinds of storage behind HiCache, loading and draining of adapters, the prefill
delayer, ``routing-key`` order, tlru eviction, ``truncation_align``. They are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sim.cost.drafts import estimate_note
from sim.cost.extras import Extras
from sim.cost.memory_rules import SglangRule
from sim.engine.adapters import Adapters
from sim.engine.contract import Ranks, Scheduler, Site
from sim.engine.kv.radix import POLICIES
from sim.engine.releases import older_host
from sim.engine.schedulers.sglang import params as settings
from sim.engine.schedulers.sglang import pools, ranks, sides, step
from sim.engine.schedulers.sglang.drafting import drafting
from sim.engine.schedulers.sglang.hicache import host_plan, pool_tokens
from sim.engine.schedulers.sglang.making import has_host, new_process
from sim.engine.schedulers.sglang.params import SglangParams
from sim.engine.schedulers.sglang.state import SCHEDULE_POLICIES, STATES, SglangSettings, SglangState
from sim.engine.sides import HandOver, Role
from sim.errors import ConfigError
from sim.jit import by_name, implement
from sim.model import load_model
from sim.registry import register

if TYPE_CHECKING:
    from sim.cost.profile import EngineProfile
    from sim.cost.shared import SharedCost
    from sim.cost.step import StepCost
    from sim.engine.recorder import Recorder
    from sim.engine.seam import Group
    from sim.engine.state import EngineState
    from sim.engine.tiers.plan import TierPlan
    from sim.model.spec import ModelSpec

implement(
    SglangState,
    enqueue=step.enqueue,
    plan=step.plan,
    complete=step.complete,
    steady_steps=step.steady_steps,
    apply_steady=step.apply_steady,
    grow=step.grow,
    release_kept=sides.release_kept,
    kv_arrived=sides.kv_arrived,
    drop_remote=sides.drop_remote,
    confer=ranks.confer_sglang,
    heed=ranks.heed_sglang,
    unfinished=ranks.unfinished_sglang,
    at_rest=ranks.at_rest_sglang,
)


@register("engine")
class Sglang(Scheduler[SglangParams]):
    """SGLang: radix cache, overlap schedule, prefill-first batches."""

    name = "sglang"
    context_setting = "context_length"
    Params = SglangParams
    version = "0.5.23"
    rule = SglangRule
    follows_checkpoint_kv = True
    encodes = True
    models = "SGLang 0.5.23: managers/{scheduler,schedule_policy,schedule_batch}.py, mem_cache/unified_radix_cache.py, mem_cache/allocation.py"
    hands_over = HandOver(first="decode", first_token="with_kv", sends="chunks", pair=True)
    not_modelled = (
        "dynamic chunking of pipeline parallelism",
        "decode side with a radix cache, speculation, priorities, adapters or pipeline parallelism on a disaggregated side",
        "storage behind HiCache other than file, mooncake and hf3fs, HiCache of models whose layers forget",
        "overlapped loading and draining of adapters",
        "prefill delayer",
    )

    @classmethod
    def max_context(cls, params: SglangParams, site: Site) -> int:
        """``context_length``, by default the model's."""
        return params.context_length or int(site.spec.max_position)

    @classmethod
    def resolve(cls, params: SglangParams, site: Site) -> SglangParams:
        """Server arguments with SGLang's defaults for the GPU and the model."""
        return settings.resolve(params, site)

    @classmethod
    def new_state(
        cls, params: SglangParams, site: Site, blocks: int, replica: int, recorder: Recorder, cost: StepCost
    ) -> EngineState:
        """One scheduler process. ``blocks``: KV pages of ``page_size`` tokens."""
        p = params
        page = p.page_size
        tokens = pool_tokens(p, blocks)
        if tokens < 2 * page or tokens < 16:
            raise ConfigError("deployment.kv_blocks", blocks, "the KV pool is too small to serve anything")
        second = pools.second_pool(p, site, tokens)
        rows, few = settings.max_running(p, tokens), False
        if second is not None and second.kind == STATES and "mamba" not in site.extra:
            few = second.size // pools.slots_of_request(p) < rows
            rows = min(rows, second.size // pools.slots_of_request(p))
            if rows < 1:
                raise ConfigError(
                    "engine.max_mamba_cache_size",
                    second.size,
                    "is not enough for one request",
                    f"at least {pools.slots_of_request(p)}",
                )
        delay = min(p.min_free_slots_delay or 0, rows)
        slots = site.pp + p.pp_async_batch_depth
        init = min(0.7 * p.schedule_conservativeness, 1.0)
        low = min(init * 0.14, 1.0)
        speculative = p.speculative_algorithm is not None
        draft = max(p.speculative_eagle_topk * p.speculative_num_steps, p.speculative_num_draft_tokens)
        drafts = drafting(p)
        told = by_name(
            SglangSettings,
            kv_tokens=tokens,
            page=page,
            max_running=rows,
            depth=slots if slots > 1 else 1 if p.disable_overlap_schedule else 2,
            policy=SCHEDULE_POLICIES.index(p.schedule_policy),
            eviction=POLICIES.index(p.radix_eviction_policy),
            chunk=max(p.chunked_prefill_size or 0, 0),
            max_prefill=p.max_prefill_tokens,
            prefill_max_requests=p.prefill_max_requests or 0,
            interval=p.prefill_decode_interval,
            interval_min_bs=p.prefill_decode_interval_min_bs,
            min_free_slots=delay if delay > 1 else 0,
            max_queued=p.max_queued_requests or 0,
            priority_sign=-1 if p.schedule_low_priority_values_first else 1,
            threshold=p.priority_scheduling_preemption_threshold,
            max_req_len=min((p.context_length or 131072) - 1, tokens - 1),
            spec_reserve=2 * draft if speculative else 0,
            spec_steps=len(drafts.right),
            spec_draft=p.speculative_num_draft_tokens if speculative else 0,
            spec_seed=p.random_seed,
            stages=site.pp,
            slots=slots,
            micro=p.pp_max_micro_batch_size or max(rows // site.pp, 1),
            lora_limit=p.max_loras_per_batch if p.enable_lora else 0,
            recv_interval=p.scheduler_recv_interval,
            side=("null", "prefill", "decode").index(p.disaggregation_mode),
            num_reserved=p.num_reserved_decode_tokens,
            spare_rows=2 * rows if p.disaggregation_mode == "decode" and rows <= 32 else 0,
            spec_proposed=drafts.proposed,
            cache_off=p.disable_radix_cache,
            mixed=p.enable_mixed_chunk and (p.chunked_prefill_size or 0) > 0,
            priority_on=p.enable_priority_scheduling,
            preempt_on=p.enable_priority_scheduling and not p.disable_priority_preemption,
            retract_by_priority=p.retraction_policy == "priority",
            ignore_eos=p.ignore_eos,
            recording=bool(site.extra.get("recording", False)),
            init_ratio=init,
            min_ratio=low,
            decay=(init - low) / 600,
        )
        return new_process(p, site, told, second, few, replica, recorder, cost, drafts.right)

    @classmethod
    def tiers(cls, params: SglangParams, site: Site, blocks: int) -> TierPlan | None:
        """HiCache's host memory."""
        return host_plan(params, site, pool_tokens(params, blocks))

    @classmethod
    def group(cls, states: Sequence[EngineState], recorder: Recorder) -> Group:
        """Servers with HiCache say what their host memory did."""
        if not has_host(states[0]):
            return super().group(states, recorder)
        from sim.engine.schedulers.sglang.hierarchy_group import HostEngines

        return HostEngines(states, recorder)

    @classmethod
    def lockstep(
        cls, states: Sequence[EngineState], recorder: Recorder, ranks: int, shared: SharedCost | None, interval: int
    ) -> Group:
        """As `group`."""
        if not has_host(states[0]):
            return super().lockstep(states, recorder, ranks, shared, interval)
        from sim.engine.schedulers.sglang.hierarchy_group import HostRanks

        return HostRanks(states, recorder, ranks, shared, interval)

    @classmethod
    def memory_rule(cls, params: SglangParams, site: Site) -> SglangRule:
        """With the pools that the model gets."""
        slots = params.max_mamba_cache_size
        if slots is None and params.disable_radix_cache:
            slots = params.max_running_requests  # nobody else needs one
        rule = super().memory_rule(params, site)
        assert isinstance(rule, SglangRule)
        rule = replace(rule, block_size=params.page_size, max_mamba_cache_size=slots)
        return replace(rule, keeps=pools.keeps(params, site.model))

    @classmethod
    def cache_notes(cls, params: SglangParams, site: Site) -> tuple[str, ...]:
        """Also where the host side is of an older line."""
        return (*super().cache_notes(params, site), *older_host("sglang", params.version, cls.version))

    @classmethod
    def caches(cls, params: SglangParams, model: ModelSpec | None) -> tuple[str, ...]:
        """All kinds, but for what `pools.unmodelled` names."""
        return pools.kept(params, model)

    @classmethod
    def ranks(cls, params: SglangParams, site: Site) -> Ranks | None:
        """Under DP attention they step together, otherwise each is a server of its own."""
        return None if site.dp == 1 else ranks.ranks_of(params, site)

    @classmethod
    def overlaps(cls, params: SglangParams) -> bool | None:
        """Unless ``disable_overlap_schedule``."""
        return not params.disable_overlap_schedule

    @classmethod
    def eager(cls, params: SglangParams) -> bool:
        """``disable_cuda_graph``."""
        return params.disable_cuda_graph

    @classmethod
    def most_running(cls, params: SglangParams) -> int:
        """``max_running_requests``."""
        return params.max_running_requests or 0

    @classmethod
    def host(cls, params: SglangParams, profile: EngineProfile) -> EngineProfile:
        """The profile with the decode graphs of these settings: batches are padded to the next one, larger ones are launched kernel by kernel.

        A server that speculates has more to do on the host.
        """
        made = super().host(params, profile)
        if params.speculative_algorithm is not None:
            made = made.changed({"host_step": made.host_step + made.draft_step, "host_row": made.host_row + made.draft_row})
        if not made.graph_sizes or params.cuda_graph_max_bs is None:
            return made
        verified = params.speculative_num_draft_tokens if params.speculative_algorithm else 1
        sizes = settings.decode_graph_sizes(params.cuda_graph_max_bs, verified > 1)
        return made.adapted(graph_sizes=tuple(n * verified for n in sizes))

    @classmethod
    def as_side(cls, params: SglangParams, role: Role) -> SglangParams:
        """With the ``disaggregation_mode`` of the role."""
        return settings.as_side(params, role)

    @classmethod
    def extras(cls, params: SglangParams, site: Site) -> Extras | None:
        """Drafts and adapters."""
        rank = params.max_lora_rank if params.enable_lora else 0
        if params.speculative_algorithm is None:
            return Extras(lora_rank=rank) if rank else None
        d, path = drafting(params), params.speculative_draft_model_path
        notes = (estimate_note(d.method, d.right),) if params.speculative_accept_rate is None else ()
        draft = None if path is None else load_model(path)
        return Extras(d.method, d.proposed, draft, rank, draft_passes=d.passes, notes=notes)

    @classmethod
    def adapters(cls, params: SglangParams) -> Adapters | None:
        """``max_loras_per_batch`` on the device; all of them in host memory, loaded with the server."""
        return Adapters(params.max_lora_rank, params.max_loras_per_batch) if params.enable_lora else None

    @classmethod
    def max_batch_tokens(cls, params: SglangParams, site: Site) -> int:
        """Chunks and decode rows of one batch; without chunking a single prompt may be as long as the context."""
        rows = params.max_running_requests or 4096
        rows *= params.speculative_num_draft_tokens if params.speculative_algorithm else 1
        chunk = params.chunked_prefill_size or 8192
        if chunk < 0:
            chunk = max(params.max_prefill_tokens, params.context_length or 131072)
        return chunk + rows
