# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""A round of decodes: running requests, then swapped ones (``FcfsPolicy::ApplyToRunningQueue``, ``ApplyToSwappedQueue``)."""

import numpy as np

from sim.cost.features import COPIED_BLOCKS, DECODE_CTX, DECODE_ROWS, DECODE_TOKENS, DRAFT_TOKENS, ROWS, SAMPLED, SPARE, TOKENS
from sim.engine.kv.mindie_blocks import mark_computed
from sim.engine.outline import outlined
from sim.engine.queue import queue_push
from sim.engine.schedulers.mindie.blocks import append, blocks_for, blocks_to_append, drop_entry, length, preempt
from sim.engine.schedulers.mindie.prefill import more_run, sort_by_id, turn_away
from sim.engine.schedulers.mindie.state import CAP, CHUNK, HOST, LATENCY, ROLE_D, SEQ, SWAPPED_IN, MindieState
from sim.engine.state import free_slot, log_event, record_end
from sim.jit import inline
from sim.ledger import FAILED, RETURNED


@inline
def decode_features(s, p, rows, contexts):
    """Sums of ``rows`` decoding rows."""
    f = s.q_feat[p]
    width = 1 + s.gamma
    f[ROWS] += rows
    f[DECODE_ROWS] += rows
    f[DECODE_TOKENS] += rows * width
    f[TOKENS] += rows * width
    f[DECODE_CTX] += contexts
    f[SAMPLED] += rows * width
    f[DRAFT_TOKENS] += rows * s.gamma
    f[SPARE] += rows


@inline
def plain_decode(s, p):
    """The usual round: everything that runs decodes. Returns the rows, or −1 if it must be done with more care."""
    if s.n_swap > 0 or s.new_first or s.gamma > 0 or s.caching or s.policy == LATENCY:
        return -1
    if s.n_run > s.mb or s.n_run > s.max_tokens:
        return -1
    x, run, prompt, done = s.x, s.run, s.r_prompt, s.r_done
    n = 0
    need = 0
    contexts = 0
    last = -1
    ordered = True
    for i in range(s.n_run):
        slot = run[i]
        if slot < 0:
            s.free_blocks += -1 - slot
            continue
        run[n] = slot
        n += 1
        tokens = np.int64(prompt[slot]) + done[slot]
        contexts += tokens
        if tokens > x[slot, CAP]:
            need += 1
        if x[slot, SEQ] < last:
            ordered = False
        last = x[slot, SEQ]
    s.n_run = n
    if need > s.free_blocks:
        return -1
    if need > 0:
        s.free_blocks -= need
        for i in range(n):
            slot = run[i]
            if np.int64(prompt[slot]) + done[slot] > x[slot, CAP]:
                x[slot, CAP] += s.block_size
    if not ordered:
        sort_by_id(s, run, 0, n)
    if n > 0:
        decode_features(s, p, n, contexts)
    return n


@inline
def dequeue_running(s, most):
    """Up to ``most`` running requests into ``s.cand``; finished ones met on the way are dropped. Returns how many, and entries used up."""
    n = 0
    at = 0
    while at < s.n_run and n < most:
        entry = s.run[at]
        at += 1
        if entry < 0:
            drop_entry(s, entry)
        else:
            s.cand[n] = entry
            n += 1
    return n, at


@inline
def refill_running(s, lo, hi, at, rows):
    """``run`` after a round: candidates [lo, hi) that were not taken, the entries from ``at`` on, then the batch ``s.left[:rows]``."""
    sort_by_id(s, s.cand, lo, hi)
    n = hi - lo
    rest = s.n_run - at
    for i in range(rest):
        s.run[n + i] = s.run[at + i]
    for i in range(n):
        s.run[i] = s.cand[lo + i]
    s.n_run = n + rest
    more_run(s, rows)
    for i in range(rows):
        s.run[s.n_run + i] = s.left[i]
    s.n_run += rows


@inline
def blocks_to_return(s, slot):
    """Blocks that must be free for a swapped request (``CanSwapIn``); where look-ahead slots need more, the real engine stops with an error."""
    return max(blocks_for(s, length(s, slot) + s.gamma), np.int64(s.x[slot, HOST]))


@inline
def swap_in(s, slot):
    """Back from host memory, and room for the next token. Returns the blocks moved."""
    n = np.int64(s.x[slot, HOST])
    s.host_free += n
    s.free_blocks -= n
    s.x[slot, HOST] = 0
    s.x[slot, CAP] = n * s.block_size
    append(s, slot)
    log_event(s, SWAPPED_IN, s.r_id[slot], n)
    return n


@inline
def refill_swapped(s, taken, seen):
    """``swap`` after a round: of its first ``seen`` entries ``taken`` are back, the others are put in order of their ids."""
    sort_by_id(s, s.swap, taken, seen)
    if taken > 0:
        for i in range(s.n_swap - taken):
            s.swap[i] = s.swap[taken + i]
        s.n_swap -= taken


@inline
def make_room_for(s, slot, tail, head, swaps):
    """Preempt from the back of the candidates until ``slot`` can go on. Returns whether it can, the new tail, and swaps so far."""
    can = True
    while blocks_to_append(s, slot) > s.free_blocks or s.new_first:
        victim = slot
        if tail > head:
            tail -= 1
            victim = s.cand[tail]
        else:
            can = False
        before = swaps
        swaps = preempt(s, victim, swaps)
        if swaps == before and s.role == ROLE_D:  # to be prefilled again elsewhere (``SendRecomputeResponse``)
            record_end(s, victim, s.now, RETURNED)
            free_slot(s, victim)
        elif swaps == before:
            queue_push(s, victim)
            if s.r_done[victim] > 0 and not s.chunked:
                s.n_again += 1
        s.new_first = False
        if not can:
            break
    return can, tail, swaps


@outlined(MindieState)
def decode_round(s, p):
    """Fill place ``p`` with decodes; the number of rows."""
    x = s.x
    n_swap = s.n_swap
    preempted = s.n_preempted
    copied = 0
    tail, at = dequeue_running(s, 2 * s.mb)
    seen = min(n_swap, 2 * s.mb - tail)
    head = 0
    rows = 0
    swaps = 0
    contexts = 0
    while head < tail:
        if rows + 1 > s.max_tokens or rows + 1 > s.mb:
            break
        slot = s.cand[head]
        head += 1
        can, tail, swaps = make_room_for(s, slot, tail, head, swaps)
        if can:
            append(s, slot)
            x[slot, CHUNK] = 1
            contexts += np.int64(s.r_prompt[slot]) + s.r_done[slot]
            s.left[rows] = slot
            rows += 1
    running = rows
    taken = 0
    if s.n_preempted == preempted:
        while taken < seen:
            slot = s.swap[taken]
            need = blocks_to_return(s, slot)
            if need > s.total:
                s.host_free += x[slot, HOST]
                turn_away(s, slot, FAILED)  # the real engine stops with an error
                taken += 1
                continue
            if need > s.free_blocks or rows + 1 > s.max_tokens or running + 1 > s.mb:
                break  # those that come back do not count against maxBatchSize
            copied += swap_in(s, slot)
            x[slot, CHUNK] = 1
            contexts += np.int64(s.r_prompt[slot]) + s.r_done[slot]
            s.left[rows] = slot
            rows += 1
            taken += 1
    else:
        for i in range(n_swap, s.n_swap):
            copied += x[s.swap[i], HOST]
    refill_swapped(s, taken, seen)
    sort_by_id(s, s.left, 0, rows)
    refill_running(s, head, tail, at, rows)
    if s.caching:
        mark_computed(s.kv)
    s.q_feat[p, COPIED_BLOCKS] += copied
    if rows > 0:
        decode_features(s, p, rows, contexts)
    s.stat_tokens = rows
    s.stat_blocks = 0
    if s.policy == LATENCY:
        for i in range(rows):
            s.stat_blocks += x[s.left[i], CAP] // s.block_size
    return rows
