# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""A radix cache whose nodes hold KV of sliding-window layers beside full KV; either may be evicted without the other.

A prefix can be continued if the nodes that bear window KV cover its last window. Locks protect the full KV of the whole path, window KV of the
last window only. Source: SGLang 0.5.23 ``mem_cache/unified_cache/components/swa.py``, ``mem_cache/allocator/swa.py``.
"""

from typing import Final

from sim.engine.kv.radix import ROOT, Radix
from sim.engine.kv.radix_nodes import candidate, common_tokens, cut_edge, find_child, grow_nodes, grow_runs, new_leaf, page_hash
from sim.engine.kv.radix_paths import further, lock_path, room_for_key, stamp, unlock_path
from sim.engine.kv.radix_second import evict_full, evict_second, fresh, link_after, unlink
from sim.engine.outline import outlined
from sim.jit import flat, inline

_FAR: Final = 1 << 40


@outlined(Radix)
def _cut(t, child, k):
    """Cut an edge; the upper part has what the lower one has, its locks and their end, and was used just before it."""
    if t.n_free < 2:
        grow_nodes(t)
    if t.c_top + 2 > t.c_id.size + t.c_spare:
        grow_runs(t)
    x = cut_edge(t, child, k)
    t.w_has[x] = t.w_has[child]
    t.w_lock[x] = t.w_lock[child]
    t.w_mark[x] = t.w_mark[child]
    t.w_mark[child] = 0
    if t.w_has[x] == 1:
        link_after(t, child, x)
    return x


@inline
def _publish(t, x):
    """The node gets window KV."""
    t.w_has[x] = 1
    link_after(t, ROOT, x)
    if t.w_lock[x] > 0:
        t.w_protected += t.size[x]
    else:
        t.w_evictable += t.size[x]


@inline
def _used(t, x):
    """The last window of a prefix, and a page, are the most recently used, its end first."""
    covered = 0
    at = ROOT
    while x != ROOT and covered < t.w_window + t.page:
        if t.w_has[x] == 1:
            unlink(t, x)
            link_after(t, at, x)
            at = x + 0
        covered += t.size[x]
        x = t.parent[x] + 0


@outlined(Radix)
def match_window(t, n, insert, owned, counted, prio):
    """`radix_walk` without insertion: the longest cached prefix that can be continued; ``t.branch``: how far full KV went, if further."""
    n = n // t.page * t.page
    t.end = ROOT
    t.branch = -1
    if t.off or n == 0:
        return 0
    room_for_key(t)
    node, o, ki, ko = 0, 0, 0, 0
    borne = _FAR
    best, reach = 0, 0
    while o < n:
        c = find_child(t, node, page_hash(t, node, ki, ko))
        if c < 0:
            break
        m = common_tokens(t, c, ki, ko, n - o)
        if m == 0:
            break
        cut = m < t.size[c]
        if cut:
            c = _cut(t, c, m)
        o += m
        node = c
        if t.w_has[c] == 0:
            borne = 0
        else:
            borne += m
            if borne >= t.w_window:
                best = c
                reach = o
        if cut:
            break
        ki, ko = further(t, ki, ko, m)
    _used(t, best)
    t.end = best
    if o > reach:
        t.branch = o
    stamp(t, best)
    return reach


@flat
def _adopt_leaf(t, x, o, n, gone):
    """A new leaf with tokens [o, n): window KV from ``gone`` on; a longer one is cut so that a lock on its end pins one window only."""
    lo = max(o, gone)
    if lo < n:
        if lo > o:
            _cut(t, x, lo - o)
        tail = (t.w_window + t.page - 1) // t.page * t.page
        if t.size[x] > tail:
            _publish(t, _cut(t, x, t.size[x] - tail))
        _publish(t, x)


@outlined(Radix)
def insert_window(t, n, owned, counted, prio, gone):
    """Insert the first ``n`` tokens of the key (whole pages); the window KV of the first ``gone`` has been freed. ``t.end``: its end.

    Tombstones get the window KV of the request, and what both have is freed once. The rest as in `radix_walk`.
    """
    t.tick += 1.0
    t.last[ROOT] = t.tick
    node, o, ki, ko = 0, 0, 0, 0
    h = 0
    while o < n:
        h = page_hash(t, node, ki, ko)
        c = find_child(t, node, h)
        if c < 0:
            break
        m = common_tokens(t, c, ki, ko, n - o)
        if m == 0:
            break
        t.tick += 1.0
        t.last[c] = t.tick
        if m < t.size[c]:
            c = _cut(t, c, m)
        t.prio[c] = max(t.prio[c], float(prio))
        twice = m
        if owned < o + m and t.w_has[c] == 0:
            lo = max(o, gone)
            if lo < o + m:
                if lo > o:
                    _cut(t, c, lo - o)
                t.free += o + m - lo
                _publish(t, c)
                twice = lo - o
        d = max(0, owned - o)
        if d < twice:
            t.free += twice - d
            t.w_free += max(0, twice - max(d, min(max(gone - o, 0), twice)))
        if o + m > counted:
            t.hits[c] += 1
        node = c
        o += m
        ki, ko = further(t, ki, ko, m)
    if o < n:
        room_for_key(t)
        x = new_leaf(t, node, n - o, ki, ko, h, float(prio))
        fresh(t, x)
        t.evictable += n - o
        candidate(t, x)
        _adopt_leaf(t, x, o, n, gone)
        if n > counted:
            t.hits[x] += 1
        node = x
    t.end = node
    _used(t, node)
    return o


@outlined(Radix)
def lock_window(t, node):
    """Protect the full KV of the path from ``node`` to the root and the window KV of its last window; returns the mark of its far end."""
    if t.off:
        return 0
    lock_path(t, node)
    covered = 0
    mark = 0
    x = node
    while x > ROOT and covered < t.w_window:
        if t.w_lock[x] == 0 and t.w_has[x] == 1:
            t.w_evictable -= t.size[x]
            t.w_protected += t.size[x]
        t.w_lock[x] += 1
        covered += t.size[x]
        if covered >= t.w_window:
            if t.w_mark[x] == 0:
                t.w_marks += 1
                t.w_mark[x] = t.w_marks
            mark = t.w_mark[x] + 0
        x = t.parent[x] + 0
    return mark


@outlined(Radix)
def unlock_window(t, node, mark):
    """Undo a `lock_window` that returned ``mark``."""
    if t.off:
        return 0
    x = node
    while x > ROOT:
        if t.w_lock[x] == 1 and t.w_has[x] == 1:
            t.w_evictable += t.size[x]
            t.w_protected -= t.size[x]
        t.w_lock[x] -= 1
        if mark > 0 and t.w_mark[x] == mark:
            break
        x = t.parent[x] + 0
    unlock_path(t, node)
    return 0


@outlined(Radix)
def make_room_window(t, need):
    """`evict_until` for both pools: full KV by the strategy, then window KV, the least recently used first."""
    if t.off:
        return 0
    short = need - t.w_free
    done = 0
    if t.free < need:
        done = evict_full(t, need)
    if short > done:
        evict_second(t, need, short - done)
    return 0
