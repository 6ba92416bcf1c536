# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""The better of two different replicas that are drawn, by what they reported last, as SGLang's and vLLM's routers do it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.jit import f8s, i8s
from sim.rules import Rule, draw, fields


class Reports(NamedTuple):
    """``kind``: [0] whether there are reports, [1] whether own requests in flight count beside them; ``report``: [place]."""

    kind: i8s
    report: f8s


def two_apart(memory, seen, row, now):
    """The first drawn wins a tie."""
    m = fields(memory, Reports)
    n = seen.outstanding.size
    if n == 1:
        return np.int64(0)
    first = draw(seen.source, n)
    second = (first + 1 + draw(seen.source, n - 1)) % n
    a = b = 0.0
    if m.kind[0]:
        a, b = m.report[first], m.report[second]
    if m.kind[1]:
        a += seen.outstanding[first]
        b += seen.outstanding[second]
    return second if b < a else first


class TwoApart(Rule):
    """``own``: whether requests in flight count beside the reports."""

    def __init__(self, own: bool) -> None:
        super().__init__(two_apart, Reports(np.array([0, own], np.int64), np.zeros(1)))

    def reported(self, values: NDArray[np.float64]) -> None:
        """f8[place]: new reports."""
        self.memory.kind[0] = 1
        self.replace(self.memory._replace(report=np.ascontiguousarray(values, np.float64)))

    def workers(self, order: Sequence[int]) -> None:
        """They have not reported yet."""
        self.memory.kind[0] = 0
