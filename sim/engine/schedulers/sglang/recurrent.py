# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Slots for recurrent states beside the KV pool of full layers: what a request holds, tracks and leaves in the cache.

A request computes in a slot of its own; under ``extra_buffer`` it tracks the state of lengths on a grid in one or two further slots, and only
those lengths enter the cache. Source: SGLang 0.5.23 ``mem_cache/unified_cache/components/mamba.py``, ``mem_cache/memory_pool.py``,
``mem_cache/allocation.py``.
"""

from typing import Final

from sim.engine.kv.radix_evict import evict_until
from sim.engine.kv.radix_state import insert_state, make_room_states
from sim.engine.kv.radix_walk import radix_move
from sim.engine.outline import outlined
from sim.engine.schedulers.sglang.memory import give_row, pages_needed, set_key
from sim.engine.schedulers.sglang.pool_state import free_slots, reset_second
from sim.engine.schedulers.sglang.state import AHEAD, OWN_STATE, TRACKING, SglangState, ceil_page, total_len
from sim.jit import inline

TREE: Final = {"radix_walk": "match_state", "radix_move": "move_state", "evict_until": "make_room_beside"}
"""What takes the place of the functions of the radix tree."""
INSTEAD: Final = {
    "state_of_hit": "_hold_hit",
    "before_extend": "_take_slots",
    "track_prompts": "_track_prompts",
    "track_results": "_track_results",
    "checkpoint_upto": "_checkpoint_state",
    "release": "_release_state",
    "pass_by": "_track_by",
}
"""What takes the place of the functions of the scheduler."""
_SPOILT: Final = -2  # in `r_before`: the tracking slot was written in place
LAZY: Final = {"prepare_decode": "_prepare_tracking", "quiet_steps": "_quiet_steps"}


@outlined(SglangState)
def _hold_hit(s, slot):
    """A hit's state is copied into a slot at once, whether the request is then admitted or not."""
    t = s.tree
    s.r_branch[slot] = t.branch
    node = s.r_node[slot] + 0
    if t.off or t.w_has[node] == 0 or s.r_slots[slot] & OWN_STATE:
        return 0
    if t.w_free == 0:
        radix_move(t, -1, node)
        make_room_states(t, 1)
        radix_move(t, node, -1)
    t.w_free -= 1
    s.r_slots[slot] |= OWN_STATE
    return 0


@inline
def _lacking(s, slot):
    held = s.r_slots[slot]
    return (0 if held & OWN_STATE else 1) + (0 if held & TRACKING else s.tracking + 0)


@outlined(SglangState)
def _take_slots(s):
    """The admitted requests get the slots they lack."""
    need = 0
    for i in range(s.n_can):
        need += _lacking(s, s.can[i])
    make_room_states(s.tree, need)
    s.tree.w_free -= need
    for i in range(s.n_can):
        s.r_slots[s.can[i]] = OWN_STATE | TRACKING
    return 0


@outlined(SglangState)
def _track_prompts(s):
    """The last length on the grid is tracked, or the one where the cache should branch."""
    grid = s.tree.w_grid + 0
    for i in range(s.n_can):
        x = s.can[i]
        pre, end = s.r_pre[x] + 0, s.r_end[x] + 0
        if end - pre >= grid:
            at = pre + (end - pre) // grid * grid
            branch = s.r_branch[x] + 0
            if pre < branch < end and (branch - pre) % grid == 0:
                at = branch
            s.r_tracked[x] = at
    return 0


@outlined(SglangState)
def _track_results(s, p):
    """Every so many tokens a decoding request tracks its state."""
    for i in range(s.q_rows[p]):
        x = s.q_slot[p, i]
        n = total_len(s, x)
        if n % s.track_every == 0 and s.r_retracted[x] == 0 and s.r_ended[x] == 0:
            s.r_before[x] = s.r_tracked[x]
            s.r_tracked[x] = n
            if s.r_slots[x] & AHEAD:
                s.r_slots[x] -= AHEAD
                s.tree.w_free += 1
            elif s.lazy:
                s.r_before[x] = _SPOILT
    return 0


@outlined(SglangState)
def _prepare_tracking(s):
    """`memory.prepare_decode` of ``extra_buffer_lazy``: who reaches a tracked length takes a slot for it, all of them or none."""
    t = s.tree
    evict_until(t, s.n_run * s.page)
    t.free -= pages_needed(s)
    n = 0
    for i in range(s.n_run):
        x = s.run[i]
        s.r_com[x] += 1
        if s.r_com[x] % s.track_every == 0 and not s.r_slots[x] & AHEAD:
            n += 1
    if 0 < n <= t.w_free:
        t.w_free -= n
        for i in range(s.n_run):
            x = s.run[i]
            if s.r_com[x] % s.track_every == 0:
                s.r_slots[x] |= AHEAD
    return 0


@outlined(SglangState)
def _quiet_steps(s):
    k = 1 << 40
    for i in range(s.n_run):
        n = total_len(s, s.run[i]) % s.track_every
        k = min(k, s.track_every - n - 1 if n > 0 else 0)
    return k


@outlined(SglangState)
def _track_by(s, k):
    """The lengths that ``k`` decode steps in a row track."""
    if s.track_every == 0:
        return 0
    for i in range(s.n_run):
        x = s.run[i]
        n = total_len(s, x)
        last = (n + k - 1) // s.track_every * s.track_every
        if last >= n:
            before = last - s.track_every
            s.r_before[x] = before if before >= n else s.r_tracked[x] + 0
            s.r_tracked[x] = last
    return 0


@inline
def _length(s, slot, upto, last):
    """Tokens whose state there is to give to the cache."""
    if s.track_every == 0:
        return upto
    n = max(s.r_tracked[slot] + 0, 0)
    if last == 1 and n > upto:
        before = s.r_before[slot] + 0
        n = before if s.tracking == 2 and 0 <= before <= upto else 0
    return n


@outlined(SglangState)
def _put_state(s, slot, upto, last):
    """Give the cache a state and the tokens up to it. ``last``: the request ends, so it gives a slot of its own; else one is taken for it."""
    t = s.tree
    if t.off:
        if last == 1:
            free_slots(s, slot)
        return 0
    upto = min(upto, s.r_fill[slot] + 0)
    n = min(upto, _length(s, slot, upto, last))
    if last == 0 and (s.track_every == 0 or s.r_tracked[slot] >= 0):
        make_room_states(t, 1)
        t.w_free -= 1
    s.r_tracked[slot] = -1
    s.r_before[slot] = -1
    if n <= 0:
        if last == 1:
            free_slots(s, slot)
        return 0
    n = n // s.page * s.page
    set_key(s, 0, slot, n)
    there = insert_state(t, n, s.r_own[slot] + 0, s.r_ins[slot] + 0, s.r_priority[slot] + 0)
    node = t.end
    s.r_ins[slot] = max(s.r_ins[slot], n)
    radix_move(t, s.r_lock[slot] + 0, node)
    s.r_lock[slot] = node
    s.r_own[slot] = n
    s.r_node[slot] = node
    if last == 0:
        t.w_free += there
        return 0
    if there == 0:  # one slot stays with the tree
        t.w_free -= 1
    free_slots(s, slot)
    return 0


@outlined(SglangState)
def _checkpoint_state(s, slot, upto):
    """`memory.checkpoint_upto`."""
    return _put_state(s, slot, upto, 0)


@outlined(SglangState)
def _release_state(s, slot, insert):
    """`memory.release`."""
    t = s.tree
    s.r_fill[slot] = total_len(s, slot)
    if insert == 1 and s.lazy and s.r_before[slot] == _SPOILT and s.r_tracked[slot] == total_len(s, slot) - 1:
        insert = 0  # it ends where its only tracked state was overwritten
    if insert == 1:
        _put_state(s, slot, min(s.r_com[slot] + 0, total_len(s, slot)), 1)
    else:
        free_slots(s, slot)
    t.free += ceil_page(s, s.r_com[slot] + 0) - s.r_own[slot]
    radix_move(t, s.r_lock[slot] + 0, -1)
    give_row(s, slot)
    reset_second(s, slot)
    return 0
