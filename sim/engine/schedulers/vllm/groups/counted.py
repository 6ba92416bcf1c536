# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Rows whose blocks nobody else can ask for: their tables are only counted, for all groups of equal layers at once.

Such a request (`LAZY`) has taken no hits, so the tables of groups of equal layers are alike: null up to a place (`FIRST`), then blocks up to
their end (`LEN`), of which those that were registered (`NC`) and are kept have a hash. These three numbers, in the row of the first group of
a spec, say all. Only with the default retention of blocks and without recurrent states (`s.counts`): others keep more than what a prompt's end
says. One thing is lost: blocks that windows gave back and that had a hash are not found again by the request itself if it is preempted before
others take them. Requests to which that may have happened are counted (`TAIL`), and the run says how many there were.
"""

import numpy as np

from sim.engine.schedulers.vllm.groups.kept import boundaries, reached, reached_next
from sim.engine.schedulers.vllm.groups.pool import give_back_anonymous, give_back_unasked, grab
from sim.engine.schedulers.vllm.groups.state import (
    ANON,
    FIRST,
    FULL,
    JOINS,
    KIND,
    LEN,
    MAMBA,
    NC,
    NULL,
    SIZE,
    SLIDING,
    UNASKED,
    WINDOW,
    skipped,
)
from sim.engine.schedulers.vllm.state import LAZY
from sim.jit import inline


@inline
def is_counted(s, slot):
    """Whether the request's tables are only counted."""
    return s.r_x[slot, LAZY] == 1


@inline
def hashed(s, slot, row, g, lo, hi):
    """Blocks in places [lo, hi) that have a hash."""
    hi = min(hi, np.int64(s.tx[row, g, NC]))
    if not s.kv.caching or hi <= lo:
        return np.int64(0)
    if s.g[g, KIND] != SLIDING:
        return hi - lo
    size, more = s.g[g, SIZE], s.g[g, JOINS]
    need = (s.g[g, WINDOW] - 1 + size - 1) // size + more
    n = np.int64(0)
    for j in range(boundaries(s, slot, g, s.bounds)):  # ascending
        end = s.bounds[j] // s.align * s.align // size + more
        lo = max(lo, end - need)
        if min(end, hi) > lo:
            n += min(end, hi) - lo
            lo = min(end, hi)
    return n


@inline
def _give_back(s, slot, row, a, g, lo, hi):
    """The blocks in places [lo, hi) of all groups of spec group ``a``."""
    named = hashed(s, slot, row, g, lo, hi)
    give_back_unasked(s, named * s.spec_len[a])
    give_back_anonymous(s, (hi - lo - named) * s.spec_len[a])
    s.held_alike[a] -= hi - lo


@inline
def slide_counted(s, slot, row, p):
    """Blocks that no layer looks at any more once ``p`` tokens are processed."""
    for a in range(s.n_specs):
        g = s.spec_of[a, 0]
        if s.g[g, KIND] == FULL or s.g[g, KIND] == MAMBA:
            continue
        lo = np.int64(s.tx[row, g, FIRST])
        hi = min(skipped(s, g, p) // s.g[g, SIZE], np.int64(s.tx[row, g, LEN]))
        if hi > lo:
            _give_back(s, slot, row, a, g, lo, hi)
            s.tx[row, g, FIRST] = hi


@inline
def extend_counted(s, row, a, n):
    """``n`` new blocks at the end of each table of spec group ``a``; they have been taken."""
    s.tx[row, s.spec_of[a, 0], LEN] += n
    s.held_alike[a] += n


@inline
def take_counted(s, row, tokens):
    """Tables for ``tokens``."""
    for a in range(s.n_specs):
        g = s.spec_of[a, 0]
        size = s.g[g, SIZE]
        wanted = tokens + (size * s.k_spec if s.g[g, KIND] == MAMBA else 0)
        n = (wanted + size - 1) // size - s.tx[row, g, LEN]
        if n > 0:
            grab(s, n * s.spec_len[a])
            extend_counted(s, row, a, n)


@inline
def begin_counted(s, row, loc, ext):
    """First allocation for what is loaded from elsewhere: nothing before the windows at its end."""
    for a in range(s.n_specs):
        g = s.spec_of[a, 0]
        size = s.g[g, SIZE]
        t = s.tx[row, g]
        before = max(skipped(s, g, loc + ext) // size, 0)
        t[FIRST] = t[LEN] = t[NC] = before
        n = max((loc + ext + size - 1) // size - before, 0)
        grab(s, n * s.spec_len[a])
        extend_counted(s, row, a, n)


@inline
def missing_counted(s, row, tokens):
    """Blocks that the tables of a decoding row lack for ``tokens``."""
    n = np.int64(0)
    for a in range(s.n_specs):
        g = s.spec_of[a, 0]
        if s.g[g, KIND] != MAMBA:
            size = s.g[g, SIZE]
            n += s.spec_len[a] * max((tokens + size - 1) // size - s.tx[row, g, LEN], 0)
    return n


@inline
def commit_counted(s, row, tokens, n_keys, following):
    """See `seam.commit`; returns from how many tokens on there is more to register, ``following`` at most."""
    for a in range(s.n_specs):
        g = s.spec_of[a, 0]
        n = reached(s, g, tokens, n_keys)[0]
        have = np.int64(max(s.tx[row, g, NC], 0))
        if n > have:
            s.tx[row, g, NC] = have = n
        following = min(following, reached_next(s, g, have))
    return following


@inline
def release_counted(s, slot, row, later):
    """All blocks of a request; ``later``: they have been noted (`spread`) and are given back then."""
    for a in range(s.n_specs):
        g = s.spec_of[a, 0]
        lo, hi = np.int64(s.tx[row, g, FIRST]), np.int64(s.tx[row, g, LEN])
        if later:
            s.held_alike[a] -= hi - lo
        else:
            _give_back(s, slot, row, a, g, lo, hi)


@inline
def spread(s, slot, row):
    """Write the tables place by place."""
    for a in range(s.n_specs):
        first = s.spec_of[a, 0]
        lo, hi, known = s.tx[row, first, FIRST], s.tx[row, first, LEN], s.tx[row, first, NC]
        for j in range(s.spec_len[a]):
            g = s.spec_of[a, j]
            s.tx[row, g, LEN] = hi
            s.tx[row, g, NC] = known
            for i in range(hi):
                if i < lo:
                    s.tab[row, g, i] = NULL
                else:
                    s.tab[row, g, i] = UNASKED if hashed(s, slot, row, first, np.int64(i), np.int64(i + 1)) == 1 else ANON


@inline
def may_be_lost(s, slot, row):
    """1 if what the windows of a preempted request gave back may lie in the free queue still, so that it would be found again; else 0."""
    kv = s.kv
    n = np.int64(0)
    for a in range(s.n_specs):
        g = s.spec_of[a, 0]
        if s.g[g, KIND] != FULL:
            n += s.spec_len[a] * hashed(s, slot, row, g, np.int64(0), np.int64(s.tx[row, g, FIRST]))
    return 1 if 0 < n <= kv.free - kv.fresh else 0


@inline
def count_no_more(s, slot, row):
    """From now on somebody can ask for the request's blocks."""
    spread(s, slot, row)
    for a in range(s.n_specs):
        n = s.tx[row, s.spec_of[a, 0], LEN] - s.tx[row, s.spec_of[a, 0], FIRST]
        s.held_alike[a] -= n
        for j in range(s.spec_len[a]):
            s.held_of[s.spec_of[a, j]] += n


@inline
def may_give_back(s, row):
    """At most so many blocks will go back, over those that are taken meanwhile, while the request decodes."""
    n = np.int64(0)
    for a in range(s.n_specs):
        g = s.spec_of[a, 0]
        kind = s.g[g, KIND]
        if kind != FULL and kind != MAMBA:
            size = s.g[g, SIZE]
            fewest = (s.g[g, WINDOW] + size - 1) // size if kind == SLIDING else 0  # a window is never shorter
            n += s.spec_len[a] * max(s.tx[row, g, LEN] - s.tx[row, g, FIRST] - fewest, 0)
    return n
