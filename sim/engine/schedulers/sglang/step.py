# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""One decision and its result: ``Scheduler.get_next_batch_to_run``, ``update_running_batch``, ``process_batch_result``.

Source: SGLang 0.5.23 ``managers/scheduler.py``, ``managers/schedule_batch.py: retract_decode``,
``managers/scheduler_components/batch_result_processor.py``, ``…/new_token_ratio_tracker.py``. With the overlap loop (depth 2) a decision
is taken while the batch before it still runs, so its results are not known; the shared loop takes care of the times.
"""

from typing import Final

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
    TOKENS,
)
from sim.engine.contract import BATCH, EMPTY, NOTHING, clear_place, next_place
from sim.engine.kv.radix_evict import evict_until
from sim.engine.outline import outlined
from sim.engine.schedulers.sglang.admit import admit
from sim.engine.schedulers.sglang.memory import (
    checkpoint,
    decode_fits,
    enqueue_waiting,
    prepare_decode,
    release,
    release_retracted,
)
from sim.engine.schedulers.sglang.micro import switch_slot
from sim.engine.schedulers.sglang.sides import DECODE_SIDE, PREFILL_SIDE, decode_queues, keep, release_read
from sim.engine.schedulers.sglang.state import (
    DECODE,
    EXTEND,
    LOG_FINISH,
    LOG_RETRACT,
    MIXED,
    RETRACT_STEPS,
    SglangState,
    ceil_page,
    grow_sglang,
    total_len,
)
from sim.engine.state import (
    FAILED,
    FINISHED,
    HAND_OVER,
    REJECTED,
    WATCH_CHUNKS,
    emit,
    first_scheduled,
    free_slot,
    log_event,
    note_chunk,
    record_end,
)
from sim.jit import flat, inline


@inline
def _gauges(s):
    s.g_running = s.n_run + s.n_elsewhere
    s.g_waiting = s.w_hi - s.w_lo
    if s.g_waiting == 0:
        s.g_blocked = False
    if s.side == DECODE_SIDE:
        s.g_blocked = s.g_waiting + s.n_out > 0 and s.stuck
        s.g_waiting += s.n_transfer + s.n_ready + s.n_out
    s.g_kv_used = float(s.kv_tokens - s.tree.free - s.tree.evictable)


@outlined(SglangState)
def _turn_away(s, slot):
    record_end(s, slot, s.now, REJECTED)
    free_slot(s, slot)
    return 0


@outlined(SglangState)
def _lowest_waiting(s):
    """Position of the waiting request of lowest priority, the newest among equals."""
    worst = s.w_lo
    for i in range(s.w_lo + 1, s.w_hi):
        a = (s.r_priority[s.w_slot[i]] - s.r_priority[s.w_slot[worst]]) * s.priority_sign
        if a < 0 or (a == 0 and s.r_stamp[s.w_slot[i]] >= s.r_stamp[s.w_slot[worst]]):
            worst = i
    return worst


@outlined(SglangState)
def enqueue_request(s, slot):
    """``_handle_generate_request``: too long a prompt or too long a queue turns a request away; limits cut ``max_new_tokens``."""
    prompt = s.r_prompt[slot] + 0
    if prompt > s.max_req_len - 5 or (s.side == DECODE_SIDE and ceil_page(s, prompt) + s.num_reserved > s.kv_tokens):
        _turn_away(s, slot)
        return 0
    if s.max_queued > 0 and s.w_hi - s.w_lo >= s.max_queued:
        if not s.priority_on:
            _turn_away(s, slot)
            return 0
        worst = _lowest_waiting(s)
        x = s.w_slot[worst]
        if (s.r_priority[slot] - s.r_priority[x]) * s.priority_sign <= 0:
            _turn_away(s, slot)
            return 0
        for i in range(worst, s.w_hi - 1):
            s.w_slot[i] = s.w_slot[i + 1]
        s.w_hi -= 1
        _turn_away(s, x)
    max_new = min(s.r_max[slot] + 0, s.max_req_len - prompt - 1)
    s.r_max_new[slot] = max(0, min(max_new, s.kv_tokens - ceil_page(s, prompt) - s.page - 1))
    s.r_lock[slot] = -1
    s.r_pre[slot] = 0
    s.r_own[slot] = 0
    s.r_ins[slot] = 0
    s.r_com[slot] = 0
    s.r_alloc[slot] = 0
    s.r_end[slot] = 0
    s.r_fill[slot] = 0
    s.r_hit[slot] = 0
    s.r_middle[slot] = 0
    s.r_row[slot] = 0
    s.r_ended[slot] = 0
    s.r_retracted[slot] = 0
    s.r_batch[slot] = 0
    enqueue_waiting(s, slot)
    s.g_waiting = s.w_hi - s.w_lo
    return 0


# -- decision


@outlined(SglangState)
def _merge_last(s):
    """Stash the chunked request; move the last prefill batch into the running batch; drop what has finished (steps 2 to 4)."""
    chunked = s.chunked
    if chunked >= 0 and s.r_end[chunked] > s.r_pre[chunked]:
        checkpoint(s, chunked)
    p = s.last
    if p >= 0 and s.p_mode[p] != DECODE and s.side != PREFILL_SIDE:
        rows = s.q_rows[p]
        founded = s.n_run == 0
        kept = 0
        for i in range(rows):
            x = s.q_slot[p, i]
            if s.r_ended[x] == 0 and x != chunked and x != s.p_chunked[p]:
                s.run[s.n_run + kept] = x
                kept += 1
                s.least_left = min(s.least_left, min(s.r_output[x], s.r_max_new[x]) - s.r_done[x] + 0)
        if kept < rows:
            s.run_full = False
        if kept > 0 and founded:  # the running batch becomes the object of the last one
            s.run_full = False
            s.run_extend = s.p_extend[p]
        s.n_run += kept
        s.same = 0
    if s.n_ended > 0:
        m = 0
        for i in range(s.n_run):
            x = s.run[i]
            if s.r_ended[x] == 0:
                s.run[m] = x
                m += 1
        if m < s.n_run:
            s.run_full = False
            s.same = 0
        s.n_run = m
        s.n_ended = 0
    if s.z_n > 0:  # slots of the finished that no batch in flight names any more
        m = 0
        for j in range(s.z_n):
            if s.z_after[j] <= s.planned - s.q_len:
                free_slot(s, s.z_slot[j])
            else:
                s.z_slot[m] = s.z_slot[j]
                s.z_after[m] = s.z_after[j]
                m += 1
        s.z_n = m
    return 0


@inline
def _drop_finishing(s):
    """``_reqs_finishing_inflight``: rows whose last token is being computed by the batch in flight; how many were dropped."""
    since = 1 << 40  # rows from this batch number on are in flight
    if s.overlap and s.q_len > 0:
        since = s.planned
        if s.last >= 0 and s.p_mode[s.last] == DECODE:
            since = s.chain
    m = 0
    least = 1 << 40
    for i in range(s.n_run):
        x = s.run[i]
        done = s.r_done[x]
        if done + 1 < s.r_max_new[x] or s.r_batch[x] < since:
            s.run[m] = x
            m += 1
            least = min(least, min(s.r_output[x], s.r_max_new[x]) - done + 0)
    s.least_left = least
    dropped = s.n_run - m
    s.n_run = m
    return dropped


@outlined(SglangState)
def _extend_place(s, p):
    """Allocate and put the admitted requests into ring place ``p`` (``prepare_for_extend``)."""
    f = s.q_feat[p]
    extend = 0
    for i in range(s.n_can):
        x = s.can[i]
        extend += s.r_end[x] - s.r_pre[x]
        if s.r_row[x] == 0:
            s.r_row[x] = 1
            s.rows_free -= 1
    evict_until(s.tree, extend if s.page == 1 else extend + s.n_can * s.page)
    for i in range(s.n_can):
        x = s.can[i]
        pre, end = s.r_pre[x] + 0, s.r_end[x] + 0
        c = end - pre
        s.tree.free -= ceil_page(s, end) - ceil_page(s, pre)
        s.r_com[x] = end
        s.r_alloc[x] = end
        s.r_retracted[x] = 0
        if s.r_first_scheduled[x] != s.r_first_scheduled[x]:  # not a number yet
            s.r_cached[x] = pre
            first_scheduled(s, x)
        s.r_batch[x] = s.planned + 1
        s.q_slot[p, i] = x
        s.q_tok[p, i] = c
        s.q_aux[p, i] = pre
        f[PREFILL_TOKENS] += c
        f[PREFILL_WORK] += c * (pre + 0.5 * c)
        f[PREFILL_CTX] += end
        if x != s.chunked:
            f[SAMPLED] += 1.0
    f[PREFILL_ROWS] = f[ROWS] = s.n_can
    f[TOKENS] = f[PREFILL_TOKENS]
    s.q_rows[p] = s.n_can
    s.p_prefills[p] = s.n_can
    s.p_chunked[p] = s.chunked
    s.p_extend[p] = extend
    return 0


@outlined(SglangState)
def _decode_rows(s, p, at):
    """Append the running requests as decode rows from row ``at``; their memory is prepared."""
    f = s.q_feat[p]
    ctx = 0
    n = s.n_run
    per_row = max(1, s.spec_draft)
    chained = at == 0 and s.last >= 0 and s.p_mode[s.last] == DECODE and not s.joined
    s.joined = False
    if not chained:
        s.chain = s.planned + 1
        for i in range(n):
            s.r_batch[s.run[i]] = s.planned + 1
    for i in range(n):
        x = s.run[i]
        s.q_slot[p, at + i] = x
        ctx += s.r_com[x]
    if s.any_lora:
        for i in range(n):
            s.q_tok[p, at + i] = per_row
    f[DECODE_ROWS] = n
    f[DECODE_TOKENS] = n * per_row
    f[DECODE_CTX] = ctx
    f[SAMPLED] += n * per_row
    f[ROWS] += n
    f[TOKENS] += n * per_row
    f[DRAFT_TOKENS] = n * s.spec_proposed
    s.q_rows[p] = at + n
    return 0


@outlined(SglangState)
def _mix_running(s, p):
    """``enable_mixed_chunk``: the running requests join the prefill batch if their next token fits."""
    if _drop_finishing(s) > 0:
        s.run_full = False
    if s.n_run == 0 or decode_fits(s) == 0:
        return 0
    prepare_decode(s)
    for i in range(s.n_run):
        x = s.run[i]
        s.r_end[x] = s.r_com[x]
        s.r_fill[x] = total_len(s, x)
    _decode_rows(s, p, s.n_can)
    s.p_mode[p] = MIXED
    s.p_extend[p] += s.n_run
    s.n_run = 0
    s.run_extend = 0
    return 0


@outlined(SglangState)
def _retract(s):
    """``retract_decode``: out go the requests with the fewest outputs, the longest prompt first among equals, until the next step fits."""
    n = s.n_run
    # ascending by (output, −prompt) after the descending sort of upstream is read from its end; ties leave in reverse running order
    for i in range(1, n):
        x = s.run[i]
        j = i
        while j > 0:
            y = s.run[j - 1]
            a = 0
            if s.retract_by_priority:
                a = (s.r_priority[x] - s.r_priority[y]) * s.priority_sign
            if a == 0:
                a = s.r_done[x] - s.r_done[y]
            if a == 0:
                a = s.r_prompt[y] - s.r_prompt[x]
            if a <= 0:
                break
            s.run[j] = y
            j -= 1
        s.run[j] = x
    first = True
    while n > 1 and (first or decode_fits(s) == 0):
        first = False
        n -= 1
        s.n_run = n
        x = s.run[n]
        release_retracted(s, x, n)
        if s.side == DECODE_SIDE:
            s.out_slot[s.n_out] = x
            s.n_out += 1
        else:
            enqueue_waiting(s, x)
        log_event(s, LOG_RETRACT, s.r_id[x], 0)
    if n == 1 and decode_fits(s) == 0:  # even the last one does not fit: answered with an error
        x = s.run[0]
        release(s, x, 0)
        s.r_ended[x] = 1
        record_end(s, x, s.now, FAILED)
        _hold_slot(s, x)
        s.n_run = n = 0
    outputs = 0
    limits = 0
    for i in range(n):
        outputs += s.r_done[s.run[i]]
        limits += s.r_max_new[s.run[i]]
    s.ratio = min(1.0, (outputs + RETRACT_STEPS * n) / (limits + 1))
    return 0


@inline
def _hold_slot(s, slot):
    """The slot is given back once no batch in flight names it."""
    s.z_slot[s.z_n] = slot
    s.z_after[s.z_n] = s.planned
    s.z_n += 1


@outlined(SglangState)
def _update_running(s):
    """``update_running_batch``: whether there is a decode batch."""
    n = s.n_run
    dropped = 0
    if s.least_left <= 1:
        dropped = _drop_finishing(s)
    if s.n_run == 0:
        s.run_full = False
        return 0
    if decode_fits(s) == 0:
        if dropped > 0:
            s.run_full = False
            s.same = 0
            return 0
        _retract(s)
    else:
        s.ratio = max(s.ratio - s.decay, s.min_ratio)
    if s.n_run < n:
        s.run_full = False
        s.same = 0
    if s.n_run == 0:
        return 0
    prepare_decode(s)
    return 1


@inline
def _empty(s):
    return s.n_run + s.n_elsewhere == 0 and s.chunked < 0 and s.q_len == 0 and s.w_hi == s.w_lo


@flat
def _idle(s):
    """``on_idle``: nothing anywhere, so the ratio starts anew.

    A real server passes here over and over while it waits. The clock of the recordings jumps to the next arrival instead and makes one
    such pass in every other idle period (under overlap; beside the one that finds the batch empty in the normal loop).
    """
    if _empty(s):
        s.ratio = s.init_ratio
        if s.recorded_clock and not s.overlap:
            s.idle_seen = not s.idle_seen
            if s.idle_seen and s.interval_left > 0:
                s.interval_left -= 1


SPINS: Final = 20


@flat
def _recorded_spins(s):
    """Requests that nothing admits: the recorder's clock gives up after 20 passes and jumps to the next arrival, if there is one."""
    if s.n_run == 0 and s.chunked < 0 and s.w_hi == s.w_lo:
        return  # nothing to admit: a batch in flight holds all there is
    s.spins += 1
    if s.q_len == 0 and not _empty(s) and s.spins <= SPINS + (1 if s.in_len == 0 else 0):
        s.wake = s.now
    if s.spins > SPINS and s.in_len > 0:
        s.spins = 0
        s.idle_seen = False


@outlined(SglangState)
def _poll(s):
    """``scheduler_recv_interval``: look for new requests only every so many decode passes (a prefill counts 1,000; idling is no wait)."""
    prefill = s.last >= 0 and s.p_mode[s.last] != DECODE
    s.recv_count += 1000 if prefill else 1
    if s.recv_count >= s.recv_interval or _empty(s):
        s.recv_count = 0
        n = s.n_mail
        s.n_mail = 0
        for i in range(n):
            enqueue_request(s, s.mail[i])
    return 0


@outlined(SglangState)
def _plan(s):
    """One pass of ``get_next_batch_to_run``: prefill first, decode only if there is none."""
    s.tree.evicted = 0
    if s.recv_interval > 1:
        _poll(s)
    before = s.last
    if s.side == PREFILL_SIDE:
        s.run_full = False
        if s.now >= s.horizon:
            release_read(s)
    elif s.side == DECODE_SIDE:
        decode_queues(s)
        if s.n_ready > 0:
            _join_running(s)
    _merge_last(s)
    if s.recorded_clock and s.overlap and before < 0 and _empty(s):
        s.idle_seen = not s.idle_seen
        if not s.idle_seen:
            return NOTHING
    n = 0
    deferred = s.interval_left > 0
    if deferred:
        s.interval_left -= 1
    if (not deferred or s.n_run < s.interval_min_bs) and s.side != DECODE_SIDE:
        n = admit(s)
    p = next_place(s)
    mode = 0
    if n > 0:
        clear_place(s, p)
        mode = EXTEND
        s.p_mode[p] = EXTEND
        _extend_place(s, p)
        if s.mixed and s.n_run > 0:
            _mix_running(s, p)
        s.processed += s.p_extend[p]
        s.interval_left = s.interval if s.interval > 0 else s.interval_left
        s.same = 0
    elif s.n_run > 0 and _update_running(s) == 1:
        clear_place(s, p)
        mode = DECODE
        s.p_mode[p] = DECODE
        s.p_prefills[p] = 0
        s.p_chunked[p] = -1
        _decode_rows(s, p, 0)
        s.processed += s.run_extend
        s.same += 1
    _gauges(s)
    if mode == 0:
        s.last = -1
        s.same = 0
        if before < 0 or not s.overlap:
            _idle(s)
        if s.q_len == 0 and deferred and (s.w_hi > s.w_lo or s.chunked >= 0):
            s.wake = s.now  # the real loop spins through the deferred passes
        if s.recorded_clock:
            _recorded_spins(s)
        return NOTHING
    s.spins = 0
    s.last = p
    s.planned += 1
    return BATCH


@outlined(SglangState)
def _visit_slots(s):
    """``event_loop_pp``: visit the micro-batch slots in turn, up to one whose batch is in flight: the loop waits for its result first."""
    for _ in range(s.slots):
        switch_slot(s, s.next_slot)
        code = _plan(s)
        at = s.slot
        s.next_slot = (at + 1) % s.slots
        awaited = s.m_busy[s.next_slot] == 1
        if code == BATCH:
            s.m_busy[at] = 1
            s.p_slot[s.last] = at
            s.more = not awaited
            return EMPTY  # a batch after which the loop asks again only if told to
        if awaited:
            break
    return NOTHING


# -- result


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
    _hold_slot(s, slot)
    return 0


@outlined(SglangState)
def _join_running(s):
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
def _complete(s, p):
    """``process_batch_result``: tokens, finishes, checkpoints of finished prefills."""
    decode = s.p_mode[p] == DECODE
    s.least_left -= 1
    prefills = s.p_prefills[p]
    now = s.now
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
    _gauges(s)
    return 0


# -- unchanged decode steps in one stroke


@outlined(SglangState)
def _steady_steps(s):
    """Decisions that repeat the last decode batch: no finish, no admission pass, no eviction or retraction."""
    if (
        s.slots > 1
        or s.n_mail > 0
        or s.same < s.depth
        or s.q_len != s.depth - 1
        or s.n_ended > 0
        or s.chunked >= 0
        or s.spec_reserve > 0
        or s.z_n > 0
    ):
        return 0
    k = 1 << 40
    if s.side == DECODE_SIDE:
        if s.horizon <= s.now or (s.n_ready > 0 and s.n_run < s.micro) or (s.w_hi > s.w_lo and not s.stuck):
            return 0
    elif s.w_hi > s.w_lo:  # a pass would be made unless it ends before it looks at the queue
        free_rows = min(s.micro - s.n_run, max(s.rows_free, 0))
        blocked = not s.preempt_on and (s.run_full or free_rows <= 0)
        if not blocked and not (s.min_free_slots > 0 and free_rows < s.min_free_slots and not s.preempt_on):
            k = s.interval_left if s.n_run >= s.interval_min_bs else 0
            if k <= 1:
                return 0
    n = s.n_run
    k = min(k, s.least_left - 1)
    free = s.tree.free
    if s.page == 1:
        return min(k, free // n)
    rounds = free // (n * s.page) - 1  # whole pages for every row, and the over-estimate of the eviction check
    return min(k, max(rounds, 0) * s.page)


@outlined(SglangState)
def _apply_steady(s, k):
    """Advance the running batch by ``k`` steps."""
    now = s.now
    page = s.page
    pages = 0
    for i in range(s.n_run):
        x = s.run[i]
        c = s.r_com[x]
        s.r_done[x] += k
        s.r_last_token[x] = now
        s.r_com[x] = c + k
        if page > 1:
            pages += (c + k + page - 1) // page - (c + page - 1) // page
    s.tree.free -= pages * page if page > 1 else s.n_run * k
    s.least_left -= k
    s.processed += s.run_extend * k
    s.interval_left = max(0, s.interval_left - k)
    if s.recv_interval > 1:
        s.recv_count = (s.recv_count + k) % s.recv_interval
    for _ in range(k):
        if s.ratio <= s.min_ratio:
            break
        s.ratio = max(s.ratio - s.decay, s.min_ratio)
    _gauges(s)
    return 0


# -- what the shared loop calls


def enqueue(s, slot):
    """See `sim.engine.contract`; so with the others."""
    if s.recv_interval > 1:
        s.mail[s.n_mail] = slot
        s.n_mail += 1
    else:
        enqueue_request(s, slot)


def plan(s):
    """One decision; with pipeline stages as many as find nothing to do."""
    if s.slots > 1:
        return _visit_slots(s)
    return _plan(s)


def complete(s, p):
    """One result."""
    if s.slots > 1:
        switch_slot(s, s.p_slot[p])
        s.m_busy[s.slot] = 0
    _complete(s, p)


def steady_steps(s):
    """Decisions that repeat the last one."""
    return _steady_steps(s)


def apply_steady(s, k):
    """Take them in one stroke."""
    _apply_steady(s, k)


def grow(s, n):
    """Request columns follow the slots."""
    grow_sglang(s, n)
