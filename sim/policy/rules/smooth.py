# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""nginx: smooth weighted round robin, and ``least_conn`` with it among equals."""

from typing import NamedTuple

import numpy as np

from sim.jit import i1s, i8s
from sim.rules import fields


class Upstream(NamedTuple):
    """By place: weights, current weights, marks of those that are equal. ``least``: [0] whether connections count."""

    weight: i8s
    current: i8s
    equal: i1s
    least: i8s


def smooth(memory, seen, row, now):
    """Everybody who is in it gains its weight, the first of the highest goes and pays the sum."""
    m = fields(memory, Upstream)
    n = seen.outstanding.size
    if m.least[0]:
        least = np.inf
        ties = 0
        first = np.int64(0)
        for k in range(n):
            load = seen.outstanding[k] / m.weight[k] if m.weight[k] else np.inf
            if load < least or (k == 0):
                least = load
                for j in range(first, k):
                    m.equal[j] = 0
                ties = 0
                first = np.int64(k)
            m.equal[k] = load == least
            ties += m.equal[k]
        if ties == 1:
            return first
    total = 0
    best = np.int64(-1)
    for k in range(n):
        if m.least[0] and not m.equal[k]:
            continue
        m.current[k] += m.weight[k]
        total += m.weight[k]
        if best < 0 or m.current[k] > m.current[best]:
            best = np.int64(k)
    m.current[best] -= total
    return best
