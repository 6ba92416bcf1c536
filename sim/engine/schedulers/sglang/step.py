# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""One decision and its result: ``Scheduler.get_next_batch_to_run``, ``update_running_batch``, ``process_batch_result``.

Source: SGLang 0.5.23 ``managers/scheduler.py``, ``managers/schedule_batch.py: retract_decode``,
``managers/scheduler_components/batch_result_processor.py``, ``…/new_token_ratio_tracker.py``. With the overlap loop (depth 2) a decision
is taken while the batch before it still runs, so its results are not known; the shared loop takes care of the times.
"""

from typing import Final

from sim.engine.contract import BATCH, EMPTY, NOTHING, clear_place, next_place
from sim.engine.outline import outlined
from sim.engine.schedulers.sglang.admit import admit
from sim.engine.schedulers.sglang.batch import decode_rows, extend_place
from sim.engine.schedulers.sglang.fetching import fetch_again, grow_fetches, note_tiers
from sim.engine.schedulers.sglang.fresh import grow_sglang
from sim.engine.schedulers.sglang.intake import enqueue_request
from sim.engine.schedulers.sglang.memory import checkpoint
from sim.engine.schedulers.sglang.micro import switch_slot
from sim.engine.schedulers.sglang.pool_state import grow_second
from sim.engine.schedulers.sglang.result import apply_result, gauges, join_running
from sim.engine.schedulers.sglang.running import mix_running, update_running
from sim.engine.schedulers.sglang.sides import DECODE_SIDE, PREFILL_SIDE, decode_queues, release_read
from sim.engine.schedulers.sglang.state import DECODE, EXTEND, PLAIN, SglangState
from sim.engine.schedulers.sglang.steady import take_unchanged, unchanged_steps
from sim.engine.state import free_slot
from sim.jit import flat, inline

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
    if s.l_on:
        s.l_pass += 1
        if s.l_pass >= s.l_due:
            fetch_again(s)
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
            join_running(s)
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
        extend_place(s, p)
        if s.mixed and s.n_run > 0:
            mix_running(s, p)
        s.processed += s.p_extend[p]
        s.interval_left = s.interval if s.interval > 0 else s.interval_left
        s.same = 0
    elif s.n_run > 0 and update_running(s) == 1:
        clear_place(s, p)
        mode = DECODE
        s.p_mode[p] = DECODE
        s.p_prefills[p] = 0
        s.p_chunked[p] = -1
        decode_rows(s, p, 0)
        s.processed += s.run_extend
        s.same += 1
    gauges(s)
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


@inline
def host_waits(s):
    """Copies from and to host memory make the step longer: what is loaded as far as computing does not hide it."""
    t = s.tree
    s.stall = t.h_load + t.h_wait
    s.stall_layers = t.h_layers if t.h_wait == 0.0 else 0
    t.h_load = t.h_wait = 0.0


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
    t = s.tree
    t.h_now = s.now
    t.h_start = max(s.now, s.stage_free[0])
    code = _visit_slots(s) if s.slots > 1 else _plan(s)
    if t.h_load + t.h_wait > 0.0:
        host_waits(s)
    if t.h_on:
        note_tiers(s)
    return code


def complete(s, p):
    """One result."""
    if s.slots > 1:
        switch_slot(s, s.p_slot[p])
        s.m_busy[s.slot] = 0
    s.tree.h_now = s.now
    apply_result(s, p)


def steady_steps(s):
    """Decisions that repeat the last one."""
    return unchanged_steps(s)


def apply_steady(s, k):
    """Take them in one stroke."""
    take_unchanged(s, k)


def grow(s, n):
    """Request columns follow the slots."""
    grow_sglang(s, n)
    if s.pool != PLAIN:
        grow_second(s, n)
    if s.l_on:
        grow_fetches(s, n)
