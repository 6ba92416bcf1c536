# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""What a request holds in the KV pool: its key, checkpoints into the radix tree, release at the end or on retraction.

Source: SGLang 0.5.23 ``mem_cache/unified_radix_cache.py: checkpoint_into_tree``, ``mem_cache/common.py: release_kv_cache``,
``managers/schedule_batch.py: release_req``.
"""

from sim.engine.kv.radix import key_add, key_clear, radix_insert, radix_lock, radix_unlock
from sim.engine.kv.radix_evict import evict_until
from sim.engine.schedulers.sglang.state import RETRACT_STEPS, ceil_page, total_len
from sim.jit import inline, kernel


@kernel
def set_key(s, t, slot, n):
    """Make the first ``n`` tokens of prompt and output the key of tree ``t``. A prompt without spans is unique content."""
    key_clear(t, int(s.r_lora[slot]))
    left = n
    k = s.r_spans[slot]
    if k == 0:
        m = min(left, int(s.r_prompt[slot]))
        key_add(t, -1 - s.r_id[slot], 0, m)
        left -= m
    o = s.r_span[slot]
    for j in range(k):
        if left <= 0:
            break
        m = min(left, s.sp_len[o + j])
        key_add(t, s.sp_id[o + j], s.sp_start[o + j], m)
        left -= m
    if left > 0:
        key_add(t, s.r_out_content[slot], int(s.r_prompt[slot]) if s.out_at_prompt else 0, left)


@kernel
def checkpoint_upto(s, slot, upto):
    """Insert the first ``upto`` tokens, whole pages, and hold their node instead of the old one.

    The ids known are those of the last refresh (``r_fill``), which matters for a mixed batch under overlap. A second insert of the prompt
    splits the leaf at the prompt's end, so that a follow-up that shares only the prompt does not keep the answer alive.
    """
    t = s.tree
    upto = min(upto, int(s.r_fill[slot]))
    if t.off or upto <= 0:
        return
    n = upto // s.page * s.page
    set_key(s, t, slot, n)
    prio = float(s.r_priority[slot])
    radix_insert(t, n, int(s.r_own[slot]), int(s.r_ins[slot]), prio)
    node = t.end
    s.r_ins[slot] = max(s.r_ins[slot], n)
    prompt = s.r_prompt[slot] // s.page * s.page
    if 0 < prompt < n:
        radix_insert(t, prompt, prompt, prompt, prio + 1.0)
    radix_unlock(t, int(s.r_lock[slot]))
    radix_lock(t, node)
    s.r_lock[slot] = node
    s.r_own[slot] = n
    s.r_node[slot] = node


@inline
def checkpoint(s, slot):
    """Insert what the last forward pass has computed."""
    checkpoint_upto(s, slot, int(s.r_end[slot]))
    s.r_pre[slot] = s.r_end[slot]


@kernel
def release(s, slot, insert):
    """Give up all KV of a request; with ``insert`` (it has ended) its tokens stay in the cache, evictable."""
    s.r_fill[slot] = total_len(s, slot)
    if insert:
        checkpoint_upto(s, slot, min(int(s.r_com[slot]), total_len(s, slot)))
    s.tree.free += ceil_page(s, int(s.r_alloc[slot])) - s.r_own[slot]
    radix_unlock(s.tree, int(s.r_lock[slot]))
    s.r_lock[slot] = -1
    s.r_row[slot] = 0
    s.rows_free += 1


@inline
def release_retracted(s, slot, others):
    """Retract or preempt: nothing is inserted, and 20 tokens for each of the ``others`` are made free."""
    release(s, slot, False)
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


@inline
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


# -- decode


@inline
def pages_needed(s, slots, n):
    """Tokens in the new pages that one decode step of these requests takes."""
    if s.spec_reserve > 0:
        need = 0
        for i in range(n):
            x = slots[i]
            need += ceil_page(s, max(int(s.r_com[x]) + s.spec_reserve, int(s.r_alloc[x]))) - ceil_page(s, int(s.r_alloc[x]))
        return need
    if s.page == 1:
        return n
    need = 0
    for i in range(n):
        if s.r_com[slots[i]] % s.page == 0:
            need += s.page
    return need


@kernel
def decode_fits(s, slots, n):
    """``check_decode_mem``: evicts to make room for the next step of these requests; whether there is room."""
    need = pages_needed(s, slots, n)
    evict_until(s.tree, need)
    return s.tree.free >= need


@kernel
def prepare_decode(s, slots, n):
    """Allocate the next step of these requests (``prepare_for_decode``); the eviction beforehand counts a page for each."""
    evict_until(s.tree, n * s.page)
    if s.spec_reserve > 0:
        s.tree.free -= pages_needed(s, slots, n)
        for i in range(n):
            x = slots[i]
            s.r_alloc[x] = max(int(s.r_com[x]) + s.spec_reserve, int(s.r_alloc[x]))
        return
    page = s.page
    for i in range(n):
        x = slots[i]
        c = s.r_com[x]
        if page == 1 or c % page == 0:
            s.tree.free -= page
        s.r_com[x] = c + 1
        s.r_alloc[x] = c + 1
