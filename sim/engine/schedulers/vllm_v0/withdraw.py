# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""An abort in V0 (``LLMEngine.abort_request``): waiting and swapped requests go at once, running ones with the step that is under way.

A prompt that is computed in chunks ends with its last chunk here, upstream with the chunk under way.
"""

from sim.engine.queue import queue_drop
from sim.engine.rows import without
from sim.engine.schedulers.vllm_v0.state import BLOCKS, ENDED, LEN, RUNNING, STATUS, STOP, SWAPPED, V0State
from sim.engine.state import free_slot, record_end
from sim.engine.withdraw import LEFT, STAYS, withdraw  # noqa: F401 - declares it
from sim.jit import implement
from sim.ledger import FAILED


def _withdraw(s, slot):
    x = s.r_x
    status = x[slot, STATUS]
    if status == RUNNING or status == ENDED:
        x[slot, STOP] = min(x[slot, STOP], x[slot, LEN] + 1)
        s.least = 1
        return STAYS
    if status == SWAPPED:
        s.n_swapped = without(s.swapped, s.n_swapped, slot)
        s.host_free += x[slot, BLOCKS]
    else:
        queue_drop(s, slot)
    record_end(s, slot, s.now, FAILED)
    free_slot(s, slot)
    s.pure = False
    s.stuck = False
    s.g_waiting = s.w_len + s.n_swapped
    return LEFT


implement(V0State, withdraw=_withdraw)
