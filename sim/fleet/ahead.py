# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""Requests that are routed by load up to the next event of the world, in one compiled call: advance, choose, submit, row by row."""

import numpy as np

from sim.engine.group import EngineGroup, _submit
from sim.engine.order import advance
from sim.jit import kernel


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
        if drawn.shape[1] > 0:
            best = drawn[i - base, 0]
            for j in range(1, drawn.shape[1]):
                if outstanding[drawn[i - base, j]] < outstanding[best]:
                    best = drawn[i - base, j]
        else:
            after = turn[0]
            best = after
            for k in range(after + 1, n):
                if outstanding[k] < outstanding[best]:
                    best = k
            for k in range(after):
                if outstanding[k] < outstanding[best]:
                    best = k
        one[0] = best
        if _submit(states, keys, one, i, i + 1, first_id, 0, columns, spans) == i:
            return i
        if drawn.shape[1] == 0:
            turn[0] = best + 1 if best + 1 < n else 0
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
