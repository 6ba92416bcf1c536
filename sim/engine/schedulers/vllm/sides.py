# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Prefill and decode side with KV that travels outside (`sim.engine.hand_over`): a pulling connector such as NIXL.

Workers report a finished pull or send with the output of a step, so both are seen at the end of the step under way or at the next poll.
*Source*: ``v1/core/sched/scheduler.py`` (``_update_from_kv_xfer_finished``), ``distributed/kv_transfer/kv_connector/v1/nixl``.
"""

from sim.engine.hand_over import tell_at
from sim.engine.rows import without_pair
from sim.engine.schedulers.vllm.queues import queue_remove
from sim.engine.schedulers.vllm.seam import release
from sim.engine.schedulers.vllm.state import COMP, DEFERRED, ENDED, HELD, PREFILLING, STATUS
from sim.engine.state import free_slot, record_end
from sim.jit import inline
from sim.ledger import FAILED


def release_kept_vllm(s, slot, t):
    """See `sim.engine.hand_over`."""
    for i in range(s.out_n):
        if s.out_slot[i] == slot:
            s.out_time[i] = t
    tell_at(s, t)


def kv_arrived_vllm(s, slot, t, delivered):
    """See `sim.engine.hand_over`; what P sampled is thrown away (``delivered`` 0)."""
    for i in range(s.in_n):
        if s.in_slot_x[i] == slot:
            s.in_time[i] = t
    tell_at(s, t)


@inline
def decides_anew(s):
    """What the last decision has found holds no longer: a request has gone, or has changed its course."""
    s.pure = False
    s.stuck = False
    s.empties = 0
    s.g_running = s.n_run
    s.g_waiting = s.wq.len + s.kvq.len
    s.g_kv_used = float(s.kv.total - s.kv.free)


@inline
def leave_queues(s, slot):
    """A request that waits is in no queue any more."""
    queue_remove(s, s.wq, slot)
    queue_remove(s, s.kvq, slot)
    if s.r_x[slot, DEFERRED] == 1:
        s.r_x[slot, DEFERRED] = 0
        s.n_deferred -= 1


def drop_remote_vllm(s, slot, t):
    """``kv_load_failure_policy`` fail: the request ends with an error. (One whose client has gone has its row already.)"""
    x = s.r_x
    s.in_n = without_pair(s.in_slot_x, s.in_time, s.in_n, slot)
    release(s, slot)
    if x[slot, STATUS] != ENDED:
        x[slot, STATUS] = ENDED
        s.finished_pending = True
        record_end(s, slot, t, FAILED)
        leave_queues(s, slot)
    x[slot, HELD] = 0
    free_slot(s, slot)
    decides_anew(s)
    tell_at(s, t)


def compute_here_vllm(s, slot, t):
    """``kv_load_failure_policy`` recompute: back to the queue with nothing computed (``_handle_invalid_blocks``)."""
    for i in range(s.in_n):
        if s.in_slot_x[i] == slot:
            s.in_time[i] = t  # the decision that sees it takes the request for a new one
    release(s, slot)
    s.r_x[slot, COMP] = 0
    s.r_x[slot, PREFILLING] = 0
    s.key_slot = -1
    decides_anew(s)
    tell_at(s, t)
