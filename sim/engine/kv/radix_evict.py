# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Eviction from a radix cache: whole unlocked leaves, in the order of a strategy, until enough tokens are free.

The heap is lazy: for every strategy but ``mru`` a node's sort key only grows, so an entry put in with an older key is a lower bound and
is corrected when it reaches the top. Source: SGLang 0.5.23 ``mem_cache/evict_policy.py``, ``unified_radix_cache.py: evict_for_alloc``.
"""

from sim.engine.kv.radix import MRU, ROOT, Radix
from sim.engine.kv.radix_nodes import candidate, drop_runs, free_number, order_a, table_drop
from sim.engine.kv.radix_walk import radix_walk  # noqa: F401 - its functions come first in the table
from sim.engine.outline import outlined
from sim.jit import flat, inline


@outlined(Radix)
def sink(t):
    """Let the last entry, which lies beyond the end of the heap, take the place of the top and sink."""
    n = t.h_n
    x, a, b = t.h_node[n], t.h_a[n], t.h_b[n]
    i = 0
    while True:
        k = 2 * i + 1
        if k >= n:
            break
        if k + 1 < n and (t.h_a[k + 1] < t.h_a[k] or (t.h_a[k + 1] == t.h_a[k] and t.h_b[k + 1] < t.h_b[k])):
            k += 1
        if a < t.h_a[k] or (a == t.h_a[k] and b <= t.h_b[k]):
            break
        t.h_node[i] = t.h_node[k]
        t.h_a[i] = t.h_a[k]
        t.h_b[i] = t.h_b[k]
        i = k
    t.h_node[i] = x
    t.h_a[i] = a
    t.h_b[i] = b
    return 0


@outlined(Radix)
def _rebuild(t):
    """Collect the candidates anew (``mru``: keys fall, so old entries are no bound)."""
    n = t.h_n
    t.h_n = 0
    for i in range(n):
        t.in_heap[t.h_node[i]] = 0
    for i in range(n):  # entry i is read before position h_n ≤ i is written
        x = t.h_node[i] + 0
        if t.lock[x] == 0 and t.kids[x] == 0:
            candidate(t, x)
    return 0


@inline
def pop_candidate(t):
    """Take the top of the heap: the node if it may be evicted; its negative if not, or if it was touched since and is sorted in anew."""
    x = t.h_node[0] + 0
    live = t.lock[x] == 0 and t.kids[x] == 0
    touched = live and (order_a(t, x) != t.h_a[0] or t.last[x] != t.h_b[0])
    t.h_n -= 1
    t.in_heap[x] = 0
    sink(t)
    if touched:
        candidate(t, x)
    return x if live and not touched else -x


@inline
def detach(t, x):
    """Take leaf ``x`` out of the tree with its tokens; its number stays taken. Returns the parent."""
    t.free += t.size[x]
    t.evicted += t.size[x]
    t.evictable -= t.size[x]
    table_drop(t, x)
    drop_runs(t, x)
    up = t.parent[x] + 0
    t.kids[up] -= 1
    return up


@flat
def _evict(t, x):
    up = detach(t, x)
    free_number(t, x)
    if up != ROOT and t.kids[up] == 0 and t.lock[up] == 0:
        candidate(t, up)


@outlined(Radix)
def evict_until(t, need):
    """Evict whole leaves until ``need`` tokens are free or nothing is left to evict."""
    if t.off or t.free >= need:
        return 0
    if t.policy == MRU:
        _rebuild(t)
    while t.h_n > 0 and t.free < need:
        x = pop_candidate(t)
        if x > ROOT:
            _evict(t, x)
    return 0
