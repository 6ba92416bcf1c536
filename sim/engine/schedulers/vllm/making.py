"""What the compiled state of an engine core is made from: resolved settings as numbers, and how many drafts are accepted."""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.cost.drafts import acceptance
from sim.cost.memory import SharedBlocks
from sim.engine.contract import Site
from sim.engine.schedulers.vllm import params as settings
from sim.engine.schedulers.vllm.kv_layers import KvLayout
from sim.engine.schedulers.vllm.kv_plan import GroupPlan
from sim.engine.schedulers.vllm.params import VllmParams
from sim.errors import ConfigError
from sim.streams import stream

BLOCK_SIZE = 3  # place of the block size among the numbers
_DRAWS = 4096


def acceptance_of(s: settings.SpeculativeConfig) -> float | tuple[float, ...]:
    """The acceptance stated, or that of the method."""
    return acceptance(s.method, s.num_speculative_tokens) if s.acceptance_rate is None else s.acceptance_rate


def accepted_drafts(rate: float | tuple[float, ...], drafts: int, seed: int) -> Any:
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
    p: VllmParams, site: Site, blocks: int, replica: int, recorder: Any, cost: Any, balances: bool
) -> tuple[Any, ...]:
    """What `state.init_vllm` takes. ``blocks``: KV blocks including the null block."""
    drafts, method, extra = 0, "", site.extra
    if p.speculative_config is not None:
        drafts, method = p.speculative_config.num_speculative_tokens, p.speculative_config.method
    drafting = method in ("eagle", "eagle3", "mtp")
    lookahead = drafts if drafting or method == "draft_model" else 0
    ahead_hashes = ahead(p)
    connector = p.kv_transfer_config
    role = 0 if connector is None else 1 if connector.kv_role == "kv_producer" else 2
    times = np.array(
        [connector.transfer_base, connector.transfer_per_token, connector.idle_poll] if connector else [0.0, 0.0, 0.0]
    )
    if "accept_pattern" in extra:
        accept = np.array(extra["accept_pattern"], np.int32)
    elif p.speculative_config is not None:
        accept = accepted_drafts(acceptance_of(p.speculative_config), drafts, int(extra.get("seed", 0)))
    else:
        accept = np.zeros(1, np.int32)
    depth = site.pp + 1 if p.async_scheduling else site.pp
    numbers = [
        p.max_num_batched_tokens,
        p.max_num_active_seqs or p.max_num_seqs,
        p.max_model_len,
        p.block_size,
        int(p.watermark * blocks),
        p.long_prefill_token_threshold,
        p.long_prefill_token_threshold_adaptive,
        p.minor >= 24,
        p.enable_chunked_prefill,
        p.scheduler_reserve_full_isl,
        p.scheduling_policy == "priority",
        p.async_scheduling,
        site.pp,
        p.prefill_schedule_interval,
        p.max_loras or 0,
        drafts,
        lookahead,
        1 if drafting and ahead_hashes and p.enable_prefix_caching else 0,
        1 if method == "draft_model" else 0,
        "accept_pattern" not in extra,
        role,
        drafting and not ahead_hashes,
        balances,
    ]
    return (
        replica,
        recorder,
        cost,
        depth,
        blocks - 1,
        p.enable_prefix_caching,
        p.minor >= 21,
        np.array(numbers, np.int64),
        accept,
        times,
    )


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


def new_groups(plan: GroupPlan, p: VllmParams, site: Site, arguments: tuple[Any, ...]) -> Any:
    """The state of an engine core with several KV groups; what it is made of is imported, and compiled, only here."""
    from sim.engine.outline import addresses
    from sim.engine.schedulers.vllm.groups import GroupState, new_group_state
    from sim.engine.schedulers.vllm.groups.arrays import arrays

    replica, recorder, cost, depth, usable, caching, lifo, numbers, accept, times = arguments
    needed = per_request(plan, p, site)
    if usable < needed and not site.extra.get("recording"):
        raise ConfigError(
            "deployment.kv_blocks",
            usable + 1,
            f"one request of max_model_len {p.max_model_len} takes {needed} blocks of the groups {plan.words}",
            hint="set engine.max_model_len lower",
        )
    numbers[BLOCK_SIZE] = plan.hash_block_size
    groups, specs, more, longest = arrays(plan, p, depth, legacy_drops(p))
    fn = addresses(GroupState)
    return new_group_state(
        replica, recorder, cost, depth, usable, caching, lifo, numbers, accept, times, fn, groups, specs, more, longest
    )
