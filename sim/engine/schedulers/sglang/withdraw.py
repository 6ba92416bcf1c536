# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""``abort_request``: a waiting request is popped at once, a running one gets ``to_finish`` and ends after its next token, its prefix cached.

Clients are taken to stream: the tokenizer manager aborts when the response ends. (For answers in one piece it looks every 4 s,
``SGLANG_REQUEST_STATE_WAIT_TIMEOUT``.) A prompt cut into chunks is computed to its end.
*Source*: SGLang 0.5.23 ``managers/tokenizer_manager.py``, ``managers/scheduler.py``.
"""

from sim.engine.rows import without
from sim.engine.schedulers.sglang.fetching import drop_fetch
from sim.engine.schedulers.sglang.pool_state import free_slots
from sim.engine.schedulers.sglang.result import hold_slot
from sim.engine.schedulers.sglang.state import STATES, SglangState
from sim.engine.state import record_end
from sim.engine.withdraw import LEFT, STAYS, withdraw  # noqa: F401 - declares it
from sim.jit import implement
from sim.ledger import FAILED


def _withdraw(s, slot):
    n = without(s.mail, s.n_mail, slot)
    found = n < s.n_mail
    s.n_mail = n
    n = s.w_lo
    for j in range(s.w_lo, s.w_hi):
        if s.w_slot[j] == slot:
            found = True
        else:
            s.w_slot[n] = s.w_slot[j]
            n += 1
    s.w_hi = n
    if not found:
        s.r_output[slot] = min(s.r_output[slot], s.r_done[slot] + 1)
        s.least_left = min(s.least_left, 1)
        return STAYS
    if s.pool == STATES:
        free_slots(s, slot)
    if s.l_on:
        drop_fetch(s, slot)
    record_end(s, slot, s.now, FAILED)
    hold_slot(s, slot)  # retracted, it may be named by a batch in flight
    s.stuck = False
    s.g_waiting = s.w_hi - s.w_lo
    return LEFT


implement(SglangState, withdraw=_withdraw)
