# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""A radix cache over spans: prefixes are shared exact to the token (or page) while memory follows the number of tree nodes.

A *key* is a token sequence written as runs ``(content id, start, length)``, with neighbouring runs of one content merged where they
continue each other; so two sequences are equal exactly where their runs are. An edge holds a list of runs. Children are found
through one hash table by (parent, hash of the edge's first page): `radix_nodes`.

Source of the semantics: SGLang 0.5.23 ``mem_cache/unified_cache/unified_tree_core.py`` (match, insert, split, locks, hit counts,
the access counter). Usage: build a key with `key_clear` and `key_add`, then `radix_walk` to match or to insert. Eviction: `radix_evict`.
Nodes that have window KV or a recurrent state beside their full KV: `radix_window`, `radix_state`.
"""

from typing import Final

import numpy as np

from sim.engine.borrow import keep
from sim.engine.outline import outlined
from sim.engine.tiers.tier import Tier
from sim.jit import b1, f8, f8s, i4s, i8, i8s, inline, kernel, new, struct

ROOT: Final = 0

LRU, LFU, SLRU, FIFO, MRU, FILO, PRIORITY = range(7)
POLICIES: Final = ("lru", "lfu", "slru", "fifo", "mru", "filo", "priority")


@struct(viewed=True)
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
    # a second pool beside full KV (`radix_second`): what a node has of it besides its full KV
    w_on: b1
    w_window: i8  # tokens a sliding window needs; 0: recurrent states
    w_grid: i8  # lengths at which states may branch off
    w_size: i8  # in tokens of window layers, or in states; so with the counters below
    w_free: i8
    w_evictable: i8
    w_protected: i8
    w_evicted: i8
    w_marks: i8  # number of the last mark given
    w_dead: i8  # nodes evicted while the heap of candidates names them
    branch: i8  # how far full KV went beyond the hit of the last match, −1: not beyond it
    w_has: i4s  # 0: the node has only full KV (a tombstone)
    w_lock: i4s
    w_mark: i4s  # far end of the locks with this number, 0: none
    w_prev: i4s  # ring of the nodes that have it through the root, from most to least recently used
    w_next: i4s
    # copies in host memory (`radix_host`)
    h_on: b1
    h_size: i8
    h_free: i8
    h_policy: i8
    h_layers: i8
    h_rate: f8s  # [towards the device, away from it]: seconds per token
    h_latency: f8
    h_lane: f8s  # when each is free
    h_now: f8  # the owner's clock
    h_start: f8  # when the step being planned begins
    h_load: f8  # how long after that its KV is there
    h_wait: f8  # seconds that the owner waits for copies to the host
    h_hit: i8  # tokens of the last match that only the host has
    h_end: i8  # and their last node
    h_dev: i4s  # 1: on the device
    h_host: i4s  # 1: on the host
    h_all: i4s  # children, wherever they are
    h_lock: i4s
    h_ready: f8s  # when the copy on the host is whole
    h_count: f8s
    g_n: i8  # lazy heap of what the host may forget
    g_node: i4s
    g_a: f8s
    in_g: i4s
    # pages in storage behind host memory (`radix_storage`)
    l_on: b1
    l_store: Tier
    l_from: i8s  # hash of all tokens before the node, and up to its end
    l_key: i8s
    l_lane: f8  # when what is written is through
    l_count: f8s


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
    t.w_on = False
    t.h_on = False
    t.l_on = False
    t.h_load = t.h_wait = 0.0
    t.branch = -1
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
def wider_i8(a):
    out = np.empty(2 * a.size, np.int64)
    for i in range(a.size):
        out[i] = a[i]
    return out


@kernel
def wider_i4(a):
    out = np.empty(2 * a.size, np.int32)
    for i in range(a.size):
        out[i] = a[i]
    return out


@kernel
def wider_f8(a):
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


@outlined(Radix)
def _key_grow(t):
    own = keep(t)
    own.k_id = wider_i8(t.k_id)
    own.k_start = wider_i8(t.k_start)
    own.k_len = wider_i8(t.k_len)
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
