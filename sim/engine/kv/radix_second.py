# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""What nodes of a radix cache have beside their full KV: KV of window layers, or a recurrent state.

Nodes that have it are in a ring in the order of their last use. A node without it is a tombstone: its full KV is there, but nothing can be
continued from it. Source: SGLang 0.5.23 ``mem_cache/unified_cache/`` (tree core and components).

A leaf may be evicted for the second pool's sake while the heap of candidates for full KV names it. Its number is then taken until the heap
forgets it: such nodes have no parent (`_DEAD`).
"""

from typing import Final

import numpy as np

from sim.engine.kv.radix import MRU, ROOT, Radix
from sim.engine.kv.radix_evict import detach, pop_candidate
from sim.engine.kv.radix_nodes import candidate, free_number
from sim.engine.kv.radix_walk import radix_walk  # noqa: F401 - its functions come first in the table
from sim.engine.outline import outlined
from sim.jit import inline, kernel

_DEAD: Final = -2


@kernel
def add_second(t, size, window, grid):
    """Give a new tree a second pool of ``size`` tokens of window layers or (``window`` 0) states."""
    n = t.parent.size
    t.w_on = True
    t.w_window = window
    t.w_grid = grid
    t.w_size = size
    t.w_free = size
    t.w_evictable = 0
    t.w_protected = 0
    t.w_evicted = 0
    t.w_marks = 0
    t.w_dead = 0
    t.w_has = np.zeros(n, np.int32)
    t.w_lock = np.zeros(n, np.int32)
    t.w_mark = np.zeros(n, np.int32)
    t.w_prev = np.zeros(n, np.int32)
    t.w_next = np.zeros(n, np.int32)


@inline
def unlink(t, x):
    """Out of the ring."""
    a, b = t.w_prev[x] + 0, t.w_next[x] + 0
    t.w_next[a] = b
    t.w_prev[b] = a


@inline
def link_after(t, a, x):
    """Into the ring, one less recently used than ``a`` (the root: the most recent of all)."""
    b = t.w_next[a] + 0
    t.w_next[a] = x
    t.w_prev[x] = a
    t.w_next[x] = b
    t.w_prev[b] = x


@inline
def drop_second(t, x, n):
    """Take what ``x``, which is not locked, has of the second pool (``n``)."""
    t.w_has[x] = 0
    unlink(t, x)
    t.w_free += n
    t.w_evictable -= n
    t.w_evicted += n


@inline
def fresh(t, x):
    """A new node has none."""
    t.w_has[x] = 0
    t.w_lock[x] = 0
    t.w_mark[x] = 0


@inline
def _amount(t, x):
    return t.size[x] + 0 if t.w_window > 0 else 1


@outlined(Radix)
def evict_leaf(t, x):
    """Take leaf ``x`` with all it has out of the tree; how much of the second pool that freed."""
    n = 0
    if t.w_has[x] == 1:
        n = _amount(t, x)
        drop_second(t, x, n)
    up = detach(t, x)
    if t.in_heap[x] == 1:
        t.parent[x] = _DEAD
        t.lock[x] = 1  # no candidate
        t.w_dead += 1
    else:
        free_number(t, x)
    if up != ROOT and t.kids[up] == 0 and t.lock[up] == 0:
        candidate(t, up)
    return n


@inline
def _bury(t, x):
    t.w_dead -= 1
    free_number(t, x)


@outlined(Radix)
def tidy_heap(t):
    """Collect the candidates anew, without the dead."""
    n = t.h_n
    t.h_n = 0
    for i in range(n):
        t.in_heap[t.h_node[i]] = 0
    for i in range(n):  # entry i is read before position h_n ≤ i is written
        x = t.h_node[i] + 0
        if t.parent[x] == _DEAD:
            _bury(t, x)
        elif t.lock[x] == 0 and t.kids[x] == 0:
            candidate(t, x)
    return 0


@outlined(Radix)
def evict_full(t, need):
    """Evict leaves in the order of the strategy until ``need`` tokens of full KV are free; how much of the second pool that freed."""
    freed = 0
    if t.policy == MRU or 2 * t.w_dead > t.h_n + 64:
        tidy_heap(t)
    while t.h_n > 0 and t.free < need:
        x = pop_candidate(t)
        if x > ROOT:
            freed += evict_leaf(t, x)
        elif t.parent[-x] == _DEAD:
            _bury(t, -x)
    return freed


@outlined(Radix)
def evict_second(t, free, most):
    """Evict from the least recently used on until ``free`` are free or ``most`` have been evicted: leaves whole, of other nodes only this."""
    done = 0
    x = t.w_prev[ROOT] + 0
    while x != ROOT and done < most and t.w_free < free:
        before = t.w_prev[x] + 0
        if t.w_lock[x] == 0:
            if t.lock[x] == 0 and t.kids[x] == 0:
                done += evict_leaf(t, x)
            else:
                n = _amount(t, x)
                drop_second(t, x, n)
                done += n
        x = before
    if 2 * t.w_dead > t.h_n + 64:
        tidy_heap(t)
    return done
