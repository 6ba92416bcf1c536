# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""What a finished batch means: tokens, finishes, checkpoints of prompts (``process_batch_result``).

Source: SGLang 0.5.23 ``managers/scheduler_components/batch_result_processor.py``.
"""

from sim.engine.outline import outlined
from sim.engine.schedulers.sglang.memory import checkpoint, release
from sim.engine.schedulers.sglang.second import track_results
from sim.engine.schedulers.sglang.sides import DECODE_SIDE, PREFILL_SIDE, keep
from sim.engine.schedulers.sglang.state import DECODE, LOG_FINISH, PLAIN, SglangState
from sim.engine.state import emit, first_scheduled, log_event, note_chunk, record_end
from sim.jit import inline
from sim.ledger import FINISHED, HAND_OVER, WATCH_CHUNKS


@inline
def gauges(s):
    s.g_running = s.n_run + s.n_elsewhere
    s.g_waiting = s.w_hi - s.w_lo
    if s.g_waiting == 0:
        s.g_blocked = False
    if s.side == DECODE_SIDE:
        s.g_blocked = s.g_waiting + s.n_out > 0 and s.stuck
        s.g_waiting += s.n_transfer + s.n_ready + s.n_out
    s.g_kv_used = float(s.kv_tokens - s.tree.free - s.tree.evictable)
    if s.pool != PLAIN:
        s.g_pools[0] = s.g_kv_used
        s.g_pools[1] = float(s.tree.w_size - s.tree.w_free - s.tree.w_evictable)


@inline
def hold_slot(s, slot):
    """The slot is given back once no batch in flight names it."""
    s.z_slot[s.z_n] = slot
    s.z_after[s.z_n] = s.planned
    s.z_n += 1


@outlined(SglangState)
def _accepted(s, slot):
    """Tokens one speculative step yields: the accepted drafts and one more. A hash of request and position, so order does not matter."""
    k = 0
    h = (s.r_id[slot] * 2097169 + s.r_done[slot] * 40503 + s.spec_seed * 7919 + 1) & 0x7FFFFFFF
    while k < s.spec_steps:
        h = (h * 1103515245 + 12345) & 0x7FFFFFFF
        h = h ^ (h >> 13)
        if h * (1.0 / 2147483648.0) >= s.spec_right[k]:
            break
        k += 1
    return k + 1


@outlined(SglangState)
def _finish(s, slot):
    log_event(s, LOG_FINISH, s.r_id[slot], 0)
    s.r_ended[slot] = 1
    s.n_ended += 1
    release(s, slot, 1)
    record_end(s, slot, s.now, FINISHED)
    hold_slot(s, slot)
    return 0


@outlined(SglangState)
def join_running(s):
    """``get_new_prebuilt_batch``: requests whose KV is there join, with the token that came with it, as far as there are places."""
    n = min(s.micro - s.n_run, s.n_ready)
    for i in range(n):
        x = s.ready[i]
        first_scheduled(s, x)
        if s.r_done[x] == 0:
            emit(s, x, s.now, 1)
            if s.r_done[x] >= min(s.r_output[x], s.r_max_new[x]):
                _finish(s, x)
                s.n_ended -= 1
                continue
        s.r_batch[x] = 0
        s.run[s.n_run] = x
        s.n_run += 1
        s.joined = True
        s.same = 0
        s.least_left = min(s.least_left, min(s.r_output[x], s.r_max_new[x]) - s.r_done[x] + 0)
    if n > 0:
        for i in range(n, s.n_ready):
            s.ready[i - n] = s.ready[i]
        s.n_ready -= n
    return 0


@outlined(SglangState)
def apply_result(s, p):
    """``process_batch_result``: tokens, finishes, checkpoints of finished prefills."""
    decode = s.p_mode[p] == DECODE
    s.least_left -= 1
    prefills = s.p_prefills[p]
    now = s.now
    if s.track_every > 0 and decode:
        track_results(s, p)
    for i in range(s.q_rows[p]):
        x = s.q_slot[p, i]
        if s.r_retracted[x] == 1:
            continue
        if decode:
            if s.r_ended[x] == 1:
                continue
        elif s.r_middle[x] > 0:
            s.r_middle[x] -= 1
            if s.r_watch[x] & WATCH_CHUNKS:
                note_chunk(s, x, now, s.q_aux[p, i] + s.q_tok[p, i])
            continue
        elif s.r_ended[x] == 1:
            continue
        stop = min(s.r_output[x], s.r_max_new[x])
        new = 1
        if s.spec_reserve > 0 and i >= prefills:
            new = min(_accepted(s, x), stop - s.r_done[x])
            s.r_com[x] += new
        emit(s, x, now, new)
        if s.side == PREFILL_SIDE and s.r_watch[x] & HAND_OVER:
            checkpoint(s, x)
            record_end(s, x, now, FINISHED)
            keep(s, x)
        elif s.r_done[x] >= stop:
            _finish(s, x)
        elif i < prefills:
            checkpoint(s, x)
    gauges(s)
    return 0
