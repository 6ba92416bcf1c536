# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Arrival of a request, and ``Scheduler.update_from_output()``: tokens out, finishes, blocks back."""

import numpy as np

from sim.engine.hand_over import tell_at
from sim.engine.schedulers.vllm.memory import ONE, ZERO
from sim.engine.schedulers.vllm.plan import has_requests
from sim.engine.schedulers.vllm.queues import queue_add, queue_remove
from sim.engine.schedulers.vllm.seam import commit, forget, kept_until, never_fits, release, settle
from sim.engine.schedulers.vllm.state import (
    CACHED,
    CHUNK,
    COMP,
    DEFERRED,
    ENDED,
    FINISH,
    HELD,
    INFL,
    KNOWN,
    LAZY,
    LIMIT,
    N_X,
    NEVER,
    NEXT,
    NSPEC,
    OUT,
    PH,
    PREFILLING,
    PROMPT,
    RECEIVED,
    RECV_DONE,
    REMOTE,
    ROW,
    RUNNING,
    SEND_DONE,
    STALE,
    STATUS,
    STOP,
    VERIFIED,
)
from sim.engine.state import INF, emit, free_slot, log_event, record_end, record_gap
from sim.jit import flat, inline, kernel
from sim.ledger import FINISHED, REJECTED


def enqueue_vllm(s, slot):
    """A request has arrived. A prompt that leaves no room for an output is refused (HTTP 400, ``v1/engine/input_processor.py``)."""
    prompt = s.r_prompt[slot]
    if prompt >= s.max_len or never_fits(s, prompt):
        record_end(s, slot, s.now, REJECTED)
        free_slot(s, slot)
        return
    x = s.r_x
    for j in range(N_X):
        x[slot, j] = 0
    x[slot, KNOWN] = prompt
    x[slot, PROMPT] = prompt
    x[slot, LIMIT] = prompt + s.r_max[slot]
    x[slot, STOP] = min(prompt + min(s.r_output[slot], s.r_max[slot]), s.max_len)
    x[slot, CACHED] = -1
    x[slot, ROW] = -1
    x[slot, NEXT] = NEVER
    x[slot, LAZY] = 1 if s.r_spans[slot] == 0 or not s.kv.caching else 0
    if s.key_slot == slot:
        s.key_slot = -1
    if s.wq.len == 0 or s.priority:
        s.stuck = False
    s.empties = 0
    queue_add(s, s.wq, slot, ZERO)
    s.g_waiting = s.wq.len + s.kvq.len


@inline
def _sort_by_id(s, slots, times, n):
    """The first ``n`` transfers in the order of their requests' ids."""
    for i in range(1, n):
        slot, time = slots[i], times[i]
        j = i
        while j > 0 and s.r_id[slots[j - 1]] > s.r_id[slot]:
            slots[j], times[j] = slots[j - 1], times[j - 1]
            j -= 1
        slots[j], times[j] = slot, time


@kernel
def _transfers(s, n_out):
    """Remote loads that have arrived by now, and of the first ``n_out`` sends those that have been read."""
    if s.now < s.horizon:
        return
    x = s.r_x
    if s.in_order:
        _sort_by_id(s, s.in_slot_x, s.in_time, s.in_n)
        _sort_by_id(s, s.out_slot, s.out_time, n_out)
    before = s.in_n + s.out_n
    left = 0
    horizon = INF
    for i in range(s.in_n):
        slot = s.in_slot_x[i]
        if s.in_time[i] <= s.now:
            if x[slot, STATUS] == REMOTE:
                x[slot, RECEIVED] = 1
            elif x[slot, HELD] == 1:  # its client went while it loaded
                release(s, slot)
                x[slot, HELD] = 0
                free_slot(s, slot)
            log_event(s, RECV_DONE, s.r_id[slot], ZERO)
        else:
            s.in_slot_x[left] = slot
            s.in_time[left] = s.in_time[i]
            horizon = min(horizon, s.in_time[i])
            left += 1
    s.in_n = left
    left = 0
    for i in range(s.out_n):
        slot = s.out_slot[i]
        if i < n_out and s.out_time[i] <= s.now:
            release(s, slot)
            x[slot, HELD] = 0
            s.n_send -= 1
            log_event(s, SEND_DONE, s.r_id[slot], ZERO)
            if x[slot, INFL] == 0:
                free_slot(s, slot)
        else:
            s.out_slot[left] = slot
            s.out_time[left] = s.out_time[i]
            horizon = min(horizon, s.out_time[i])
            left += 1
    s.out_n = left
    s.horizon = horizon
    if s.in_n + s.out_n < before:
        s.empties = 0
        s.stuck = False


@inline
def _accepted(s, slot, drafts):
    """Drafts that the model agrees with in this verify step."""
    x = s.r_x
    v = x[slot, VERIFIED]
    x[slot, VERIFIED] = v + 1
    first = s.r_id[slot] * 7919 if s.accept_spread else 0
    return min(s.accept[(first + v) % s.accept.size], drafts)


@inline
def _finish(s, slot):
    """It has its last token."""
    x = s.r_x
    was_running = x[slot, STATUS] == RUNNING
    x[slot, STATUS] = ENDED
    s.finished_pending = True
    record_end(s, slot, s.now, FINISHED)
    log_event(s, FINISH, s.r_id[slot], ZERO)
    if s.role > 0:
        forget(s, slot)
    until = kept_until(s, slot)
    if until > 0.0:
        s.out_slot[s.out_n] = slot
        s.out_time[s.out_n] = until
        tell_at(s, s.out_time[s.out_n])
        s.out_n += 1
        s.n_send += 1
        x[slot, HELD] = 1
        x[slot, PREFILLING] = 0
    else:
        release(s, slot)
    if not was_running:
        queue_remove(s, s.wq, slot)
        queue_remove(s, s.kvq, slot)
        if x[slot, DEFERRED] == 1:
            x[slot, DEFERRED] = 0
            s.n_deferred -= 1
    if x[slot, INFL] == 0 and x[slot, HELD] == 0:
        free_slot(s, slot)


@flat
def _given(s, slot, n, aux):
    """What a row of ``n`` tokens gave its request, if anything: whether, how many tokens, how many it lacked, and how many it had."""
    x = s.r_x
    u = np.uintp(slot)
    stale = x[u, STALE] > 0
    if stale:
        x[u, STALE] -= n
    status = x[u, STATUS]
    known = x[u, KNOWN]
    left = x[u, STOP] - known
    if status == ENDED:
        if x[u, INFL] == 0 and x[u, HELD] == 0:
            free_slot(s, slot)
        return False, left, left, known
    if aux & 1 == 0:
        return False, left, left, known
    k = 1
    drafts = aux >> 1
    if drafts > 0:
        accepted = _accepted(s, slot, drafts)
        k = 1 + accepted
        if not stale:
            if x[u, COMP] > 0:
                x[u, COMP] -= drafts - accepted
            if x[u, PH] > 0:
                x[u, PH] -= drafts - accepted
    had_ph = x[u, PH] > 0
    got = min(k, left)
    x[u, KNOWN] = known + got
    if not stale:
        if got == left:
            x[u, COMP] -= k - got
        if had_ph:
            x[u, PH] -= k
        if (had_ph or s.k_spec > 0) and status == RUNNING and x[u, COMP] - x[u, INFL] >= x[u, NEXT]:
            commit(s, slot, np.int64(x[u, COMP] - x[u, INFL]))
    return True, got, left, known


@flat
def _drop_ended(s):
    """Who has ended leaves the running list."""
    n_left = 0
    run = s.run
    for j in range(s.n_run):
        slot = run[j]
        if s.r_x[slot, STATUS] == RUNNING:
            run[n_left] = slot
            n_left += 1
    s.n_run = n_left
    s.stuck = False


@flat
def _draft(s, p, rows):
    """Drafts of the next step."""
    x = s.r_x
    for j in range(rows):
        slot = s.q_slot[p, j]
        if x[slot, STATUS] != ENDED:
            x[slot, NSPEC] = 0 if x[slot, CHUNK] == 1 else s.k_spec


@flat
def _take_stock(s, rows, got_rows, least):
    """The gauges after an update, and what the next plan goes by."""
    if rows > 0:
        s.empties = 0
    s.got = got_rows
    s.least = least
    s.t_got = s.now
    s.g_running = s.n_run
    s.g_waiting = s.wq.len + s.kvq.len
    s.g_kv_used = float(s.kv.total - s.kv.free)
    if not s.executed and s.sleep > 0.0 and has_requests(s):
        s.now += s.sleep


def complete_step(s, p):
    """One call of ``update_from_output()`` for the batch in place ``p``."""
    x = s.r_x
    q_slot, q_tok, q_aux = s.q_slot, s.q_tok, s.q_aux
    r_last, r_done = s.r_last_token, s.r_done
    now = s.now
    gap_from = s.t_got
    rows = s.q_rows[p]
    n_out = s.out_n
    if s.defer_free and rows > 0:
        s.seq_p += 1
        if s.df_len > 0:
            settle(s)
            s.stuck = False
    got_rows = 0
    regular = 0
    least = NEVER
    k_spec = s.k_spec
    log_on = s.log_on
    ended = False
    for j in range(rows):
        slot = q_slot[p, j]
        u = np.uintp(slot)  # unsigned: places are not checked for being negative
        n = q_tok[p, j]
        aux = q_aux[p, j]
        x[u, INFL] -= n
        if aux == 1 and x[u, STATUS] == RUNNING and x[u, STALE] == 0 and k_spec == 0 and not log_on:
            # the common case: one more token, which is not the last
            known = x[u, KNOWN] + 1
            left = x[u, STOP] - known
            if left > 0:
                x[u, KNOWN] = known
                if x[u, PH] > 0:
                    x[u, PH] -= 1
                    if x[u, COMP] - x[u, INFL] >= x[u, NEXT]:
                        commit(s, slot, np.int64(x[u, COMP] - x[u, INFL]))
                if r_last[u] == gap_from:
                    regular += 1
                    r_last[u] = now
                    r_done[u] += 1
                else:
                    emit(s, slot, now, ONE)
                if x[u, LAZY] == 0:
                    left = min(left, x[u, NEXT] - known + 1)
                if left < least:
                    least = left
                got_rows += 1
                continue
        some, got, left, known = _given(s, slot, n, aux)
        if not some:
            continue
        if r_last[u] == gap_from:
            regular += 1
            r_last[u] = now
            r_done[u] += got
        else:
            emit(s, slot, now, np.int64(got))
        got_rows += 1
        if log_on:
            log_event(s, OUT, s.r_id[slot], np.int64(got))
        if got == left:
            ended = True
            _finish(s, slot)
        else:
            least = min(least, left - got)
            if x[u, LAZY] == 0:
                least = min(least, x[u, NEXT] - known - got + 1)
    if regular > 0:
        record_gap(s.rec, now - gap_from, float(regular))
    if ended:
        _drop_ended(s)
    if s.role > 0:
        _transfers(s, n_out)
    if k_spec > 0 and not s.is_async:
        _draft(s, p, rows)
    _take_stock(s, rows, got_rows, least)
