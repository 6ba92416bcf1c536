# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Blocks of several groups in one pool: take, name, strip, give back (``v1/core/block_pool.py``).

A block may have several keys where hits end inside blocks: the first is the entry's own, further ones are entries of their own that lead to
it (`k_owner`, `k_more`). The groups of one spec share a key: its entries are one chain, and `k_group` says whose each is.
`NULL`, `ANON`, `UNASKED`: see `state.py`.
"""

import numpy as np

from sim.engine.borrow import keep
from sim.engine.kv.blocks import (
    append_entry,
    expect_key,
    forget_entry,
    give_back_run,
    name_entry,
    new_entry,
    take_bare,
    unlink_entry,
)
from sim.engine.prefetch import prefetch
from sim.engine.schedulers.vllm.groups.state import ANON, UNASKED
from sim.engine.state import grown
from sim.jit import inline, kernel


@kernel
def _more_key_columns(s):
    own = keep(s)
    n = s.kv.e_key.size
    own.k_owner = grown(s.k_owner, n)
    own.k_more = grown(s.k_more, n)
    own.k_tokens = grown(s.k_tokens, n)
    own.k_group = grown(s.k_group, n)


@inline
def fresh_entry(s):
    """An entry for a block held by one request, without keys."""
    e = new_entry(s.kv)
    if s.k_owner.size < s.kv.e_key.size:
        _more_key_columns(s)
    if s.manifold:
        s.k_owner[e] = e
        s.k_more[e] = 0
    return e


@inline
def _name_entry(s, e, key, g):
    """An entry becomes known by a key of group ``g``."""
    name_entry(s.kv, e, key)
    if s.alike_some:
        s.k_group[e] = g


@kernel
def _strip_further(s, e):
    """Take the further keys of an entry away."""
    b = s.kv
    f = s.k_more[e]
    s.k_more[e] = 0
    while f != 0:
        after = s.k_more[f]
        s.k_more[f] = 0
        forget_entry(b, f)
        f = after


@inline
def strip(s, e):
    """Take all keys of a held block away; the entry stays."""
    b = s.kv
    if s.manifold and s.k_more[e] != 0:
        _strip_further(s, e)
    if b.e_key[e] != 0:
        forget_entry(b, e)  # puts the entry on top of the spare ones
        b.n_spare -= 1
        b.e_key[e] = 0


@inline
def grab(s, n):
    """Hand out ``n`` blocks from the front of the free queue; there must be as many. Cached ones lose their content."""
    b = s.kv
    b.free -= n
    if not b.caching:
        return
    n = take_bare(b, n)
    while n > 0:
        e = b.e_next[0]
        after = b.e_next[e]  # will be next: it has been fetched, those after it not yet
        expect_key(b, b.e_key[after])
        prefetch(b.e_key, b.e_next[after])
        unlink_entry(b, e)
        if s.manifold and s.k_more[e] != 0:
            _strip_further(s, e)
        forget_entry(b, e)
        n = take_bare(b, n - 1)


@inline
def give_back_unasked(s, n):
    """``n`` blocks with a hash that nobody can ask for, to the end of the free queue."""
    b = s.kv
    b.free += n
    if n == 0 or not b.caching:
        return
    last = b.e_prev[0]
    if last != 0 and b.e_key[last] == 0:
        b.e_ref[last] += n
    else:
        give_back_run(b, n)


@inline
def give_back_anonymous(s, n):
    """``n`` blocks without a hash, to the front of the free queue (before 0.21: to its end)."""
    b = s.kv
    if b.caching and not b.lifo:
        give_back_unasked(s, n)
        return
    b.free += n
    if b.caching:
        b.fresh += n


@inline
def give_back(s, v):
    """One block that a table or a copy held, ``v`` as in a table, not null."""
    b = s.kv
    if v > 0:
        b.e_ref[v] -= 1
        if b.e_ref[v] > 0:
            return
        if b.e_key[v] != 0:
            b.free += 1
            append_entry(b, v)
            return
        b.spare[b.n_spare] = v
        b.n_spare += 1
        give_back_anonymous(s, 1)
    elif v == UNASKED:
        give_back_unasked(s, 1)
    else:
        give_back_anonymous(s, 1)


@inline
def owner_of(s, e):
    """The entry of the block that entry ``e`` is a key of."""
    return s.k_owner[e] if s.manifold else e


@inline
def put(s, table, i, g, key, tokens):
    """Block ``i`` of a table of group ``g`` is full: known by this key alone."""
    v = np.int64(table[i])
    if v < 0:
        v = np.int64(fresh_entry(s))
        table[i] = v
    elif s.kv.e_key[v] == key:
        return
    else:
        strip(s, v)
    _name_entry(s, v, key, g)
    if s.manifold:
        s.k_tokens[v] = tokens


@inline
def _has(s, e, key):
    if s.kv.e_key[e] == key:
        return True
    f = s.k_more[e]
    while f != 0:
        if s.kv.e_key[f] == key:
            return True
        f = s.k_more[f]
    return False


@inline
def add_key(s, e, key, g, tokens):
    """One more key of a held block; the first one says how many tokens it stands for."""
    if _has(s, e, key):
        return
    if s.kv.e_key[e] == 0:
        _name_entry(s, e, key, g)
        s.k_tokens[e] = tokens
        return
    f = fresh_entry(s)
    s.k_owner[f] = e
    _name_entry(s, f, key, g)
    last = e
    while s.k_more[last] != 0:
        last = s.k_more[last]
    s.k_more[last] = f


@inline
def put_part(s, table, i, g, key, tokens):
    """Block ``i`` of a table of group ``g`` is known up to its middle; keys of fewer tokens go."""
    v = np.int64(table[i])
    if v == ANON or v == UNASKED:
        v = np.int64(fresh_entry(s))
        table[i] = v
    if not _has(s, v, key) and s.kv.e_key[v] != 0 and s.k_tokens[v] < tokens:
        strip(s, v)
    add_key(s, v, key, g, tokens)


@kernel
def move_keys(s, src, dst, g):
    """All keys of a held block of group ``g`` go to another that has none."""
    b = s.kv
    tokens = s.k_tokens[src]
    n = 0
    f = src
    while f != 0 and b.e_key[src] != 0:
        n += 1
        f = s.k_more[f]
    keys = np.empty(n, np.int64)
    f = src
    for i in range(n):
        keys[i] = b.e_key[f]
        f = s.k_more[f]
    strip(s, src)
    for i in range(n):
        add_key(s, dst, keys[i], g, tokens)
