# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Short requests first: three lanes in the waiting queue, by the length of the prompt; the rest is vLLM's schedule.

Whoever was preempted comes first, then long prompts that have waited too long, short ones, long ones; in order of arrival within a lane. An
aged one passes short ones only from the head of its lane. Within a decision the clock stands, so sorting the queue before it is the same as
choosing a lane at each peek.

*Source*: vllm-ascend 0.24 ``vllm_ascend/core/short_request_first_scheduler.py``.
"""

import numpy as np

from sim.engine.schedulers.vllm.plain_caches import plain_caches
from sim.engine.schedulers.vllm.plan import plan_step
from sim.engine.schedulers.vllm.state import PREEMPTED, STATUS, VllmFields, grow_vllm, init_vllm
from sim.engine.schedulers.vllm.steady import apply_vllm, steady_vllm
from sim.engine.schedulers.vllm.update import complete_step, enqueue_vllm
from sim.engine.state import grown
from sim.jit import f8, f8s, i8, implement, inline, kernel, new, struct

_AGAIN, _AGED, _SHORT, _LONG = 0, 1, 2, 3  # lanes in their order


@struct(viewed=True)
class ShortFirstState(VllmFields):
    """vLLM's, with the lanes."""

    short: i8  # threshold: longest prompt that is short
    max_wait: f8  # of a long prompt, 0: for ever
    r_queued: f8s  # when it came into the queue


@kernel
def new_short_first(replica, rec, cost, n, accept, short, max_wait):
    """A new state, see `sim.engine.schedulers.vllm.state.init_vllm`."""
    s = new(ShortFirstState)
    init_vllm(s, replica, rec, cost, n, accept)
    s.short = short
    s.max_wait = max_wait
    s.r_queued = np.zeros(s.n_slots)
    return s


@kernel
def _sort_lanes(s):
    """The waiting queue in order of the lanes; within each as it was."""
    x = s.r_x
    q = s.wq
    a, head, n, size = q.slot, q.head, q.len, q.slot.size
    lane = s.skip_k
    aged = s.max_wait > 0.0
    for i in range(n):
        slot = a[(head + i) % size]
        if x[slot, STATUS] == PREEMPTED:
            lane[i] = _AGAIN
        elif s.r_prompt[slot] <= s.short:
            lane[i] = _SHORT
        else:
            aged = aged and s.now - s.r_queued[slot] >= s.max_wait
            lane[i] = _AGED if aged else _LONG
    m = 0
    for k in range(4):
        for i in range(n):
            if lane[i] == k:
                s.skip_w[m] = a[(head + i) % size]
                m += 1
    for i in range(n):
        a[(head + i) % size] = s.skip_w[i]


_schedule = inline(plan_step)
_steady = inline(steady_vllm)
_take_in = inline(enqueue_vllm)
_more_columns = inline(grow_vllm)


def _plan(s):
    if s.wq.len > 1 and s.n_run < s.max_run:
        _sort_lanes(s)
    return _schedule(s)


def _enqueue(s, slot):
    s.r_queued[slot] = s.now
    _take_in(s, slot)
    s.stuck = False  # it may come before the head


def _steady_steps(s):
    if s.max_wait > 0.0 and s.wq.len > 1 and s.n_run < s.max_run:
        return 0  # another may come to the head by waiting
    return _steady(s)


def _grow(s, n):
    _more_columns(s, n)
    s.r_queued = grown(s.r_queued, n)


implement(
    ShortFirstState,
    enqueue=_enqueue,
    plan=_plan,
    complete=complete_step,
    steady_steps=_steady_steps,
    apply_steady=apply_vllm,
    grow=_grow,
)
plain_caches(ShortFirstState)
