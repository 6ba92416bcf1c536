"""The registered class: from settings to the state of one replica."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from sim.cost.extras import Extras
from sim.cost.memory_rules import VllmRule
from sim.engine.adapters import Adapters
from sim.engine.contract import Scheduler, Site
from sim.engine.schedulers.vllm.params import adapters_of
from sim.engine.schedulers.vllm_v0.params import VllmV0Params, resolve
from sim.engine.schedulers.vllm_v0.plan import enqueue_v0, plan_v0
from sim.engine.schedulers.vllm_v0.state import V0Settings, V0State, grow_v0, new_v0
from sim.engine.schedulers.vllm_v0.update import apply_v0, complete_v0, steady_v0
from sim.errors import ConfigError
from sim.jit import by_name, implement
from sim.registry import register

if TYPE_CHECKING:
    from sim.cost.memory import Rule
    from sim.cost.step import StepCost
    from sim.engine.recorder import Recorder
    from sim.engine.state import EngineState

implement(
    V0State,
    enqueue=enqueue_v0,
    plan=plan_v0,
    complete=complete_v0,
    steady_steps=steady_v0,
    apply_steady=apply_v0,
    grow=grow_v0,
)
_GIB = 1 << 30
_WATERMARK = 0.01


@register("engine")
class VllmV0(Scheduler[VllmV0Params]):
    """vLLM V0; see the package's docstring. ``vllm`` with a version of 0.2 to 0.7 is this engine."""

    name = "vllm-v0"
    context_setting = "max_model_len"
    Params = VllmV0Params
    version = "0.2 to 0.7"
    models = (
        "vLLM 0.2 to 0.7 (V0): core/{scheduler,block_manager,block_manager_v1,block_manager_v2}.py, core/block/block_table.py, "
        "engine/{llm_engine,arg_utils}.py, config.py"
    )
    rule = VllmRule
    profile = "vllm"
    not_modelled: ClassVar[tuple[str, ...]] = (
        "prefix caching in V0",
        "multi-step scheduling (num_scheduler_steps > 1)",
        "speculative decoding in V0",
        "several sequences per request (n > 1, beam search)",
        "pipeline parallelism in V0 (virtual engines)",
        "concurrent partial prefills (0.7.3)",
        "sliding windows in the block manager",
    )

    @classmethod
    def resolve(cls, params: VllmV0Params, site: Site) -> VllmV0Params:
        """Engine arguments with vLLM's defaults for the version. Raises ConfigError, NotModelledError."""
        return resolve(params, site)

    @classmethod
    def memory_rule(cls, params: VllmV0Params, site: Site) -> Rule | None:
        """What the profiling run of ``max_num_batched_tokens`` leaves."""
        return VllmRule(
            gpu_memory_utilization=params.gpu_memory_utilization,
            max_num_batched_tokens=params.max_num_batched_tokens or 2048,
            max_num_seqs=params.max_num_seqs,
            block_size=params.block_size,
            enforce_eager=params.enforce_eager,
            version=(0, params.release[0]),
        )

    @classmethod
    def new_state(
        cls, params: VllmV0Params, site: Site, blocks: int, replica: int, recorder: Recorder, cost: StepCost
    ) -> EngineState:
        """One engine. ``blocks``: ``# GPU blocks`` as vLLM logs them."""
        p, release = params, params.release
        blocks = p.num_gpu_blocks_override or blocks
        watermark = int(_WATERMARK * blocks)
        if blocks * p.block_size < (p.max_model_len or 0) and release >= (2, 5) and not site.extra.get("recording"):
            raise ConfigError(
                "deployment.kv_blocks",
                blocks,
                f"one request of max_model_len {p.max_model_len} does not fit",
                hint=f"set engine.max_model_len to at most {blocks * p.block_size}",
            )
        if p.enable_chunked_prefill and watermark == 0 and blocks <= -(-(p.max_model_len or 0) // p.block_size):
            raise ConfigError(
                "deployment.kv_blocks",
                blocks,
                "V0 preempts a chunked prompt that leaves no block free for ever",
                hint="one block more, or a lower engine.max_model_len",
            )
        host = site.extra.get("host_blocks")
        if host is None:
            per_block = site.model.kv_bytes_per_token(site.tp, site.pp) * p.block_size if site.model is not None else 0
            host = int(p.swap_space * _GIB // per_block) if per_block else 0
        told = by_name(
            V0Settings,
            blocks=blocks,
            host_blocks=host,
            max_num_batched_tokens=p.max_num_batched_tokens,
            max_num_seqs=p.max_num_seqs,
            max_model_len=p.max_model_len,
            block_size=p.block_size,
            watermark=watermark,
            max_paddings=p.max_paddings,
            num_lookahead_slots=p.num_lookahead_slots,
            max_loras=p.max_loras or 0,
            chunked=bool(p.enable_chunked_prefill),
            swap=p.preemption_mode == "swap",
            manager_v2=bool(p.use_v2_block_manager),
            by_arrival=release < (5, 5),
            padded=release < (4, 0),
            never_swaps=release >= (4, 0),
            finishing_first=release >= (7, 3),
            by_priority=p.scheduling_policy == "priority",
            is_async=release >= (6, 0) and not p.disable_async_output_proc and not p.enforce_eager,
            delay_factor=p.scheduler_delay_factor,
        )
        return new_v0(replica, recorder, cost, told)

    @classmethod
    def eager(cls, params: VllmV0Params) -> bool:
        """``enforce_eager``."""
        return params.enforce_eager

    @classmethod
    def most_running(cls, params: VllmV0Params) -> int:
        """``max_num_seqs``."""
        return params.max_num_seqs or 0

    @classmethod
    def must_fit(cls, params: VllmV0Params) -> int | None:
        """``max_model_len``."""
        return params.max_model_len

    @classmethod
    def extras(cls, params: VllmV0Params, site: Site) -> Extras:
        """Adapters."""
        return Extras(lora_rank=params.max_lora_rank if params.enable_lora else 0)

    @classmethod
    def adapters(cls, params: VllmV0Params) -> Adapters | None:
        """As vLLM V1."""
        return adapters_of(params)

    @classmethod
    def max_context(cls, params: VllmV0Params, site: Site) -> int:
        """``max_model_len``, which the model's length may be below where the check is overridden."""
        return int(params.max_model_len or site.spec.max_position)

    @classmethod
    def max_batch_tokens(cls, params: VllmV0Params, site: Site) -> int:
        """The token budget of a step."""
        return int(params.max_num_batched_tokens or 2048)
