# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""A pool for sliding-window layers beside that of full layers: two budgets in admission, windows freed as requests decode.

Every new token takes a slot in each pool; what falls out of the window gives its slot in the second one back.
Source: SGLang 0.5.23 ``mem_cache/prefill_budget.py: SWAPrefillBudget``, ``managers/schedule_policy.py``, ``managers/schedule_batch.py:
maybe_evict_swa``, ``mem_cache/common.py: free_swa_out_of_window_slots``.
"""

from typing import Final

from sim.engine.kv.radix_evict import evict_until
from sim.engine.kv.radix_window import insert_window, lock_window, unlock_window
from sim.engine.outline import outlined
from sim.engine.schedulers.sglang.admit import (
    CONTINUE,
    NO_TOKEN,
    OTHER,
    beside_shorter,
    charge,
    cut_after,
    left_current,
    left_total,
)
from sim.engine.schedulers.sglang.memory import give_row, pages_needed, set_key
from sim.engine.schedulers.sglang.order import match_waiting
from sim.engine.schedulers.sglang.pool_state import reset_second
from sim.engine.schedulers.sglang.state import CLIP_MAX_NEW, SglangState, ceil_page, ignores_eos, total_len
from sim.jit import inline

EVICTION_INTERVAL: Final = 128  # SGLANG_SWA_EVICTION_INTERVAL
_DECODED: Final = 1 << 16  # in `r_begun`

TREE: Final = {"radix_walk": "match_window", "evict_until": "make_room_window"}
"""What takes the place of the functions of the radix tree."""
INSTEAD: Final = {
    "verdict_of": "_verdict",
    "_add_chunked": "_add_chunk",
    "_add_one": "_add_candidate",
    "_add_ignore_eos": "_add_certain",
    "checkpoint_upto": "_checkpoint",
    "release": "_release",
    "decode_fits": "_step_fits",
    "prepare_decode": "_prepare_step",
    "before_extend": "_slide_prompts",
    "pass_by": "_slide_by",
}
"""What takes the place of the functions of the scheduler."""


# -- admission


@inline
def _left_window(s):
    return s.tree.w_free + s.tree.w_evictable - s.a_window


@inline
def _reserve(s, extend, new, limit):
    """Window KV of a request that computes ``extend`` tokens, at most ``limit`` (−1: all) at once, and ``new`` later."""
    w = s.tree.w_window
    at_once = extend if limit < 0 else min(extend, limit)
    return max(at_once - w, 0) + min(extend + new, w) + s.page


@inline
def _limit(s):
    return s.a_chunk if s.chunk > 0 else -1


@inline
def _still_new(s, slot):
    return min(max(s.r_max_new[slot] - s.r_done[slot] + 0, 0), CLIP_MAX_NEW)


@inline
def _take(s, slot, extend, max_new):
    s.a_window += _reserve(s, ceil_page(s, extend), max_new, _limit(s))
    charge(s, slot, extend, max_new)


@outlined(SglangState)
def _verdict(s):
    """``budget_state`` of both pools."""
    if left_total(s) <= 0 or left_current(s) <= 0 or _left_window(s) <= 0:
        s.g_short = 0 if left_total(s) <= 0 else 1
        return NO_TOKEN
    if s.a_input <= 0 or (s.chunk > 0 and s.a_chunk <= 0):
        return OTHER
    return CONTINUE


@outlined(SglangState)
def _add_chunk(s):
    """``add_chunked_req``: as far as the chunk and either pool allow; −1 if that is nowhere and it waits this time."""
    slot = s.chunked
    n = total_len(s, slot)
    s.r_fill[slot] = n
    left = n - s.r_pre[slot]
    room = min(min(s.a_chunk, int(left_total(s))), _left_window(s) - s.page)
    if room <= 0:
        return -1
    room = beside_shorter(s, left, room)
    cut = left > room
    extend = min(left, room)
    new = ceil_page(s, s.r_pre[slot] + extend) - ceil_page(s, s.r_pre[slot] + 0)
    if new > s.tree.free + s.tree.evictable or new > s.tree.w_free + s.tree.w_evictable:
        return 0
    _take(s, slot, extend, 0 if cut else min(s.r_max_new[slot] + 0, CLIP_MAX_NEW))
    if not cut:
        s.chunked = -1
    return 1


@outlined(SglangState)
def _add_certain(s, slot):
    """``add_one_req_ignore_eos`` without a cache: the two budgets, and no look at the finishes to come."""
    left = total_len(s, slot) - s.r_pre[slot]
    paged = ceil_page(s, left) + s.page
    s.g_short = 0
    if paged > min(float(left_current(s)), left_total(s)):
        return NO_TOKEN
    s.g_short = 1
    if _reserve(s, left, _still_new(s, slot), _limit(s)) > _left_window(s):
        return NO_TOKEN
    if s.chunk <= 0 or left <= s.a_chunk:
        _take(s, slot, left, min(s.r_max_new[slot] + 0, CLIP_MAX_NEW))
    elif s.a_chunk <= 0:
        return OTHER
    else:
        s.new_chunked = slot
        _take(s, slot, s.a_chunk + 0, 0)
    return _verdict(s)


@outlined(SglangState)
def _add_candidate(s, slot):
    """``add_one_req``: a prompt whose reservation exceeds the whole window pool is cut to what there is of it."""
    n = total_len(s, slot)
    match_waiting(s, slot, n - 1)
    s.r_branch[slot] = s.tree.branch
    s.r_own[slot] = s.r_pre[slot]
    s.r_fill[slot] = n
    if s.prefill_max_requests > 0 and s.n_can >= s.prefill_max_requests:
        return OTHER
    if s.tree.off and ignores_eos(s, slot):
        return _add_certain(s, slot)
    pre = s.r_pre[slot] + 0
    left = n - pre
    new = _still_new(s, slot)
    node = s.r_node[slot] + 0
    mark = lock_window(s.tree, node)  # the prefix must not be evicted for its own user
    limit = _limit(s)
    fits = left + new + s.page < left_total(s)
    s.g_short = 1 if fits else 0
    if fits:
        need = _reserve(s, ceil_page(s, left), new, limit)
        if need >= _left_window(s):
            most = 0
            if need >= s.tree.w_size:
                most = (_left_window(s) - _reserve(s, 0, new, -1)) // s.page * s.page
            fits = limit >= 0 and most > 0
            limit = min(limit, most)
    verdict = CONTINUE
    extend = left
    max_new = min(s.r_max_new[slot] + 0, CLIP_MAX_NEW)
    cut = s.chunk > 0 and ceil_page(s, left) > limit
    if not fits:
        verdict = NO_TOKEN
    elif s.chunk <= 0 and s.n_can > 0 and ceil_page(s, left) >= s.a_input:
        verdict = OTHER
    elif cut:
        extend = cut_after(s, slot, limit)
        max_new = 0
        if extend <= 0:
            verdict = OTHER
    if verdict != CONTINUE:
        unlock_window(s.tree, node, mark)
        return verdict
    s.r_lock[slot] = node
    s.r_mark[slot] = mark
    if cut:
        s.new_chunked = slot
    _take(s, slot, extend, max_new)
    return _verdict(s)


# -- memory


@inline
def _slide(s, slot, length, shared):
    """Free the window KV that a request of ``length`` tokens does not need; with the cache on whole windows of pages stay (``shared``)."""
    t = s.tree
    gone = s.r_gone[slot] + 0
    if length - t.w_window < gone + 1:
        return
    gone = max(gone, s.r_own[slot] + 0)
    kept = ceil_page(s, max(t.w_window, s.page)) if shared else t.w_window + 0
    upto = max(gone, length - kept) // s.page * s.page
    if upto > gone:
        t.w_free += upto - gone
        gone = upto
    s.r_gone[slot] = gone


@outlined(SglangState)
def _slide_prompts(s):
    """Without a cache, prompts of several chunks free windows too; under overlap a chunk later."""
    for i in range(s.n_can):
        x = s.can[i]
        s.r_begun[x] += 1
        if s.tree.off:
            length = s.r_pre[x] + 0
            if s.overlap:
                length = 0 if s.r_begun[x] % _DECODED < 2 else length - s.chunk
            _slide(s, x, length, False)
    return 0


@outlined(SglangState)
def _put(s, slot, upto, last):
    """Insert the first ``upto`` tokens and hold their end. ``last``: the request ends with it.

    Where the tree had full KV beyond what could be continued, it gets a node first. Window KV out of the window is freed, not inserted.
    """
    t = s.tree
    upto = min(upto, s.r_fill[slot] + 0)
    if t.off:
        return 0
    branch = s.r_branch[slot] + 0
    branches = branch > s.r_own[slot] and branch <= upto
    n = min(upto, branch) if branches else upto
    if last == 0:
        _slide(s, slot, n - 1, True)
    if n <= 0:
        return 0
    n = n // s.page * s.page
    set_key(s, 0, slot, n)
    insert_window(t, n, s.r_own[slot] + 0, s.r_ins[slot] + 0, s.r_priority[slot] + 0, s.r_gone[slot] + 0)
    node = t.end
    s.r_ins[slot] = max(s.r_ins[slot], n)
    if s.r_lock[slot] >= 0:
        unlock_window(t, s.r_lock[slot] + 0, s.r_mark[slot] + 0)
    s.r_mark[slot] = lock_window(t, node)
    s.r_lock[slot] = node
    s.r_own[slot] = n
    s.r_node[slot] = node
    if branches:
        s.r_branch[slot] = -1
        if last == 0:
            _slide(s, slot, min(s.r_end[slot], s.r_fill[slot]) - 1, True)
    return 0


@outlined(SglangState)
def _checkpoint(s, slot, upto):
    """`memory.checkpoint_upto`."""
    return _put(s, slot, upto, 0)


@outlined(SglangState)
def _release(s, slot, insert):
    """`memory.release`: the part of the window KV that is freed already is not freed again."""
    t = s.tree
    s.r_fill[slot] = total_len(s, slot)
    if insert == 1:
        _put(s, slot, min(s.r_com[slot] + 0, total_len(s, slot)), 1)
    held = ceil_page(s, s.r_com[slot] + 0)
    t.free += held - s.r_own[slot]
    t.w_free += held - max(s.r_own[slot], s.r_gone[slot])
    if s.r_lock[slot] >= 0:
        unlock_window(t, s.r_lock[slot] + 0, s.r_mark[slot] + 0)
    give_row(s, slot)
    reset_second(s, slot)
    return 0


# -- decode


@inline
def _due(s, slot):
    """Length from which on a decoding request frees more of its window KV."""
    return s.r_gone[slot] + EVICTION_INTERVAL + s.tree.w_window + 1


@outlined(SglangState)
def _step_fits(s):
    """`memory.decode_fits`."""
    need = pages_needed(s)
    evict_until(s.tree, need)
    return 1 if min(s.tree.free, s.tree.w_free) >= need else 0


@outlined(SglangState)
def _prepare_step(s):
    """`memory.prepare_decode`: windows first."""
    t = s.tree
    for i in range(s.n_run):
        x = s.run[i]
        if s.r_begun[x] >= _DECODED and total_len(s, x) >= _due(s, x):
            _slide(s, x, total_len(s, x) - 1, not t.off)
    evict_until(t, s.n_run * s.page)
    new = pages_needed(s)
    t.free -= new
    t.w_free -= new
    for i in range(s.n_run):
        x = s.run[i]
        s.r_com[x] += 1
        s.r_begun[x] = _DECODED
    return 0


@outlined(SglangState)
def _slide_by(s, k):
    """The windows that ``k`` decode steps in a row free."""
    for i in range(s.n_run):
        x = s.run[i]
        n = total_len(s, x)
        at = 0
        while True:
            at = max(at, _due(s, x) - n)
            if at >= k:
                break
            _slide(s, x, n + at - 1, not s.tree.off)
            at += 1
    return 0
