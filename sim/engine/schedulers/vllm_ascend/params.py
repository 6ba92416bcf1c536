"""Settings of vllm-ascend beside those of ``vllm serve``: ``--additional-config`` as it spells them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from sim.engine.contract import Site
from sim.engine.effect import inert
from sim.engine.schedulers.vllm.params import VllmParams
from sim.errors import ConfigError, NotModelledError


class AscendSchedulerConfig(BaseModel):
    """``additional_config.ascend_scheduler_config`` (to 0.11)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool | None = Field(
        None, description="the prefill-first AscendScheduler; by default on for models without MLA in 0.9, else off"
    )
    enable_chunked_prefill: bool = Field(False, description="true: with it enabled, schedule as vLLM does all the same")


class ShortRequestFirstConfig(BaseModel):
    """``additional_config.scheduler_config.short_request_first_config``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: int = Field(256, ge=0, description="longest prompt in tokens that counts as short")
    long_max_wait_ms: float = Field(
        0.0, ge=0.0, description="after this long a long prompt goes before short ones; 0: it never does"
    )


class SchedulerConfig(BaseModel):
    """``additional_config.scheduler_config``: opt-in schedulers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enable_balance_scheduling: bool = Field(False, description="no data-parallel rank admits while the batch of any is full")
    recompute_scheduler_enable: bool = Field(False, description="decode nodes send requests back; only false is modelled")
    short_request_first_config: ShortRequestFirstConfig | None = Field(None, description="lanes by prompt length")
    batch_job_sched_config: dict[str, float] | None = Field(None, description="offline jobs; only null is modelled")
    dyntra_lb_config: dict[str, float] | None = Field(None, description="balance of long requests; only null is modelled")
    profiling_chunk_config: dict[str, float] | None = Field(None, description="chunks of equal time; only null is modelled")


class AdditionalConfig(BaseModel):
    """``--additional-config``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ascend_scheduler_config: AscendSchedulerConfig = Field(default_factory=AscendSchedulerConfig, description="to 0.11")
    scheduler_config: SchedulerConfig = Field(default_factory=SchedulerConfig, description="opt-in schedulers")


class VllmAscendParams(VllmParams):
    """Settings as ``vllm serve`` spells them, with vllm-ascend's own."""

    version: str = Field(
        "0.24", pattern=r"^0\.\d+(\.\d+)?$", description="release of vllm-ascend, whose rules and defaults apply, 0.8 to 0.24"
    )
    block_size: int = Field(128, ge=1, le=1024, description="tokens per KV block")
    enable_prefix_caching: bool | None = Field(
        None, description="reuse blocks of equal prefixes; by default on, with the AscendScheduler off"
    )
    VLLM_MXFP4_USE_MARLIN: bool | None = Field(
        None,
        description="kernel of mxfp4 experts on CUDA cards (environment)",
        json_schema_extra=inert("Marlin runs on CUDA cards only"),
    )
    additional_config: AdditionalConfig = Field(default_factory=AdditionalConfig, description="settings of vllm-ascend")

    @property
    def prefill_first(self) -> bool:
        """Whether the AscendScheduler decides, once resolved."""
        ascend = self.additional_config.ascend_scheduler_config
        return bool(ascend.enabled) and not ascend.enable_chunked_prefill


BALANCE = "engine.additional_config.scheduler_config.enable_balance_scheduling"
_WHY = {
    "recompute_scheduler_enable": "requests that a decode node sends back to be prefilled again are not modelled",
    "batch_job_sched_config": "requests carry no job names here",
    "dyntra_lb_config": "the balance of long requests between data-parallel ranks is not modelled",
    "profiling_chunk_config": "chunks by a fitted time are not modelled",
}


def _refuse(p: VllmAscendParams, site: Site) -> None:
    """What the AscendScheduler cannot do, and the opt-in schedulers that are missing."""
    opt_in = p.additional_config.scheduler_config
    for name, why in _WHY.items():
        if getattr(opt_in, name):
            raise NotModelledError(
                f"engine.additional_config.scheduler_config.{name}", getattr(opt_in, name), why, "leave it out"
            )
    if opt_in.enable_balance_scheduling and (site.dp == 1 or not site.spec.is_moe):
        raise ConfigError(BALANCE, True, "needs ranks that step together", "false", "deployment.dp > 1 and experts")
    chosen = "short_request_first_config" if opt_in.short_request_first_config is not None else ""
    if p.prefill_first and chosen:
        raise ConfigError(f"engine.additional_config.scheduler_config.{chosen}", "set", "goes with vLLM's scheduler only", "null")
    if not p.prefill_first and not chosen:
        return
    what = chosen or "the AscendScheduler"
    if p.scheduling_policy != "fcfs":
        raise ConfigError("engine.scheduling_policy", p.scheduling_policy, f"{what} serves first come first", "fcfs")
    if p.kv_transfer_config is not None:
        raise NotModelledError("engine.kv_transfer_config", "set", f"a disaggregated side with {what} is not modelled", "null")
    if chosen and p.max_loras is not None:
        raise NotModelledError("engine.max_loras", p.max_loras, f"adapters with {what} are not modelled", "null")
    if p.prefill_first:
        if p.async_scheduling:
            raise ConfigError("engine.async_scheduling", True, f"{what} is synchronous", "false")
        if p.speculative_config is not None:
            raise NotModelledError("engine.speculative_config", "set", f"speculation with {what} is not modelled", "null")
        if site.pp > 1:
            raise NotModelledError("deployment.pp", site.pp, f"pipeline stages with {what} are not modelled", "1")


def settle(p: VllmAscendParams, site: Site) -> VllmAscendParams:
    """vllm-ascend's own defaults, before vLLM's. Raises `ConfigError` and `NotModelledError`."""
    if not 8 <= p.minor <= 24:
        why = "this release is not known" if p.minor > 24 else "this release is not modelled"
        raise NotModelledError("engine.version", p.version, why, "0.8 to 0.24")
    ascend = p.additional_config.ascend_scheduler_config
    if ascend.enabled and p.minor >= 12:
        field = "engine.additional_config.ascend_scheduler_config.enabled"
        raise ConfigError(field, True, f"version {p.version} has no AscendScheduler", "false")
    if ascend.enabled is None:
        latent = site.model is not None and bool(getattr(site.model, "is_mla", False))
        on = p.minor == 9 and not latent
        ascend = ascend.model_copy(update={"enabled": on})
    new: dict[str, object] = {"additional_config": p.additional_config.model_copy(update={"ascend_scheduler_config": ascend})}
    p = p.model_copy(update=new)
    if p.prefill_first:
        new["enable_chunked_prefill"] = False
        new["scheduler_reserve_full_isl"] = False
    if p.enable_prefix_caching is None:
        new["enable_prefix_caching"] = not p.prefill_first
    if p.gpu_memory_utilization is None:
        new["gpu_memory_utilization"] = 0.9
    p = p.model_copy(update=new)
    _refuse(p, site)
    return p
