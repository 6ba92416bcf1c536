"""A scheduler process is made of its settings: which functions it has, which of them it never calls, and its state."""

from __future__ import annotations

import random
from dataclasses import astuple
from typing import TYPE_CHECKING

import numpy as np

from sim.engine.kv.radix_walk import radix_functions
from sim.engine.outline import addresses, outlined_in
from sim.engine.schedulers.sglang import recurrent, window
from sim.engine.schedulers.sglang.fetching import HOOKS as FETCHING
from sim.engine.schedulers.sglang.fresh import init_sglang
from sim.engine.schedulers.sglang.hicache import host_plan, storage_settings
from sim.engine.schedulers.sglang.pool_state import add_pool
from sim.engine.schedulers.sglang.second import HOOKS
from sim.engine.schedulers.sglang.state import PLAIN, STATES, WINDOW, SglangSettings, SglangState
from sim.jit import by_name, kernel, new

if TYPE_CHECKING:
    from sim.cost.step import StepCost
    from sim.engine.contract import Site
    from sim.engine.recorder import Recorder
    from sim.engine.schedulers.sglang.params import SglangParams
    from sim.engine.schedulers.sglang.pools import Second


@kernel
def _filled(fn, tree_fn, queue_fn, replica, rec, cost, n, spec_right, mt):
    """``n``: `SglangSettings`; ``spec_right``: probability of each draft token; ``mt``: state of the Mersenne Twister."""
    s = new(SglangState)
    kv, page, rows, depth = n.kv_tokens, n.page, n.max_running, n.depth
    off, stages, slots = n.cache_off, n.stages, n.slots
    init_sglang(s, fn, tree_fn, queue_fn, replica, rec, cost, kv, page, rows, depth, n.policy, n.eviction, off, mt, stages, slots)
    s.chunk = n.chunk
    s.max_prefill = n.max_prefill
    s.prefill_max_requests = n.prefill_max_requests
    s.interval = n.interval
    s.interval_min_bs = n.interval_min_bs
    s.min_free_slots = n.min_free_slots
    s.max_queued = n.max_queued
    s.priority_sign = n.priority_sign
    s.threshold = n.threshold
    s.max_req_len = n.max_req_len
    s.spec_reserve = n.spec_reserve
    s.spec_steps = n.spec_steps
    s.spec_draft = n.spec_draft
    s.spec_seed = n.spec_seed
    s.micro = n.micro
    s.lora_limit = n.lora_limit
    s.recv_interval = n.recv_interval
    s.side = n.side
    s.num_reserved = n.num_reserved
    s.rows_free += n.spare_rows
    s.init_ratio = n.init_ratio
    s.min_ratio = n.min_ratio
    s.decay = n.decay
    s.spec_right = spec_right
    s.spec_proposed = n.spec_proposed
    s.ratio = s.init_ratio
    s.mixed = n.mixed
    s.priority_on = n.priority_on
    s.preempt_on = n.preempt_on
    s.retract_by_priority = n.retract_by_priority
    s.ignore_eos = n.ignore_eos
    s.out_at_prompt = n.recording
    s.recorded_clock = n.recording and slots == 1
    s.idle_seen = False
    s.spins = 0
    return s


@kernel
def has_host(s):
    """Whether a scheduler process keeps copies in host memory."""
    return s.tree.h_on


@kernel
def _with_pool(s, numbers):
    add_pool(s, numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], numbers[6], numbers[7])


_HIERARCHY = "sim.engine.schedulers.sglang.hierarchy"
_STORAGE = "sim.engine.schedulers.sglang.storage"
_DECODE_SIDE = ("decode_queues", "_resume", "_preallocate", "_take_transferred", "join_running")


_INSTEAD = {PLAIN: {}, WINDOW: window.INSTEAD, STATES: recurrent.INSTEAD}
_TREE = {PLAIN: {}, WINDOW: window.TREE, STATES: recurrent.TREE}


def _matching(p):
    return p.schedule_policy in ("lpm", "hrrn", "dfs-weight", "shortest-prefill-first")


def _never_called(p, slots, second, instead):
    """Outlined functions that these settings cannot reach."""
    matching = _matching(p)
    unused = {
        "_try_preempt": not p.enable_priority_scheduling or p.disable_priority_preemption,
        "_lowest_waiting": not p.enable_priority_scheduling or p.max_queued_requests is None,
        "_add_ignore_eos": not p.disable_radix_cache,
        "_match_queue": not matching,
        "_dfs_order": p.schedule_policy != "dfs-weight",
        "_sort": p.schedule_policy == "fcfs" and not p.enable_priority_scheduling,
        "_random_bits": p.schedule_policy != "random",
        "mix_running": not p.enable_mixed_chunk,
        "_accepted": p.speculative_algorithm is None,
        "_adapters_of_batch": not p.enable_lora,
        "_adapter_fits": not p.enable_lora,
        "_note_adapter": not p.enable_lora,
        "_poll": p.scheduler_recv_interval == 1,
        "_visit_slots": slots == 1,
        "release_read": p.disaggregation_mode != "prefill",
        **dict.fromkeys(_DECODE_SIDE, p.disaggregation_mode != "decode"),
    }
    names = {name for name, never in unused.items() if never}
    kind = PLAIN if second is None else second.kind
    names |= FETCHING
    names |= outlined_in(
        SglangState, {_HIERARCHY: True, _STORAGE: True, window.__name__: kind != WINDOW, recurrent.__name__: kind != STATES}
    )
    if kind == PLAIN or not second.lazy:
        names |= {"quiet_steps", "_quiet_steps", "_prepare_tracking"}
    if kind == PLAIN or second.every == 0:
        names |= {"track_prompts", "track_results", "_track_prompts", "_track_results"}
    return frozenset(names | (HOOKS if kind == PLAIN else HOOKS - set(instead) - {"grow_second"}))


def _hierarchical(p, slots, host, replica, recorder, cost, told, right, twister, site):
    """A scheduler process with copies in host memory; what that takes is imported, and compiled, only here."""
    from sim.engine.kv import radix_host
    from sim.engine.schedulers.sglang import hierarchy, storage

    instead, used = hierarchy.INSTEAD, hierarchy.OWN
    store = storage_settings(p, host)
    if store is not None:
        instead = instead | storage.INSTEAD
        used = used | outlined_in(SglangState, {_STORAGE: True}) | FETCHING
    fn = addresses(SglangState, _never_called(p, slots, None, instead) - used, instead)
    tree = radix_functions(told.eviction, radix_host.TREE, storage=store is not None)
    queue = radix_functions(told.eviction, {}, _matching(p))
    state = _filled(fn, tree, queue, replica, recorder, cost, told, right, twister)
    medium = host.media[0]
    seconds = (host.bytes / medium.read, host.bytes / medium.write, medium.latency)
    layers = site.model.layers if site.model is not None else 1
    hierarchy.with_host(state, host.blocks(0), radix_host.WRITE_POLICIES.index(p.hicache_write_policy), *seconds, layers)
    if store is not None:
        storage.with_storage(state, by_name(storage.StorageSettings, **store))
    return state


def new_process(
    p: SglangParams,
    site: Site,
    told: SglangSettings,
    second: Second | None,
    few: bool,
    replica: int,
    recorder: Recorder,
    cost: StepCost,
    right_each: tuple[float, ...],
) -> SglangState:
    """The state. ``second``: the model's second pool, and whether its slots are ``few``; ``right_each``: probability of each draft token."""
    twister = np.array(random.Random(p.random_seed).getstate()[1][:624], np.int64)
    right = np.array(right_each, np.float64)
    kind = PLAIN if second is None else second.kind
    host = host_plan(p, site, told.kv_tokens)
    if host is not None:
        return _hierarchical(p, told.slots, host, replica, recorder, cost, told, right, twister, site)
    instead = _INSTEAD[kind] | (recurrent.LAZY if second is not None and second.lazy else {})
    fn = addresses(SglangState, _never_called(p, told.slots, second, instead), instead)
    tree, queue = radix_functions(told.eviction, _TREE[kind]), radix_functions(told.eviction, {}, _matching(p))
    state = _filled(fn, tree, queue, replica, recorder, cost, told, right, twister)
    if second is not None:
        _with_pool(state, np.array([*astuple(second), few], np.int64))
    return state
