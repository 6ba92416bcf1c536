# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Block tables of a request: forget what no layer looks at, take hits, extend (``v1/core/single_type_kv_cache_manager.py``)."""

import numpy as np

from sim.engine.borrow import keep
from sim.engine.kv.blocks import touch_block
from sim.engine.prefetch import prefetch
from sim.engine.schedulers.vllm.groups.counted import begin_counted, is_counted, slide_counted, take_counted
from sim.engine.schedulers.vllm.groups.pool import fresh_entry, give_back, give_back_anonymous, give_back_unasked, grab, move_keys
from sim.engine.schedulers.vllm.groups.register import note_key
from sim.engine.schedulers.vllm.groups.state import (
    AL,
    ANON,
    CHUNKED,
    CK,
    HAVE,
    KIND,
    LAST,
    LEN,
    MAMBA,
    NC,
    NULL,
    PHE,
    PHI,
    RT,
    SIZE,
    SLIDE,
    SLIDING,
    WINDOW,
    skipped,
)
from sim.engine.schedulers.vllm.state import CAP, NEVER
from sim.jit import inline, kernel

_NEAR = 8  # blocks that are fetched before they are given back


@inline
def _null(s, row, g, lo, hi, gaps):
    """Places [lo, hi) become null, from the high end down to the first null unless there may be ``gaps``."""
    table = s.tab[row, g]
    for i in range(min(hi, np.int64(s.tx[row, g, LEN])) - 1, lo - 1, -1):
        if table[i] == NULL:
            if not gaps:
                break
            continue
        give_back(s, np.int64(table[i]))
        table[i] = NULL
        s.held_of[g] -= 1


@inline
def give_back_table(s, table, n, g, later):
    """A whole table, last block first; ``later``: what it held is noted elsewhere."""
    anonymous = np.int64(0)
    unasked = np.int64(0)
    held = np.int64(0)
    gaps = s.g[g, KIND] == MAMBA
    lifo = s.kv.lifo
    for i in range(n - 1, -1, -1):
        if i >= _NEAR and table[i - _NEAR] > 0:
            prefetch(s.kv.e_key, table[i - _NEAR])
        v = np.int64(table[i])
        if v == NULL:
            if gaps:
                continue
            break
        held += 1
        if later:
            continue
        if v == ANON and lifo:
            anonymous += 1
        elif v < 0:
            unasked += 1
        else:
            give_back_unasked(s, unasked)
            unasked = np.int64(0)
            give_back(s, v)
    give_back_unasked(s, unasked)
    give_back_anonymous(s, anonymous)
    s.held_of[g] -= held


@inline
def remove_skipped(s, slot, row, p):
    """Blocks that no layer looks at any more once ``p`` tokens are processed."""
    if is_counted(s, slot):
        slide_counted(s, slot, row, p)
        return
    for g in range(s.n_groups):
        k = skipped(s, g, p)
        size = s.g[g, SIZE]
        if s.g[g, KIND] == MAMBA and s.states:
            t = s.tx[row, g]
            if k > 0:
                hi = min(k // size, np.int64(t[LEN]))
                if t[RT] < hi:
                    _null(s, row, g, np.int64(t[RT]), hi, True)
                    t[RT] = hi
            last = np.int64(t[LAST])
            if last >= 0 and last < (p + size - 1) // size - 1:
                _null(s, row, g, last, last + 1, False)
        elif k > 0:
            _null(s, row, g, np.int64(0), k // size, False)


@inline
def extend(s, row, g, n):
    """``n`` new blocks at the end of the table."""
    if n > 0:
        grab(s, n)
        t = s.tx[row, g]
        table = s.tab[row, g]
        for i in range(t[LEN], t[LEN] + n):
            table[i] = ANON
        t[LEN] += n
        s.held_of[g] += n


@kernel
def _copy_on_write(s, source, copy):
    """Both ends of a copy stay until the end of the decision."""
    if s.cow_n == s.cow.shape[0]:
        bigger = np.empty((2 * s.cow_n, 2), np.int32)
        for i in range(s.cow_n):
            bigger[i, 0] = s.cow[i, 0]
            bigger[i, 1] = s.cow[i, 1]
        keep(s).cow = bigger
    s.cow[s.cow_n, 0] = source
    s.cow[s.cow_n, 1] = copy
    s.cow_n += 1


@kernel
def take_hits(s, slot, row, loc, ext):
    """First allocation: hit blocks of all groups, then those for what is loaded from elsewhere."""
    if is_counted(s, slot):
        begin_counted(s, row, loc, ext)
        return
    for g in range(s.n_groups):
        t = s.tx[row, g]
        size = s.g[g, SIZE]
        before = max(skipped(s, g, loc + ext) // size, 0)
        n_hits = s.hit_len[g] if s.n_hits > 0 else 0
        for i in range(before):
            s.tab[row, g, i] = NULL
        t[LEN] = before
        last = np.int64(0)
        for i in range(before, n_hits):
            e = s.hit[g, i]
            s.tab[row, g, i] = e
            last = e
            if e != NULL:
                touch_block(s.kv, e)
                s.held_of[g] += 1
        t[LEN] = max(before, n_hits)
        t[NC] = t[LEN]
        if n_hits > before and loc % size != 0:
            t[PHI] = 1 + loc // size
            t[PHE] = last
            t[NC] = loc // size
    if ext > 0:
        for g in range(s.n_groups):
            size = s.g[g, SIZE]
            extend(s, row, g, max((loc + ext + size - 1) // size - s.tx[row, g, LEN], 0))


@kernel
def _take_states(s, row, g, main):
    """New blocks of a recurrent group: the table is padded with nulls up to the running state."""
    t = s.tx[row, g]
    table = s.tab[row, g]
    size = s.g[g, SIZE]
    wanted = (main + size - 1) // size + s.k_spec
    ck = 1 if t[CK] > 0 else 0
    n = np.int64(t[LEN])
    if wanted <= n and ck == 0 and t[PHI] == 0:
        t[AL] = 1
        return
    if t[AL] == 1:
        t[LAST] = n - 1 - s.k_spec
    elif n > 0:
        t[LAST] = n - 1
    place = wanted - s.k_spec - 1
    for i in range(n, max(place - ck, n)):
        table[i] = NULL
        t[LEN] += 1
    if t[AL] == 1:
        for i in range(n - s.k_spec, n):
            if i >= place - ck:
                break
            table[t[LEN]] = table[i]
            table[i] = NULL
            t[LEN] += 1
    if t[PHI] > 0:
        grab(s, np.int64(1))
        source = np.int64(t[PHE])
        if t[AL] == 1:
            copy = np.int64(fresh_entry(s))
            s.kv.e_ref[source] += 1
            move_keys(s, source, copy, g)
            if s.kv.e_key[copy] != 0:
                note_key(s, s.kv.e_key[copy], g)
            _copy_on_write(s, source, copy)
        else:
            table[t[PHI] - 1] = ANON
            _copy_on_write(s, source, np.int64(NULL))
        t[PHI] = 0
    extend(s, row, g, wanted - t[LEN])
    t[AL] = 1


@inline
def take(s, slot, row, tokens, main):
    """Tables for ``tokens``; ``main``: without drafts."""
    if is_counted(s, slot):
        take_counted(s, row, tokens)
        return
    for g in range(s.n_groups):
        size = s.g[g, SIZE]
        t = s.tx[row, g]
        wanted = tokens
        if s.g[g, KIND] == MAMBA:
            if s.states:
                _take_states(s, row, g, main)
                continue
            wanted = tokens + size * s.k_spec
        if t[PHI] > 0:
            grab(s, np.int64(1))
            s.tab[row, g, t[PHI] - 1] = ANON
            _copy_on_write(s, np.int64(t[PHE]), np.int64(NULL))
            t[PHI] = 0
        extend(s, row, g, (wanted + size - 1) // size - t[LEN])


@inline
def _room_of_states(s, row, g, p):
    """Tokens up to which nothing of a recurrent group has to be taken, given back or noted."""
    t = s.tx[row, g]
    size = s.g[g, SIZE]
    room = min(np.int64(t[LEN] - s.k_spec) * size, (max(p - 1, 0) // size + 1) * size + 1)
    if t[PHI] > 0 or t[CK] > 0:
        room = np.int64(0)
    if t[LAST] >= 0 and t[LAST] < t[LEN] and s.tab[row, g, t[LAST]] != NULL:
        room = min(room, np.int64((t[LAST] + 1) * size + 1))
    return room


@inline
def note_room(s, slot, row, p):
    """Tokens up to which nothing has to be taken, given back or noted once ``p`` are processed: below it `grant` would change nothing."""
    have = slide = np.int64(NEVER)
    by_spec = is_counted(s, slot)
    for k in range(s.n_specs if by_spec else s.n_groups):
        g = s.spec_of[k, 0] if by_spec else k
        size = s.g[g, SIZE]
        kind = s.g[g, KIND]
        if kind == MAMBA:
            if s.states:
                slide = min(slide, _room_of_states(s, row, g, p))
            continue
        have = min(have, np.int64(s.tx[row, g, LEN]) * size)
        if kind == SLIDING:
            slide = min(slide, (skipped(s, g, p) // size + 1) * size + s.g[g, WINDOW] - 1)
        elif kind == CHUNKED:
            slide = min(slide, (p // s.chunk + 1) * s.chunk)
    x = s.r_x
    x[slot, HAVE] = have
    x[slot, SLIDE] = slide
    x[slot, CAP] = min(have, slide)
