"""Windows of a run, one after the other."""

from __future__ import annotations

import numpy as np

from sim.ledger import Values


def stretches(on: Values) -> list[tuple[int, int]]:
    """Stretches [lo, hi) of windows that are ``on``, with single others among them."""
    joined = on.copy()
    joined[1:-1] |= on[:-2] & on[2:]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], joined.astype(int), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
