# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Replicas in turn."""

from typing import NamedTuple

import numpy as np

from sim.jit import i8s
from sim.rules import Rule, fields


class Turn(NamedTuple):
    """The next place, or how many choices were made."""

    turn: i8s


def next_place(memory, seen, row, now):
    """The place after the last one."""
    m = fields(memory, Turn)
    n = seen.outstanding.size
    place = m.turn[0] % n
    m.turn[0] = (place + 1) % n
    return place


def by_count(memory, seen, row, now):
    """The number of the choice, modulo the replicas there are."""
    m = fields(memory, Turn)
    m.turn[0] += 1
    return (m.turn[0] - 1) % seen.outstanding.size


def counted() -> Rule:
    """`by_count` from the first choice on."""
    return Rule(by_count, Turn(np.zeros(1, np.int64)))
