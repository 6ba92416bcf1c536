# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Match, insert and lock: `radix_walk` follows a key down the tree, `radix_move` protects a path from eviction."""

import numpy as np

from sim.engine.kv.radix import MRU, ROOT, Radix
from sim.engine.kv.radix_nodes import candidate, common_tokens, cut_edge, find_child, new_leaf, page_hash
from sim.engine.kv.radix_paths import further, lock_path, room_for_key, stamp, unlock_path
from sim.engine.outline import addresses, outlined, outlined_in
from sim.jit import JIT

_HOST = "sim.engine.kv.radix_host"
_STORAGE = "sim.engine.kv.radix_storage"
ON_STORAGE = frozenset({"hold_host", "leave_host", "put_on_host"})
"""What of host memory only storage behind it needs."""
_SECOND = "sim.engine.kv.radix_second"
_POOLS = {"match_window": "sim.engine.kv.radix_window", "match_state": "sim.engine.kv.radix_state"}


def radix_functions(policy, instead=None, used=True, storage=False):
    """What `new_radix` wants as ``fn`` for an eviction policy; none of it compiled for a tree that is never ``used``.

    ``instead``: the functions that a second pool puts in the place of others, by name. ``storage``: there is some behind host memory.
    """
    if not used:
        return np.full(64, 0 if JIT else -1, np.int64)
    match = (instead or {}).get("radix_walk", "")
    host = match == "walk_host"
    others = {_SECOND: not match or host, _HOST: not host, _STORAGE: not storage}
    unused = outlined_in(Radix, others | {module: name != match for name, module in _POOLS.items()})
    if policy != MRU or match:
        unused |= {"_rebuild"}
    if host and not storage:
        unused |= ON_STORAGE
    return addresses(Radix, frozenset(unused), instead)


@outlined(Radix)
def radix_walk(t, n, insert, owned, counted, prio):
    """Follow the first ``n`` tokens of the key (whole pages) as far as they are cached; returns that length, ``t.end`` is the last node.

    Without ``insert`` this is a match: it touches the path and may split its last edge. With it the rest becomes a new leaf, and copies of
    tokens the tree already had are freed, except the first ``owned``, which are the tree's own. A node counts a hit if it ends beyond
    ``counted``.
    """
    n = n // t.page * t.page
    t.end = ROOT
    if t.off or n == 0:
        return 0
    room_for_key(t)
    if insert == 1:
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
        if insert == 1:
            t.tick += 1.0
            t.last[c] = t.tick
        cut = m < t.size[c]
        if cut:
            c = cut_edge(t, c, m)
        if insert == 1:
            t.prio[c] = max(t.prio[c], float(prio))
            t.free += max(0, m - max(0, owned - o))
            if o + m > counted:
                t.hits[c] += 1
        node = c
        o += m
        if cut and insert == 0:
            break
        ki, ko = further(t, ki, ko, m)
    t.end = node
    if insert == 0:
        stamp(t, node)
    elif o < n:
        x = new_leaf(t, node, n - o, ki, ko, h, float(prio))
        t.evictable += n - o
        if n > counted:
            t.hits[x] = 1
        candidate(t, x)
        t.end = x
    return o


@outlined(Radix)
def radix_move(t, old, new):
    """Protect the path from ``new`` to the root from eviction instead of that from ``old`` (−1: none)."""
    if t.off:
        return 0
    unlock_path(t, old)
    lock_path(t, new)
    return 0
