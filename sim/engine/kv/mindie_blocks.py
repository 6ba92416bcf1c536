# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Physical KV blocks with MindIE's prefix cache (``src/block_manager/prefix_cache_block_allocator.cpp``, ``lru_evictor.cpp``).

A full block is known by the chained hash of its content, and there is one block per hash: a request whose prompt or output fills a block
that exists shares it. A freed block without a hash goes to the end of a free queue; one with a hash stays findable until the free queue
is empty and it is evicted: the least recently used first, of these the one furthest from the start of its sequence. Equal ones leave in
the order of a binary heap, which is reproduced. A block counts as *computed* from the end of the scheduling round that filled it.

Block 0 does not exist; in tables 0 means none. Keys are 64-bit hashes, never 0.
"""

import numpy as np

from sim.engine.borrow import keep
from sim.engine.kv.probing import close_gap
from sim.jit import i4s, i8, i8s, inline, kernel, new, struct

_HEAP_SLACK = 50  # the heap is rebuilt when it holds so many times more entries than there are candidates


@struct(viewed=True)
class MindieBlocks:
    """``free`` = blocks in the free queue + blocks that may be evicted."""

    total: i8
    free: i8
    f_slot: i4s  # free queue, a ring
    f_head: i8
    f_len: i8
    b_key: i8s  # hash of the content, 0: none
    b_ref: i4s
    b_new: i4s  # 1: filled in this round, not yet computed
    b_tick: i4s  # last access, in ticks of the clock; −1: not a candidate for eviction
    b_tokens: i4s  # tokens from the start of its sequence to its end
    n_new: i8
    new_blocks: i4s
    n_out: i8  # candidates for eviction
    h_n: i8  # heap of candidates; entries of blocks that were used again stay until they surface
    h_block: i4s
    h_tick: i4s
    h_tokens: i4s
    mask: i8
    t_block: i4s  # hash table, open addressing: block with a key, 0: empty
    evicted: i8


@kernel
def new_mindie_blocks(blocks):
    """``blocks`` free blocks, nothing cached."""
    b = new(MindieBlocks)
    n = blocks + 1
    b.total = blocks
    b.free = blocks
    b.f_slot = np.empty(n, np.int32)
    for i in range(blocks):
        b.f_slot[i] = i + 1
    b.f_head = 0
    b.f_len = blocks
    b.b_key = np.zeros(n, np.int64)
    b.b_ref = np.zeros(n, np.int32)
    b.b_new = np.zeros(n, np.int32)
    b.b_tick = np.full(n, -1, np.int32)
    b.b_tokens = np.zeros(n, np.int32)
    b.n_new = 0
    b.new_blocks = np.empty(n, np.int32)
    b.n_out = 0
    b.h_n = 0
    b.h_block = np.empty(64, np.int32)
    b.h_tick = np.empty(64, np.int32)
    b.h_tokens = np.empty(64, np.int32)
    size = 8
    while size < 2 * n:
        size *= 2
    b.mask = size - 1
    b.t_block = np.zeros(size, np.int32)
    b.evicted = 0
    return b


@inline
def find_block(b, key):
    """The block with this hash, 0 if there is none."""
    i = key & b.mask
    while True:
        e = b.t_block[i]
        if e == 0 or b.b_key[e] == key:
            return np.int64(e)
        i = (i + 1) & b.mask


@kernel
def _heap_push(b, block, tick, tokens):
    """Like ``std::push_heap``: up from the end, past parents that are less urgent."""
    if b.h_n == b.h_block.size:
        m = 2 * b.h_n
        blocks = np.empty(m, np.int32)
        ticks = np.empty(m, np.int32)
        counts = np.empty(m, np.int32)
        for j in range(b.h_n):
            blocks[j] = b.h_block[j]
            ticks[j] = b.h_tick[j]
            counts[j] = b.h_tokens[j]
        own = keep(b)
        own.h_block = blocks
        own.h_tick = ticks
        own.h_tokens = counts
    _heap_up(b, b.h_n, block, tick, tokens)
    b.h_n += 1


@inline
def _heap_up(b, hole, block, tick, tokens):
    while hole > 0:
        up = (hole - 1) // 2
        if not (b.h_tick[up] > tick or (b.h_tick[up] == tick and b.h_tokens[up] < tokens)):
            break
        b.h_block[hole] = b.h_block[up]
        b.h_tick[hole] = b.h_tick[up]
        b.h_tokens[hole] = b.h_tokens[up]
        hole = up
    b.h_block[hole] = block
    b.h_tick[hole] = tick
    b.h_tokens[hole] = tokens


@inline
def _heap_pop(b):
    """Like ``std::pop_heap``: the hole sinks to a leaf, then the last entry rises from there. Returns block and tick of the top."""
    block, tick = b.h_block[0], b.h_tick[0]
    b.h_n -= 1
    n = b.h_n
    hole = 0
    child = 0
    while child < (n - 1) // 2:
        child = 2 * (child + 1)
        left = child - 1
        if b.h_tick[child] > b.h_tick[left] or (b.h_tick[child] == b.h_tick[left] and b.h_tokens[child] < b.h_tokens[left]):
            child = left
        b.h_block[hole] = b.h_block[child]
        b.h_tick[hole] = b.h_tick[child]
        b.h_tokens[hole] = b.h_tokens[child]
        hole = child
    if n % 2 == 0 and n > 0 and child == (n - 2) // 2:
        child = 2 * child + 1
        b.h_block[hole] = b.h_block[child]
        b.h_tick[hole] = b.h_tick[child]
        b.h_tokens[hole] = b.h_tokens[child]
        hole = child
    if n > 0:
        _heap_up(b, hole, b.h_block[n], b.h_tick[n], b.h_tokens[n])
    return block, tick


@kernel
def _forget(b, block):
    """Take a block's hash away; close the gap in the probe sequence."""
    mask = b.mask
    i = b.b_key[block] & mask
    while b.t_block[i] != block:
        i = (i + 1) & mask
    b.b_key[block] = 0
    close_gap(b.t_block, b.b_key, i, 0)


@kernel
def take_block(b):
    """A block without content, held once; there must be a free one. May evict cached content."""
    b.free -= 1
    if b.f_len > 0:
        block = b.f_slot[b.f_head]
        b.f_head = (b.f_head + 1) % b.f_slot.size
        b.f_len -= 1
    else:
        while True:
            block, tick = _heap_pop(b)
            if b.b_tick[block] == tick:
                break
        b.b_tick[block] = -1
        b.n_out -= 1
        b.evicted += 1
        _forget(b, block)
    b.b_ref[block] = 1
    return np.int64(block)


@inline
def _hold(b, block):
    if b.b_ref[block] == 0:
        b.b_tick[block] = -1
        b.n_out -= 1
        b.free -= 1
    b.b_ref[block] += 1


@kernel
def drop_block(b, block, tick, tokens):
    """One holder less, who last used it at ``tick``; ``tokens`` from the start of its sequence to the block's end."""
    b.b_ref[block] -= 1
    if b.b_ref[block] > 0:
        return
    b.free += 1
    if b.b_key[block] == 0:
        b.f_slot[(b.f_head + b.f_len) % b.f_slot.size] = block
        b.f_len += 1
        return
    b.b_tick[block] = tick
    b.n_out += 1
    _heap_push(b, block, tick, tokens)
    if b.h_n > _HEAP_SLACK * b.n_out:
        b.h_n = 0
        for other in range(1, b.total + 1):
            if b.b_tick[other] >= 0:
                _heap_push(b, other, b.b_tick[other], b.b_tokens[other])


@kernel
def fill_block(b, block, key, tokens):
    """A held block is full and has this hash: returns it, or the block that has the hash already, now held instead."""
    known = find_block(b, key)
    if known != 0:
        drop_block(b, block, 0, 0)
        _hold(b, known)
        return known
    b.b_key[block] = key
    b.b_tokens[block] = tokens
    b.b_new[block] = 1
    b.new_blocks[b.n_new] = block
    b.n_new += 1
    i = key & b.mask
    while b.t_block[i] != 0:
        i = (i + 1) & b.mask
    b.t_block[i] = block
    return np.int64(block)


@kernel
def take_full_block(b, key, tokens):
    """A block with this content: the one that exists, else a new one."""
    known = find_block(b, key)
    if known != 0:
        _hold(b, known)
        return known
    return fill_block(b, take_block(b), key, tokens)


@inline
def is_computed(b, key):
    """Whether a block with this hash exists whose keys and values exist."""
    block = find_block(b, key)
    return block != 0 and b.b_new[block] == 0


@inline
def mark_computed(b):
    """The scheduling round ends: what it filled counts as computed from now on."""
    for i in range(b.n_new):
        b.b_new[b.new_blocks[i]] = 0
    b.n_new = 0
