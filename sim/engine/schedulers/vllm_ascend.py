"""vllm-ascend: vLLM V1 with the scheduler unchanged, other defaults and graph sizes (vllm-project/vllm-ascend 182b75ea, vLLM 0.24).

**What differs from vLLM** (modules under ``vllm_ascend/``): blocks of 128 tokens; ``gpu_memory_utilization`` 0.9; graphs (ACLGraph) up to
min(``max_num_seqs`` × (1 + drafts), 512) rows instead of twice as many (`platform.py`); host overheads (`profiles/engines/vllm-ascend.yaml`).
``version`` is vllm-ascend's own, which counts as vLLM's; before 0.12 ``ascend_scheduler_config.enabled`` chose a prefill-first scheduler.

**Not modelled**, and refused: that prefill-first AscendScheduler, and the opt-in schedulers of ``additional_config.scheduler_config`` (all but balance:
recompute on decode nodes, short requests first, batch jobs, DyntraLB, profiling chunk).
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from sim.engine.contract import Site
from sim.engine.schedulers.vllm import Vllm
from sim.engine.schedulers.vllm.params import VllmParams
from sim.errors import ConfigError, NotModelledError
from sim.registry import register

BALANCE = "engine.additional_config.scheduler_config.enable_balance_scheduling"


class AscendSchedulerConfig(BaseModel):
    """``additional_config.ascend_scheduler_config`` (0.7 to 0.11)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(False, description="the prefill-first scheduler; only false is modelled")


class SchedulerConfig(BaseModel):
    """``additional_config.scheduler_config``: opt-in schedulers, of which only balance is modelled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enable_balance_scheduling: bool = Field(False, description="no data-parallel rank admits while the batch of any is full")
    recompute_scheduler_enable: bool = Field(False, description="decode nodes send requests back; only false is modelled")
    short_request_first_config: dict[str, float] | None = Field(None, description="lanes by prompt length; only null is modelled")
    batch_job_sched_config: dict[str, float] | None = Field(None, description="offline jobs; only null is modelled")
    dyntra_lb_config: dict[str, float] | None = Field(None, description="balance of long requests; only null is modelled")
    profiling_chunk_config: dict[str, float] | None = Field(None, description="chunks of equal time; only null is modelled")


class AdditionalConfig(BaseModel):
    """``--additional-config``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ascend_scheduler_config: AscendSchedulerConfig = Field(default_factory=AscendSchedulerConfig, description="before 0.12")
    scheduler_config: SchedulerConfig = Field(default_factory=SchedulerConfig, description="opt-in schedulers")


class VllmAscendParams(VllmParams):
    """Settings as ``vllm serve`` spells them, with vllm-ascend's own."""

    version: str = Field(
        "0.24", pattern=r"^0\.\d+$", description="release of vllm-ascend, whose rules and defaults apply, 0.8 to 0.24"
    )
    block_size: int = Field(128, ge=1, le=1024, description="tokens per KV block")
    additional_config: AdditionalConfig = Field(default_factory=AdditionalConfig, description="settings of vllm-ascend")


@register("engine")
class VllmAscend(Vllm):
    """vLLM V1 on Ascend: upstream's scheduler, other defaults."""

    name = "vllm-ascend"
    Params = VllmAscendParams
    version = "0.24"
    models = "vllm-ascend 182b75ea (vLLM 0.24): platform.py, utils.py; scheduling as vLLM"
    not_modelled = (
        *Vllm.not_modelled,
        "AscendScheduler (before 0.12)",
        "recompute, short-request-first, batch-job, DyntraLB and profiling-chunk schedulers",
    )
    profile = "vllm-ascend"

    @classmethod
    def resolve(cls, params: Any, site: Site) -> Any:
        """As vLLM, with 0.9 of the memory. Raises `ConfigError` and `NotModelledError`."""
        extra = params.additional_config
        if params.minor > 24:
            raise NotModelledError("engine.version", params.version, "this release is not known", "0.8 to 0.24")
        if extra.ascend_scheduler_config.enabled:
            field = "engine.additional_config.ascend_scheduler_config.enabled"
            if params.minor >= 12:
                raise ConfigError(field, True, f"version {params.version} has no AscendScheduler", "false")
            raise NotModelledError(field, True, "the prefill-first AscendScheduler is not modelled", "false")
        for name, value in extra.scheduler_config:
            if name == "enable_balance_scheduling":
                if value and (site.dp == 1 or not site.model.is_moe):
                    raise ConfigError(BALANCE, value, "needs ranks that step together", "false", "deployment.dp > 1 and experts")
            elif value:
                raise NotModelledError(
                    f"engine.additional_config.scheduler_config.{name}", value, "is not modelled", "leave it out"
                )
        if params.gpu_memory_utilization is None:
            params = params.model_copy(update={"gpu_memory_utilization": 0.9})
        return super().resolve(params, site)

    @classmethod
    def balances(cls, params: Any) -> bool:
        """Balance scheduling: no rank admits while any had a full batch at the end of the last step."""
        return bool(params.additional_config.scheduler_config.enable_balance_scheduling)

    @classmethod
    def host(cls, params: Any, profile: Any) -> Any:
        """ACL graphs: 1, 2, 4, then multiples of 8 (16 above 256) up to the largest."""
        drafts = params.speculative_config.num_speculative_tokens if params.speculative_config is not None else 0
        top = min((params.max_num_seqs or 256) * (1 + drafts), 512)
        sizes = tuple(n for n in (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)) if n <= top)
        adapted = super().host(params, profile)
        return adapted.adapted(graph_sizes=sizes) if adapted.graph_sizes else adapted
