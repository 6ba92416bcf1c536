"""What the compiled state of an engine core is made from: resolved settings as numbers, and how many drafts are accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from sim.cost.drafts import acceptance
from sim.cost.memory import SharedBlocks
from sim.engine.contract import Site
from sim.engine.schedulers.vllm import params as settings
from sim.engine.schedulers.vllm.connectors import connector_of, tiers_of
from sim.engine.schedulers.vllm.kv_layers import KvLayout
from sim.engine.schedulers.vllm.kv_plan import GroupPlan
from sim.engine.schedulers.vllm.params import VllmParams
from sim.engine.schedulers.vllm.state import DECODE_SIDE, PREFILL_SIDE, TIERED, VllmSettings
from sim.errors import ConfigError
from sim.jit import by_name
from sim.streams import stream

if TYPE_CHECKING:
    from sim.cost.step import StepCost
    from sim.engine.recorder import Recorder
    from sim.engine.schedulers.vllm.groups import GroupState
    from sim.engine.seam import I4

_DRAWS = 4096
Core: TypeAlias = "tuple[int, Recorder, StepCost, VllmSettings, I4]"
"""What `state.init_vllm` takes."""
_ROLES = {"kv_producer": PREFILL_SIDE, "kv_consumer": DECODE_SIDE, "kv_both": TIERED}


def acceptance_of(s: settings.SpeculativeConfig) -> float | tuple[float, ...]:
    """The acceptance stated, or that of the method."""
    return acceptance(s.method, s.num_speculative_tokens) if s.acceptance_rate is None else s.acceptance_rate


def accepted_drafts(rate: float | tuple[float, ...], drafts: int, seed: int) -> I4:
    """i4[_DRAWS]: how many of ``drafts`` are accepted, each only if the one before it was."""
    rates = list(rate) if isinstance(rate, tuple) else [rate] * drafts
    rates = (rates + [rates[-1]] * drafts)[:drafts]
    draws = stream(seed, "vllm.acceptance").random((_DRAWS, drafts)) < np.array(rates)
    return np.cumprod(draws, axis=1).sum(axis=1).astype(np.int32)


def ahead(p: VllmParams) -> bool:
    """Whether hashes of drafting models cover the token after the block, so that no block of a hit is computed again."""
    return p.minor >= 24 and not p.disable_lookahead_block_hashes


def legacy_drops(p: VllmParams) -> bool:
    """Whether hits of a drafting model lose their last block."""
    s = p.speculative_config
    drafting = s is not None and s.method in ("eagle", "eagle3", "mtp")
    return drafting and not (ahead(p) and p.enable_prefix_caching)


def core_arguments(
    p: VllmParams, site: Site, blocks: int, replica: int, recorder: Recorder, cost: StepCost, balances: bool
) -> Core:
    """What `state.init_vllm` takes. ``blocks``: KV blocks including the null block."""
    drafts, method, extra = 0, "", site.extra
    if p.speculative_config is not None:
        drafts, method = p.speculative_config.num_speculative_tokens, p.speculative_config.method
    drafting = method in ("eagle", "eagle3", "mtp")
    lookahead = drafts if drafting or method == "draft_model" else 0
    ahead_hashes = ahead(p)
    connector = connector_of(p)
    role = 0 if connector is None else _ROLES[connector.kv_role]
    if role == TIERED and tiers_of(p, site) is None:
        role, connector = 0, None
    if "accept_pattern" in extra:
        accept = np.array(extra["accept_pattern"], np.int32)
    elif p.speculative_config is not None:
        accept = accepted_drafts(acceptance_of(p.speculative_config), drafts, int(extra.get("seed", 0)))
    else:
        accept = np.zeros(1, np.int32)
    depth = site.pp + 1 if p.async_scheduling else site.pp
    told = by_name(
        VllmSettings,
        depth=depth,
        blocks=blocks - 1,
        enable_prefix_caching=p.enable_prefix_caching,
        lifo=p.minor >= 21,
        max_num_batched_tokens=p.max_num_batched_tokens,
        max_run=p.max_num_active_seqs or p.max_num_seqs,
        max_model_len=p.max_model_len,
        block_size=p.block_size,
        watermark=p.watermark * blocks,
        long_prefill_token_threshold=p.long_prefill_token_threshold,
        threshold_adaptive=p.long_prefill_token_threshold_adaptive,
        lone_exempt=p.minor >= 24,
        enable_chunked_prefill=p.enable_chunked_prefill,
        scheduler_reserve_full_isl=p.scheduler_reserve_full_isl,
        priority=p.scheduling_policy == "priority",
        async_scheduling=p.async_scheduling,
        pp=site.pp,
        prefill_schedule_interval=p.prefill_schedule_interval,
        max_loras=p.max_loras or 0,
        drafts=drafts,
        lookahead=lookahead,
        hash_ahead=drafting and ahead_hashes and p.enable_prefix_caching,
        draft_slots=method == "draft_model",
        accept_spread="accept_pattern" not in extra,
        role=role,
        drop_hit=drafting and not ahead_hashes,
        balance=balances,
        transfer_base=connector.transfer_base if connector else 0.0,
        transfer_per_token=connector.transfer_per_token if connector else 0.0,
        idle_poll=connector.idle_poll if connector else 0.0,
    )
    return replica, recorder, cost, told, accept


def in_flight(p: VllmParams, site: Site) -> int:
    """Tokens of all batches under way."""
    return (site.pp + 1 if p.async_scheduling else site.pp) * (p.max_num_batched_tokens or 8192)


def per_request(plan: GroupPlan, p: VllmParams, site: Site) -> int:
    """Blocks of all groups that a request of ``max_model_len`` takes."""
    drafts = p.speculative_config.num_speculative_tokens if p.speculative_config is not None else 0
    return sum(plan.per_request(p.max_model_len or 0, in_flight(p, site), p.enable_prefix_caching, drafts))


def pool_of(layout: KvLayout, p: VllmParams, site: Site) -> SharedBlocks:
    """What the memory rule has to know of the layout."""
    length, plan = p.max_model_len or 0, layout.plan
    if plan is None:
        size = layout.block_size
        return SharedBlocks(layout.bytes_per_block, size, -(-length // size), length, "", 1)
    old = len(plan.groups) if p.minor < 21 else 0
    return SharedBlocks(layout.bytes_per_block, layout.block_size, per_request(plan, p, site), length, plan.words, old)


def new_groups(plan: GroupPlan, p: VllmParams, site: Site, arguments: Core) -> GroupState:
    """The state of an engine core with several KV groups; what it is made of is imported, and compiled, only here."""
    from sim.engine.outline import addresses
    from sim.engine.schedulers.vllm.groups import GroupState, new_group_state
    from sim.engine.schedulers.vllm.groups.arrays import arrays

    replica, recorder, cost, told, accept = arguments
    needed = per_request(plan, p, site)
    if told.blocks < needed and not site.extra.get("recording"):
        raise ConfigError(
            "deployment.kv_blocks",
            told.blocks + 1,
            f"one request of max_model_len {p.max_model_len} takes {needed} blocks of the groups {plan.words}",
            hint="set engine.max_model_len lower",
        )
    told = told._replace(block_size=plan.hash_block_size)
    groups, specs, more, longest = arrays(plan, p, told.depth, legacy_drops(p))
    fn = addresses(GroupState)
    return new_group_state(replica, recorder, cost, told, accept, fn, groups, specs, more, longest)
