# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""Requests that are routed by load up to the next event of the world, in one compiled call: advance, choose, submit, row by row."""

import numpy as np

from sim.engine.group import EngineGroup, _submit
from sim.engine.order import advance
from sim.jit import inline, kernel


@inline
def fewest(outstanding, drawn, at, turn):
    """The place that a `sim.policy.router.Fewest` names: of the candidates ``drawn[at]``, or without any of all, beginning with ``turn[0]``."""
    if drawn.shape[1] > 0:
        best = drawn[at, 0]
        for j in range(1, drawn.shape[1]):
            if outstanding[drawn[at, j]] < outstanding[best]:
                best = drawn[at, j]
        return best
    after, n = turn[0], outstanding.size
    best = after
    for k in range(after + 1, n):
        if outstanding[k] < outstanding[best]:
            best = k
    for k in range(after):
        if outstanding[k] < outstanding[best]:
            best = k
    return best


@inline
def take_turn(drawn, turn, place, n):
    """The place has been taken: the next choice among all begins after it."""
    if drawn.shape[1] == 0:
        turn[0] = place + 1 if place + 1 < n else 0


@kernel
def _send(states, keys, outstanding, one, columns, spans, lo, hi, first_id, now, drawn, turn):
    """Rows [lo, hi) one after the other; returns the first row without room, or hi.

    ``drawn``: i8[row − lo₀, c], the candidates of each row, whose first with the fewest outstanding requests is taken; c = 0: all replicas,
    beginning with ``turn[0]``, which then becomes the one after the choice. ``hi`` is row ``drawn.shape[0]`` from lo₀ on.
    """
    n = keys.size
    arrival = columns[0]
    base = hi - drawn.shape[0]
    for i in range(lo, hi):
        t = arrival[i]
        if t > now:
            advance(states, None, keys, t, False)
            now = t
        best = fewest(outstanding, drawn, i - base, turn)
        one[0] = best
        if _submit(states, keys, one, i, i + 1, first_id, 0, columns, spans) == i:
            return i
        take_turn(drawn, turn, best, n)
    return hi


def compiled(group) -> bool:
    """Whether the group runs as one kernel over its replicas."""
    return type(group).advance is EngineGroup.advance and type(group)._submit is EngineGroup._submit


def send_ahead(group, block, lo, hi, first_id, now, rule) -> None:
    """Rows [lo, hi) of a block, each at its time to the replica that ``rule`` (a `sim.policy.router.Fewest`) names then; engines are at ``now``."""
    one = np.zeros(1, np.int32)
    columns, spans = block.columns, block.spans
    while True:
        at = _send(
            group._states, group._keys, group.outstanding, one, columns, spans, lo, hi, first_id, now, rule.drawn, rule.turn
        )
        if at >= hi:
            return
        group._grow(one, spans, at)
        lo, now = at, max(now, float(columns[0][at]))
