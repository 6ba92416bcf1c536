# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Decoding rows of models without recurrent states: one block more at a border, the window slides; as `grant`, in one pass.

Arrays are looked up once: each access to a field of the state counts references.
"""

import numpy as np

from sim.engine.outline import outlined
from sim.engine.schedulers.vllm.groups.pool import give_back, grab
from sim.engine.schedulers.vllm.groups.register import commit_in
from sim.engine.schedulers.vllm.groups.state import ANON, CHUNKED, KIND, LEN, MAMBA, NULL, SIZE, SLIDING, WINDOW, GroupState
from sim.engine.schedulers.vllm.state import CAP, INFL, KNOWN, NEVER, NEXT, ROW
from sim.jit import inline


@inline
def _slide(s, groups, tab, tx, held, row, p):
    """Blocks before windows and chunks once ``p`` tokens are processed."""
    for g in range(groups.shape[0]):
        kind = groups[g, KIND]
        if kind == SLIDING:
            i = (p - groups[g, WINDOW] + 1) // groups[g, SIZE]
        elif kind == CHUNKED:
            i = p // s.chunk * s.chunk // groups[g, SIZE]
        else:
            continue
        i = min(i, tx[row, g, LEN]) - 1
        while i >= 0 and tab[row, g, i] != NULL:
            give_back(s, np.int64(tab[row, g, i]))
            tab[row, g, i] = NULL
            held[g] -= 1
            i -= 1


@inline
def _missing(groups, tx, row, tokens):
    """Blocks that all groups lack for ``tokens``."""
    n = groups[0, SIZE] - groups[0, SIZE]
    for g in range(groups.shape[0]):
        if groups[g, KIND] != MAMBA:
            n += max((tokens + groups[g, SIZE] - 1) // groups[g, SIZE] - tx[row, g, LEN], 0)
    return n


@inline
def _append(s, groups, tab, tx, held, row, tokens):
    """Tables long enough for ``tokens``; the blocks have been taken."""
    for g in range(groups.shape[0]):
        if groups[g, KIND] != MAMBA:
            have = tx[row, g, LEN]
            wanted = (tokens + groups[g, SIZE] - 1) // groups[g, SIZE]
            if wanted > have:
                for i in range(have, wanted):
                    tab[row, g, i] = ANON
                tx[row, g, LEN] = wanted
                held[g] += wanted - have


@inline
def _room(s, groups, tx, row, p):
    """As `tables.room_of`."""
    room = groups[0, SIZE] * 0 + NEVER
    for g in range(groups.shape[0]):
        kind, size = groups[g, KIND], groups[g, SIZE]
        if kind == MAMBA:
            continue
        room = min(room, tx[row, g, LEN] * size)
        if kind == SLIDING:
            room = min(room, (max(p - groups[g, WINDOW] + 1, 0) // size + 1) * size + groups[g, WINDOW] - 1)
        elif kind == CHUNKED:
            room = min(room, (p // s.chunk + 1) * s.chunk)
    return room


@outlined(GroupState)
def grow_in(s, slot, main):
    """Blocks for the last of ``main`` tokens of a decoding row; 1, or 0 if there are too few."""
    x = s.r_x
    groups, tab, tx, held = s.g, s.tab, s.tx, s.held_of
    row = x[slot, ROW]
    p = max(main - 1 - x[slot, INFL], 0)
    _slide(s, groups, tab, tx, held, row, p)
    need = _missing(groups, tx, row, main)
    if need > s.kv.free:
        return 0
    if need > 0:
        grab(s, need)
        _append(s, groups, tab, tx, held, row, main)
    tokens = min(main, x[slot, KNOWN])
    if tokens >= x[slot, NEXT]:
        commit_in(s, slot, tokens)
    x[slot, CAP] = _room(s, groups, tx, row, p)
    return 1


@outlined(GroupState)
def advance_in(s, slot, comp):
    """Tables as they are once ``comp`` tokens have been scheduled, one by one."""
    x = s.r_x
    groups, tab, tx, held = s.g, s.tab, s.tx, s.held_of
    row = x[slot, ROW]
    need = _missing(groups, tx, row, comp)
    if need > 0:
        grab(s, need)
        _append(s, groups, tab, tx, held, row, comp)
    if x[slot, KNOWN] - 1 >= x[slot, NEXT]:
        commit_in(s, slot, x[slot, KNOWN] - 1)
    p = comp - 1 - x[slot, INFL]
    _slide(s, groups, tab, tx, held, row, p)
    x[slot, CAP] = _room(s, groups, tx, row, p)
    return 0
