# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""What tiers did over time: in the recorder's series of pools, for which engines with tiers have no other use.

A state has ``t_now`` (f8[`N_SERIES`]: what it has counted so far, and what is held), ``t_was`` (the same at the last decision) and ``t_at``.
"""

import numpy as np

from sim.engine.recorder import bin_of
from sim.engine.tiers.counts import (
    BLOCKS_READ,
    BLOCKS_WRITTEN,
    HELD,
    HIT,
    HITS,
    N_SERIES,
    PER_SERIES,
    PER_TIER,
    READ,
    TIER,
    TIERS,
    WRITTEN,
)
from sim.jit import inline, kernel


@inline
def init_series(s):
    """Nothing has happened."""
    s.t_at = 0.0
    s.t_was = np.zeros(N_SERIES)
    s.t_now = np.zeros(N_SERIES)


@kernel
def add_series(r):
    """A recorder keeps them."""
    r.pool_series = np.zeros((r.series.shape[0], r.series.shape[1], N_SERIES))


@inline
def take_counts(s):
    """What a state's vector of counts says."""
    for k in range(TIERS):
        at, to = TIER + PER_TIER * k, PER_SERIES * k
        s.t_now[to + HITS] = s.tc[at + HIT]
        s.t_now[to + READ] = s.tc[at + BLOCKS_READ]
        s.t_now[to + WRITTEN] = s.tc[at + BLOCKS_WRITTEN]


@inline
def note_series(s, t):
    """Put what has changed since the last decision into the bin of ``t``, and what was held into the bins up to it."""
    r = s.rec
    if not r.series_on or r.pool_series.shape[2] != N_SERIES or t < s.t_at:
        return
    i = s.replica
    last = bin_of(r, i, t)
    w = r.width[i]
    a = s.t_at
    sums = r.pool_series
    for j in range(int(a / w), last + 1):
        b = t if j == last else (j + 1) * w
        for k in range(TIERS):
            sums[i, j, PER_SERIES * k + HELD] += s.t_was[PER_SERIES * k + HELD] * (b - a)
        a = b
    for k in range(N_SERIES):
        if k % PER_SERIES != HELD:
            sums[i, last, k] += s.t_now[k] - s.t_was[k]
        s.t_was[k] = s.t_now[k]
    s.t_at = t
