# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""An abort: the engine core drops the request between two steps (``v1/engine/core.py`` abort_requests, ``finish_requests`` of the scheduler).

Waiting: out of the queue. Running: its blocks are free for the next decision, a batch in flight (two of them under asynchronous scheduling) is
finished and its output for this request thrown away. What was cached stays cached.
Blocks into which KV is being loaded are free when it has come (``finish_requests``: ``delay_free_blocks``).
*Source*: vLLM 00fc8809 ``entrypoints/utils.py`` (the handler is cancelled when the client disconnects).
"""

from sim.engine.rows import without
from sim.engine.schedulers.vllm.seam import release
from sim.engine.schedulers.vllm.sides import decides_anew, leave_queues
from sim.engine.schedulers.vllm.state import ENDED, HELD, INFL, RECEIVED, REMOTE, RUNNING, STATUS, VllmState
from sim.engine.state import free_slot, record_end
from sim.engine.withdraw import LEFT, withdraw  # noqa: F401 - declares it
from sim.jit import implement
from sim.ledger import FAILED


def withdraw_vllm(s, slot):
    """See `sim.engine.withdraw`."""
    x = s.r_x
    running = x[slot, STATUS] == RUNNING
    loading = x[slot, STATUS] == REMOTE and x[slot, RECEIVED] == 0
    x[slot, STATUS] = ENDED
    s.finished_pending = True
    record_end(s, slot, s.now, FAILED)
    if loading:
        x[slot, HELD] = 1
    else:
        release(s, slot)
    if running:
        s.n_run = without(s.run, s.n_run, slot)
    else:
        leave_queues(s, slot)
    if x[slot, INFL] == 0 and x[slot, HELD] == 0:
        free_slot(s, slot)
    decides_anew(s)
    return LEFT


implement(VllmState, withdraw=withdraw_vllm)
