# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Blocks of a request in every group: granted, given back, awaited (``v1/core/kv_cache_manager.py``)."""

import numpy as np

from sim.engine.borrow import keep
from sim.engine.outline import outlined
from sim.engine.schedulers.vllm.groups.counted import is_counted, release_counted, spread
from sim.engine.schedulers.vllm.groups.need import need_all
from sim.engine.schedulers.vllm.groups.pool import give_back
from sim.engine.schedulers.vllm.groups.register import commit_in
from sim.engine.schedulers.vllm.groups.state import (
    CAP_AT,
    JUNCTION,
    KIND,
    LEN,
    MAMBA,
    NC,
    NULL,
    SIZE,
    TAIL,
    GroupState,
    drop_row,
    row_of,
)
from sim.engine.schedulers.vllm.groups.tables import give_back_table, note_room, remove_skipped, take, take_hits
from sim.engine.schedulers.vllm.state import (
    CAP,
    COMP,
    INFL,
    KNOWN,
    LAST_SEQ,
    NEVER,
    NEXT,
    PREEMPTED,
    PREFILLING,
    PROMPT,
    ROW,
    STATUS,
    WAITING,
)
from sim.engine.state import grown
from sim.jit import inline, kernel


@outlined(GroupState)
def grant_in(s, slot, new):
    """See `seam.grant`; 1 or 0."""
    x = s.r_x
    kv = s.kv
    new_row = x[slot, ROW] < 0
    row = row_of(s, slot)
    known = np.int64(x[slot, KNOWN])
    status = x[slot, STATUS]
    spare = kv.free
    if s.admitting and s.n_run > 0 and (status == WAITING or status == PREEMPTED):
        spare -= s.watermark
    hitting = s.n_hits > 0
    loc = np.int64(x[slot, COMP]) + s.n_hits
    done = loc + s.ext
    c = min(done, s.max_len)
    if s.admitting and s.full_isl:
        whole = min(known, s.max_len)
        short = need_all(s, slot, row, whole, hitting, c, whole, loc, True) - spare
        if short > 0:
            s.enough = kv.free + short
            if new_row:
                drop_row(s, slot)
            return 0
    main = c + new
    tokens = min(main + (0 if s.ext > 0 else s.lookahead), s.max_len)
    p = max(c - x[slot, INFL], 0)
    before = kv.free
    remove_skipped(s, slot, row, p)
    spare += kv.free - before
    short = need_all(s, slot, row, tokens, hitting, done, main, loc, False) - spare + s.reserved
    if short > 0:
        s.enough = kv.free + short
        if new_row:
            drop_row(s, slot)
        return 0
    if hitting or s.ext > 0:
        fresh = True
        for g in range(s.n_groups):
            fresh = fresh and s.tx[row, g, NC] < 0
        if fresh:
            take_hits(s, slot, row, loc, s.ext)
    take(s, slot, row, tokens, main)
    if x[slot, TAIL] == 1:  # back after a preemption: unfound if the other layers had the whole prompt still
        x[slot, TAIL] = 0
        end = (np.int64(x[slot, PROMPT]) - 1) // s.align * s.align
        s.unfound += 1 if s.n_hits < end and (s.n_groups == 1 or x[slot, JUNCTION] >= end) else 0
    x[slot, NEXT] = 0 if kv.caching else NEVER
    if s.ext == 0:
        commit_in(s, slot, min(main, known))
    note_room(s, slot, row, p)
    return 1


@outlined(GroupState)
def release_in(s, slot):
    """See `seam.release`."""
    x = s.r_x
    row = x[slot, ROW]
    x[slot, CAP] = 0
    x[slot, NEXT] = NEVER
    x[slot, PREFILLING] = 0
    if row < 0:
        return 0
    later = s.defer_free and x[slot, LAST_SEQ] > s.seq_p
    if later:
        _note_deferred(s, slot, row)
    if is_counted(s, slot):
        release_counted(s, slot, row, later)
        drop_row(s, slot)
        return 0
    for g in range(s.n_groups):
        give_back_table(s, s.tab[row, g], s.tx[row, g, LEN], g, later)
    drop_row(s, slot)
    return 0


@kernel
def _note_deferred(s, slot, row):
    """All groups in one list, which goes back from its end."""
    if is_counted(s, slot):
        spread(s, slot, row)
    n = 0
    for g in range(s.n_groups):
        n += s.tx[row, g, LEN]
    if s.df_len == 0:
        s.df_end = 0
    while s.df_items.size < s.df_end + n:
        keep(s).df_items = grown(s.df_items, 2 * s.df_items.size)
    at = (s.df_head + s.df_len) % s.df.shape[0]
    first = s.df_end
    for g in range(s.n_groups - 1, -1, -1):
        for i in range(s.tx[row, g, LEN] - 1, -1, -1):
            if s.tab[row, g, i] != NULL:
                s.df_items[s.df_end] = s.tab[row, g, i]
                s.df_end += 1
    if s.df_end > first:
        s.df[at, 0] = s.seq_s
        s.df[at, 1] = first
        s.df[at, 2] = s.df_end
        s.df_len += 1


@kernel
def settle_in(s):
    """See `seam.settle`."""
    while s.df_len > 0 and s.df[s.df_head, 0] <= s.seq_p:
        for i in range(s.df[s.df_head, 1], s.df[s.df_head, 2]):
            give_back(s, np.int64(s.df_items[i]))
        s.df_head = (s.df_head + 1) % s.df.shape[0]
        s.df_len -= 1


@outlined(GroupState)
def blocks_to_come_in(s, slot):
    """See `seam.blocks_to_come`."""
    tokens = min(np.int64(s.r_x[slot, KNOWN]), s.max_len)
    n = tokens + 1 + s.k_spec + s.lookahead if s.k_spec > 0 else tokens
    done = np.int64(s.r_x[slot, COMP])
    return need_all(s, slot, row_of(s, slot), n, False, done, tokens, done, True)


@inline
def blocks_of_drafts_in(s):
    """See `seam.blocks_of_drafts`."""
    n = np.int64(0)
    if s.k_spec > 0:
        for g in range(s.n_groups):
            if s.g[g, KIND] != MAMBA:
                n += (1 + s.k_spec + s.lookahead + s.g[g, SIZE] - 1) // s.g[g, SIZE]
    return n


@kernel
def forget_in(s, slot):
    """See `seam.forget`."""
    if s.r_x[slot, ROW] >= 0:
        remove_skipped(s, slot, np.int64(s.r_x[slot, ROW]), max(np.int64(s.r_x[slot, COMP] - s.r_x[slot, INFL]), 0))


@kernel
def release_copies(s):
    """See `seam.end_of_decision`: copies are made, both ends go."""
    for i in range(s.cow_n):
        give_back(s, np.int64(s.cow[i, 0]))
        if s.cow[i, 1] != NULL:
            give_back(s, np.int64(s.cow[i, 1]))
    s.cow_n = 0


@inline
def never_fits_in(s, prompt):
    """See `seam.never_fits`: by what every group keeps of it at most."""
    n = np.int64(0)
    for g in range(s.n_groups):
        size = s.g[g, SIZE]
        n += 1 if s.g[g, KIND] == MAMBA else min((prompt + size - 1) // size, s.g[g, CAP_AT])
    return n > s.kv.total
