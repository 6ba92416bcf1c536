# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""The fewest requests outstanding, of all or of a few that are drawn."""

from typing import NamedTuple

import numpy as np

from sim.jit import i8s
from sim.policy.rules.in_turn import Turn
from sim.policy.rules.random import Nothing
from sim.rules import Rule, draw, fields


class Drawn(NamedTuple):
    """How many are drawn, with replacement."""

    choices: i8s


def of_all(memory, seen, row, now):
    """Of equals the one next in turn after the last choice."""
    m = fields(memory, Turn)
    load = seen.outstanding
    after, n = m.turn[0], load.size
    best = after
    for k in range(after + 1, n):
        if load[k] < load[best]:
            best = k
    for k in range(after):
        if load[k] < load[best]:
            best = k
    m.turn[0] = best + 1 if best + 1 < n else 0
    return best


def first_of_all(memory, seen, row, now):
    """Of equals the first."""
    load = seen.outstanding
    best = np.int64(0)
    for k in range(1, load.size):
        if load[k] < load[best]:
            best = np.int64(k)
    return best


def first() -> Rule:
    """`first_of_all`."""
    return Rule(first_of_all, Nothing(np.zeros(1, np.int64)))


def of_drawn(memory, seen, row, now):
    """Of equals the one drawn first."""
    m = fields(memory, Drawn)
    n = seen.outstanding.size
    best = draw(seen.source, n)
    for _ in range(1, m.choices[0]):
        other = draw(seen.source, n)
        if seen.outstanding[other] < seen.outstanding[best]:
            best = other
    return best
