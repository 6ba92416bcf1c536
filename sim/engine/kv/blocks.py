# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Paged KV blocks with a prefix cache of hashed full blocks and one free queue, as in vLLM (``v1/core/block_pool.py``).

Which physical block a request gets decides nothing, so a block without a hash is only counted. What has an identity is an *entry*: a
block that carries a hash (``e_key``), or, for many blocks that nobody can ask for, a *run* of them (``e_key`` 0, ``e_ref`` = how many).
The free queue is: ``fresh`` blocks without a hash at the front, then a list of entries in the order in which they were given back.
With caching off there are only two counters.

All that is known of an entry lies side by side in one row (half a line of the processor's cache), and the table has a part of each key beside its
entry: what many replicas keep does not fit into the caches, and each line that has to be fetched costs more than all that is done with it.
"""

import numpy as np

from sim.engine.borrow import keep
from sim.engine.prefetch import prefetch
from sim.jit import b1, i4s, i4ss, i4x, i8, i8x, inline, kernel, new, struct

_FIRST = 1024  # entries to begin with: a replica that caches little takes little memory
_ROW = 8  # i4 per entry: two for the key, the six others
_LOW = 0x7FFFFFFF  # bits of a key that the table keeps


@struct
class BlockPool:
    """Entry 0 is the sentinel of the free list; in links 0 means none. Keys are 64-bit hashes, never 0."""

    total: i8  # usable blocks
    free: i8  # blocks in the free queue
    caching: b1
    lifo: b1  # blocks without a hash go back to the front of the queue (else to its end)
    fresh: i8
    evicted: i8  # cached blocks whose content was lost, since the start
    entries: i4ss  # the rows, of which the following are the columns
    e_key: i8x
    e_ref: i4x  # requests that hold the block; of a run: its blocks
    e_next: i4x  # free list, front first
    e_prev: i4x
    d_next: i4x  # blocks with the same hash, oldest first
    d_prev: i4x
    d_last: i4x  # of the oldest: the newest
    n_spare: i8
    spare: i4s
    mask: i8
    t_head: i4x  # hash table, open addressing: oldest entry with a key, 0: empty
    t_low: i4x  # low bits of its key


@inline
def _set_entries(b, entries):
    """The columns of these rows."""
    own = keep(b)
    own.entries = entries
    own.e_key = entries.view(np.int64)[:, 0]
    own.e_ref = entries[:, 2]
    own.e_next = entries[:, 3]
    own.e_prev = entries[:, 4]
    own.d_next = entries[:, 5]
    own.d_prev = entries[:, 6]
    own.d_last = entries[:, 7]


@inline
def _set_table(b, size):
    """An empty table of so many places, a power of two."""
    own = keep(b)
    table = np.zeros((size, 2), np.int32)
    own.t_head = table[:, 0]
    own.t_low = table[:, 1]
    b.mask = size - 1


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
    _set_entries(b, np.zeros((n, _ROW), np.int32))
    b.spare = np.empty(n, np.int32)
    for i in range(n - 1):
        b.spare[i] = n - 1 - i
    b.n_spare = n - 1
    size = 8
    while size < 2 * n:
        size *= 2
    _set_table(b, size)
    return b


@kernel
def _more_entries(b):
    """Double the entries: there are never more than blocks + 2, as every entry in use stands for at least one block."""
    own = keep(b)
    old = b.e_key.size
    n = 2 * old
    rows = np.zeros((n, _ROW), np.int32)
    rows[:old] = b.entries
    _set_entries(b, rows)
    own.spare = np.empty(n, np.int32)  # all in use: the stack is empty
    for i in range(old):
        b.spare[i] = n - 1 - i
    b.n_spare = old
    heads, lows = b.t_head, b.t_low
    _set_table(b, 2 * heads.size)
    mask = b.mask
    for j in range(heads.size):
        if heads[j] != 0:
            i = lows[j] & mask
            while b.t_head[i] != 0:
                i = (i + 1) & mask
            b.t_head[i] = heads[j]
            b.t_low[i] = lows[j]


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
    low = key & _LOW
    while True:
        e = b.t_head[i]
        if e == 0 or (b.t_low[i] == low and b.e_key[e] == key):
            return e
        i = (i + 1) & b.mask


@inline
def expect_key(b, key):
    """This key will be looked for."""
    prefetch(b.t_head, key & b.mask)


@inline
def expect_block(b, key):
    """And the block that has it, most likely, will be looked at; its place in the table is there."""
    prefetch(b.e_key, b.t_head[key & b.mask])


@inline
def expect_new(b, k):
    """The entry that `new_entry` gives after ``k`` others will be written to."""
    if k < b.n_spare:
        prefetch(b.e_key, b.spare[b.n_spare - 1 - k])


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
    low = key & _LOW
    while True:
        oldest = b.t_head[i]
        if oldest == 0:
            b.t_head[i] = e
            b.t_low[i] = low
            return
        if b.t_low[i] == low and b.e_key[oldest] == key:
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
    if before != 0 and after != 0:
        b.d_next[before] = after
        b.d_prev[after] = before
        return
    mask = b.mask
    key = b.e_key[e]
    i = key & mask
    low = key & _LOW
    while b.t_low[i] != low or b.e_key[b.t_head[i]] != key:
        i = (i + 1) & mask
    if before != 0:
        b.d_next[before] = 0
        b.d_last[b.t_head[i]] = before
        return
    if after != 0:
        b.d_prev[after] = 0
        b.d_last[after] = b.d_last[e]
        b.t_head[i] = after
        return
    # close the gap in the probe sequence
    j = i
    while True:
        j = (j + 1) & mask
        other = b.t_head[j]
        if other == 0:
            break
        home = b.t_low[j] & mask
        if ((j - home) & mask) >= ((j - i) & mask):
            b.t_head[i] = other
            b.t_low[i] = b.t_low[j]
            i = j
    b.t_head[i] = 0


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
