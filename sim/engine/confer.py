"""What data-parallel ranks that step together tell each other before a decision; optional functions of a scheduler (see `contract.py`).

Attach them with ``sim.jit.implement``; `sim.engine.lockstep` calls them. They are compiled only where ranks step together.

``confer(s, said)``
    Before a decision: fill the row ``said`` (f8[`SAID`], zeroed) with what this rank tells the others.
``heed(s, said, step)``
    All have spoken: take in what ``said`` (f8[ranks, `SAID`]) means for the decision. ``step``: steps of this wave so far, the same on all.
``unfinished(s)``
    Whether the rank has requests that are not finished, as it answers in the finish detection.
``at_rest(s)``
    Whether the rank has nothing to do and `plan` would change nothing, however often it is called.
"""

from typing import Final

from sim.engine.seam import F8
from sim.engine.state import EngineState
from sim.jit import generic

SAID: Final = 4


@generic
def confer(s: EngineState, said: F8) -> None:
    """Tell the others."""


@generic
def heed(s: EngineState, said: F8, step: int) -> None:
    """Take in what all have told."""


@generic
def unfinished(s: EngineState) -> bool:
    """Whether the rank has unfinished requests."""
    raise NotImplementedError


@generic
def at_rest(s: EngineState) -> bool:
    """Whether a decision would change nothing."""
    raise NotImplementedError
