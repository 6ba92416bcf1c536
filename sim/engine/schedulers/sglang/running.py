# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""The running batch between two decode steps: who leaves it, who is retracted (``update_running_batch``, ``retract_decode``)."""

from sim.engine.outline import outlined
from sim.engine.schedulers.sglang.batch import decode_rows
from sim.engine.schedulers.sglang.memory import decode_fits, enqueue_waiting, prepare_decode, release, release_retracted
from sim.engine.schedulers.sglang.result import hold_slot
from sim.engine.schedulers.sglang.sides import DECODE_SIDE
from sim.engine.schedulers.sglang.state import DECODE, LOG_RETRACT, MIXED, RETRACT_STEPS, SglangState, total_len
from sim.engine.state import log_event, record_end
from sim.jit import inline
from sim.ledger import FAILED


@inline
def drop_finishing(s):
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
def mix_running(s, p):
    """``enable_mixed_chunk``: the running requests join the prefill batch if their next token fits."""
    if drop_finishing(s) > 0:
        s.run_full = False
    if s.n_run == 0 or decode_fits(s) == 0:
        return 0
    prepare_decode(s)
    for i in range(s.n_run):
        x = s.run[i]
        s.r_end[x] = s.r_com[x]
        s.r_fill[x] = total_len(s, x)
    decode_rows(s, p, s.n_can)
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
        hold_slot(s, x)
        s.n_run = n = 0
    outputs = 0
    limits = 0
    for i in range(n):
        outputs += s.r_done[s.run[i]]
        limits += s.r_max_new[s.run[i]]
    s.ratio = min(1.0, (outputs + RETRACT_STEPS * n) / (limits + 1))
    return 0


@outlined(SglangState)
def update_running(s):
    """``update_running_batch``: whether there is a decode batch."""
    n = s.n_run
    dropped = 0
    if s.least_left <= 1:
        dropped = drop_finishing(s)
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
