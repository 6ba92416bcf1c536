# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Requests that take too long are ended (``single_llm_pnd_req_handler.cpp``: ``GetTimeoutPoint``, then ``ControlRequest`` STOP).

The server waits ``tokenTimeout`` for each token and ``e2eTimeout`` for the whole answer, then tells its client of the error and the scheduler
to forget the request. Here both happen at the first decision from then on. As upstream, a running request keeps its blocks and its place
until the next round of decodes dequeues it; a waiting or swapped one is gone at once, upstream when it is dequeued.
"""

from math import sqrt

import numpy as np

from sim.cost.features import DECODE_CTX
from sim.engine.outline import outlined
from sim.engine.schedulers.mindie.blocks import holdings
from sim.engine.schedulers.mindie.state import HOST, MindieState
from sim.engine.state import INF, free_slot, record_end
from sim.jit import inline
from sim.ledger import FAILED


@inline
def time_out(s, slot):
    """When the server gives the request up, if it gets no token until then."""
    last = s.r_last_token[slot] if s.r_done[slot] > 0 else s.r_arrival[slot]
    return min(s.r_arrival[slot] + s.e2e_timeout, last + s.token_timeout)


@inline
def note_deadline(s, slot):
    """A request is there: nothing can time out before ``s.deadline``."""
    s.deadline = min(s.deadline, time_out(s, slot))


@inline
def _is_over(s, slot):
    """Ends the request if its time is over."""
    if time_out(s, slot) > s.now:
        note_deadline(s, slot)
        return False
    record_end(s, slot, s.now, FAILED)
    free_slot(s, slot)
    return True


@outlined(MindieState)
def end_late_requests(s):
    """Called when ``s.deadline`` has passed; O(requests). Sets the next one."""
    s.deadline = INF
    s.pure = -1.0
    size = s.w_slot.size
    n = 0
    for i in range(s.w_len):
        slot = s.w_slot[(s.w_head + i) % size]
        again = s.r_done[slot] > 0 and not s.chunked
        if _is_over(s, slot):
            s.n_again -= again
        else:
            s.w_slot[(s.w_head + n) % size] = slot
            n += 1
    s.w_len = n
    for at in range(s.n_run):
        slot = s.run[at]
        if slot >= 0 and time_out(s, slot) <= s.now:
            s.run[at] = holdings(s, slot)
            _is_over(s, slot)
        elif slot >= 0:
            note_deadline(s, slot)
    n = 0
    for i in range(s.n_swap):
        slot = s.swap[i]
        blocks = np.int64(s.x[slot, HOST])
        if _is_over(s, slot):
            s.host_free += blocks
        else:
            s.swap[n] = slot
            n += 1
    s.n_swap = n
    s.g_waiting = s.w_len + s.n_swap
    s.g_running = s.live - s.in_len - s.g_waiting
    return 0


@inline
def steps_in_time(s, k):
    """Of ``k`` decode steps like the last one, those that surely end before the next deadline: more context takes at most as much more time."""
    p = (s.q_head - 1 + s.q_start.size) % s.q_start.size
    left = s.deadline - s.now
    step = s.q_end[p] - s.q_start[p]
    mean = s.q_feat[p, DECODE_CTX] / s.n_run
    if k * step * (mean + k) <= left * mean:
        return k
    return int(0.5 * (sqrt(mean * mean + 4.0 * mean * left / step) - mean))
