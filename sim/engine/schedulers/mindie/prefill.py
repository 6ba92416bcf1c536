# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""A round of prompts: strictly first come, first served, recomputed requests after all new ones (``FcfsPolicy::ApplyToWaitingQueue``)."""

import numpy as np

from sim.cost.features import PREFILL_CTX, PREFILL_ROWS, PREFILL_TOKENS, PREFILL_WORK, ROWS, SAMPLED, SPARE, TOKENS
from sim.engine.borrow import keep
from sim.engine.kv.mindie_blocks import mark_computed
from sim.engine.outline import outlined
from sim.engine.queue import queue_pop, queue_push_front
from sim.engine.schedulers.mindie.blocks import allocate, blocks_for, look_up
from sim.engine.schedulers.mindie.state import CAP, CHUNK, CTX, HIT, IGNORED, PROMPT, SEQ, MindieState
from sim.engine.state import first_scheduled, free_slot, log_event, record_end
from sim.jit import inline, kernel
from sim.ledger import FAILED, REJECTED


@kernel
def sort_by_id(s, a, lo, hi):
    """Order slots [lo, hi) by sequence id. They are a few ascending runs, which are merged one after the other."""
    x, tmp = s.x, s.tmp
    end = lo + 1
    while end < hi:
        if x[a[end], SEQ] > x[a[end - 1], SEQ]:
            end += 1
            continue
        stop = end + 1  # the next run is [end, stop)
        while stop < hi and x[a[stop], SEQ] > x[a[stop - 1], SEQ]:
            stop += 1
        n = stop - end
        for i in range(n):
            tmp[i] = a[end + i]
        i = end - 1
        j = n - 1
        to = stop - 1
        while j >= 0:
            if i >= lo and x[a[i], SEQ] > x[tmp[j], SEQ]:
                a[to] = a[i]
                i -= 1
            else:
                a[to] = tmp[j]
                j -= 1
            to -= 1
        end = stop


@kernel
def more_run(s, n):
    """Room for ``n`` more entries of ``run``."""
    own = keep(s)
    if s.n_run + n > s.run.size:
        bigger = np.empty(2 * (s.n_run + n), np.int32)
        for i in range(s.n_run):
            bigger[i] = s.run[i]
        own.run = bigger


@inline
def prompt_features(s, p, slot, past, new, counted, last):
    """Count ``new`` tokens after ``past``; ``counted``: as MindIE counts the row. ``last``: the row's last position is sampled."""
    f = s.q_feat[p]
    f[ROWS] += 1.0
    if new > 0:
        f[PREFILL_ROWS] += 1.0
        f[TOKENS] += new
        f[PREFILL_TOKENS] += new
        f[PREFILL_WORK] += new * (past + 0.5 * new)
        f[PREFILL_CTX] += past + new
    f[SPARE] += counted
    if last:
        f[SAMPLED] += 1.0
    first_scheduled(s, slot)


@inline
def waited_too_long(s, slot):
    """``maxFirstTokenWaitTime`` has passed, in whole milliseconds."""
    return int((s.now - s.r_arrival[slot]) / s.ms + 1e-6) > s.first_wait


@inline
def turn_away(s, slot, status):
    """A prompt that can never be computed."""
    log_event(s, IGNORED, s.r_id[slot], 0)
    record_end(s, slot, s.now, status)
    free_slot(s, slot)


@inline
def collect(s, most):
    """Candidates into ``s.cand``: up to ``most`` new requests in order, then the recomputed ones met on the way (``DequeueWaiting``)."""
    n = 0
    again = 0
    while s.w_len > 0 and n < most:
        slot = queue_pop(s)
        if s.r_done[slot] > 0:
            s.cand2[again] = slot
            again += 1
        else:
            s.cand[n] = slot
            n += 1
    for i in range(again):
        s.cand[n + i] = s.cand2[i]
    s.n_again -= again
    return n + again


@inline
def put_back(s, lo, hi):
    """Candidates that were not taken, to the front of the queue in order of their ids (``BackfillConcurrentQueue``)."""
    sort_by_id(s, s.cand, lo, hi)
    for i in range(hi - 1, lo - 1, -1):
        slot = s.cand[i]
        if s.r_done[slot] > 0:
            s.n_again += 1
        queue_push_front(s, slot)


@outlined(MindieState)
def prefill_round(s, p):
    """Fill place ``p`` with prompts; the number of rows."""
    x = s.x
    size = s.block_size
    straight = s.n_again == 0  # then the candidates are the head of the queue, in order: nothing moves
    most = 2 * s.mpb
    n = min(s.w_len, most) if straight else collect(s, most)
    more_run(s, s.mpb)
    budget = s.max_tokens
    limit = min(s.max_prompt, budget)
    used = 0
    counted = 0
    rows = 0
    blocks = 0
    at = 0
    s.g_blocked = False
    while at < n:
        slot = s.w_slot[(s.w_head + at) % s.w_slot.size] if straight else s.cand[at]
        tokens = np.int64(s.r_prompt[slot]) + s.r_done[slot]
        need = blocks_for(s, tokens)
        again = s.r_done[slot] > 0
        if need > s.total or (again and need == s.total):
            # the real engine stops with an error, or lets the request wait forever
            turn_away(s, slot, FAILED)
            at += 1
            continue
        if again and need == s.free_blocks:
            break
        if not again and tokens > limit:
            turn_away(s, slot, REJECTED)
            at += 1
            continue
        known = look_up(s, slot, tokens)
        uncached = max(tokens - known, 1)
        if need > s.free_blocks:
            if not again and waited_too_long(s, slot):
                s.new_first = True
            s.g_blocked = True
            break
        if used + uncached > budget or rows + 1 > s.mpb:
            break
        allocate(s, slot, tokens)
        at += 1
        used += uncached
        counted += tokens
        past = x[slot, HIT] * size
        if past == tokens:
            past -= size  # a prompt that is cached entirely computes its last block again
        if not again:
            s.r_cached[slot] = past
        x[slot, CHUNK] = tokens
        x[slot, CTX] = tokens
        x[slot, PROMPT] = 0
        prompt_features(s, p, slot, past, tokens - past, tokens, True)
        s.run[s.n_run] = slot
        s.n_run += 1
        rows += 1
        blocks += x[slot, CAP] // size
    if straight:
        s.w_head = (s.w_head + at) % s.w_slot.size
        s.w_len -= at
    else:
        put_back(s, at, n)
    if s.caching:
        mark_computed(s.kv)
    s.stat_tokens = used
    s.stat_blocks = blocks
    return rows
