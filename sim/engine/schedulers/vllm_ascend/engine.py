"""The registered class: settings, graphs, and which schedule decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING

from sim.cost.ascend_memory import AscendRule
from sim.cost.engine_figures import version_of
from sim.cost.memory_rules import VllmRule
from sim.engine.contract import Ranks, Site
from sim.engine.schedulers.vllm import Vllm
from sim.engine.schedulers.vllm.state import new_vllm
from sim.engine.schedulers.vllm_ascend.params import VllmAscendParams, settle
from sim.engine.schedulers.vllm_ascend.prefill_first import new_prefill_first
from sim.engine.schedulers.vllm_ascend.short_first import new_short_first
from sim.errors import NotModelledError
from sim.registry import register

if TYPE_CHECKING:
    from sim.cost.memory import Rule
    from sim.cost.profile import EngineProfile
    from sim.cost.step import StepCost
    from sim.engine.recorder import Recorder
    from sim.engine.schedulers.vllm.state import VllmSettings
    from sim.engine.seam import I4
    from sim.engine.state import EngineState


@register("engine")
class VllmAscend(Vllm[VllmAscendParams]):
    """vLLM V1 on Ascend; see the package's docstring."""

    name = "vllm-ascend"
    Params = VllmAscendParams
    version = "0.24"
    models = (
        "vllm-ascend 182b75ea (vLLM 0.24): platform.py, utils.py, core/short_request_first_scheduler.py; 0.9.1: core/scheduler.py; "
        "else as vLLM"
    )
    not_modelled = (
        *Vllm.not_modelled,
        "recompute, batch-job, DyntraLB and profiling-chunk schedulers",
        "offline phases of the AscendScheduler (enable_pd_transfer)",
    )
    profile = "vllm-ascend"

    @classmethod
    def resolve(cls, params: VllmAscendParams, site: Site) -> VllmAscendParams:
        """As vLLM, with 0.9 of the memory. Raises `ConfigError` and `NotModelledError`."""
        return super().resolve(settle(params, site), site)

    @classmethod
    def layout(cls, params: VllmAscendParams, site: Site) -> None:
        """Its own planning of groups is not modelled."""
        return None

    @classmethod
    def memory_rule(cls, params: VllmAscendParams, site: Site) -> Rule | None:
        """As vLLM's, with what differs on NPUs; before 0.9.2 V0 measures the peak."""
        rule = super().memory_rule(params, site)
        if not isinstance(rule, VllmRule):
            return rule
        given = {f.name: getattr(rule, f.name) for f in fields(rule)}
        return AscendRule(**given, by_free_memory=version_of(params.version) < (0, 9, 2))

    @classmethod
    def balances(cls, params: VllmAscendParams) -> bool:
        """Balance scheduling: no rank admits while any had a full batch at the end of the last step."""
        return bool(params.additional_config.scheduler_config.enable_balance_scheduling)

    @classmethod
    def ranks(cls, params: VllmAscendParams, site: Site) -> Ranks | None:
        """As vLLM; ranks that step together only under vLLM's own scheduler."""
        found = super().ranks(params, site)
        lanes = params.additional_config.scheduler_config.short_request_first_config
        if found is not None and found.together and (params.prefill_first or lanes is not None):
            why = "ranks that step together are modelled under vLLM's own scheduler only"
            raise NotModelledError("deployment.dp", site.dp, why, "1")
        return found

    @classmethod
    def constructor(cls, params: VllmAscendParams) -> Callable[..., EngineState]:
        """Of the schedule that the settings choose."""
        lanes = params.additional_config.scheduler_config.short_request_first_config
        if params.prefill_first:
            return new_prefill_first
        if lanes is not None:

            def new_lanes(replica: int, rec: Recorder, cost: StepCost, n: VllmSettings, accept: I4) -> EngineState:
                return new_short_first(replica, rec, cost, n, accept, lanes.threshold, lanes.long_max_wait_ms / 1000.0)

            return new_lanes
        return new_vllm

    @classmethod
    def host(cls, params: VllmAscendParams, profile: EngineProfile) -> EngineProfile:
        """ACL graphs: 1, 2, 4, then multiples of 8 (16 above 256) up to the largest."""
        drafts = params.speculative_config.num_speculative_tokens if params.speculative_config is not None else 0
        top = min((params.max_num_seqs or 256) * (1 + drafts), 512)
        given = params.compilation_config.cudagraph_capture_sizes
        sizes = given or tuple(n for n in (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)) if n <= top)
        adapted = super().host(params, profile)
        return adapted.adapted(graph_sizes=sizes) if adapted.graph_sizes else adapted
