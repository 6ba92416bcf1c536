# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""What the schedule asks of the KV cache manager, whatever the model's layers keep.

One block table per request where all layers have full attention (`plain_caches.py`); several groups of layers with a pool in common where
some forget (`groups/`).
"""

from typing import Any, Final

import numpy as np

from sim.jit import generic

LATER: Final = np.int64(-1)


@generic
def hit_tokens(s: Any, slot: Any) -> Any:
    """Tokens of the longest cached prefix; what was hit is kept in the state for `grant`. At least one token is left to compute."""


@generic
def outside(s: Any, slot: Any, c: Any) -> Any:
    """Tokens after the ``c`` cached ones that a transfer will bring before the request runs; `LATER`: it is passed over in this step.

    What the step itself loads is in ``s.at_once`` (tokens), and 0 then returned.
    """


@generic
def comes_at(s: Any, slot: Any, c: Any, ext: Any) -> Any:
    """Start the transfer of those ``ext`` tokens, for which there is memory now; returns when they are there (INF: somebody will say)."""


@generic
def kept_until(s: Any, slot: Any) -> Any:
    """Until when the blocks of a request that has just finished are read by others (INF: somebody will say); 0: nobody does."""


@generic
def grant(s: Any, slot: Any, new: Any) -> Any:
    """Blocks for ``new`` tokens after those computed, hit (``s.n_hits``) and loaded remotely (``s.ext`` tokens).

    False if there are too few. ``s.admitting``: the checks of admission apply; ``s.reserved`` blocks are for others.
    """


@generic
def commit(s: Any, slot: Any, tokens: Any) -> Any:
    """Register the full blocks of the first ``tokens`` tokens; they need not be computed yet."""


@generic
def release(s: Any, slot: Any) -> Any:
    """Give a request's blocks back, or note them until the steps in flight are through."""


@generic
def settle(s: Any) -> Any:
    """Give back what was noted before steps that have been processed by now."""


@generic
def ask_for(s: Any, slot: Any) -> Any:
    """From now on this request can meet its own blocks: they must be known by their hash."""


@generic
def blocks_to_come(s: Any, slot: Any) -> Any:
    """Blocks that a prefill or load under way will still take."""


@generic
def blocks_of_drafts(s: Any) -> Any:
    """Blocks of one step of drafts, which a remote load must leave."""


@generic
def lean_rows(s: Any) -> Any:
    """The leading rows of the running list that decode one token, in one pass with their bookkeeping; returns how many places were passed."""


@generic
def cut_chunk(s: Any, slot: Any, start: Any, n: Any) -> Any:
    """Where a chunk of ``n`` tokens from ``start`` must end earlier (states of recurrent layers): its tokens, may be 0."""


@generic
def forget(s: Any, slot: Any) -> Any:
    """A finished request whose blocks are handed over: what lies before its windows goes back at once."""


@generic
def end_of_decision(s: Any) -> Any:
    """All rows are known."""


@generic
def never_fits(s: Any, prompt: Any) -> Any:
    """Whether a prompt takes more blocks than there are."""
