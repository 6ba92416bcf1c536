"""The registered class: from settings to the state of one replica."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from sim.cost.drafts import estimate_note
from sim.cost.extras import Extras
from sim.cost.memory import GIB, Deployment, block_bytes
from sim.cost.memory_rules import MindieRule
from sim.engine.contract import Ranks, Scheduler, Site
from sim.engine.outline import addresses
from sim.engine.schedulers.mindie.params import NEWEST, MindieParams, resolve_params
from sim.engine.schedulers.mindie.params import as_side as settings_of_side
from sim.engine.schedulers.mindie.ranks import at_rest_mindie, confer_mindie, heed_mindie, unfinished_mindie
from sim.engine.schedulers.mindie.sides import drop_remote_mindie, kv_arrived_mindie, release_kept_mindie
from sim.engine.schedulers.mindie.state import LATENCY, ROLES, MindieSettings, MindieState, grow_mindie, new_mindie
from sim.engine.schedulers.mindie.steady import apply_mindie, steady_mindie
from sim.engine.schedulers.mindie.step import complete_mindie, enqueue_mindie, plan_mindie
from sim.engine.sides import HandOver, Role
from sim.errors import ConfigError, NotModelledError
from sim.jit import by_name, implement
from sim.registry import register
from sim.streams import stream

if TYPE_CHECKING:
    from sim.cost.step import StepCost
    from sim.engine.recorder import Recorder
    from sim.engine.seam import I4

implement(
    MindieState,
    enqueue=enqueue_mindie,
    plan=plan_mindie,
    complete=complete_mindie,
    steady_steps=steady_mindie,
    apply_steady=apply_mindie,
    grow=grow_mindie,
    release_kept=release_kept_mindie,
    kv_arrived=kv_arrived_mindie,
    drop_remote=drop_remote_mindie,
    confer=confer_mindie,
    heed=heed_mindie,
    unfinished=unfinished_mindie,
    at_rest=at_rest_mindie,
)

_DRAWS = 8191
_RESERVED = 0.05  # of all blocks: below, only decodes are scheduled (PRESERVED_FACTOR_FOR_DECODE)
_USUAL_DELAY = 5000  # µs
_EARLY = 1e-7  # seconds of rounding that a wait in floating point is forgiven


def never_called(p: MindieParams) -> frozenset[str]:
    """Outlined functions that these settings cannot reach: they are not compiled."""
    speculates, caches = p.gamma > 0, bool(p.enablePrefixCache)
    unused = {
        "mixed_round": not p.enableChunkedPrefill,
        "prefill_round": bool(p.enableChunkedPrefill) or p.role == "D",
        "decode_round": bool(p.enableChunkedPrefill) or p.role == "P",
        "settle": p.role == "PnD",
        "take_remote": p.role != "D",
        "_least_laxity": p.stageSelectPolicy != LATENCY,
        "learn": p.stageSelectPolicy != LATENCY,
        "adjust": not p.dynamicBatchSizeEnable,
        "_hold_places": not speculates,
        "_look_up": not caches,
        "_allocate_cached": not caches,
        "_append_cached": not caches,
    }
    return frozenset(name for name, never in unused.items() if never)


@register("engine")
class Mindie(Scheduler[MindieParams]):
    """Huawei MindIE: separate prefill and decode batches, or chunked prefill; see the package's docstring."""

    name = "mindie"
    context_setting = "maxSeqLen"
    aliases = ("mindie-llm", "mindie-service")
    Params = MindieParams
    version = NEWEST
    models = (
        "Ascend/MindIE-LLM 8b4871ad (2026-04-23): src/scheduler/{scheduler.cpp,policy,latency_predictor}, src/block_manager, "
        "src/engine/llm_engine.cpp, src/server/conf/config.json"
    )
    rule = MindieRule
    hands_over = HandOver(first="prefill", first_token="prefill", pair=True, returns=True)
    not_modelled: ClassVar[tuple[str, ...]] = (
        "pipeline stages, sequence and context parallelism; DP ranks of dense models or of a disaggregated deployment",
        "flex roles of a disaggregated deployment, chunked prefill on P, the prefix cache on D",
        "asynchronous scheduling",
        "layerwise (edge-cloud) serving",
        "swapping together with the prefix cache",
        "a KV pool shared between servers",
        "beam search and parallel sampling",
        "response smoothing",
    )

    @classmethod
    def resolve(cls, params: MindieParams, site: Site) -> MindieParams:
        """Settings as MindIE's configuration manager completes and checks them. Raises ConfigError, NotModelledError."""
        return resolve_params(params, site)

    @classmethod
    def as_side(cls, params: MindieParams, role: Role) -> MindieParams:
        """``inferMode`` dmi and the role that Motor's controller assigns. Raises ConfigError."""
        return settings_of_side(params, role)

    @classmethod
    def ranks(cls, params: MindieParams, site: Site) -> Ranks | None:
        """Ranks that share the experts, vote on each phase and step together, behind a front end that sends to the least loaded."""
        if site.dp == 1:
            return None
        if not site.spec.is_moe:
            raise NotModelledError("deployment.dp", site.dp, "DP ranks of dense models are not modelled for MindIE", "1")
        if params.role != "PnD":
            raise NotModelledError("deployment.dp", site.dp, "DP ranks of roles P and D are not modelled", "1")
        return Ranks(site.dp, True, "mindie_dp")

    @classmethod
    def cache_notes(cls, params: MindieParams, site: Site) -> tuple[str, ...]:
        """Of another release than the one whose decisions are modelled, that too."""
        older = () if params.version == cls.version else (f"version {params.version} decides as {cls.version}",)
        return (*super().cache_notes(params, site), *older)

    cut_context = ("maxSeqLen",)

    @classmethod
    def overlaps(cls, params: MindieParams) -> bool | None:
        """``async_scheduling``."""
        return params.async_scheduling

    @classmethod
    def most_running(cls, params: MindieParams) -> int:
        """``maxBatchSize``."""
        return params.maxBatchSize or 0

    @classmethod
    def max_context(cls, params: MindieParams, site: Site) -> int:
        """``maxSeqLen``, at most the model's context."""
        return params.maxSeqLen if site.model is None else min(params.maxSeqLen, int(site.model.max_position))

    @classmethod
    def max_batch_tokens(cls, params: MindieParams, site: Site) -> int:
        """A full prefill budget, or every decode row with its guesses."""
        rows = params.maxBatchSize * (1 + params.gamma)
        return params.token_budget + rows if params.enableChunkedPrefill else max(params.token_budget, rows)

    @classmethod
    def extras(cls, params: MindieParams, site: Site) -> Extras | None:
        """Guesses of speculative decoding."""
        if params.gamma == 0 or params.plugin_params is None:
            return None
        plugin = params.plugin_params
        notes = (estimate_note(plugin.method, plugin.right),) if plugin.acceptance_rate is None else ()
        return Extras(plugin.method, params.gamma, notes=notes)

    @classmethod
    def new_state(
        cls, params: MindieParams, site: Site, blocks: int, replica: int, recorder: Recorder, cost: StepCost
    ) -> MindieState:
        """One server; ``blocks`` KV blocks. ``site.extra`` of a replay: ``recording``, ``gamma``, ``cpu_blocks``, ``longest``,
        ``empty_batch`` (time of a batch that only swaps)."""
        p, extra = params, site.extra
        recorded = bool(extra.get("recording"))
        if not recorded and blocks * p.cacheBlockSize < p.maxSeqLen:
            raise ConfigError(
                "deployment.kv_blocks",
                blocks,
                f"one request of maxSeqLen {p.maxSeqLen} does not fit",
                hint=f"set engine.maxSeqLen to at most {blocks * p.cacheBlockSize}",
            )
        gamma = int(extra.get("gamma", p.gamma))
        longest = int(extra.get("longest", p.maxSeqLen))
        second = 1e6 if recorded else 1.0
        delay = p.maxQueueDelayMicroseconds * 1e-6 * second
        told = by_name(
            MindieSettings,
            blocks=blocks,
            block_size=p.cacheBlockSize,
            max_prefill_batch=p.maxPrefillBatchSize,
            max_batch=p.maxBatchSize,
            max_tokens=p.token_budget,
            max_seq=p.maxSeqLen if not recorded else longest,
            max_input=p.maxInputTokenLen if not recorded else longest,
            max_iter=p.maxIterTimes if not recorded else longest,
            long_delay=p.maxQueueDelayMicroseconds > _USUAL_DELAY,
            first_wait=p.maxFirstTokenWaitTime,
            max_preempt=p.maxPreemptCount,
            policy=p.stageSelectPolicy if p.role == "PnD" else 0,
            prefill_ms=p.prefillTimeMsPerReq,
            decode_ms=p.decodeTimeMsPerReq,
            gamma=gamma,
            chunked=bool(p.enableChunkedPrefill),
            chunk=p.prefillChunkSize or p.maxPrefillTokens,
            long_threshold=p.longPrefillTokenThreshold,
            max_long=p.maxLongPartialPrefills,
            dynamic=p.dynamicBatchSizeEnable,
            caching=bool(p.enablePrefixCache),
            role=ROLES.index(p.role),
            host_free=host_blocks(p, site),
            reserve=int(_RESERVED * blocks),
            max_prompt=p.maxSeqLen,
            delay=round(delay) if recorded else delay - _EARLY,
            ms=1e-3 * second,
            prefill_expected=p.prefillExpectedTime,
            decode_expected=p.decodeExpectedTime,
            empty_batch=extra.get("empty_batch", 1e-3 * second),
            token_timeout=inf if recorded else p.tokenTimeout,
            e2e_timeout=inf if recorded else p.e2eTimeout,
        )
        right = p.plugin_params.right if p.plugin_params is not None and not recorded else ()
        return new_mindie(
            addresses(MindieState, never_called(p) if "gamma" not in extra else frozenset()),
            replica,
            recorder,
            cost,
            told,
            accepted(right, int(extra.get("seed", 0)), replica),
        )


def host_blocks(p: MindieParams, site: Site) -> int:
    """KV blocks that ``cpuMemSize`` holds."""
    if "cpu_blocks" in site.extra:
        return int(site.extra["cpu_blocks"])
    if p.cpuMemSize == 0 or site.model is None:
        return 0
    d = Deployment(site.model, site.accelerator, site.tp, site.pp, site.ep, site.dp)
    return int(p.cpuMemSize * GIB // block_bytes(d, p.cacheBlockSize))


def accepted(right: tuple[float, ...], seed: int, replica: int) -> I4:
    """i4[draws]: guesses of a step that are right, up to the first wrong one."""
    if not any(right):
        return np.zeros(1, np.int32)
    draws = stream(seed, f"mindie.acceptance.{replica}").random((_DRAWS, len(right))) < np.array(right)
    return np.cumprod(draws, axis=1).sum(axis=1).astype(np.int32)
