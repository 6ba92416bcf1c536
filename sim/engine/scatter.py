# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""Steps that scatter: real ones of the same batch are not all equally long.

Every engine takes its factors one after the other from a list of its pool, beginning at a place of its own; both are drawn from named substreams.
The n-th step of an engine has the n-th factor from there, so nothing depends on whether steps are taken one by one or many in a stroke, on the order
in which engines are advanced, or on how many processes a study has. The mean of the factors is 1: rates stay what they are. Compiled only where a
pool's profile has measured the scatter (``step_scatter``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from sim.cost.step import copy_cost
from sim.jit import kernel
from sim.streams import stream

if TYPE_CHECKING:
    from sim.engine.state import EngineState

LENGTH: Final = 1 << 16
"""Factors until they come again."""


def factors(sd: float, seed: int, pool: str) -> NDArray[np.float64]:
    """Log-normal, of mean 1; ``sd`` of the logarithm."""
    drawn = np.exp(sd * stream(seed, f"step times of {pool}").standard_normal(LENGTH))
    return np.asarray(drawn / drawn.mean())


@kernel
def _scatter(states, each, starts, least):
    for k in range(len(states)):
        s = states[k]
        s.cost = copy_cost(s.cost)
        c = s.cost
        c.factors = each
        c.scatter = each.size
        c.scatter_next = starts[k]
        c.scatter_least = least


def scatter_steps(states: Sequence[EngineState], sd: float, seed: int, pool: str) -> None:
    """From now on the steps of all engines in ``states`` scatter by ``sd`` (of the logarithm)."""
    each = factors(sd, seed, pool)
    starts = stream(seed, f"step times of {pool}, engines").integers(0, LENGTH, len(states))
    _scatter(states, each, starts, float(each.min()))
