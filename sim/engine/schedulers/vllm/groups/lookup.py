# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Prefix hits over groups: each kind of group says how far it can go, until none shortens it (``v1/core/kv_cache_coordinator.py``).

Groups of equal spec are looked up together: a block counts only where all of them have it. The hash chain runs in units of
``s.block_size``; the key of a place is the chain's at the end of its block, mixed with the number of the spec group.
"""

import numpy as np

from sim.engine.kv.block_hash import extend_keys, first_key, mix
from sim.engine.kv.blocks import cached_block, expect_block, expect_key
from sim.engine.outline import outlined
from sim.engine.schedulers.vllm.groups.pool import owner_of
from sim.engine.schedulers.vllm.groups.state import (
    AHEAD,
    CHUNKED,
    DROPS,
    FULL,
    JUNCTION,
    KIND,
    SIZE,
    SLIDING,
    WINDOW,
    GroupState,
    row_of,
)
from sim.engine.schedulers.vllm.state import KNOWN, LAZY
from sim.jit import inline, kernel


@inline
def group_key(key, a):
    """Key of a block of the groups of spec group ``a``, never 0."""
    k = mix(key, a + 1)
    return k if k != 0 else np.int64(1)


@inline
def keys_upto(s, slot, row):
    """Chain keys of all full units of the known tokens; returns how many there are. Of lazy requests they are only counted."""
    n = (np.int64(s.r_x[slot, KNOWN]) - s.hash_ahead) // s.block_size
    have = np.int64(s.rk_n[row])
    if n > have and s.r_x[slot, LAZY] == 0:
        parent = s.rk[row, have - 1] if have > 0 else first_key(s.r_lora[slot])
        extend_keys(s, slot, have, n, parent, s.rk[row])
        s.rk_n[row] = n
    return max(n, 0)


@inline
def _present(s, a, key, place):
    """Whether all groups of spec group ``a`` have the key; their entries go into the hits at ``place``."""
    kv = s.kv
    e = cached_block(kv, group_key(key, a))
    left = s.spec_len[a]
    if left == 1:
        if e != 0:
            e = owner_of(s, e)
        s.hit[s.spec_of[a, 0], place] = e
        return e != 0
    if e == 0:
        return False
    hit = s.hit
    for j in range(left):
        hit[s.spec_of[a, j], place] = 0
    while e != 0:
        g = s.k_group[e]
        if hit[g, place] == 0:  # the oldest of each group
            hit[g, place] = owner_of(s, e)
            left -= 1
            if left == 0:
                return True
        e = kv.d_next[e]
    return False


@inline
def _expect(s, a, row, per, lo, hi):
    """Places [lo, hi) are looked for next."""
    kv, chain, keys = s.kv, s.rk[row], s.ahead
    for i in range(lo, hi):
        keys[i - lo] = group_key(chain[(i + 1) * per - 1], a)
        expect_key(kv, keys[i - lo])
    for i in range(lo, hi):
        expect_block(kv, keys[i - lo])


@inline
def _nothing(s, a, lo, hi):
    """Null blocks at [lo, hi)."""
    for j in range(s.spec_len[a]):
        g = s.spec_of[a, j]
        for i in range(lo, hi):
            s.hit[g, i] = 0


@kernel
def _find_full(s, a, row, longest, n_keys, align, drop):
    """From the left as far as it goes; (blocks, tokens)."""
    size = s.g[s.spec_of[a, 0], SIZE]
    unit = s.block_size
    per = size // unit
    n = ahead = np.int64(0)
    most = min(longest // size, n_keys // per)
    while n < most:
        if n == ahead:
            ahead = min(n + AHEAD, most)
            _expect(s, a, row, per, n, ahead)
        if not _present(s, a, s.rk[row, (n + 1) * per - 1], n):
            break
        n += 1
    tokens = n * size
    if s.fine and per > 1:
        first = n * per
        for i in range(min(min(first + per - 1, longest // unit), n_keys) - 1, first - 1, -1):
            if _present(s, a, s.rk[row, i], n):
                tokens = (i + 1) * unit
                break
    if drop and tokens > 0:
        tokens -= min(align, size)
    tokens -= tokens % align
    return (tokens + size - 1) // size, tokens


@inline
def _last_run(s, a, row, end, per, need):
    """Where the last run of ``need`` cached blocks before place ``end`` ends; 0: there is none. Each end may be that of a hit."""
    while end >= need:
        if not _present(s, a, s.rk[row, (end - need + 1) * per - 1], end - need):
            end -= need  # every run that ends later would have this block
            continue
        i = end - 1
        ahead = end
        while i > end - need:
            if i < ahead:
                first = max(ahead - AHEAD, end - need + 1)
                _expect(s, a, row, per, first, ahead)
                ahead = first
            if not _present(s, a, s.rk[row, (i + 1) * per - 1], i):
                break
            i -= 1
        if i == end - need:
            return end
        end = i
    return np.int64(0)


@kernel
def _find_sliding(s, a, row, longest, n_keys, align, drop):
    """From the right: the last run of blocks as long as the window, or the run at the very beginning."""
    g = s.spec_of[a, 0]
    size = s.g[g, SIZE]
    per = size // s.block_size
    need = (s.g[g, WINDOW] - 1 + size - 1) // size + (1 if drop else 0)
    if size == align and not drop and need > 0:
        n = _last_run(s, a, row, longest // size, per, need)
        if n > 0:
            _nothing(s, a, 0, n - need)
            return n, n * size
        while n < min(longest // size, need) and _present(s, a, s.rk[row, (n + 1) * per - 1], n):
            n += 1
        return n, n * size
    run = np.int64(0)
    n = np.int64(0)
    found = False
    i = longest // size - 1
    while i >= 0:
        if _present(s, a, s.rk[row, (i + 1) * per - 1], i):
            if run > 0 or size == align or ((i if drop else i + 1) * size) % align == 0:
                run += 1
                if run >= need:
                    n = i + run
                    found = True
                    break
        else:
            run = 0
        i -= 1
    if found:
        _nothing(s, a, 0, i)
    else:
        n = run
        while n * size % align != 0:
            n -= 1
    if drop and n > 0:
        n -= 1
        while n * size % align != 0:
            n -= 1
    return n, n * size


@kernel
def _find_chunked(s, a, row, longest):
    """What lies before the chunk counts as there."""
    size = s.g[s.spec_of[a, 0], SIZE]
    per = size // s.block_size
    n = longest // s.chunk * s.chunk // size
    _nothing(s, a, 0, n)
    while n < longest // size and _present(s, a, s.rk[row, (n + 1) * per - 1], n):
        n += 1
    return n, n * size


@kernel
def _find_state(s, a, row, longest, n_keys, align):
    """The last single state."""
    size = s.g[s.spec_of[a, 0], SIZE]
    unit = s.block_size
    step = unit if s.fine else size
    per = step // unit
    for i in range(min(longest // step, n_keys // per) - 1, -1, -1):
        if (s.fine or (i + 1) * size % align == 0) and _present(s, a, s.rk[row, (i + 1) * per - 1], i * step // size):
            _nothing(s, a, 0, i * step // size)
            return i * step // size + 1, (i + 1) * step
    return np.int64(0), np.int64(0)


@inline
def _find(s, a, row, longest, n_keys, align, drop):
    """Blocks and tokens of the longest hit of spec group ``a`` within ``longest`` tokens; its entries are in `hit`."""
    kind = s.g[s.spec_of[a, 0], KIND]
    if kind == FULL:
        n, tokens = _find_full(s, a, row, longest, n_keys, align, drop)
    else:
        longest = min(longest, n_keys * s.block_size)
        if kind == SLIDING:
            n, tokens = _find_sliding(s, a, row, longest, n_keys, align, drop)
        elif kind == CHUNKED:
            n, tokens = _find_chunked(s, a, row, longest)
        else:
            n, tokens = _find_state(s, a, row, longest, n_keys, align)
    for j in range(s.spec_len[a]):
        s.hit_len[s.spec_of[a, j]] = n
        s.hit_tok[s.spec_of[a, j]] = tokens
    return tokens


@inline
def _drops(s, a):
    for j in range(s.spec_len[a]):
        if s.g[s.spec_of[a, j], DROPS] == 1:
            return True
    return False


@kernel
def _fixed_point(s, row, most, n_keys):
    """(tokens that all groups have, longest hit of a single one)."""
    hit = most
    longest = np.int64(0)
    verified = np.int64(0)  # spec groups whose drop was checked at this length, as bits
    first = True
    while True:
        cur = hit
        for a in range(s.n_specs):
            full = s.g[s.spec_of[a, 0], KIND] == FULL
            if full and not first:
                cur = min(cur, s.hit_tok[s.spec_of[a, 0]])
                continue
            drop = s.legacy and _drops(s, a) and (verified >> a) & 1 == 0
            reach = cur
            if drop and s.g[s.spec_of[a, 0], KIND] <= CHUNKED:
                reach = min(cur + s.g[s.spec_of[a, 0], SIZE], n_keys * s.block_size)
            tokens = _find(s, a, row, reach, n_keys, s.align, drop)
            if drop:
                verified |= 1 << a
            elif tokens < cur:
                verified = np.int64(0)
            cur = tokens
            longest = max(longest, cur)
        first = False
        if cur >= hit:
            break
        hit = cur
        if s.simple:
            break
    return hit, longest


@outlined(GroupState)
def hit_tokens_in(s, slot):
    """See `seam.hit_tokens`."""
    x = s.r_x
    x[slot, JUNCTION] = 0
    s.n_hits = 0
    if not s.kv.caching or x[slot, LAZY] == 1:
        return np.int64(0)
    row = row_of(s, slot)
    n_keys = keys_upto(s, slot, row)
    most = np.int64(x[slot, KNOWN]) - 1
    if s.n_groups == 1:
        size = s.g[0, SIZE]
        s.n_hits = _find(s, np.int64(0), row, min(most, n_keys * s.block_size), n_keys, size, s.legacy and s.g[0, DROPS] == 1)
        return s.n_hits
    hit, longest = _fixed_point(s, row, most, n_keys)
    for g in range(s.n_groups):
        if s.g[g, KIND] == FULL:
            size = s.g[g, SIZE]
            s.hit_len[g] = min(s.hit_len[g], (hit + size - 1) // size)
    if longest > hit:
        x[slot, JUNCTION] = longest
    s.n_hits = hit
    return hit
