# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Which computed blocks become known by their hash, group by group (``v1/core/single_type_kv_cache_manager.py``).

Each block is visited once; `kept.py` says which stay known.
"""

import numpy as np

from sim.engine.borrow import keep
from sim.engine.kv.block_hash import mix
from sim.engine.kv.blocks import expect_key, expect_new
from sim.engine.outline import outlined
from sim.engine.schedulers.vllm.groups.counted import commit_counted, count_no_more, is_counted, may_be_lost
from sim.engine.schedulers.vllm.groups.kept import boundaries, kept, reached, reached_next
from sim.engine.schedulers.vllm.groups.lookup import group_key, keys_upto
from sim.engine.schedulers.vllm.groups.pool import add_key, fresh_entry, put, put_part, strip
from sim.engine.schedulers.vllm.groups.state import (
    AHEAD,
    CHUNKED,
    CK,
    CKI,
    FULL,
    JOINS,
    JUNCTION,
    KIND,
    LEN,
    MAMBA,
    NC,
    NULL,
    PHE,
    PHI,
    SIZE,
    SLIDING,
    TAIL,
    UNASKED,
    WINDOW,
    GroupState,
)
from sim.engine.schedulers.vllm.state import NEVER, NEXT, PROMPT, ROW
from sim.engine.state import grown
from sim.jit import inline, kernel


@inline
def checkpoint(s, n, unit):
    """The last multiple of ``unit`` whose state a follow-up of ``n`` tokens can use."""
    if s.legacy:
        return max(n // unit * unit - unit, 0)
    return max((n - max(s.hash_ahead, 1)) // unit * unit, 0)


@inline
def note_key(s, key, g):
    """A state of group ``g`` became known in this decision."""
    if s.keys_step != s.step_no:
        s.keys_step = s.step_no
        s.new_keys_n = 0
    if s.new_keys_n == s.step_keys.size:
        keep(s).step_keys = grown(s.step_keys, 2 * s.new_keys_n)
    s.step_keys[s.new_keys_n] = mix(key, g)
    s.new_keys_n += 1


@inline
def _name(s, row, g, lo, hi):
    """Blocks [lo, hi) of a group become known, unless they are null."""
    size = s.g[g, SIZE]
    per = size // s.block_size
    a = s.alike[g]
    table, chain, keys = s.tab[row, g], s.rk[row], s.ahead
    state = s.g[g, KIND] == MAMBA
    for first in range(lo, hi, AHEAD):
        last = min(first + AHEAD, hi)
        for i in range(first, last):
            key = group_key(chain[(i + 1) * per - 1], a)
            expect_key(s.kv, key)
            expect_new(s.kv, i - first)
            keys[i - first] = key
        for i in range(first, last):
            if table[i] != NULL:
                put(s, table, i, g, keys[i - first], (i + 1) * size)
                if state:
                    note_key(s, keys[i - first], g)


@inline
def _register(s, slot, row, g, first, n):
    """Blocks [first, n) of a group."""
    size = s.g[g, SIZE]
    kind = s.g[g, KIND]
    if kind == FULL or kind == CHUNKED:
        _name(s, row, g, first, n)
        return
    bounds = s.bounds
    n_bounds = boundaries(s, slot, g, bounds)
    if s.retention != 0:
        for i in range(first, n):
            if kept(s, g, i, bounds, n_bounds):
                _name(s, row, g, i, i + 1)
        return
    more = s.g[g, JOINS] if kind == SLIDING else 0  # only what lies before a boundary
    need = (s.g[g, WINDOW] - 1 + size - 1) // size + more if kind == SLIDING else 1
    for j in range(n_bounds):
        end = bounds[j] // s.align * s.align // size + more
        _name(s, row, g, max(end - need, first), min(end, n))


@kernel
def _register_checkpoint(s, slot, row, g):
    """A state that a recurrent layer exported from inside the chunk."""
    t = s.tx[row, g]
    position = np.int64(t[CK])
    i = t[CKI]
    v = s.tab[row, g, i]
    size = s.g[g, SIZE]
    keep = position == checkpoint(s, np.int64(s.r_x[slot, PROMPT]), s.align) or position == s.r_x[slot, JUNCTION]
    if not keep and position % size == 0:
        keep = s.retention < 0 or (s.retention > 0 and position // size % max(s.retention // size, 1) == 0)
    if v == NULL:
        return
    if not keep:
        if v > 0:
            strip(s, v)
        return
    if v > 0 and s.kv.e_key[v] != 0 and s.k_tokens[v] == position:
        return
    if v < 0:
        v = fresh_entry(s)
        s.tab[row, g, i] = v
    strip(s, v)
    key = group_key(s.rk[row, position // s.block_size - 1], s.alike[g])
    add_key(s, v, key, g, position)
    note_key(s, key, g)


@kernel
def _register_parts(s, slot, row, g, tokens, n_keys):
    """Hits inside blocks: the end of the prompt, on the grid of the hash."""
    unit = s.block_size
    size = s.g[g, SIZE]
    prompt = np.int64(s.r_x[slot, PROMPT])
    t = s.tx[row, g]
    if s.g[g, KIND] == FULL:
        q = min((prompt - 1) // unit, n_keys) * unit
        i = q // size
        if 0 < q <= tokens and q % size != 0 and i < t[LEN]:
            put_part(s, s.tab[row, g], i, g, group_key(s.rk[row, q // unit - 1], s.alike[g]), q)
    elif s.g[g, KIND] == MAMBA and tokens > 0 and tokens % unit == 0 and tokens == checkpoint(s, prompt, unit):
        i = (tokens + size - 1) // size - 1
        if i < t[LEN] and s.tab[row, g, i] != NULL:
            v = s.tab[row, g, i]
            if v > 0 and s.kv.e_key[v] != 0 and s.k_tokens[v] == tokens:
                return
            key = group_key(s.rk[row, tokens // unit - 1], s.alike[g])
            put_part(s, s.tab[row, g], i, g, key, tokens)
            note_key(s, key, g)
            if tokens % size != 0:
                t[PHI] = i + 1
                t[PHE] = s.tab[row, g, i]


@outlined(GroupState)
def commit_in(s, slot, tokens):
    """See `seam.commit`."""
    if not s.kv.caching:
        return 0
    x = s.r_x
    row = np.int64(x[slot, ROW])
    n_keys = keys_upto(s, slot, row)
    following = np.int64(NEVER)
    if is_counted(s, slot):
        x[slot, NEXT] = commit_counted(s, row, tokens, n_keys, following)
        return 0
    groups, tx = s.g, s.tx
    quiet = s.retention == 0  # beyond the last boundary groups that forget register nothing
    end = np.int64(max(x[slot, PROMPT], x[slot, JUNCTION]))
    for g in range(s.n_groups):
        size = groups[g, SIZE]
        n, t = reached(s, g, tokens, n_keys)
        first = np.int64(max(tx[row, g, NC], 0))
        if first < n:
            if not quiet or groups[g, KIND] == FULL or groups[g, KIND] == CHUNKED or first * size <= end + size:
                _register(s, slot, row, g, first, n)
            tx[row, g, NC] = n
            first = n
        following = min(following, reached_next(s, g, first))
        if s.states and groups[g, KIND] == MAMBA and tx[row, g, CK] > 0:
            _register_checkpoint(s, slot, row, g)
        elif s.fine:
            _register_parts(s, slot, row, g, t, n_keys)
    if s.fine and tokens < x[slot, PROMPT]:
        following = tokens - tokens
    x[slot, NEXT] = following
    return 0


@kernel
def ask_for_in(s, slot):
    """See `seam.ask_for`."""
    x = s.r_x
    row = x[slot, ROW]
    if row < 0 or not s.kv.caching:
        return
    keys_upto(s, slot, np.int64(row))
    x[slot, TAIL] = may_be_lost(s, slot, np.int64(row))
    count_no_more(s, slot, np.int64(row))
    for g in range(s.n_groups):
        per = s.g[g, SIZE] // s.block_size
        for i in range(s.tx[row, g, LEN]):
            if s.tab[row, g, i] == UNASKED:
                put(s, s.tab[row, g], i, g, group_key(s.rk[row, (i + 1) * per - 1], s.alike[g]), (i + 1) * s.g[g, SIZE])
