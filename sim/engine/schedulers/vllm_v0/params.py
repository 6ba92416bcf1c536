"""Engine arguments of vLLM 0.2 to 0.7 that change scheduling, and their defaults by version (``engine/arg_utils.py``, ``config.py``)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from sim.engine.contract import EngineParams, Site
from sim.engine.effect import needs
from sim.engine.schedulers.vllm.params import model_length, resolve_adapters
from sim.errors import ConfigError, NotModelledError

_LATEST = 99  # a version without a patch number is the last release of its line
_LONG = 32768


class VllmV0Params(EngineParams):
    """Settings as ``vllm serve`` (``api_server``) spelled them; None is vLLM's own default for the version."""

    version: str = Field(
        "0.6",
        pattern=r"^0\.\d+(\.\d+)?$",
        description="release whose rules and defaults apply, 0.2 to 0.7, or 0.6.2 and the like",
    )
    max_num_batched_tokens: int | None = Field(None, ge=1, description="most tokens in one step")
    max_num_seqs: int = Field(256, ge=1, description="most sequences running at once")
    max_model_len: int | None = Field(None, ge=2, description="longest prompt and output together; default from the model")
    hf_overrides: dict[str, JsonValue] | None = Field(
        None, description="overrides of the model's config: lengths and RoPE scaling"
    )
    VLLM_ALLOW_LONG_MAX_MODEL_LEN: bool = Field(
        False, description="accept a max_model_len above the length derived from the config"
    )
    max_paddings: int | None = Field(None, ge=0, description="most padding tokens in a batch of prompts (to 0.3); default 256")
    block_size: int = Field(16, ge=1, le=1024, description="tokens per KV block")
    gpu_memory_utilization: float = Field(0.9, gt=0.0, le=1.0, description="share of GPU memory that vLLM may use")
    num_gpu_blocks_override: int | None = Field(None, ge=1, description="number of KV blocks, instead of what fits (from 0.4)")
    swap_space: float = Field(4.0, ge=0.0, le=2**20, description="GiB of host memory per GPU for swapped blocks")
    preemption_mode: Literal["recompute", "swap"] | None = Field(
        None, description="what happens to preempted requests (from 0.5); default recompute, as requests have one sequence here"
    )
    enable_chunked_prefill: bool | None = Field(
        None, description="a prompt may be computed over several steps (from 0.4); by default for long contexts from 0.5.3"
    )
    scheduler_delay_factor: float = Field(
        0.0, ge=0.0, description="prompts wait this many times the last step with prompts (from 0.4)"
    )
    scheduling_policy: Literal["fcfs", "priority"] = Field(
        "fcfs", description="priority: the lower value first (from 0.6.2)", json_schema_extra=needs("priorities")
    )
    num_lookahead_slots: int = Field(0, ge=0, description="slots allocated ahead per sequence (block manager v2)")
    use_v2_block_manager: bool | None = Field(None, description="block manager v2 (from 0.4); default from 0.6.3")
    disable_async_output_proc: bool = Field(
        False, description="process outputs before the next step (from 0.6; before it always is so)"
    )
    num_scheduler_steps: int = Field(1, ge=1, description="only 1 is modelled")
    enable_prefix_caching: bool = Field(False, description="only false is modelled for these versions")
    enforce_eager: bool = Field(False, description="no CUDA graphs")
    enable_lora: bool | None = Field(
        None, description="serve adapters; by default where max_loras is given", json_schema_extra=needs("adapters")
    )
    max_lora_rank: int = Field(16, ge=1, le=512, description="rank of the adapters", json_schema_extra=needs("adapters"))
    max_loras: int | None = Field(
        None,
        ge=1,
        description="adapters in one batch and on the device; default 1 with enable_lora",
        json_schema_extra=needs("adapters"),
    )
    max_cpu_loras: int | None = Field(
        None, ge=1, description="adapters kept in host memory; default max_loras", json_schema_extra=needs("adapters")
    )

    @property
    def release(self) -> tuple[int, int]:
        """(6, 2) of 0.6.2, (6, 99) of 0.6."""
        parts = [int(n) for n in self.version.split(".")]
        return parts[1], parts[2] if len(parts) > 2 else _LATEST


# setting → release that brought it, release that took it away, the value that says nothing
_SINCE: dict[str, tuple[tuple[int, int], tuple[int, int], object]] = {
    "max_paddings": ((0, 0), (4, 0), None),
    "num_gpu_blocks_override": ((4, 0), (8, 0), None),
    "enable_chunked_prefill": ((4, 0), (8, 0), None),
    "scheduler_delay_factor": ((4, 0), (8, 0), 0.0),
    "use_v2_block_manager": ((4, 0), (8, 0), None),
    "num_lookahead_slots": ((4, 0), (8, 0), 0),
    "preemption_mode": ((5, 0), (8, 0), None),
    "num_scheduler_steps": ((6, 0), (8, 0), 1),
    "disable_async_output_proc": ((6, 0), (8, 0), False),
    "scheduling_policy": ((6, 2), (8, 0), "fcfs"),
}


def _refuse(p: VllmV0Params, site: Site) -> None:
    if not 2 <= p.release[0] <= 7:
        raise NotModelledError("engine.version", p.version, "is no release of V0 that is modelled", "0.2 to 0.7")
    for name, (first, gone, off) in _SINCE.items():
        value = getattr(p, name)
        if value not in (off, False) and not first <= p.release < gone:
            raise ConfigError(f"engine.{name}", value, f"version {p.version} has no such setting", str(off))
    if p.num_scheduler_steps > 1:
        raise NotModelledError("engine.num_scheduler_steps", p.num_scheduler_steps, "multi-step scheduling is not modelled", "1")
    if p.enable_prefix_caching:
        raise NotModelledError("engine.enable_prefix_caching", True, "V0's prefix caching is not modelled", "false, or 0.8")
    if p.scheduling_policy == "priority" and p.preemption_mode == "swap":
        raise ConfigError("engine.preemption_mode", "swap", "V0 cannot swap under the priority policy", "recompute")
    for name in ("pp", "dp"):
        if getattr(site, name) > 1:
            why = "V0's virtual engines are not modelled" if name == "pp" else "V0 has no data parallelism"
            raise NotModelledError(f"deployment.{name}", getattr(site, name), why, "1")


def _chunks(p: VllmV0Params, site: Site, length: int) -> bool:
    """``enable_chunked_prefill`` left open: on for contexts above 32 K on NVIDIA cards, unless something speaks against it."""
    model, card = site.model, site.accelerator
    if p.release < (5, 3) or length <= _LONG or p.enable_lora:
        return False
    if card is not None and getattr(card, "vendor", "nvidia") != "nvidia":
        return False
    if model is None:
        return True
    kinds = getattr(model, "kinds", ())
    return (
        "sliding" not in kinds
        and not (p.release >= (6, 0) and getattr(model, "vision_params", 0))
        and not getattr(model, "is_mla", False)
    )


def resolve(p: VllmV0Params, site: Site) -> VllmV0Params:
    """Every default filled in. Raises ConfigError, NotModelledError."""
    _refuse(p, site)
    p = p.model_copy(update=resolve_adapters(p))
    length = model_length(p, site)
    chunked = _chunks(p, site, length) if p.enable_chunked_prefill is None else p.enable_chunked_prefill
    tokens = p.max_num_batched_tokens
    if tokens is None:
        tokens = (2048 if p.release >= (6, 5) else 512) if chunked else max(length, 2048)
    if not chunked and tokens < length:
        raise ConfigError(
            "engine.max_num_batched_tokens", tokens, "without chunked prefill must reach max_model_len", f"at least {length}"
        )
    if tokens < p.max_num_seqs:
        raise ConfigError("engine.max_num_batched_tokens", tokens, "must not be below max_num_seqs", f"at least {p.max_num_seqs}")
    manager = p.use_v2_block_manager
    if manager is None or p.release >= (6, 5):  # v1 was removed then and the setting has no effect
        manager = p.release >= (6, 3)
    if p.num_lookahead_slots > 0 and not manager:
        raise ConfigError("engine.num_lookahead_slots", p.num_lookahead_slots, "needs block manager v2", "0")
    return p.model_copy(
        update={
            "max_model_len": length,
            "max_num_batched_tokens": tokens,
            "enable_chunked_prefill": chunked,
            "use_v2_block_manager": manager,
            "max_paddings": 256 if p.max_paddings is None else p.max_paddings,
            "preemption_mode": p.preemption_mode or "recompute",
        }
    )
