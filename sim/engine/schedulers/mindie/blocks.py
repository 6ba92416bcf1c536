# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Blocks of a request: allocate a prompt, append a token, give back (``src/block_manager/self_attn_block_manager.cpp``, ``block_table.cpp``).

Without the prefix cache a request has a number of blocks and nothing more; with it, a row of physical blocks.
"""

import numpy as np

from sim.engine.borrow import keep
from sim.engine.kv.block_hash import extend_keys, first_key
from sim.engine.kv.mindie_blocks import drop_block, fill_block, is_computed, take_block, take_full_block
from sim.engine.outline import outlined
from sim.engine.schedulers.mindie.state import (
    CAP,
    COMP,
    HASHED,
    HIT,
    HOLD,
    HOST,
    PROMPT,
    RECOMPUTED,
    ROW,
    SWAPPED_OUT,
    TABLE,
    MindieState,
)
from sim.engine.state import log_event
from sim.jit import inline, kernel


@inline
def blocks_for(s, tokens):
    """Blocks that hold so many tokens."""
    return (tokens + s.block_size - 1) // s.block_size


@inline
def length(s, slot):
    """Tokens of a request that the scheduler knows, placeholders included."""
    return np.int64(s.r_prompt[slot]) + s.r_done[slot] + s.x[slot, HOLD]


@outlined(MindieState)
def _look_up(s, slot, tokens):
    n = tokens // s.block_size
    extend_keys(s, slot, 0, n, first_key(s.r_lora[slot]), s.keys)
    found = 0
    while found < n and is_computed(s.kv, s.keys[found]):
        found += 1
    return found * s.block_size


@inline
def look_up(s, slot, tokens):
    """Tokens at the beginning whose keys and values are known; fills ``s.keys``. Always 0 without the prefix cache."""
    return _look_up(s, slot, tokens) if s.caching else 0


@kernel
def _more_rows(s):
    own = keep(s)
    n, m = s.held.shape
    held = np.zeros((2 * n, m), np.int32)
    numbers = np.zeros((3, 2 * n), np.int32)
    for i in range(n):
        for j in range(m):
            held[i, j] = s.held[i, j]
        numbers[0, i] = s.r_count[i]
        numbers[1, i] = s.r_tick[i]
        numbers[2, i] = s.r_tokens[i]
    own.held = held
    own.r_count = numbers[0].copy()
    own.r_tick = numbers[1].copy()
    own.r_tokens = numbers[2].copy()
    own.rows = np.empty(2 * n, np.int32)
    for i in range(n):
        s.rows[i] = 2 * n - 1 - i
    s.n_rows = n


@outlined(MindieState)
def _allocate_cached(s, slot, tokens):
    """Full blocks by their content, shared with whoever has them (``AllocateImmutableBlocks``)."""
    kv = s.kv
    if s.n_rows == 0:
        _more_rows(s)
    s.n_rows -= 1
    row = s.rows[s.n_rows]
    n = tokens // s.block_size
    hit = 0
    for i in range(n):
        block = take_full_block(kv, s.keys[i], (i + 1) * s.block_size)
        s.held[row, i] = block
        if hit == i and kv.b_new[block] == 0:
            hit += 1
    count = n
    if tokens > n * s.block_size:
        s.held[row, n] = take_block(kv)
        count += 1
    s.r_count[row] = count
    s.r_tokens[row] = tokens
    s.r_tick[row] = int(s.now / s.tick)
    if n > 0:
        s.r_key[slot] = s.keys[n - 1]
    x = s.x
    x[slot, ROW] = row
    x[slot, HASHED] = n
    x[slot, HIT] = hit
    x[slot, CAP] = count * s.block_size
    s.free_blocks = kv.free
    return hit


@inline
def allocate(s, slot, tokens):
    """Blocks for a whole prompt; the caller has seen to it that there are enough. With the prefix cache after `look_up`."""
    x = s.x
    if s.caching:
        _allocate_cached(s, slot, tokens)
    else:
        n = blocks_for(s, tokens)
        s.free_blocks -= n
        x[slot, CAP] = n * s.block_size
        x[slot, HIT] = 0
    x[slot, TABLE] = tokens


@inline
def blocks_to_append(s, slot):
    """Blocks that must be free before a decode (``GetNumRelatedBlocks``): look-ahead blocks that the request has already do not count."""
    x = s.x
    size = s.block_size
    if s.gamma == 0 and x[slot, PROMPT] == 0:
        return 1 if length(s, slot) > x[slot, CAP] else 0
    n = length(s, slot) - x[slot, TABLE] + s.gamma
    empty = size - x[slot, TABLE] % size
    if empty == size:
        return (n + size - 1) // size
    return 0 if empty >= n else (n - empty + size - 1) // size


@outlined(MindieState)
def _append_cached(s, slot, blocks):
    kv = s.kv
    x = s.x
    row = x[slot, ROW]
    for _ in range(blocks):
        s.held[row, s.r_count[row]] = take_block(kv)
        s.r_count[row] += 1
    tokens = length(s, slot)
    s.r_tokens[row] = tokens
    s.r_tick[row] = int(s.now / s.tick)
    if s.gamma == 0:  # placeholders keep later blocks from ever having a hash
        n = tokens // s.block_size
        first = np.int64(x[slot, HASHED])
        if n > first:
            parent = s.r_key[slot] if first > 0 else first_key(s.r_lora[slot])
            extend_keys(s, slot, first, n, parent, s.keys)
            for i in range(first, n):
                s.held[row, i] = fill_block(kv, s.held[row, i], s.keys[i], (i + 1) * s.block_size)
            s.r_key[slot] = s.keys[n - 1]
            x[slot, HASHED] = n
    s.free_blocks = kv.free
    return 0


@inline
def append(s, slot):
    """The table takes up the tokens that have come since; room for the next and for look-ahead slots."""
    x = s.x
    tokens = length(s, slot)
    need = 0
    if tokens + s.gamma > x[slot, CAP]:
        need = blocks_for(s, tokens + s.gamma) - x[slot, CAP] // s.block_size
        x[slot, CAP] += need * s.block_size
    x[slot, TABLE] = tokens
    if s.caching:
        _append_cached(s, slot, need)
    else:
        s.free_blocks -= need


@kernel
def free_row(s, row):
    """Give the blocks of a row back, first to last."""
    kv = s.kv
    for i in range(s.r_count[row]):
        drop_block(kv, s.held[row, i], s.r_tick[row], min((i + 1) * s.block_size, np.int64(s.r_tokens[row])))
    s.rows[s.n_rows] = row
    s.n_rows += 1
    s.free_blocks = kv.free


@inline
def holdings(s, slot):
    """What a finished request leaves behind until it is dequeued, as an entry of ``run``."""
    return -1 - (s.x[slot, ROW] if s.caching else s.x[slot, CAP] // s.block_size)


@inline
def drop_entry(s, entry):
    """A finished request is dequeued: its blocks are free."""
    if s.caching:
        free_row(s, -1 - entry)
    else:
        s.free_blocks += -1 - entry


@inline
def preempt(s, slot, swapped):
    """Take a request's blocks away (``FcfsPolicy::Preempt``): to host memory, or to be computed again. Returns swaps of this round."""
    x = s.x
    n = x[slot, CAP] // s.block_size
    s.r_preempt[slot] += 1
    s.n_preempted += 1
    if swapped < s.max_preempt and max(blocks_for(s, length(s, slot)), n) <= s.host_free:
        s.host_free -= n
        s.free_blocks += n
        x[slot, HOST] = n
        x[slot, CAP] = 0
        s.swap[s.n_swap] = slot
        s.n_swap += 1
        log_event(s, SWAPPED_OUT, s.r_id[slot], n)
        return swapped + 1
    if s.caching:
        free_row(s, x[slot, ROW])
        x[slot, ROW] = -1
        x[slot, HASHED] = 0
    else:
        s.free_blocks += n
    x[slot, CAP] = 0
    x[slot, HOLD] = 0
    x[slot, COMP] = 0
    x[slot, PROMPT] = 1
    log_event(s, RECOMPUTED, s.r_id[slot], 0)
    return swapped
