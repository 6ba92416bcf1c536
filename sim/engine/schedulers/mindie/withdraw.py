# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""A client that has gone is taken for a request that has timed out (`timeouts`): ended at the next decision. What MindIE does is not published."""

from sim.engine.schedulers.mindie.state import MindieState
from sim.engine.withdraw import STAYS, withdraw  # noqa: F401 - declares it
from sim.jit import implement

_LONG_AGO = -1e15


def _withdraw(s, slot):
    s.r_arrival[slot] = _LONG_AGO  # the row has the time at which the client sent it
    s.deadline = min(s.deadline, s.now)
    s.pure = -1.0
    return STAYS


implement(MindieState, withdraw=_withdraw)
