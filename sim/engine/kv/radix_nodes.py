# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Nodes of a radix cache: their edges (linked runs), the hash table that finds children, and the heap of what may be evicted."""

from typing import Final

import numpy as np

from sim.engine.borrow import keep
from sim.engine.kv.probing import close_gap
from sim.engine.kv.radix import FIFO, FILO, LFU, LRU, MRU, ROOT, SLRU, Radix, wider_f8, wider_i4, wider_i8
from sim.engine.outline import outlined
from sim.jit import flat, inline

_LOW: Final = 0x7FFFFFFFFFFFFFFF
_C1: Final = 0x2545F4914F6CDD1D
_C2: Final = 0x369DEA0F31A53F85


@inline
def mix(h, x):
    """One round of a 64-bit mixer on 63 bits (so that it is the same number with the JIT switched off)."""
    h = ((int(h) ^ int(x)) * _C1) & _LOW
    h ^= h >> 32
    h = (h * _C2) & _LOW
    return h ^ (h >> 29)


@flat
def page_hash(t, parent, ki, ko):
    """Hash of the first page of the key from run ``ki``, offset ``ko``, as a child of ``parent``."""
    h = mix(parent + 1, t.k_space if parent == ROOT else 0)
    left = t.page
    while left > 0:
        n = min(left, t.k_len[ki] - ko)
        h = mix(mix(h, t.k_id[ki]), t.k_start[ki] + ko)
        if left > 1:
            h = mix(h, n)
        left -= n
        ki += 1
        ko = 0
    return h


@flat
def edge_hash(t, parent, c):
    """Hash of the first page of an edge that starts with run ``c``, as a child of ``parent`` (not the root)."""
    h = mix(parent + 1, 0)
    left = t.page
    while left > 0:
        n = min(left, t.c_len[c])
        h = mix(mix(h, t.c_id[c]), t.c_start[c])
        if left > 1:
            h = mix(h, n)
        left -= n
        c = t.c_next[c]
    return h


# -- hash table of children: open addressing, linear probing


@flat
def find_child(t, parent, h):
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
    close_gap(t.table, t.hash, _table_place(t, node), -1)


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
def grow_nodes(t):
    own = keep(t)
    old = t.parent.size
    own.free_node = wider_i4(t.free_node)
    own.parent = wider_i4(t.parent)
    own.run = wider_i4(t.run)
    own.size = wider_i4(t.size)
    own.lock = wider_i4(t.lock)
    own.kids = wider_i4(t.kids)
    own.hits = wider_i4(t.hits)
    own.last = wider_f8(t.last)
    own.born = wider_f8(t.born)
    own.prio = wider_f8(t.prio)
    own.hash = wider_i8(t.hash)
    own.order = wider_i8(t.order)
    own.h_node = wider_i4(t.h_node)
    own.in_heap = wider_i4(t.in_heap)
    own.h_a = wider_f8(t.h_a)
    own.h_b = wider_f8(t.h_b)
    if t.w_on:
        own.w_has = wider_i4(t.w_has)
        own.w_lock = wider_i4(t.w_lock)
        own.w_mark = wider_i4(t.w_mark)
        own.w_prev = wider_i4(t.w_prev)
        own.w_next = wider_i4(t.w_next)
    if t.h_on:
        own.h_dev = wider_i4(t.h_dev)
        own.h_host = wider_i4(t.h_host)
        own.h_all = wider_i4(t.h_all)
        own.h_lock = wider_i4(t.h_lock)
        own.h_ready = wider_f8(t.h_ready)
        own.g_node = wider_i4(t.g_node)
        own.g_a = wider_f8(t.g_a)
        own.in_g = wider_i4(t.in_g)
    if t.l_on:
        own.l_from = wider_i8(t.l_from)
        own.l_key = wider_i8(t.l_key)
    entries = own.table  # held: it is replaced below
    own.table = np.empty(2 * entries.size, np.int32)
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
def grow_runs(t):
    own = keep(t)
    own.c_id = wider_i8(t.c_id)
    own.c_start = wider_i8(t.c_start)
    own.c_len = wider_i8(t.c_len)
    own.c_next = wider_i4(t.c_next)
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


@inline
def drop_runs(t, x):
    """The runs of a node that leaves the tree are free."""
    c = t.run[x] + 0
    while c >= 0:
        after = t.c_next[c] + 0
        t.c_next[c] = t.c_free
        t.c_free = c
        t.c_spare += 1
        c = after


@inline
def free_number(t, x):
    """The number of a node that nobody knows any more can be given again."""
    t.free_node[t.n_free] = x
    t.n_free += 1


@flat
def cut_edge(t, child, k):
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
    t.hash[child] = edge_hash(t, x, rest)
    _table_put(t, child)
    t.tick += 1.0
    t.last[child] = t.tick
    return x


@flat
def common_tokens(t, node, ki, ko, limit):
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
def new_leaf(t, node, n, ki, ko, h, prio):
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
