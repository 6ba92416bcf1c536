# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Ollama's own runners (up to 0.24): one batch shared by the sequences in turn.

``ollamarunner`` fills one batch of ``batch_size`` tokens; a sequence that finds no room is first in the next batch. ``llamarunner`` lets
every sequence add up to ``batch_size`` tokens. The batch that ollamarunner builds while the one before computes is built at its end
here: that hides host time, and decides the same except for one row after an end of sequence.

*Source*: ollama/ollama v0.24.0 runner/ollamarunner/runner.go ``forwardBatch``, ``computeBatch``, cache.go ``LoadCacheSlot``,
``ShiftCacheSlot``; runner/llamarunner/runner.go ``processBatch``; llm/server.go (the semaphore of ``OLLAMA_NUM_PARALLEL``).
"""

from typing import Final, NamedTuple

import numpy as np

from sim.cost.features import (
    DECODE_CTX,
    DECODE_ROWS,
    DECODE_TOKENS,
    PREFILL_CTX,
    PREFILL_ROWS,
    PREFILL_TOKENS,
    PREFILL_WORK,
    ROWS,
    SAMPLED,
    TOKENS,
)
from sim.engine.contract import BATCH, NOTHING, clear_place, next_place
from sim.engine.kv.token_lists import TokenLists, append_span, common_prefix, cut_out, put_prompt, room_for, swap_lists, take_list
from sim.engine.outline import outlined
from sim.engine.queue import queue_pop, queue_push
from sim.engine.state import EngineState, emit, first_scheduled, free_slot, init_engine, log_event, record_end
from sim.jit import b1, i4s, i8, i8s, implement, kernel, new, struct
from sim.ledger import FINISHED, REJECTED

NONE: Final = -1
EV_ADD: Final = 1  # sequence, tokens
EV_AT: Final = 2  # first position of the next EV_ADD, step


@struct(viewed=True)
class RunnerState(EngineState):
    """Sequences (``q``-less columns ``s_``) each hold a cache slot (``c_``) while they run."""

    fn: i8s
    parallel: i8
    ctx: i8  # of one sequence
    batch_size: i8
    n_keep: i8
    each: b1  # llamarunner: the batch size is per sequence
    shift: b1
    truncate: b1
    multiuser: b1  # OLLAMA_MULTIUSER_CACHE
    w_slot: i4s
    w_head: i8
    w_len: i8
    lists: TokenLists
    scratch_list: i8
    spare_list: i8
    clock: i8
    n_active: i8
    next_seq: i8
    pure: b1
    s_slot: i4s
    s_cache: i8s
    s_prompt: i8s
    s_tok: i8s  # tokens in the cache
    s_gen: i8s  # generated tokens that the list holds
    s_keep: i8s
    s_sent: i8s
    c_list: i8s
    c_seq: i8s  # the sequence that uses it, or NONE
    c_used: i8s


class RunnerSettings(NamedTuple):
    """What a new runner is told, by name."""

    parallel: int
    ctx: int
    batch_size: int
    n_keep: int
    each: bool
    shift: bool
    truncate: bool
    multiuser: bool


@kernel
def new_runner_state(replica, rec, cost, fn, lists, n):
    """One runner. ``n``: `RunnerSettings`."""
    s = new(RunnerState)
    init_engine(s, replica, rec, cost, 1, n.parallel, 1, 64)
    s.fn = fn
    s.lists = lists
    s.parallel = n.parallel
    s.ctx = n.ctx
    s.batch_size = n.batch_size
    s.n_keep = n.n_keep
    s.each = n.each
    s.shift = n.shift
    s.truncate = n.truncate
    s.multiuser = n.multiuser
    s.w_slot = np.empty(64, np.int32)
    s.w_head = 0
    s.w_len = 0
    s.scratch_list = take_list(lists)
    s.spare_list = take_list(lists)
    s.clock = 0
    s.n_active = 0
    s.next_seq = 0
    s.pure = False
    s.s_slot = np.empty(n.parallel, np.int32)
    s.s_cache = np.zeros(n.parallel, np.int64)
    s.s_prompt = np.zeros(n.parallel, np.int64)
    s.s_tok = np.zeros(n.parallel, np.int64)
    s.s_gen = np.zeros(n.parallel, np.int64)
    s.s_keep = np.zeros(n.parallel, np.int64)
    s.s_sent = np.zeros(n.parallel, np.int64)
    s.c_list = np.empty(n.parallel, np.int64)
    s.c_seq = np.empty(n.parallel, np.int64)
    s.c_used = np.zeros(n.parallel, np.int64)
    for q in range(n.parallel):
        s.s_slot[q] = NONE
        s.c_list[q] = take_list(lists)
        s.c_seq[q] = NONE
    s.g_kv_total = n.parallel * n.ctx
    return s


def _enqueue(s, slot):
    queue_push(s, slot)
    s.g_waiting = s.w_len


@outlined(RunnerState)
def _note_generated(s, q):
    """Bring the list of sequence ``q`` up to date: all generated tokens but the last sampled one are in the cache."""
    slot = s.s_slot[q]
    new = s.r_done[slot] - 1 - s.s_gen[q]
    if new > 0:
        a = s.c_list[s.s_cache[q]]
        room_for(s.lists, a, s.lists.l_n[a] + 1)
        append_span(s.lists, a, s.r_out_content[slot], s.s_gen[q], new)
        s.s_gen[q] += new
    return 0


@outlined(RunnerState)
def _load_cache_slot(s, q):
    """``LoadCacheSlot``: gives sequence ``q`` a cache slot for the prompt in the scratch list; returns the tokens it can keep."""
    t = s.lists
    most, best, oldest, free = -1, 0, NONE, NONE
    for c in range(s.parallel):
        if s.c_seq[c] != NONE and not s.multiuser:
            continue
        shared = common_prefix(t, s.c_list[c], s.scratch_list)
        if s.c_seq[c] != NONE:  # its prompt may be computed only in part
            _note_generated(s, s.c_seq[c])
            shared = min(common_prefix(t, s.c_list[c], s.scratch_list), s.s_tok[s.c_seq[c]])
        elif oldest == NONE or s.c_used[c] < s.c_used[oldest]:
            oldest = c
        if shared > most:
            most, best = shared, c
    free = best
    if s.multiuser and (s.c_seq[best] != NONE or most < t.l_tok[s.c_list[best]]):
        free = oldest  # the prefix is copied
    s.clock += 1
    s.c_used[free] = s.clock
    s.c_seq[free] = q
    s.s_cache[q] = free
    return most


@outlined(RunnerState)
def _admit(s, slot):
    """A request has passed the semaphore."""
    t, prompt = s.lists, s.scratch_list
    put_prompt(s, t, prompt, slot)
    n = t.l_tok[prompt]
    keep = min(n if s.n_keep < 0 else s.n_keep + 1, s.ctx - 1)
    if n > s.ctx:
        if not s.truncate:
            record_end(s, slot, s.now, REJECTED)
            free_slot(s, slot)
            return 0
        cut_out(t, prompt, keep, n - s.ctx, s.spare_list)
        n = s.ctx
    q = 0
    while s.s_slot[q] != NONE:
        q += 1
    past = _load_cache_slot(s, q)
    if past == n:
        past -= 1
    swap_lists(t, s.c_list[s.s_cache[q]], prompt)
    s.s_slot[q] = slot
    s.s_prompt[q] = n
    s.s_tok[q] = past
    s.s_gen[q] = 0
    s.s_keep[q] = keep
    s.s_sent[q] = 0
    s.r_cached[slot] = past
    s.n_active += 1
    first_scheduled(s, slot)
    return 1


@outlined(RunnerState)
def _shift(s, q):
    """``ShiftCacheSlot``: a full context drops tokens after the first ``num_keep`` until half of the rest is free."""
    _note_generated(s, q)
    n = s.s_tok[q]
    discard = max((s.ctx - s.s_keep[q]) // 2, 1) - (s.ctx - n)
    if discard > 0:
        cut_out(s.lists, s.c_list[s.s_cache[q]], s.s_keep[q], discard, s.spare_list)
        s.s_tok[q] = n - discard
    return discard


@outlined(RunnerState)
def _plan_batch(s):
    while s.w_len > 0 and s.n_active < s.parallel:
        s.pure = False
        _admit(s, queue_pop(s))
    s.g_waiting = s.w_len
    s.g_running = s.n_active
    if s.n_active == 0:
        return NOTHING
    p = next_place(s)
    f = s.q_feat[p]
    clear_place(s, p)
    n, resume, decodes, used = 0, NONE, 0, 0
    for j in range(s.parallel):
        q = (s.next_seq + j) % s.parallel
        if s.s_slot[q] == NONE:
            continue
        room = s.batch_size if s.each else s.batch_size - n
        if room == 0:
            if resume == NONE:
                resume = q
            used += s.s_tok[q]
            continue
        left = s.s_prompt[q] - s.s_tok[q] if s.r_done[s.s_slot[q]] == 0 else 0
        if left == 0 and s.s_tok[q] + 1 > s.ctx:
            _shift(s, q)
        past = s.s_tok[q]
        k = min(left, room) if left > 0 else 1
        log_event(s, EV_AT, past, s.n_steps)
        log_event(s, EV_ADD, q, k)
        n += k
        s.s_sent[q] = k
        s.s_tok[q] = past + k
        used += past + k
        if left > 0:
            f[PREFILL_ROWS] += 1
            f[PREFILL_TOKENS] += k
            f[PREFILL_WORK] += k * (past + 0.5 * k)
            f[PREFILL_CTX] += past + k
            if k == left:
                f[SAMPLED] += 1
        else:
            decodes += 1
            f[DECODE_CTX] += past + 1
    if resume != NONE:
        s.next_seq = resume
    f[TOKENS] = n
    f[DECODE_ROWS] = f[DECODE_TOKENS] = decodes
    f[SAMPLED] += decodes
    f[ROWS] = f[PREFILL_ROWS] + decodes
    s.q_rows[p] = int(f[ROWS])
    s.pure = decodes == s.n_active
    s.g_kv_used = used
    return BATCH


@outlined(RunnerState)
def _complete_batch(s):
    for q in range(s.parallel):
        if s.s_slot[q] == NONE or s.s_sent[q] == 0:
            continue
        s.s_sent[q] = 0
        slot = s.s_slot[q]
        if s.s_tok[q] < s.s_prompt[q] and s.r_done[slot] == 0:
            continue
        emit(s, slot, s.now, 1)
        if s.r_done[slot] >= s.r_output[slot] or (not s.shift and s.s_tok[q] + 1 > s.ctx):
            _note_generated(s, q)
            record_end(s, slot, s.now, FINISHED)
            free_slot(s, slot)
            s.c_seq[s.s_cache[q]] = NONE
            s.s_slot[q] = NONE
            s.n_active -= 1
            s.pure = False
    s.g_running = s.n_active
    return 0


@outlined(RunnerState)
def _unchanged(s):
    if s.w_len > 0 and s.n_active < s.parallel:
        return 0
    k = 1 << 30
    for q in range(s.parallel):
        slot = s.s_slot[q]
        if slot != NONE:
            k = min(k, s.r_output[slot] - s.r_done[slot] - 1, s.ctx - 1 - s.s_tok[q])
    return k


def _plan(s):
    return _plan_batch(s)


def _complete(s, p):
    _complete_batch(s)


def _steady_steps(s):
    return _unchanged(s) if s.pure else 0


def _apply_steady(s, k):
    for q in range(s.parallel):
        slot = s.s_slot[q]
        if slot != NONE:
            s.s_tok[q] += k
            s.r_done[slot] += k
            s.r_last_token[slot] = s.now
    s.g_kv_used += k * s.n_active


def _grow(s, n):
    pass


implement(
    RunnerState,
    enqueue=_enqueue,
    plan=_plan,
    complete=_complete,
    steady_steps=_steady_steps,
    apply_steady=_apply_steady,
    grow=_grow,
)


@kernel
def runner_log_on(s):
    """Switch the event log on, for tests."""
    s.log_on = True


@kernel
def runner_log(s):
    """The event log so far."""
    return s.log[: s.log_n]
