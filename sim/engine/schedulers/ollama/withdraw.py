# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""A request that waits for a slot leaves the semaphore at once; a running one has a quit flag that is looked at when a token is flushed.

So a prompt is computed to its end. The tokens in the cache stay for reuse.
*Source*: ollama 010fd33c ``runner/ollamarunner/runner.go``.
"""

from sim.engine.queue import queue_drop
from sim.engine.schedulers.ollama.runner import RunnerState
from sim.engine.state import free_slot, record_end
from sim.engine.withdraw import LEFT, STAYS, withdraw  # noqa: F401 - declares it
from sim.jit import implement
from sim.ledger import FAILED


def _withdraw(s, slot):
    if not queue_drop(s, slot):
        s.r_output[slot] = min(s.r_output[slot], s.r_done[slot] + 1)
        return STAYS
    record_end(s, slot, s.now, FAILED)
    free_slot(s, slot)
    s.g_waiting = s.w_len
    return LEFT


implement(RunnerState, withdraw=_withdraw)
