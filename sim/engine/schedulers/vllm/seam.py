"""What the schedule asks of the KV cache manager, whatever the model's layers keep.

One block table per request where all layers have full attention (`plain_caches.py`); several groups of layers with a pool in common where
some forget (`groups/`).
"""

from typing import Final

import numpy as np

from sim.engine.state import EngineState
from sim.jit import generic

LATER: Final = np.int64(-1)


@generic
def hit_tokens(s: EngineState, slot: int) -> int:
    """Tokens of the longest cached prefix; what was hit is kept in the state for `grant`. At least one token is left to compute."""
    raise NotImplementedError


@generic
def outside(s: EngineState, slot: int, c: int) -> int:
    """Tokens after the ``c`` cached ones that a transfer will bring before the request runs; `LATER`: it is passed over in this step.

    What the step itself loads is in ``s.at_once`` (tokens), and 0 then returned.
    """
    raise NotImplementedError


@generic
def comes_at(s: EngineState, slot: int, c: int, ext: int) -> float:
    """Start the transfer of those ``ext`` tokens, for which there is memory now; returns when they are there (INF: somebody will say)."""
    raise NotImplementedError


@generic
def kept_until(s: EngineState, slot: int) -> float:
    """Until when the blocks of a request that has just finished are read by others (INF: somebody will say); 0: nobody does."""
    raise NotImplementedError


@generic
def grant(s: EngineState, slot: int, new: int) -> bool:
    """Blocks for ``new`` tokens after those computed, hit (``s.n_hits``) and loaded remotely (``s.ext`` tokens).

    False if there are too few. ``s.admitting``: the checks of admission apply; ``s.reserved`` blocks are for others.
    """
    raise NotImplementedError


@generic
def commit(s: EngineState, slot: int, tokens: int) -> None:
    """Register the full blocks of the first ``tokens`` tokens; they need not be computed yet."""


@generic
def release(s: EngineState, slot: int) -> None:
    """Give a request's blocks back, or note them until the steps in flight are through."""


@generic
def settle(s: EngineState) -> None:
    """Give back what was noted before steps that have been processed by now."""


@generic
def ask_for(s: EngineState, slot: int) -> None:
    """From now on this request can meet its own blocks: they must be known by their hash."""


@generic
def blocks_to_come(s: EngineState, slot: int) -> int:
    """Blocks that a prefill or load under way will still take."""
    raise NotImplementedError


@generic
def blocks_of_drafts(s: EngineState) -> int:
    """Blocks of one step of drafts, which a remote load must leave."""
    raise NotImplementedError


@generic
def lean_rows(s: EngineState) -> int:
    """The leading rows of the running list that decode one token, in one pass with their bookkeeping; returns how many places were passed."""
    raise NotImplementedError


@generic
def cut_chunk(s: EngineState, slot: int, start: int, n: int) -> int:
    """Where a chunk of ``n`` tokens from ``start`` must end earlier (states of recurrent layers): its tokens, may be 0."""
    raise NotImplementedError


@generic
def forget(s: EngineState, slot: int) -> None:
    """A finished request whose blocks are handed over: what lies before its windows goes back at once."""


@generic
def end_of_decision(s: EngineState) -> None:
    """All rows are known."""


@generic
def never_fits(s: EngineState, prompt: int) -> bool:
    """Whether a prompt takes more blocks than there are."""
    raise NotImplementedError
