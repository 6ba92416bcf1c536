# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""A client has gone: its request is taken out of an engine, queued or running, the way that engine does it.

``withdraw(s, slot)`` belongs to the contract (`contract.py`) but is optional: a scheduler attaches it with ``sim.jit.implement`` in the module
``withdraw`` of its package (or beside its other functions). It is compiled only where a fleet has clients that leave. The request has been
taken from the inbox, ``s.now`` is the moment at which the engine hears of it, and a batch that has the request may be in flight. The function
answers `LEFT` when it has written the row (``record_end(s, slot, s.now, FAILED)``) and freed what the engine frees then, or `STAYS` when the
engine goes on with it for a while (to its next token, as a rule): the row is then written when it really leaves.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

import numpy as np

from sim.engine.group import state_type
from sim.engine.state import EngineState, free_slot, record_end, record_gauges
from sim.jit import _METHODS, JIT, generic, kernel
from sim.ledger import FAILED, GONE

if TYPE_CHECKING:
    from sim.engine.group import EngineGroup

ABSENT: Final = -1
STAYS: Final = 0
LEFT: Final = 1


@generic
def withdraw(s: EngineState, slot: int) -> None:
    """The client of a request has gone."""


@kernel
def _find(s, number):
    """The slot of a live request; −1: it has left."""
    idle = np.zeros(s.n_slots, np.int32)
    for i in range(s.n_free):
        idle[s.free[i]] = 1
    for slot in range(s.n_slots):
        if s.r_id[slot] == number and idle[slot] == 0 and not s.r_watch[slot] & GONE:
            return slot
    return -1


@kernel
def _leave_inbox(s, slot):
    """Out of the inbox, if it is there. What the API server has done for it is done."""
    size = s.in_slot.size
    for j in range(s.in_len):
        if s.in_slot[(s.in_head + j) % size] == slot:
            for i in range(j, s.in_len - 1):
                s.in_slot[(s.in_head + i) % size] = s.in_slot[(s.in_head + i + 1) % size]
            if j >= s.in_len - s.front_n:
                s.front_n -= 1
            s.in_len -= 1
            record_end(s, slot, s.now, FAILED)
            free_slot(s, slot)
            return True
    return False


@kernel
def _withdraw(states, k, number, t):
    s = states[k]
    slot = _find(s, number)
    if slot < 0:
        return ABSENT
    record_gauges(s, t)
    s.now = max(s.now, t)
    code = LEFT
    if not _leave_inbox(s, slot):
        code = withdraw(s, slot)
    s.hint = 0  # what was foreseen no longer holds
    if s.q_len == 0 and not s.at_plan:
        s.wake = min(s.wake, s.now)  # somebody may be let in now
    return code


def _attached(group: EngineGroup) -> bool:
    """Whether the scheduler of a group knows what to do; what it has attached in its module ``withdraw`` is loaded."""
    kind = state_type(group)
    module = kind.name.rpartition(".")[0] if JIT else kind.__module__
    if kind not in _METHODS["withdraw"]:
        package = module.rpartition(".")[0]
        try:
            importlib.import_module(f"{package}.withdraw")
        except ModuleNotFoundError as error:
            if error.name != f"{package}.withdraw":
                raise
    return kind in _METHODS["withdraw"]


class Exits:
    """The ways out of the engines of one pool (`sim.engine.seam.Group`)."""

    def __init__(self, group: EngineGroup) -> None:
        self._group = group
        self.known = _attached(group)
        """Whether the engine is told; otherwise every request is computed to its end, whoever waits for it."""

    def withdraw(self, replica: int, number: int, now: float) -> int:
        """The client of request ``number`` at a replica has gone and the engine hears of it: `LEFT`, `STAYS`, or `ABSENT` (it had left)."""
        if not self.known:
            return STAYS
        group = self._group
        ranks = group.ranks
        group.catch_up(now, replica)
        for k in range(replica * ranks, (replica + 1) * ranks):
            code = int(_withdraw(group._states, k, number, now))
            if code != ABSENT:
                group._keys[slice(None) if ranks > 1 else replica] = -np.inf
                return code
        return ABSENT
