# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""A radix cache over spans: prefixes are shared exact to the token (or page) while memory follows the number of tree nodes.

A *key* is a token sequence written as runs ``(content id, start, length)``, with neighbouring runs of one content merged where they
continue each other; so two sequences are equal exactly where their runs are. An edge holds a list of runs. Children are found
through one hash table by (parent, hash of the edge's first page).

Source of the semantics: SGLang 0.5.23 ``mem_cache/unified_cache/unified_tree_core.py`` (match, insert, split, locks, hit counts,
the access counter). Eviction: `radix_evict`. Usage: build a key with `key_clear` and `key_add`, then `radix_match` or `radix_insert`.
"""

from typing import Final

import numpy as np

from sim.jit import b1, f8, f8s, i4s, i8, i8s, inline, kernel, new, struct

ROOT: Final = 0
_LOW: Final = 0x7FFFFFFFFFFFFFFF
_C1: Final = 0x2545F4914F6CDD1D
_C2: Final = 0x369DEA0F31A53F85

LRU, LFU, SLRU, FIFO, MRU, FILO, PRIORITY = range(7)
POLICIES: Final = ("lru", "lfu", "slru", "fifo", "mru", "filo", "priority")


@struct
class Radix:
    """One tree, its key buffer and the token pool it shares with private (uncached) tokens. Sizes in tokens."""

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
    # outcome of the last `radix_insert`
    end: i8


@inline
def _tick(t):
    t.tick += 1.0
    return t.tick


@kernel
def new_radix(page, tokens, policy, off, nodes):
    """An empty tree over a pool of ``tokens`` (floored to whole pages); ``nodes``: initial capacity, a power of two."""
    t = new(Radix)
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


@inline
def key_clear(t, space):
    """Start a key in a name space (0: the common one)."""
    t.k_n = 0
    t.k_space = space


@kernel
def _key_grow(t):
    t.k_id = _wider_i8(t.k_id)
    t.k_start = _wider_i8(t.k_start)
    t.k_len = _wider_i8(t.k_len)


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


@inline
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


@inline
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


@inline
def _find(t, parent, h):
    mask = t.table.size - 1
    i = h & mask
    while t.table[i] >= 0:
        c = t.table[i]
        if t.hash[c] == h and t.parent[c] == parent:
            return int(c)
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


# -- nodes and runs


@kernel
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


@inline
def _new_node(t, parent):
    if t.n_free == 0:
        _grow_nodes(t)
    t.n_free -= 1
    x = int(t.free_node[t.n_free])
    t.parent[x] = parent
    t.lock[x] = 0
    t.hits[x] = 0
    t.kids[x] = 0
    t.prio[x] = 0.0
    t.last[x] = _tick(t)
    t.born[x] = _tick(t)
    t.in_heap[x] = 0
    return x


@kernel
def _grow_runs(t):
    t.c_id = _wider_i8(t.c_id)
    t.c_start = _wider_i8(t.c_start)
    t.c_len = _wider_i8(t.c_len)
    t.c_next = _wider_i4(t.c_next)


@inline
def _new_run(t, content, start, length):
    c = t.c_free
    if c >= 0:
        t.c_free = int(t.c_next[c])
    else:
        if t.c_top == t.c_id.size:
            _grow_runs(t)
        c = t.c_top
        t.c_top += 1
    t.c_id[c] = content
    t.c_start[c] = start
    t.c_len[c] = length
    t.c_next[c] = -1
    return c


@kernel
def _split(t, child, k):
    """Cut an edge after ``k`` tokens; returns the new upper node. The lower part keeps its number."""
    x = _new_node(t, t.parent[child])
    t.lock[x] = t.lock[child]
    t.hits[x] = t.hits[child]
    t.born[x] = t.born[child]
    t.prio[x] = t.prio[child]
    t.hash[x] = t.hash[child]
    t.order[x] = t.order[child]
    t.table[_table_place(t, child)] = x
    t.size[x] = k
    t.size[child] -= k
    t.kids[x] = 1
    c = int(t.run[child])
    t.run[x] = c
    left = k
    while t.c_len[c] < left:
        left -= t.c_len[c]
        c = int(t.c_next[c])
    if t.c_len[c] == left:
        rest = int(t.c_next[c])
    else:
        rest = _new_run(t, t.c_id[c], t.c_start[c] + left, t.c_len[c] - left)
        t.c_next[rest] = t.c_next[c]
        t.c_len[c] = left
    t.c_next[c] = -1
    t.run[child] = rest
    t.parent[child] = x
    t.order[child] = 0
    t.hash[child] = _edge_hash(t, x, rest)
    _table_put(t, child)
    t.last[child] = _tick(t)
    return x


@inline
def _common(t, node, ki, ko, limit):
    """Tokens that the edge of ``node`` has in common with the key from run ``ki``, offset ``ko``; whole pages."""
    c = t.run[node]
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
            c = t.c_next[c]
            co = 0
        if n == b:
            ki += 1
            ko = 0
    return m // t.page * t.page


@kernel
def radix_match(t, n):
    """Longest cached prefix of the first ``n`` tokens of the key: (length, node). Touches the path and may split its last edge."""
    n = n // t.page * t.page
    if t.off or n == 0:
        return 0, ROOT
    node, o, ki, ko = ROOT, 0, 0, 0
    while o < n:
        c = _find(t, node, _page_hash(t, node, ki, ko))
        if c < 0:
            break
        m = _common(t, c, ki, ko, n - o)
        if m == 0:
            break
        o += m
        if m < t.size[c]:
            node = _split(t, c, m)
            break
        node = c
        left = m
        while left > 0 and left >= t.k_len[ki] - ko:
            left -= t.k_len[ki] - ko
            ki += 1
            ko = 0
        ko += left
    x = node
    stamp = _tick(t)
    while x >= 0:
        t.last[x] = stamp
        stamp -= 1e-5
        x = int(t.parent[x])
    return o, node


@kernel
def radix_insert(t, n, owned, counted, prio):
    """Put the first ``n`` (whole pages) tokens of the key into the tree; ``t.end`` is the node they end at. Returns the length that was there.

    Copies of tokens the tree already had are freed, except the first ``owned``, which are the tree's own. A node counts a hit if it ends
    beyond ``counted``.
    """
    t.last[ROOT] = _tick(t)
    node, o, ki, ko = ROOT, 0, 0, 0
    h = 0
    while o < n:
        h = _page_hash(t, node, ki, ko)
        c = _find(t, node, h)
        if c < 0:
            break
        m = _common(t, c, ki, ko, n - o)
        if m == 0:
            break
        t.last[c] = _tick(t)
        if m < t.size[c]:
            c = _split(t, c, m)
        t.prio[c] = max(t.prio[c], prio)
        t.free += max(0, m - max(0, owned - o))
        if o + m > counted:
            t.hits[c] += 1
        node = c
        o += m
        left = m
        while left > 0 and left >= t.k_len[ki] - ko:
            left -= t.k_len[ki] - ko
            ki += 1
            ko = 0
        ko += left
    matched = o
    if o < n:
        x = _new_node(t, node)
        t.prio[x] = prio
        t.size[x] = n - o
        t.hash[x] = h
        t.seq += 1
        t.order[x] = t.seq
        _table_put(t, x)
        t.kids[node] += 1
        tail = -1
        left = n - o
        while left > 0:
            m = min(left, t.k_len[ki] - ko)
            c = _new_run(t, t.k_id[ki], t.k_start[ki] + ko, m)
            if tail < 0:
                t.run[x] = c
            else:
                t.c_next[tail] = c
            tail = c
            left -= m
            ki += 1
            ko = 0
        t.evictable += n - o
        if n > counted:
            t.hits[x] = 1
        candidate(t, x)
        node = x
    t.end = node
    return matched


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


@kernel
def candidate(t, x):
    """Note that ``x`` may be evicted (an unlocked leaf). Entries are checked when they come to the top."""
    if t.in_heap[x] == 1:
        return
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


@kernel
def radix_lock(t, x):
    """Protect the path from ``x`` to the root from eviction."""
    if t.off:
        return
    while x != ROOT:
        if t.lock[x] == 0:
            t.evictable -= t.size[x]
            t.protected += t.size[x]
        t.lock[x] += 1
        x = int(t.parent[x])


@kernel
def radix_unlock(t, x):
    """Undo one `radix_lock`; −1 is nothing."""
    if t.off or x < 0:
        return
    while x != ROOT:
        t.lock[x] -= 1
        if t.lock[x] == 0:
            t.evictable += t.size[x]
            t.protected -= t.size[x]
            if t.kids[x] == 0:
                candidate(t, x)
        x = int(t.parent[x])
