# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""A replica drawn uniformly."""

from typing import NamedTuple

import numpy as np

from sim.jit import i8s
from sim.rules import Rule, draw


class Nothing(NamedTuple):
    """Nothing is remembered."""

    none: i8s


def drawn(memory, seen, row, now):
    """One draw."""
    return draw(seen.source, seen.outstanding.size)


def uniform() -> Rule:
    """The rule."""
    return Rule(drawn, Nothing(np.zeros(1, np.int64)))
