# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Decoding rows of models without recurrent states: one block more at a border, the window slides; what `grant` does, without its questions."""

import numpy as np

from sim.engine.outline import outlined
from sim.engine.schedulers.vllm.groups.counted import is_counted, missing_counted, take_counted
from sim.engine.schedulers.vllm.groups.register import commit_in
from sim.engine.schedulers.vllm.groups.state import HAVE, KIND, LEN, MAMBA, SIZE, SLIDE, GroupState
from sim.engine.schedulers.vllm.groups.tables import extend, note_room, remove_skipped
from sim.engine.schedulers.vllm.state import INFL, KNOWN, NEXT, ROW
from sim.jit import inline


@inline
def due(s, slot, comp):
    """Whether row ``slot``, whose tables end below ``comp`` tokens or may slide before them (`CAP`), takes or gives back a block now."""
    x = s.r_x
    return comp > x[slot, HAVE] or comp - 1 - x[slot, INFL] >= x[slot, SLIDE]


@inline
def missing(s, slot, row, tokens):
    """Blocks that the tables of a decoding row lack for ``tokens``."""
    if is_counted(s, slot):
        return missing_counted(s, row, tokens)
    n = np.int64(0)
    for g in range(s.n_groups):
        if s.g[g, KIND] != MAMBA:
            size = s.g[g, SIZE]
            n += max((tokens + size - 1) // size - s.tx[row, g, LEN], 0)
    return n


@inline
def _extend_all(s, slot, row, tokens):
    """Tables of a decoding row long enough for ``tokens``."""
    if is_counted(s, slot):
        take_counted(s, row, tokens)
        return
    for g in range(s.n_groups):
        if s.g[g, KIND] != MAMBA:
            size = s.g[g, SIZE]
            extend(s, row, g, (tokens + size - 1) // size - s.tx[row, g, LEN])


@outlined(GroupState)
def grow_in(s, slot, main):
    """Blocks for the last of ``main`` tokens of a decoding row; 1, or 0 if there are too few."""
    x = s.r_x
    row = np.int64(x[slot, ROW])
    p = max(main - 1 - x[slot, INFL], 0)
    remove_skipped(s, slot, row, p)
    if missing(s, slot, row, main) > s.kv.free:
        return 0
    _extend_all(s, slot, row, main)
    tokens = min(main, x[slot, KNOWN])
    if tokens >= x[slot, NEXT]:
        commit_in(s, slot, tokens)
    note_room(s, slot, row, p)
    return 1


@outlined(GroupState)
def advance_in(s, slot, comp):
    """Tables as they are once ``comp`` tokens have been scheduled, one by one."""
    x = s.r_x
    row = np.int64(x[slot, ROW])
    _extend_all(s, slot, row, comp)
    if x[slot, KNOWN] - 1 >= x[slot, NEXT]:
        commit_in(s, slot, x[slot, KNOWN] - 1)
    p = comp - 1 - x[slot, INFL]
    remove_skipped(s, slot, row, p)
    note_room(s, slot, row, p)
    return 0
