# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""A cancel task: a queued or deferred request is dropped, a slot is released before the next decode; its cache stays for reuse.

The HTTP thread looks at the socket once a second (`LlamaCpp.notices_after`).
*Source*: llama.cpp tools/server (``HTTP_POLLING_SECONDS``, ``SERVER_TASK_TYPE_CANCEL``).
"""

from sim.engine.queue import queue_drop
from sim.engine.schedulers.llamacpp.server import _note_generated
from sim.engine.schedulers.llamacpp.slots import release
from sim.engine.schedulers.llamacpp.state import GENERATING, NONE, PROMPT, LlamaCppState
from sim.engine.state import free_slot, record_end
from sim.engine.withdraw import LEFT, withdraw  # noqa: F401 - declares it
from sim.jit import implement, kernel
from sim.ledger import FAILED


@kernel
def _from_queues(s, slot):
    if queue_drop(s, slot):
        return True
    before = NONE
    at = s.d_first
    for _ in range(s.d_len):
        following = s.next[at]
        if at == slot:
            if before == NONE:
                s.d_first = following
            else:
                s.next[before] = following
            if s.d_last == slot:
                s.d_last = before
            s.d_len -= 1
            return True
        before = at
        at = following
    return False


def _withdraw(s, slot):
    if _from_queues(s, slot):
        record_end(s, slot, s.now, FAILED)
        free_slot(s, slot)
    else:
        for c in range(s.slots):
            if s.c_slot[c] != slot:
                continue
            if s.c_phase[c] == PROMPT:
                s.n_prompt -= 1
            elif s.c_phase[c] == GENERATING:
                _note_generated(s, c)
                s.n_generating -= 1
            release(s, c, FAILED)
            break
    s.g_running = s.slots - s.n_idle
    s.g_waiting = s.w_len + s.d_len
    return LEFT


implement(LlamaCppState, withdraw=_withdraw)
