# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""A radix cache over spans: prefixes are shared exact to the token (or page) while memory follows the number of tree nodes.

A *key* is a token sequence written as runs ``(content id, start, length)``, with neighbouring runs of one content merged where they
continue each other; so two sequences are equal exactly where their runs are. An edge holds a list of runs. Children are found
through one hash table by (parent, hash of the edge's first page).

Source of the semantics: SGLang 0.5.23 ``mem_cache/unified_cache/unified_tree_core.py`` (match, insert, split, locks, hit counts,
the access counter). Eviction: `radix_evict`. Usage: build a key with `key_clear` and `key_add`, then `radix_walk` to match or to insert.
"""

from typing import Final

import numpy as np

from sim.engine.outline import addresses, outlined
from sim.jit import b1, f8, f8s, flat, i4s, i8, i8s, inline, kernel, new, struct

ROOT: Final = 0
_LOW: Final = 0x7FFFFFFFFFFFFFFF
_C1: Final = 0x2545F4914F6CDD1D
_C2: Final = 0x369DEA0F31A53F85

LRU, LFU, SLRU, FIFO, MRU, FILO, PRIORITY = range(7)
POLICIES: Final = ("lru", "lfu", "slru", "fifo", "mru", "filo", "priority")


@struct
class Radix:
    """One tree, its key buffer and the token pool it shares with private (uncached) tokens. Sizes in tokens."""

    fn: i8s
    page: i8
    policy: i8
    off: b1  # the cache is disabled: nothing ever matches, only `free` counts
    free: i8  # tokens in free pages
    evictable: i8  # cached tokens nobody uses
    protected: i8  # cached tokens in use
    evicted: i8  # tokens evicted since the owner last cleared it
    tick: f8  # access counter
    seq: i8
    # nodes
    n_free: i8
    free_node: i4s
    parent: i4s
    run: i4s  # first run of the edge
    size: i4s  # tokens of the edge
    lock: i4s
    kids: i4s
    last: f8s
    born: f8s
    hits: i4s
    prio: f8s
    hash: i8s
    order: i8s  # position among siblings (insertion order)
    # runs of the edges, linked
    c_free: i8
    c_spare: i8  # runs on the free list
    c_top: i8
    c_id: i8s
    c_start: i8s
    c_len: i8s
    c_next: i4s
    # hash table of children
    table: i4s
    # lazy heap of eviction candidates with the order they were put in by
    h_n: i8
    h_node: i4s
    h_a: f8s
    h_b: f8s
    in_heap: i4s
    # the key
    k_n: i8
    k_space: i8  # name space (an adapter, a cache salt)
    k_id: i8s
    k_start: i8s
    k_len: i8s
    end: i8  # where the last walk ended


@kernel
def new_radix(fn, page, tokens, policy, off, nodes):
    """An empty tree over a pool of ``tokens`` (floored to whole pages); ``nodes``: initial capacity, a power of two."""
    t = new(Radix)
    t.fn = fn
    t.page = page
    t.policy = policy
    t.off = off
    t.k_n = 0
    t.k_space = 0
    t.k_id = np.empty(16, np.int64)
    t.k_start = np.empty(16, np.int64)
    t.k_len = np.empty(16, np.int64)
    t.n_free = 0
    t.free_node = np.empty(nodes, np.int32)
    t.parent = np.empty(nodes, np.int32)
    t.run = np.empty(nodes, np.int32)
    t.size = np.empty(nodes, np.int32)
    t.lock = np.empty(nodes, np.int32)
    t.kids = np.empty(nodes, np.int32)
    t.last = np.empty(nodes)
    t.born = np.empty(nodes)
    t.hits = np.empty(nodes, np.int32)
    t.prio = np.empty(nodes)
    t.hash = np.empty(nodes, np.int64)
    t.order = np.empty(nodes, np.int64)
    t.c_id = np.empty(nodes, np.int64)
    t.c_start = np.empty(nodes, np.int64)
    t.c_len = np.empty(nodes, np.int64)
    t.c_next = np.empty(nodes, np.int32)
    t.table = np.empty(4 * nodes, np.int32)
    t.h_node = np.empty(nodes, np.int32)
    t.h_a = np.empty(nodes)
    t.h_b = np.empty(nodes)
    t.in_heap = np.empty(nodes, np.int32)
    t.end = 0
    radix_clear(t, tokens)
    return t


@kernel
def radix_clear(t, tokens):
    """Forget everything."""
    t.free = tokens // t.page * t.page
    t.evictable = 0
    t.protected = 0
    t.evicted = 0
    t.tick = 1.0
    t.seq = 0
    t.h_n = 0
    t.c_free = -1
    t.c_top = 0
    t.c_spare = 0
    t.n_free = 0
    for i in range(t.parent.size - 1, 0, -1):
        t.free_node[t.n_free] = i
        t.n_free += 1
    for i in range(t.table.size):
        t.table[i] = -1
    t.parent[ROOT] = -1
    t.run[ROOT] = -1
    t.size[ROOT] = 0
    t.lock[ROOT] = 1
    t.kids[ROOT] = 0
    t.last[ROOT] = 0.0
    t.born[ROOT] = 0.0
    t.hits[ROOT] = 0
    t.prio[ROOT] = -1e18
    t.hash[ROOT] = 0
    t.order[ROOT] = 0
    t.in_heap[ROOT] = 0


@kernel
def _wider_i8(a):
    out = np.empty(2 * a.size, np.int64)
    for i in range(a.size):
        out[i] = a[i]
    return out


@kernel
def _wider_i4(a):
    out = np.empty(2 * a.size, np.int32)
    for i in range(a.size):
        out[i] = a[i]
    return out


@kernel
def _wider_f8(a):
    out = np.empty(2 * a.size, np.float64)
    for i in range(a.size):
        out[i] = a[i]
    return out


# -- keys


def radix_functions(policy):
    """What `new_radix` wants as ``fn`` for an eviction policy (the eviction functions are in another module)."""
    import sim.engine.kv.radix_evict  # noqa: F401

    return addresses(Radix, frozenset() if policy == MRU else frozenset({"_rebuild"}))


@inline
def key_clear(t, space):
    """Start a key in a name space (0: the common one)."""
    t.k_n = 0
    t.k_space = space


@outlined(Radix)
def _key_grow(t):
    t.k_id = _wider_i8(t.k_id)
    t.k_start = _wider_i8(t.k_start)
    t.k_len = _wider_i8(t.k_len)
    return 0


@inline
def key_add(t, content, start, length):
    """Append a run."""
    n = t.k_n
    if n > 0 and t.k_id[n - 1] == content and t.k_start[n - 1] + t.k_len[n - 1] == start:
        t.k_len[n - 1] += length
        return
    if n == t.k_id.size:
        _key_grow(t)
    t.k_id[n] = content
    t.k_start[n] = start
    t.k_len[n] = length
    t.k_n = n + 1


@inline
def _mix(h, x):
    """One round of a 64-bit mixer on 63 bits (so that it is the same number with the JIT switched off)."""
    h = ((int(h) ^ int(x)) * _C1) & _LOW
    h ^= h >> 32
    h = (h * _C2) & _LOW
    return h ^ (h >> 29)


@flat
def _page_hash(t, parent, ki, ko):
    """Hash of the first page of the key from run ``ki``, offset ``ko``, as a child of ``parent``."""
    h = _mix(parent + 1, t.k_space if parent == ROOT else 0)
    left = t.page
    while left > 0:
        n = min(left, t.k_len[ki] - ko)
        h = _mix(_mix(h, t.k_id[ki]), t.k_start[ki] + ko)
        if left > 1:
            h = _mix(h, n)
        left -= n
        ki += 1
        ko = 0
    return h


@flat
def _edge_hash(t, parent, c):
    """Hash of the first page of an edge that starts with run ``c``, as a child of ``parent`` (not the root)."""
    h = _mix(parent + 1, 0)
    left = t.page
    while left > 0:
        n = min(left, t.c_len[c])
        h = _mix(_mix(h, t.c_id[c]), t.c_start[c])
        if left > 1:
            h = _mix(h, n)
        left -= n
        c = t.c_next[c]
    return h


# -- hash table of children: open addressing, linear probing


@flat
def _find(t, parent, h):
    mask = t.table.size - 1
    i = h & mask
    while t.table[i] >= 0:
        c = t.table[i]
        if t.hash[c] == h and t.parent[c] == parent:
            return c + 0
        i = (i + 1) & mask
    return -1


@inline
def _table_put(t, node):
    mask = t.table.size - 1
    i = int(t.hash[node]) & mask
    while t.table[i] >= 0:
        i = (i + 1) & mask
    t.table[i] = node


@inline
def _table_place(t, node):
    mask = t.table.size - 1
    i = int(t.hash[node]) & mask
    while t.table[i] != node:
        i = (i + 1) & mask
    return i


@inline
def table_drop(t, node):
    """Take a node out of the table; later entries of the probe chain move up."""
    mask = t.table.size - 1
    i = _table_place(t, node)
    j = i
    while True:
        j = (j + 1) & mask
        if t.table[j] < 0:
            break
        home = int(t.hash[t.table[j]]) & mask
        if ((j - home) & mask) >= ((j - i) & mask):
            t.table[i] = t.table[j]
            i = j
    t.table[i] = -1


# -- eviction candidates (see `radix_evict`)


@inline
def order_a(t, x):
    """First sort key of eviction: the leaf with the smallest goes first."""
    p = t.policy
    if p == LRU:
        return t.last[x]
    if p == LFU:
        return float(t.hits[x])
    if p == SLRU:
        return 1.0 if t.hits[x] >= 2 else 0.0
    if p == FIFO:
        return t.born[x]
    if p == MRU:
        return -t.last[x]
    if p == FILO:
        return -t.born[x]
    return t.prio[x]


@outlined(Radix)
def candidate(t, x):
    """Note that ``x`` may be evicted (an unlocked leaf). Entries are checked when they come to the top."""
    if t.in_heap[x] == 1:
        return 0
    t.in_heap[x] = 1
    a, b = order_a(t, x), t.last[x]
    i = t.h_n
    t.h_n += 1
    while i > 0:
        up = (i - 1) >> 1
        if t.h_a[up] < a or (t.h_a[up] == a and t.h_b[up] <= b):
            break
        t.h_node[i] = t.h_node[up]
        t.h_a[i] = t.h_a[up]
        t.h_b[i] = t.h_b[up]
        i = up
    t.h_node[i] = x
    t.h_a[i] = a
    t.h_b[i] = b
    return 0


# -- nodes and runs


@outlined(Radix)
def _grow_nodes(t):
    old = t.parent.size
    t.free_node = _wider_i4(t.free_node)
    t.parent = _wider_i4(t.parent)
    t.run = _wider_i4(t.run)
    t.size = _wider_i4(t.size)
    t.lock = _wider_i4(t.lock)
    t.kids = _wider_i4(t.kids)
    t.hits = _wider_i4(t.hits)
    t.last = _wider_f8(t.last)
    t.born = _wider_f8(t.born)
    t.prio = _wider_f8(t.prio)
    t.hash = _wider_i8(t.hash)
    t.order = _wider_i8(t.order)
    t.h_node = _wider_i4(t.h_node)
    t.in_heap = _wider_i4(t.in_heap)
    t.h_a = _wider_f8(t.h_a)
    t.h_b = _wider_f8(t.h_b)
    entries = t.table
    t.table = np.empty(2 * entries.size, np.int32)
    for i in range(t.table.size):
        t.table[i] = -1
    for i in range(entries.size):
        if entries[i] >= 0:
            _table_put(t, entries[i])
    for i in range(2 * old - 1, old - 1, -1):
        t.free_node[t.n_free] = i
        t.n_free += 1
    return 0


@outlined(Radix)
def _grow_runs(t):
    t.c_id = _wider_i8(t.c_id)
    t.c_start = _wider_i8(t.c_start)
    t.c_len = _wider_i8(t.c_len)
    t.c_next = _wider_i4(t.c_next)
    return 0


@inline
def _new_run(t, content, start, length):
    c = t.c_free
    if c >= 0:
        t.c_free = t.c_next[c] + 0
        t.c_spare -= 1
    else:
        c = t.c_top
        t.c_top += 1
    t.c_id[c] = content
    t.c_start[c] = start
    t.c_len[c] = length
    t.c_next[c] = -1
    return c


@inline
def _new_node(t, parent, prio, size, h, order):
    """A node without runs. There must be room (`radix_walk` sees to it)."""
    t.n_free -= 1
    x = t.free_node[t.n_free] + 0
    t.parent[x] = parent
    t.lock[x] = 0
    t.hits[x] = 0
    t.kids[x] = 0
    t.in_heap[x] = 0
    t.prio[x] = prio
    t.size[x] = size
    t.hash[x] = h
    t.order[x] = order
    t.tick += 2.0
    t.last[x] = t.tick - 1.0
    t.born[x] = t.tick
    return x


@flat
def _split(t, child, k):
    """Cut an edge after ``k`` tokens; returns the new upper node. The lower part keeps its number."""
    x = _new_node(t, t.parent[child] + 0, t.prio[child], k, t.hash[child], t.order[child])
    t.lock[x] = t.lock[child]
    t.hits[x] = t.hits[child]
    t.born[x] = t.born[child]
    t.table[_table_place(t, child)] = x
    t.size[child] -= k
    t.kids[x] = 1
    c = t.run[child] + 0
    t.run[x] = c
    left = k
    while t.c_len[c] < left:
        left -= t.c_len[c]
        c = t.c_next[c] + 0
    rest = t.c_next[c] + 0
    if t.c_len[c] > left:
        rest = _new_run(t, t.c_id[c], t.c_start[c] + left, t.c_len[c] - left)
        t.c_next[rest] = t.c_next[c]
        t.c_len[c] = left
    t.c_next[c] = -1
    t.run[child] = rest
    t.parent[child] = x
    t.order[child] = 0
    t.hash[child] = _edge_hash(t, x, rest)
    _table_put(t, child)
    t.tick += 1.0
    t.last[child] = t.tick
    return x


@flat
def _common(t, node, ki, ko, limit):
    """Tokens that the edge of ``node`` has in common with the key from run ``ki``, offset ``ko``; whole pages."""
    c = t.run[node] + 0
    co = 0
    m = 0
    while c >= 0 and m < limit:
        if t.c_id[c] != t.k_id[ki] or t.c_start[c] + co != t.k_start[ki] + ko:
            break
        a = t.c_len[c] - co
        b = t.k_len[ki] - ko
        n = min(min(a, b), limit - m)
        m += n
        co += n
        ko += n
        if n == a:
            c = t.c_next[c] + 0
            co = 0
        if n == b:
            ki += 1
            ko = 0
    return m // t.page * t.page


@flat
def _new_leaf(t, node, n, ki, ko, h, prio):
    """A leaf below ``node`` with the next ``n`` tokens of the key."""
    t.seq += 1
    x = _new_node(t, node, prio, n, h, t.seq)
    _table_put(t, x)
    t.kids[node] += 1
    tail = -1
    while n > 0:
        m = min(n, t.k_len[ki] - ko)
        c = _new_run(t, t.k_id[ki], t.k_start[ki] + ko, m)
        if tail < 0:
            t.run[x] = c
        else:
            t.c_next[tail] = c
        tail = c
        n -= m
        ki += 1
        ko = 0
    return x


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
    if t.n_free < 2:
        _grow_nodes(t)
    while t.c_top + t.k_n + 2 > t.c_id.size + t.c_spare:
        _grow_runs(t)
    if insert == 1:
        t.tick += 1.0
        t.last[ROOT] = t.tick
    node, o, ki, ko = 0, 0, 0, 0
    h = 0
    while o < n:
        h = _page_hash(t, node, ki, ko)
        c = _find(t, node, h)
        if c < 0:
            break
        m = _common(t, c, ki, ko, n - o)
        if m == 0:
            break
        if insert == 1:
            t.tick += 1.0
            t.last[c] = t.tick
        cut = m < t.size[c]
        if cut:
            c = _split(t, c, m)
        if insert == 1:
            t.prio[c] = max(t.prio[c], float(prio))
            t.free += max(0, m - max(0, owned - o))
            if o + m > counted:
                t.hits[c] += 1
        node = c
        o += m
        if cut and insert == 0:
            break
        left = m
        while left > 0 and left >= t.k_len[ki] - ko:
            left -= t.k_len[ki] - ko
            ki += 1
            ko = 0
        ko += left
    t.end = node
    if insert == 0:
        t.tick += 1.0
        stamp = t.tick
        while node >= 0:
            t.last[node] = stamp
            stamp -= 1e-5
            node = t.parent[node] + 0
    elif o < n:
        x = _new_leaf(t, node, n - o, ki, ko, h, float(prio))
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
    x = old
    while x > ROOT:
        t.lock[x] -= 1
        if t.lock[x] == 0:
            t.evictable += t.size[x]
            t.protected -= t.size[x]
            if t.kids[x] == 0:
                candidate(t, x)
        x = t.parent[x] + 0
    x = new
    while x > ROOT:
        if t.lock[x] == 0:
            t.evictable -= t.size[x]
            t.protected += t.size[x]
        t.lock[x] += 1
        x = t.parent[x] + 0
    return 0
