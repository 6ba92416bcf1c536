# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""A closed response channel: seen when the next token of the request is to be delivered, or when the request is popped from the queue.

*Source*: TGI 1d0847a9 ``backends/v3/src/backend.rs`` (send fails: the entry is removed, the batch filtered), 120d5773 ``queue.rs`` (dropped
entries are skipped while a batch is formed).
"""

from sim.engine.schedulers.tgi.state import TgiState
from sim.engine.state import INF
from sim.engine.withdraw import STAYS, withdraw  # noqa: F401 - declares it
from sim.jit import implement


def _withdraw(s, slot):
    if s.t_leaves[slot] == INF:
        s.leavers += 1
    s.t_leaves[slot] = min(s.t_leaves[slot], s.now)
    return STAYS


implement(TgiState, withdraw=_withdraw)
