# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""A serving process dies: everything in it is lost, and a new one with an empty cache takes its place. The same for all engines.

What the dead process had computed counts as computed: the step that was under way is in the time series as if it had ended. Compiled only where
a fleet has faults.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sim.cost.step import copy_cost
from sim.engine.state import record_end, record_gauges
from sim.jit import kernel
from sim.ledger import FAILED, GONE

if TYPE_CHECKING:
    from sim.engine.group import EngineGroup
    from sim.engine.state import EngineState


@kernel
def _replace(states, k, fresh, t):
    """State ``fresh`` takes the place of number ``k``, whose requests fail at ``t``; returns how many."""
    s = states[k]
    record_gauges(s, t)
    idle = np.zeros(s.n_slots, np.int32)
    for i in range(s.n_free):
        idle[s.free[i]] = 1
    lost = 0
    for slot in range(s.n_slots):
        if idle[slot] == 0 and not s.r_watch[slot] & GONE:
            record_end(s, slot, t, FAILED)
            lost += 1
    fresh.now = t
    fresh.t_gauge = t
    fresh.n_steps = s.n_steps
    fresh.n_preempted = s.n_preempted
    fresh.front_serial = s.front_serial
    fresh.multi_step = s.multi_step
    if s.cost.scatter > 0:  # of the machine, not of the process
        c = copy_cost(fresh.cost)
        c.factors = s.cost.factors
        c.scatter = s.cost.scatter
        c.scatter_next = s.cost.scatter_next
        c.scatter_least = s.cost.scatter_least
        fresh.cost = c
    states[k] = fresh
    return lost


def delivered(group: EngineGroup, replica: int, now: float) -> dict[int, int]:
    """Tokens that each request at a replica has given so far, by number, as of ``now``."""
    group.catch_up(now, replica)
    rows = group.in_flight()
    mine = rows["replica"] // group.ranks == replica
    return dict(zip(rows["id"][mine].tolist(), rows["output_tokens"][mine].tolist(), strict=True))


def crash(group: EngineGroup, replica: int, fresh: Sequence[EngineState], now: float) -> int:
    """The processes of a replica die at ``now`` and ``fresh`` (new states on the group's recorder, one of each rank) stand for the next.

    Ranks die together: an engine core that is gone takes the server down (vLLM: ``EngineDeadError``; SGLang: the process tree is killed).
    Returns the requests lost.
    """
    group.settle(now, replica)
    lost = 0
    for k, state in enumerate(fresh, replica * group.ranks):
        group.renewed(k, state)
        lost += int(_replace(group._states, k, state, now))
    group.anew(replica)
    return lost
