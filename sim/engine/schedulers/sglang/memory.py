# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""What a request holds in the KV pool: its key, checkpoints into the radix tree, release at the end or on retraction.

Source: SGLang 0.5.23 ``mem_cache/unified_radix_cache.py: checkpoint_into_tree``, ``mem_cache/common.py: release_kv_cache``,
``managers/schedule_batch.py: release_req``.
"""

from sim.engine.kv.radix import key_add, key_clear
from sim.engine.kv.radix_evict import evict_until
from sim.engine.kv.radix_walk import radix_move, radix_walk
from sim.engine.outline import outlined
from sim.engine.schedulers.sglang.fetching import start_fetch
from sim.engine.schedulers.sglang.state import RETRACT_STEPS, SglangState, ceil_page, total_len
from sim.jit import inline


@outlined(SglangState)
def set_key(s, queue, slot, n):
    """Make the first ``n`` tokens of prompt and output the key of the tree (1: of the queue's). No spans: unique content."""
    t = s.queue_tree if queue == 1 else s.tree
    key_clear(t, s.r_lora[slot] + 0)
    left = n
    k = s.r_spans[slot]
    if k == 0:
        key_add(t, -1 - s.r_id[slot], 0, min(left, s.r_prompt[slot] + 0))
        left -= s.r_prompt[slot]
    o = s.r_span[slot]
    for j in range(k):
        if left <= 0:
            break
        key_add(t, s.sp_id[o + j], s.sp_start[o + j], min(left, s.sp_len[o + j]))
        left -= s.sp_len[o + j]
    if left > 0:
        key_add(t, s.r_out_content[slot], s.r_prompt[slot] + 0 if s.out_at_prompt else 0, left)
    return 0


@outlined(SglangState)
def checkpoint_upto(s, slot, upto):
    """Insert the first ``upto`` tokens, whole pages, and hold their node instead of the old one.

    The ids known are those of the last refresh (``r_fill``), which matters for a mixed batch under overlap. A second insert of the prompt
    splits the leaf at the prompt's end, so that a follow-up that shares only the prompt does not keep the answer alive.
    """
    t = s.tree
    upto = min(upto, s.r_fill[slot] + 0)
    if t.off or upto <= 0:
        return 0
    n = upto // s.page * s.page
    set_key(s, 0, slot, n)
    prio = s.r_priority[slot] + 0
    radix_walk(t, n, 1, s.r_own[slot], s.r_ins[slot], prio)
    node = t.end
    s.r_ins[slot] = max(s.r_ins[slot], n)
    prompt = s.r_prompt[slot] // s.page * s.page
    if 0 < prompt < n:
        radix_walk(t, prompt, 1, prompt, prompt, prio + 1)
    radix_move(t, s.r_lock[slot], node)
    s.r_lock[slot] = node
    s.r_own[slot] = n
    s.r_node[slot] = node
    return 0


@inline
def checkpoint(s, slot):
    """Insert what the last forward pass has computed."""
    checkpoint_upto(s, slot, s.r_end[slot])
    s.r_pre[slot] = s.r_end[slot]


@inline
def give_row(s, slot):
    """A request without KV holds no node and no row of req_to_token."""
    s.r_lock[slot] = -1
    s.r_row[slot] = 0
    s.rows_free += 1


@outlined(SglangState)
def release(s, slot, insert):
    """Give up all KV of a request; with ``insert`` (it has ended) its tokens stay in the cache, evictable."""
    s.r_fill[slot] = total_len(s, slot)
    if insert == 1:
        checkpoint_upto(s, slot, min(s.r_com[slot] + 0, total_len(s, slot)))
    s.tree.free += ceil_page(s, max(s.r_alloc[slot], s.r_com[slot]) + 0) - s.r_own[slot]
    radix_move(s.tree, s.r_lock[slot], -1)
    give_row(s, slot)
    return 0


@outlined(SglangState)
def release_retracted(s, slot, others):
    """Retract or preempt: nothing is inserted, and 20 tokens for each of the ``others`` are made free."""
    release(s, slot, 0)
    evict_until(s.tree, others * RETRACT_STEPS)
    s.r_pre[slot] = 0
    s.r_own[slot] = 0
    s.r_ins[slot] = 0
    s.r_hit[slot] = 0
    s.r_end[slot] = 0
    s.r_com[slot] = 0
    s.r_alloc[slot] = 0
    s.r_middle[slot] = 0
    s.r_retracted[slot] = 1
    s.r_preempt[slot] += 1
    s.n_preempted += 1
    return 0


@outlined(SglangState)
def enqueue_waiting(s, slot):
    """Append to the waiting queue (new, retracted and preempted requests alike) with a new entry time."""
    if s.w_hi == s.w_slot.size:
        n = s.w_hi - s.w_lo
        for i in range(n):
            s.w_slot[i] = s.w_slot[s.w_lo + i]
        s.w_lo = 0
        s.w_hi = n
    s.w_slot[s.w_hi] = slot
    s.w_hi += 1
    s.stamp += 1
    s.r_stamp[slot] = s.stamp
    s.r_processed[slot] = s.processed
    if s.l_on:
        start_fetch(s, slot)
    return 0


# -- decode


@outlined(SglangState)
def pages_needed(s):
    """Tokens in the new pages that one decode step of the running batch takes."""
    need = 0
    page = s.page
    if s.spec_reserve > 0:
        for i in range(s.n_run):
            x = s.run[i]
            need += ceil_page(s, max(s.r_com[x] + s.spec_reserve, s.r_alloc[x] + 0)) - ceil_page(s, s.r_alloc[x] + 0)
        return need
    if page == 1:
        return s.n_run + 0
    for i in range(s.n_run):
        if s.r_com[s.run[i]] % page == 0:
            need += page
    return need


@outlined(SglangState)
def decode_fits(s):
    """``check_decode_mem``: evicts to make room for the next step of the running batch; 1 if there is room."""
    need = pages_needed(s)
    evict_until(s.tree, need)
    return 1 if s.tree.free >= need else 0


@outlined(SglangState)
def prepare_decode(s):
    """Allocate the next step of the running batch (``prepare_for_decode``); the eviction beforehand counts a page for each."""
    page = s.page
    t = s.tree
    evict_until(t, s.n_run * page)
    t.free -= pages_needed(s)
    if s.spec_reserve > 0:
        for i in range(s.n_run):
            x = s.run[i]
            s.r_alloc[x] = max(s.r_com[x] + s.spec_reserve, s.r_alloc[x] + 0)
        return 0
    for i in range(s.n_run):
        s.r_com[s.run[i]] += 1
    return 0
