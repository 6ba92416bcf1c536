# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Blocks of a request: look up, allocate, register, give back (``v1/core/kv_cache_manager.py``, ``single_type_kv_cache_manager.py``)."""

import numpy as np

from sim.engine.borrow import keep
from sim.engine.kv.block_hash import extend_keys, first_key
from sim.engine.kv.blocks import cached_block, give_back_blocks, put_block, take_blocks, touch_block
from sim.engine.schedulers.vllm.queues import queue_add
from sim.engine.schedulers.vllm.seam import ask_for, commit, release
from sim.engine.schedulers.vllm.state import (
    CACHED,
    CAP,
    COMP,
    INFL,
    KNOWN,
    LAST_SEQ,
    LAZY,
    NEVER,
    NEXT,
    NSPEC,
    PH,
    PREEMPTED,
    PREEMPTION,
    PREFILLING,
    ROW,
    STALE,
    STATUS,
    WAITING,
)
from sim.engine.state import log_event
from sim.jit import inline, kernel

ONE = np.int64(1)  # arguments given as literals would compile the callee once more
ZERO = np.int64(0)


@kernel
def _more_rows(s):
    """Double the rows of `held`."""
    own = keep(s)
    n, m = s.held.shape
    bigger = np.empty((2 * n, m), np.int32)
    for i in range(n):
        for j in range(m):
            bigger[i, j] = s.held[i, j]
    own.held = bigger
    own.rows = np.empty(2 * n, np.int32)
    for i in range(n):
        s.rows[i] = 2 * n - 1 - i
    s.n_rows = n


@inline
def _register(s, slot, first, n):
    """Blocks [first, n) become known by their hash, in this order."""
    x = s.r_x
    keys = s.keys
    if s.key_slot != slot or s.n_keys < n:
        keys = s.new_keys
        parent = s.r_key[slot] if first > 0 else first_key(s.r_lora[slot])
        extend_keys(s, slot, first, n, parent, keys)
    if x[slot, ROW] < 0:
        if s.n_rows == 0:
            _more_rows(s)
        s.n_rows -= 1
        x[slot, ROW] = s.rows[s.n_rows]
    row = x[slot, ROW]
    for i in range(first, n):
        s.held[row, i] = put_block(s.kv, keys[i])
    s.r_key[slot] = keys[n - 1]


def commit_plain(s, slot, tokens):
    """See `seam.commit`."""
    x = s.r_x
    n = min(tokens, x[slot, KNOWN] - s.hash_ahead) // s.block_size
    have = np.int64(max(x[slot, CACHED], 0))
    if s.kv.caching and n > have:
        if x[slot, LAZY] == 0:
            _register(s, slot, have, n)
        x[slot, CACHED] = n
        x[slot, NEXT] = (n + 1) * s.block_size


@inline
def keys_up_to(s, slot, n):
    """See that ``s.keys`` has the hashes of at least the first ``n`` blocks of a request."""
    if s.key_slot != slot:
        s.key_slot = slot
        s.n_keys = 0
    if s.n_keys < n:
        parent = s.keys[s.n_keys - 1] if s.n_keys > 0 else first_key(s.r_lora[slot])
        extend_keys(s, slot, s.n_keys, n, parent, s.keys)
        s.n_keys = n


@inline
def look_up(s, slot):
    """Longest cached prefix in blocks, into ``s.hits``; at least one token is left to compute."""
    x = s.r_x
    if not s.kv.caching or x[slot, LAZY] == 1:
        return 0
    known = np.int64(x[slot, KNOWN])
    n = min(known - s.hash_ahead, known - 1) // s.block_size
    keys_up_to(s, slot, n)
    found = 0
    while found < n:
        e = cached_block(s.kv, s.keys[found])
        if e == 0:
            break
        s.hits[found] = e
        found += 1
    return found - 1 if s.drop_hit and found > 0 else found


def grant_plain(s, slot, new):
    """See `seam.grant`; ``s.n_hits`` counts blocks, and nothing changes where there are too few."""
    n_hits = s.n_hits
    ext = s.ext
    x = s.r_x
    kv = s.kv
    size = s.block_size
    known = np.int64(x[slot, KNOWN])
    status = x[slot, STATUS]
    spare = kv.free
    if s.admitting and s.n_run > 0 and (status == WAITING or status == PREEMPTED):
        spare -= s.watermark
    have = x[slot, CAP] // size + n_hits
    for i in range(n_hits):
        if kv.e_ref[s.hits[i]] == 0:
            spare -= 1  # it is handed out like a free one
    if s.admitting and s.full_isl and max((min(known, s.max_len) + size - 1) // size - have, 0) > spare:
        return False
    done = np.int64(x[slot, COMP]) + n_hits * size + ext + new
    total = min(done + (0 if ext > 0 else s.lookahead), s.max_len)
    need = max((total + size - 1) // size - have, 0)
    if need > spare - s.reserved:
        return False
    if x[slot, CACHED] < 0:
        x[slot, CACHED] = n_hits
        x[slot, NEXT] = (n_hits + 1) * size if kv.caching else NEVER
    if n_hits > 0:
        if s.n_rows == 0:
            _more_rows(s)
        s.n_rows -= 1
        row = s.rows[s.n_rows]
        x[slot, ROW] = row
        for i in range(n_hits):
            touch_block(kv, s.hits[i])
            s.held[row, i] = s.hits[i]
        s.r_key[slot] = s.keys[n_hits - 1]
    take_blocks(kv, need)
    x[slot, CAP] = (have + need) * size
    if ext == 0 and min(done, known) >= x[slot, NEXT]:
        commit(s, slot, min(done, known))
    return True


@inline
def can_free(s, slot):
    """With deferred frees, blocks of a request in flight cannot be given back."""
    return not s.defer_free or s.r_x[slot, LAST_SEQ] <= s.seq_p


def release_plain(s, slot):
    """See `seam.release`."""
    x = s.r_x
    blocks = x[slot, CAP] // s.block_size
    cached = np.int64(max(x[slot, CACHED], 0))
    lazy = x[slot, LAZY] == 1
    row = x[slot, ROW]
    x[slot, CAP] = 0
    x[slot, CACHED] = -1
    x[slot, ROW] = -1
    x[slot, NEXT] = NEVER
    x[slot, PREFILLING] = 0
    if s.defer_free and x[slot, LAST_SEQ] > s.seq_p:
        if blocks > 0:
            at = (s.df_head + s.df_len) % s.df.shape[0]
            s.df_len += 1
            s.df[at, 0] = s.seq_s
            s.df[at, 1] = blocks - cached
            s.df[at, 2] = cached if lazy else 0
            s.df[at, 3] = row
            s.df[at, 4] = 0 if lazy else cached
        return
    unasked = cached if lazy else ZERO
    give_back_blocks(s.kv, blocks - cached, unasked, s.held, row, cached - unasked)
    if row >= 0:
        s.rows[s.n_rows] = row
        s.n_rows += 1


def settle_plain(s):
    """See `seam.settle`."""
    while s.df_len > 0 and s.df[s.df_head, 0] <= s.seq_p:
        i = s.df_head
        row = s.df[i, 3]
        give_back_blocks(s.kv, np.int64(s.df[i, 1]), np.int64(s.df[i, 2]), s.held, row, np.int64(s.df[i, 4]))
        if row >= 0:
            s.rows[s.n_rows] = row
            s.n_rows += 1
        s.df_head = (i + 1) % s.df.shape[0]
        s.df_len -= 1


def ask_for_plain(s, slot):
    """See `seam.ask_for`."""
    if s.r_x[slot, CACHED] > 0:
        _register(s, slot, ZERO, np.int64(s.r_x[slot, CACHED]))


def hit_tokens_plain(s, slot):
    """See `seam.hit_tokens`."""
    s.n_hits = look_up(s, slot)
    return s.n_hits * s.block_size


def blocks_to_come_plain(s, slot):
    """See `seam.blocks_to_come`."""
    n = min(s.r_x[slot, KNOWN], s.max_len)
    if s.k_spec > 0:
        n += 1 + s.k_spec + s.lookahead
    return max((n + s.block_size - 1) // s.block_size - s.r_x[slot, CAP] // s.block_size, 0)


def blocks_of_drafts_plain(s):
    """See `seam.blocks_of_drafts`."""
    return (1 + s.k_spec + s.lookahead + s.block_size - 1) // s.block_size if s.k_spec > 0 else 0


def never_fits_plain(s, prompt):
    """See `seam.never_fits`."""
    return (prompt + s.block_size - 1) // s.block_size > s.kv.total


@kernel
def preempt(s, slot):
    """All blocks back, everything to be computed again; first in the queue (``_preempt_request``)."""
    x = s.r_x
    if s.kv.caching and x[slot, LAZY] == 1:
        x[slot, LAZY] = 0
        ask_for(s, slot)
    release(s, slot)
    x[slot, STATUS] = PREEMPTED
    x[slot, COMP] = 0
    x[slot, NSPEC] = 0
    x[slot, STALE] = x[slot, INFL]
    x[slot, PH] = 0
    s.r_preempt[slot] += 1
    s.n_preempted += 1
    queue_add(s, s.wq, slot, ONE)
    s.stuck = False
    log_event(s, PREEMPTION, s.r_id[slot], ZERO)
