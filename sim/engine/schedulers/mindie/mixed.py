# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""A round of chunked prefill: decodes and continued prompts first, then new prompts (``FcfsPolicy::ScheduleChunkedPrefill``)."""

import numpy as np

from sim.cost.features import COPIED_BLOCKS
from sim.engine.kv.mindie_blocks import mark_computed
from sim.engine.outline import outlined
from sim.engine.queue import queue_pop, queue_push_front
from sim.engine.schedulers.mindie.blocks import allocate, append, blocks_for, look_up
from sim.engine.schedulers.mindie.decode import (
    blocks_to_return,
    decode_features,
    dequeue_running,
    make_room_for,
    refill_running,
    refill_swapped,
    swap_in,
)
from sim.engine.schedulers.mindie.prefill import prompt_features, sort_by_id, turn_away, waited_too_long
from sim.engine.schedulers.mindie.state import CHUNK, COMP, HIT, HOST, PROMPT, MindieState
from sim.jit import flat, inline
from sim.ledger import FAILED, REJECTED


@inline
def _left_to_compute(s, slot):
    return np.int64(s.r_prompt[slot]) + s.r_done[slot] - s.x[slot, COMP] if s.x[slot, PROMPT] == 1 else np.int64(1)


@inline
def _is_long(s, slot):
    return s.x[slot, PROMPT] == 1 and _left_to_compute(s, slot) > s.long_threshold


@inline
def _continued(s, p, slot, chunk):
    """Features of a chunk of a prompt that was begun before."""
    x = s.x
    past = np.int64(x[slot, COMP])
    last = past + chunk >= np.int64(s.r_prompt[slot]) + s.r_done[slot]
    x[slot, CHUNK] = chunk
    prompt_features(s, p, slot, past, chunk, chunk, last)


@inline
def _waiting_prompts(s, p, n_cand, rows, used, longs, at):
    """New prompts from the candidates ``s.cand2[:n_cand]`` into ``s.left`` from ``at`` on. Returns rows added."""
    x = s.x
    added = 0
    kept = 0  # candidates that stay are moved to the front of `cand2`
    i = 0
    s.g_blocked = False
    while i < n_cand:
        slot = s.cand2[i]
        tokens = np.int64(s.r_prompt[slot]) + s.r_done[slot]
        if tokens > s.long_threshold and longs >= s.max_long:
            s.cand2[kept] = slot
            kept += 1
            i += 1
            continue
        need = blocks_for(s, tokens)
        if need > s.total:
            turn_away(s, slot, FAILED)  # the real engine stops with an error
            i += 1
            continue
        known = look_up(s, slot, tokens)
        uncached = max(tokens - known, 1)
        known = tokens - uncached
        chunk = min(uncached, s.max_tokens - used, s.chunk)
        if known + chunk > s.max_prompt:
            turn_away(s, slot, REJECTED)
            i += 1
            continue
        if need > s.free_blocks:
            # recomputed ones too: their tokens count as prompt in this mode (``UpdatePromptAndOutputTokenIds``)
            if waited_too_long(s, slot):
                s.new_first = True
            s.g_blocked = True
            break
        if chunk <= 0 or rows + added + 1 > s.mb:
            break
        allocate(s, slot, tokens)
        if tokens > s.long_threshold:
            longs += 1
        used += chunk
        past = min(known, np.int64(x[slot, HIT]) * s.block_size)
        if s.r_done[slot] == 0:
            s.r_cached[slot] = past
        x[slot, COMP] = 0
        x[slot, CHUNK] = known + chunk
        prompt_features(s, p, slot, past, known + chunk - past, known + chunk, known + chunk >= tokens)
        s.left[at + added] = slot
        added += 1
        i += 1
    while i < n_cand:
        s.cand2[kept] = s.cand2[i]
        kept += 1
        i += 1
    sort_by_id(s, s.cand2, 0, kept)
    for j in range(kept - 1, -1, -1):
        queue_push_front(s, s.cand2[j])
    return added


@flat
def _bring_back(s, p, seen, running, used, decodes, contexts):
    """From host memory: how many left its queue, of these the prompts, which stand at the back of `cand`; then the sums that have grown."""
    x = s.x
    taken = back_in = copied = 0
    while taken < seen:
        slot = s.swap[taken]
        need = blocks_to_return(s, slot)
        if need > s.total:
            s.host_free += x[slot, HOST]
            turn_away(s, slot, FAILED)
            taken += 1
            continue
        chunk = min(_left_to_compute(s, slot), s.max_tokens - used, s.chunk)
        if need > s.free_blocks or chunk <= 0 or running + 1 > s.mb:
            break
        copied += swap_in(s, slot)
        used += chunk
        taken += 1
        if x[slot, PROMPT] == 1:
            s.cand[s.cand.size - 1 - back_in] = slot
            back_in += 1
            _continued(s, p, slot, chunk)
        else:
            x[slot, CHUNK] = 1
            contexts += np.int64(s.r_prompt[slot]) + s.r_done[slot]
            s.left[decodes] = slot
            decodes += 1
    return taken, back_in, used, decodes, contexts, copied


@outlined(MindieState)
def mixed_round(s, p):
    """Fill place ``p``; the number of rows."""
    x = s.x
    budget = s.max_tokens
    n_swap = s.n_swap
    preempted = s.n_preempted
    copied = 0
    tail, at = dequeue_running(s, 2 * s.mb)
    n_wait = min(s.w_len, 2 * s.mb - tail)
    for i in range(n_wait):
        s.cand2[i] = queue_pop(s)
    seen = min(n_swap, 2 * s.mb - tail - n_wait)
    longs = 0
    for i in range(tail):
        if _is_long(s, s.cand[i]):
            longs += 1
    # running: decodes from the front of `left`, continued prompts remembered in `run` order at its back
    head = 0
    decodes = 0
    prompts = 0
    used = 0
    swaps = 0
    contexts = 0
    back = s.left.size
    while head < tail:
        slot = s.cand[head]
        chunk = min(_left_to_compute(s, slot), budget - used, s.chunk)
        if used + chunk > budget or decodes + prompts + 1 > s.mb:
            break
        head += 1
        can, tail, swaps = make_room_for(s, slot, tail, head, swaps)
        if can:
            append(s, slot)
            used += chunk
            if x[slot, PROMPT] == 1:
                prompts += 1
                s.left[back - prompts] = slot
                _continued(s, p, slot, chunk)
            else:
                x[slot, CHUNK] = 1
                contexts += np.int64(s.r_prompt[slot]) + s.r_done[slot]
                s.left[decodes] = slot
                decodes += 1
    running = decodes + prompts
    taken = back_in = 0
    if s.n_preempted == preempted:
        taken, back_in, used, decodes, contexts, copied = _bring_back(s, p, seen, running, used, decodes, contexts)
    else:
        for i in range(n_swap, s.n_swap):
            copied += x[s.swap[i], HOST]
    refill_swapped(s, taken, seen)
    added = _waiting_prompts(s, p, n_wait, running, used, longs, decodes)
    sort_by_id(s, s.left, 0, decodes)
    rows = decodes + added
    for i in range(back_in):  # prompts that return stand before the continued ones
        s.left[rows] = s.cand[s.cand.size - 1 - i]
        rows += 1
    for i in range(prompts):
        s.left[rows] = s.left[back - 1 - i]
        rows += 1
    refill_running(s, head, tail, at, rows)
    if s.caching:
        mark_computed(s.kv)
    s.q_feat[p, COPIED_BLOCKS] += copied
    if decodes > 0:
        decode_features(s, p, decodes, contexts)
    s.stat_tokens = used
    s.stat_blocks = 0
    return rows
