# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Paged KV blocks with a prefix cache of hashed full blocks and one free queue, as in vLLM (``v1/core/block_pool.py``).

Which physical block a request gets decides nothing, so a block without a hash is only counted. What has an identity is an *entry*: a
block that carries a hash (``e_key``), or, for many blocks that nobody can ask for, a *run* of them (``e_key`` 0, ``e_ref`` = how many).
The free queue is: ``fresh`` blocks without a hash at the front, then a list of entries in the order in which they were given back.
With caching off there are only two counters.
"""

import numpy as np

from sim.engine.borrow import keep
from sim.engine.kv.probing import close_gap
from sim.engine.state import grown
from sim.jit import b1, i4s, i8, i8s, inline, kernel, new, struct

_FIRST = 1024  # entries to begin with: a replica that caches little takes little memory


@struct
class BlockPool:
    """Entry 0 is the sentinel of the free list; in links 0 means none. Keys are 64-bit hashes, never 0."""

    total: i8  # usable blocks
    free: i8  # blocks in the free queue
    caching: b1
    lifo: b1  # blocks without a hash go back to the front of the queue (else to its end)
    fresh: i8
    evicted: i8  # cached blocks whose content was lost, since the start
    e_key: i8s
    e_ref: i4s  # requests that hold the block; of a run: its blocks
    e_next: i4s  # free list, front first
    e_prev: i4s
    d_next: i4s  # blocks with the same hash, oldest first
    d_prev: i4s
    d_last: i4s  # of the oldest: the newest
    n_spare: i8
    spare: i4s
    mask: i8
    t_head: i4s  # hash table, open addressing: oldest entry with a key, 0: empty


@kernel
def new_block_pool(blocks, caching, lifo):
    """A pool of ``blocks`` usable blocks, all free."""
    b = new(BlockPool)
    b.total = blocks
    b.free = blocks
    b.caching = caching
    b.lifo = lifo
    b.fresh = blocks
    b.evicted = 0
    n = min(blocks + 2, _FIRST) if caching else 2
    b.e_key = np.zeros(n, np.int64)
    b.e_ref = np.zeros(n, np.int32)
    b.e_next = np.zeros(n, np.int32)
    b.e_prev = np.zeros(n, np.int32)
    b.d_next = np.zeros(n, np.int32)
    b.d_prev = np.zeros(n, np.int32)
    b.d_last = np.zeros(n, np.int32)
    b.spare = np.empty(n, np.int32)
    for i in range(n - 1):
        b.spare[i] = n - 1 - i
    b.n_spare = n - 1
    size = 8
    while size < 2 * n:
        size *= 2
    b.mask = size - 1
    b.t_head = np.zeros(size, np.int32)
    return b


@kernel
def _more_entries(b):
    """Double the entries: there are never more than blocks + 2, as every entry in use stands for at least one block."""
    own = keep(b)
    old = b.e_key.size
    n = 2 * old
    own.e_key = grown(b.e_key, n)
    own.e_ref = grown(b.e_ref, n)
    own.e_next = grown(b.e_next, n)
    own.e_prev = grown(b.e_prev, n)
    own.d_next = grown(b.d_next, n)
    own.d_prev = grown(b.d_prev, n)
    own.d_last = grown(b.d_last, n)
    own.spare = np.empty(n, np.int32)  # all in use: the stack is empty
    for i in range(old):
        b.spare[i] = n - 1 - i
    b.n_spare = old
    size = 2 * b.t_head.size
    table = np.zeros(size, np.int32)
    mask = size - 1
    for j in range(b.t_head.size):
        e = b.t_head[j]
        if e != 0:
            i = b.e_key[e] & mask
            while table[i] != 0:
                i = (i + 1) & mask
            table[i] = e
    own.t_head = table
    b.mask = mask


@inline
def append_entry(b, e):
    """To the end of the free list."""
    last = b.e_prev[0]
    b.e_next[last] = e
    b.e_prev[e] = last
    b.e_next[e] = 0
    b.e_prev[0] = e


@inline
def unlink_entry(b, e):
    """Out of the free list."""
    before = b.e_prev[e]
    after = b.e_next[e]
    b.e_next[before] = after
    b.e_prev[after] = before


@inline
def cached_block(b, key):
    """The oldest block with this hash, 0 if there is none."""
    i = key & b.mask
    while True:
        e = b.t_head[i]
        if e == 0 or b.e_key[e] == key:
            return e
        i = (i + 1) & b.mask


@inline
def new_entry(b):
    """An entry that stands for a block held by one request, without a hash yet."""
    if b.n_spare == 0:
        _more_entries(b)
    b.n_spare -= 1
    e = b.spare[b.n_spare]
    b.e_key[e] = 0
    b.e_ref[e] = 1
    return e


@inline
def name_entry(b, e, key):
    """An entry without a hash becomes known by this one, as the newest with it."""
    b.e_key[e] = key
    b.d_next[e] = 0
    b.d_prev[e] = 0
    b.d_last[e] = e
    i = key & b.mask
    while True:
        oldest = b.t_head[i]
        if oldest == 0:
            b.t_head[i] = e
            return
        if b.e_key[oldest] == key:
            last = b.d_last[oldest]
            b.d_next[last] = e
            b.d_prev[e] = last
            b.d_last[oldest] = e
            return
        i = (i + 1) & b.mask


@inline
def put_block(b, key):
    """A block held by one request becomes full and known by its hash; returns its entry."""
    e = new_entry(b)
    name_entry(b, e, key)
    return e


@kernel
def forget_entry(b, e):
    """Take a block's hash away and its entry back."""
    b.evicted += 1
    b.n_spare += 1
    b.spare[b.n_spare - 1] = e
    before = b.d_prev[e]
    after = b.d_next[e]
    mask = b.mask
    i = b.e_key[e] & mask
    while b.e_key[b.t_head[i]] != b.e_key[e]:
        i = (i + 1) & mask
    if before != 0:
        b.d_next[before] = after
        if after != 0:
            b.d_prev[after] = before
        else:
            b.d_last[b.t_head[i]] = before
        return
    if after != 0:
        b.d_prev[after] = 0
        b.d_last[after] = b.d_last[e]
        b.t_head[i] = after
        return
    close_gap(b.t_head, b.e_key, i, 0)


@inline
def take_bare(b, n):
    """Of ``n`` blocks from the front of the free queue hand out those before the first cached one; returns how many are still to come."""
    k = min(n, b.fresh)
    b.fresh -= k
    n -= k
    while n > 0:
        e = b.e_next[0]
        if b.e_key[e] != 0:
            break
        k = min(n, b.e_ref[e])
        b.e_ref[e] -= k
        n -= k
        if b.e_ref[e] == 0:
            unlink_entry(b, e)
            b.spare[b.n_spare] = e
            b.n_spare += 1
    return n


@inline
def take_blocks(b, n):
    """Hand out ``n`` blocks from the front of the free queue; there must be as many. Cached ones lose their content."""
    b.free -= n
    if not b.caching:
        return
    n = take_bare(b, n)
    while n > 0:
        e = b.e_next[0]
        unlink_entry(b, e)
        forget_entry(b, e)
        n = take_bare(b, n - 1)


@inline
def touch_block(b, e):
    """One more request holds a cached block."""
    if b.e_ref[e] == 0:
        unlink_entry(b, e)
        b.free -= 1
    b.e_ref[e] += 1


@inline
def give_back_run(b, n):
    """``n`` blocks that nobody can ask for, to the end of the queue."""
    if n > 0:
        e = new_entry(b)
        b.e_ref[e] = n
        append_entry(b, e)


@inline
def give_back_blocks(b, plain, unasked, held, row, n):
    """A request's blocks, last first: ``plain`` without a hash, ``unasked`` with one that nobody can ask for, ``held[row, :n]`` entries."""
    b.free += plain + unasked
    if not b.caching:
        return
    if b.lifo:
        b.fresh += plain
    else:
        give_back_run(b, plain)
    give_back_run(b, unasked)
    for i in range(n - 1, -1, -1):
        e = held[row, i]
        b.e_ref[e] -= 1
        if b.e_ref[e] == 0:
            b.free += 1
            append_entry(b, e)
