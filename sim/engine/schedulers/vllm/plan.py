# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""``Scheduler.schedule()`` (``v1/core/sched/scheduler.py``): running requests first, in list order; then the queue; then bookkeeping."""

import numpy as np

from sim.cost.features import (
    DECODE_CTX,
    DECODE_ROWS,
    DECODE_TOKENS,
    DRAFT_TOKENS,
    PREFILL_CTX,
    PREFILL_ROWS,
    PREFILL_TOKENS,
    PREFILL_WORK,
    ROWS,
    SAMPLED,
    SPARE,
    TOKENS,
)
from sim.engine.contract import BATCH, EMPTY, NOTHING, clear_place, next_place
from sim.engine.kv.blocks import take_blocks
from sim.engine.schedulers.vllm.admit import admit
from sim.engine.schedulers.vllm.memory import can_free, preempt
from sim.engine.schedulers.vllm.seam import commit, cut_chunk, end_of_decision, grant, lean_rows
from sim.engine.schedulers.vllm.state import (
    CAP,
    CHUNK,
    COMP,
    ELIG,
    INFL,
    KNOWN,
    LAST_SEQ,
    LIMIT,
    NEXT,
    NSPEC,
    PH,
    PREEMPTED,
    PREFILLING,
    PROMPT,
    STATUS,
)
from sim.jit import flat, inline


@inline
def has_requests(s):
    """Unfinished requests, finished ones not yet reported to the workers, blocks that are still being read, or written for somebody who has gone."""
    return s.n_run > 0 or s.wq.len > 0 or s.kvq.len > 0 or s.finished_pending or s.n_send > 0 or s.in_n > 0


@inline
def _victim(s):
    """Place in `run` of whom to preempt: the last, or the least urgent and then latest."""
    if not s.priority:
        return s.n_run - 1
    best = 0
    for j in range(1, s.n_run):
        a, b = s.run[j], s.run[best]
        pa, pb = s.r_priority[a], s.r_priority[b]
        if pa > pb or (pa == pb and s.r_arrival[a] > s.r_arrival[b]):
            best = j
    return best


@inline
def _make_space(s, i, slot, n):
    """Allocate for running request `slot` at place `i`, preempting as long as it does not fit.

    Returns whether it fits and how many places before it were vacated.
    """
    p = s.p
    before = np.int64(0)
    s.admitting = False
    s.n_hits = s.ext = s.reserved = 0
    while not grant(s, slot, n):
        j = _victim(s)
        victim = s.run[j]
        if not can_free(s, victim):
            return False, before
        for k in range(j, s.n_run - 1):
            s.run[k] = s.run[k + 1]
        s.n_run -= 1
        if s.priority and j < i - before:
            before += 1
            at = -1
            for k in range(s.rows_planned):
                if s.q_slot[p, k] == victim:
                    at = k
            if at >= 0:  # it was scheduled in this step: its tokens go back to the budget
                s.budget += s.q_tok[p, at]
                s.room += s.q_tok[p, at] + s.slots
                s.rows_planned -= 1
                if at < s.lean:
                    s.lean -= 1
                    s.lean_ctx -= s.r_x[victim, COMP]
                    s.r_x[victim, INFL] -= 1
                for k in range(at, s.rows_planned):
                    s.q_slot[p, k] = s.q_slot[p, k + 1]
                    s.q_tok[p, k] = s.q_tok[p, k + 1]
                    s.q_aux[p, k] = s.q_aux[p, k + 1]
        preempt(s, victim)
        if victim == slot:
            return False, before
    return True, before


def lean_rows_plain(s):
    """See `seam.lean_rows`; stops at the first row that does something else.

    Same decisions as the loop of `plan_step` and `_after`, which do the rest. Only where nothing but blocks can get in the way: without
    speculation, pipeline stages, adapters, threshold or deferral.
    """
    x = s.r_x
    run = s.run
    p = s.p
    q_slot, q_tok, q_aux = s.q_slot, s.q_tok, s.q_aux
    kv = s.kv
    size = s.block_size
    is_async = s.is_async
    longest = s.max_len - 1
    n_run = min(s.n_run, s.max_tokens)
    free = kv.free  # a lower bound: what is taken is settled at the end
    taken = np.int64(0)
    rows = np.int64(0)
    ctx = np.int64(0)
    i = np.int64(0)
    while i < n_run:
        slot = run[i]
        u = np.uintp(slot)  # unsigned: places are not checked for being negative
        comp = np.int64(x[u, COMP])
        ph = np.int64(x[u, PH])
        known = np.int64(x[u, KNOWN])
        if known + ph - comp != 1 or x[u, CHUNK] == 1 or comp < x[u, PROMPT]:
            break
        if (ph > 0 and comp + 2 - ph >= x[u, LIMIT]) or comp >= longest:
            i += 1
            continue
        comp += 1
        if comp > x[u, CAP]:
            if taken == free:
                break
            taken += 1
            x[u, CAP] += size
        if min(comp, known) >= x[u, NEXT]:
            take_blocks(kv, taken)  # blocks change hands in the order of the list
            free -= taken
            taken = np.int64(0)
            commit(s, slot, min(comp, known))
        x[u, COMP] = comp
        x[u, INFL] += 1
        if is_async:
            x[u, PH] = ph + 1
        ctx += comp
        q_slot[p, rows] = slot
        q_tok[p, rows] = 1
        q_aux[p, rows] = 1
        rows += 1
        i += 1
    take_blocks(kv, taken)
    s.lean = rows
    s.lean_ctx = ctx
    return i


@inline
def _after(s):
    """Bookkeeping after the decision (``_update_after_schedule``, ``AsyncScheduler``) and the sums of the batch."""
    x = s.r_x  # arrays are looked up once: each access to a field of the state counts references
    q_slot, q_tok, q_aux = s.q_slot, s.q_tok, s.q_aux
    r_prompt = s.r_prompt
    p = s.p
    rows = s.rows_planned
    feat = s.q_feat
    n_prefill = prefill_tokens = prefill_ctx = np.int64(0)
    n_decode = decode_tokens = sampled = drafting = past = s.lean
    decode_ctx = s.lean_ctx
    work = 0.0
    if s.defer_free:
        for j in range(s.lean):
            x[q_slot[p, j], LAST_SEQ] = s.seq_s
    for j in range(s.lean, rows):
        slot = q_slot[p, j]
        n = q_tok[p, j]
        drafts = q_aux[p, j]
        c = x[slot, COMP]
        x[slot, COMP] = c + n
        x[slot, INFL] += n
        chunk = c + n < x[slot, KNOWN] + x[slot, PH]
        if chunk:
            x[slot, CHUNK] = 1
        else:
            x[slot, CHUNK] = 0
            x[slot, PREFILLING] = 0
            sampled += 1 + drafts
            drafting += 1
            if s.is_async:
                x[slot, PH] += 1 + drafts
                x[slot, NSPEC] = s.k_spec
                x[slot, ELIG] = s.step_no + s.pp
        if s.defer_free:
            x[slot, LAST_SEQ] = s.seq_s
        q_aux[p, j] = 2 * drafts + (0 if chunk else 1)
        after = c >= r_prompt[slot]
        if after:
            past += 1
        if after and n == 1 + drafts:
            n_decode += 1
            decode_tokens += n
            decode_ctx += c + 1
        else:
            n_prefill += 1
            prefill_tokens += n
            prefill_ctx += c + n
            work += float(n) * (c + 0.5 * n)
    s.q_rows[p] = rows
    feat[p, TOKENS] = decode_tokens + prefill_tokens
    feat[p, DECODE_ROWS] = n_decode
    feat[p, DECODE_TOKENS] = decode_tokens
    feat[p, DECODE_CTX] = decode_ctx
    feat[p, PREFILL_ROWS] = n_prefill
    feat[p, PREFILL_TOKENS] = prefill_tokens
    feat[p, PREFILL_WORK] = work
    feat[p, PREFILL_CTX] = prefill_ctx
    feat[p, SAMPLED] = sampled
    feat[p, ROWS] = rows
    feat[p, DRAFT_TOKENS] = drafting * s.k_spec
    feat[p, SPARE] = past  # rows past their prompt, as recordings count them
    s.pure = n_decode == rows and rows == s.n_run and s.k_spec == 0


@inline
def conclude(s, preempted):
    """Bookkeeping once the rows of a decision are known; returns what `plan` returns."""
    rows = s.rows_planned
    end_of_decision(s)
    if rows > 0:
        s.n_exec += 1
        if s.defer_free:
            s.seq_s += 1
    if s.interval > 1 and (s.prefills or s.admitted):
        s.last_prefill = s.n_exec
    _after(s)
    s.finished_pending = False
    s.executed = rows > 0
    s.more = has_requests(s)
    s.g_running = s.n_run
    s.g_waiting = s.wq.len + s.kvq.len
    s.g_kv_used = float(s.kv.total - s.kv.free)
    if rows > 0:
        s.empties = 0
        return BATCH
    if not preempted:
        # sync: nothing changes before the next arrival; async: batches in flight may still change something
        s.empties = s.empties + 1 if s.depth > 1 or not s.more else 2 * s.depth + 3
    if s.more and s.q_len + 1 < s.depth:
        s.now += s.sleep
    return EMPTY


@flat
def _defers(s):
    """Whether prefills are left out of this step, for decodes (``prefill_schedule_interval``)."""
    defer = False
    if (
        s.interval > 1
        and not s.cap_bound
        and (s.throttle == 1 or (s.throttle < 0 and s.n_exec + 1 - s.last_prefill < s.interval))
    ):
        for j in range(s.n_run):
            if s.r_x[s.run[j], CHUNK] == 0:
                defer = True
    return defer


def plan_step(s):
    """One call of ``schedule()``."""
    # nothing more will change by itself: wait for the next arrival instead of asking again and again
    waiting = s.in_n > 0 or s.n_send > 0 or s.df_len > 0
    if not has_requests(s) or (s.empties > 2 * s.depth + 2 and not waiting):
        s.executed = False
        return NOTHING
    s.step_no += 1
    p = next_place(s)
    clear_place(s, p)
    s.p = p
    x = s.r_x
    run = s.run
    q_slot, q_tok, q_aux = s.q_slot, s.q_tok, s.q_aux
    budget = room = s.max_tokens
    waiting = s.wq.len + s.kvq.len
    threshold = s.threshold
    if s.n_run + waiting <= 1 and s.lone_exempt:
        threshold -= threshold
    if threshold > 0 and s.adaptive:
        threshold = max(threshold, s.max_tokens // (s.n_run + waiting))
    defer = s.defer = _defers(s)
    preempted_before = s.n_preempted
    s.prefills = False
    s.admitted = False
    rows = i = np.int64(0)
    s.lean = s.lean_ctx = 0
    if s.pp == 1 and s.k_spec == 0 and threshold == 0 and not defer and not s.any_lora:
        i = lean_rows(s)
        rows = s.lean
        budget -= rows
        room -= rows
    while i < s.n_run and budget > 0 and room > s.slots:
        slot = run[i]
        comp = np.int64(x[slot, COMP])
        ph = np.int64(x[slot, PH])
        known = np.int64(x[slot, KNOWN])
        n_spec = np.int64(x[slot, NSPEC])
        # its last token is in flight; pipeline stagger; deferred prefill
        if (ph > 0 and comp + 2 - ph >= x[slot, LIMIT]) or s.step_no < x[slot, ELIG] or (defer and x[slot, CHUNK] == 1):
            i += 1
            continue
        n = known + n_spec + ph - comp
        if threshold > 0 and n > threshold:
            n = threshold
        n = cut_chunk(s, slot, comp, min(min(n, budget), min(room - s.slots, s.max_len - 1 - comp)))
        if n <= 0:
            i += 1
            continue
        if comp + n + s.lookahead > x[slot, CAP] or min(comp + n, known) >= x[slot, NEXT]:
            s.rows_planned, s.budget, s.room = rows, budget, room
            fits, before = _make_space(s, i, slot, n)
            rows, budget, room = s.rows_planned, s.budget, s.room
            i -= before
            if not fits:
                if s.priority and x[slot, STATUS] == PREEMPTED:
                    continue
                break
        drafts = np.int64(0)
        if n_spec > 0:
            drafts = max(min(n + comp - known - ph, n_spec), 0)
            x[slot, NSPEC] = 0
        if x[slot, CHUNK] == 1:
            s.prefills = True
        q_slot[p, rows] = slot
        q_tok[p, rows] = n
        q_aux[p, rows] = drafts
        rows += 1
        budget -= n
        room -= n + s.slots
        i += 1
    s.rows_planned, s.budget, s.room, s.threshold_now = rows, budget, room, threshold
    preempted = s.n_preempted > preempted_before
    if not preempted and not s.shut:
        admit(s)
    return conclude(s, preempted)
