# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Micro-batch slots of pipeline parallelism (``managers/scheduler_pp_mixin.py: event_loop_pp``).

There are ``pp_size + pp_async_batch_depth`` of them, each with its own running batch and last batch; waiting queue, chunked request, KV pool
and ``new_token_ratio`` are common. They are visited in turn: a visit decides the slot's next batch, then waits for the batch of the slot
after it. So at most that many batches are in flight, which end in the order of the visits, and a prompt's next chunk starts while the one
before it passes the later stages. A budget knows of the running requests of the slot visited only, as upstream.
"""

from sim.engine.borrow import keep
from sim.engine.schedulers.sglang.state import ENDED_ROWS, FOUNDED, FULL, LAST, LEAST, RUNNING
from sim.jit import inline


@inline
def switch_slot(s, to):
    """Make ``to`` the slot whose running batch decisions and results are about."""
    at = s.slot
    if at == to:
        return
    m = s.m_saved
    m[at, RUNNING] = s.n_run
    m[at, FULL] = 1 if s.run_full else 0
    m[at, FOUNDED] = s.run_extend
    m[at, LAST] = s.last
    m[at, ENDED_ROWS] = s.n_ended
    m[at, LEAST] = s.least_left
    s.n_elsewhere += s.n_run - m[to, RUNNING]
    s.slot = to
    own = keep(s)
    own.run = own.m_run[to]
    s.n_run = m[to, RUNNING]
    s.run_full = m[to, FULL] == 1
    s.run_extend = m[to, FOUNDED]
    s.last = m[to, LAST]
    s.n_ended = m[to, ENDED_ROWS]
    s.least_left = m[to, LEAST]
