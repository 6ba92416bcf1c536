# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""What every walk of a radix cache does: make room, go along the key, and stamp or protect the path up to the root."""

from sim.engine.kv.radix import ROOT
from sim.engine.kv.radix_nodes import candidate, grow_nodes, grow_runs
from sim.jit import inline


@inline
def room_for_key(t):
    """Room for the nodes and runs that following the key to its end may take."""
    if t.n_free < 2:
        grow_nodes(t)
    while t.c_top + t.k_n + 2 > t.c_id.size + t.c_spare:
        grow_runs(t)


@inline
def further(t, ki, ko, m):
    """(run, offset) of the key, ``m`` tokens further."""
    while m > 0 and m >= t.k_len[ki] - ko:
        m -= t.k_len[ki] - ko
        ki += 1
        ko = 0
    return ki, ko + m


@inline
def stamp(t, node):
    """``node`` is the most recently used, those above it just before it."""
    t.tick += 1.0
    at = t.tick
    while node >= 0:
        t.last[node] = at
        at -= 1e-5
        node = t.parent[node] + 0


@inline
def lock_path(t, node):
    """Protect the full KV from ``node`` to the root from eviction."""
    while node > ROOT:
        if t.lock[node] == 0:
            t.evictable -= t.size[node]
            t.protected += t.size[node]
        t.lock[node] += 1
        node = t.parent[node] + 0


@inline
def unlock_path(t, node):
    """Undo a `lock_path`."""
    while node > ROOT:
        t.lock[node] -= 1
        if t.lock[node] == 0:
            t.evictable += t.size[node]
            t.protected -= t.size[node]
            if t.kids[node] == 0:
                candidate(t, node)
        node = t.parent[node] + 0
