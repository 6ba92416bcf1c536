# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""A radix cache whose nodes may carry a recurrent state: a prefix can be continued only where a state was kept.

States belong to the end of a node: when it is cut they stay with the lower part, and a lock protects that of the end node only.
Source: SGLang 0.5.23 ``mem_cache/unified_cache/components/mamba.py``.
"""

from sim.engine.kv.radix import ROOT, Radix
from sim.engine.kv.radix_nodes import candidate, common_tokens, cut_edge, find_child, new_leaf, page_hash
from sim.engine.kv.radix_paths import further, lock_path, room_for_key, stamp, unlock_path
from sim.engine.kv.radix_second import evict_full, evict_second, fresh, link_after, unlink
from sim.engine.kv.radix_window import match_window  # noqa: F401 - its functions come first in the table
from sim.engine.outline import outlined
from sim.jit import flat


@flat
def _cut(t, child, k):
    x = cut_edge(t, child, k)
    fresh(t, x)
    return x


@outlined(Radix)
def match_state(t, n, insert, owned, counted, prio):
    """`radix_walk` without insertion: the deepest node with a state; ``t.branch``: where on the grid full KV goes beyond it."""
    n = n // t.page * t.page
    t.end = ROOT
    t.branch = -1
    if t.off or n == 0:
        return 0
    room_for_key(t)
    node, o, ki, ko = 0, 0, 0, 0
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
        if t.w_has[c] == 1:
            best = c
            reach = o
        if cut:
            break
        ki, ko = further(t, ki, ko, m)
    if best != ROOT:
        unlink(t, best)
        link_after(t, ROOT, best)
    t.end = best
    o = o // t.w_grid * t.w_grid
    if o > reach:
        t.branch = o
    stamp(t, best)
    return reach


@outlined(Radix)
def insert_state(t, n, owned, counted, prio):
    """Insert the first ``n`` tokens of the key (whole pages) with a state at their end (``t.end``); 1 if there was one, which stays."""
    room_for_key(t)
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
        t.free += max(0, m - max(0, owned - o))
        if o + m > counted:
            t.hits[c] += 1
        node = c
        o += m
        ki, ko = further(t, ki, ko, m)
    t.end = node
    if o < n:
        x = new_leaf(t, node, n - o, ki, ko, h, float(prio))
        fresh(t, x)
        t.evictable += n - o
        candidate(t, x)
        if n > counted:
            t.hits[x] = 1
        t.end = x
        node = x
    elif node == ROOT:
        return 1
    else:
        t.tick += 1.0
        t.last[node] = t.tick
    there = t.w_has[node] + 0
    if there == 1:
        unlink(t, node)
    elif t.w_lock[node] > 0:
        t.w_protected += 1
    else:
        t.w_evictable += 1
    t.w_has[node] = 1
    link_after(t, ROOT, node)
    return there


@outlined(Radix)
def move_state(t, old, new):
    """`radix_move`: protect the path from ``new`` and its state instead of those of ``old`` (−1: none)."""
    if t.off:
        return 0
    if old > ROOT:
        t.w_lock[old] -= 1
        if t.w_lock[old] == 0 and t.w_has[old] == 1:
            t.w_evictable += 1
            t.w_protected -= 1
    unlock_path(t, old)
    if new > ROOT:
        if t.w_lock[new] == 0 and t.w_has[new] == 1:
            t.w_evictable -= 1
            t.w_protected += 1
        t.w_lock[new] += 1
    lock_path(t, new)
    return 0


@outlined(Radix)
def make_room_beside(t, need):
    """`evict_until` of full KV; leaves take their state along."""
    if not t.off and t.free < need:
        evict_full(t, need)
    return 0


@outlined(Radix)
def make_room_states(t, need):
    """Evict the states least recently used until ``need`` are free."""
    if not t.off and t.w_free < need:
        evict_second(t, need, need - t.w_free)
    return 0
