# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Lists of tokens, kept as spans (content id, start, length), exact to the token: what a slot's cache or a saved prompt holds.

Lists live in one pool; a list that outgrows its place moves to the end, and the pool is packed when it is full.
"""

from typing import Final

import numpy as np

from sim.engine.borrow import keep
from sim.engine.outline import outlined
from sim.engine.state import grown
from sim.jit import i8, i8s, inline, kernel, new, struct

NO_LIST: Final = -1


@struct(viewed=True)
class TokenLists:
    """``l_tok`` tokens of list ``l`` in spans [l_off, l_off + l_n) of the pool, which has kept room for ``l_cap``."""

    fn: i8s  # addresses of the outlined functions
    l_off: i8s
    l_n: i8s
    l_cap: i8s
    l_tok: i8s
    n_free: i8
    free: i8s  # stack of lists not in use
    used: i8  # spans of the pool handed out
    id: i8s
    start: i8s
    len: i8s


@kernel
def new_token_lists(fn, lists):
    """``lists`` empty lists; none of them taken. ``fn``: ``addresses(TokenLists)``."""
    t = new(TokenLists)
    t.fn = fn
    t.l_off = np.zeros(lists, np.int64)
    t.l_n = np.zeros(lists, np.int64)
    t.l_cap = np.zeros(lists, np.int64)
    t.l_tok = np.zeros(lists, np.int64)
    t.free = np.empty(lists, np.int64)
    t.n_free = lists
    for i in range(lists):
        t.free[i] = lists - 1 - i
    t.used = 0
    t.id = np.empty(256, np.int64)
    t.start = np.empty(256, np.int64)
    t.len = np.empty(256, np.int64)
    return t


@outlined(TokenLists)
def take_list(t):
    """A new empty list."""
    if t.n_free == 0:
        n = t.l_off.size
        own = keep(t)
        own.l_off = grown(t.l_off, 2 * n)
        own.l_n = grown(t.l_n, 2 * n)
        own.l_cap = grown(t.l_cap, 2 * n)
        own.l_tok = grown(t.l_tok, 2 * n)
        own.free = np.empty(2 * n, np.int64)
        for i in range(n):
            t.free[i] = 2 * n - 1 - i
        t.n_free = n
    t.n_free -= 1
    return t.free[t.n_free]


@inline
def clear_list(t, a):
    """Empty list ``a``; it keeps its place."""
    t.l_n[a] = 0
    t.l_tok[a] = 0


@inline
def drop_list(t, a):
    """Give list ``a`` back."""
    t.l_n[a] = 0
    t.l_tok[a] = 0
    t.l_cap[a] = 0
    t.free[t.n_free] = a
    t.n_free += 1


@outlined(TokenLists)
def room_for(t, a, spans):
    """Room for ``spans`` spans in list ``a``."""
    if spans <= t.l_cap[a]:
        return 0
    want = 4
    while want < spans:
        want *= 2
    if t.used + want > t.id.size:
        total = want
        for b in range(t.l_off.size):
            total += t.l_cap[b]
        size = t.id.size
        while size < 2 * total:
            size *= 2
        ids, starts, lens = np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.int64)
        o = 0
        for b in range(t.l_off.size):
            if t.l_cap[b] > 0:
                p = t.l_off[b]
                for j in range(t.l_n[b]):
                    ids[o + j] = t.id[p + j]
                    starts[o + j] = t.start[p + j]
                    lens[o + j] = t.len[p + j]
                t.l_off[b] = o
                o += t.l_cap[b]
        own = keep(t)
        own.id, own.start, own.len = ids, starts, lens
        t.used = o
    o, p = t.used, t.l_off[a]
    for j in range(t.l_n[a]):
        t.id[o + j] = t.id[p + j]
        t.start[o + j] = t.start[p + j]
        t.len[o + j] = t.len[p + j]
    t.l_off[a] = o
    t.l_cap[a] = want
    t.used = o + want
    return want


@inline
def append_span(t, a, ident, start, length):
    """Append ``length`` tokens to list ``a``, which has room for one more span."""
    n = t.l_n[a]
    o = t.l_off[a] + n
    t.l_tok[a] += length
    if n > 0 and t.id[o - 1] == ident and t.start[o - 1] + t.len[o - 1] == start:
        t.len[o - 1] += length
        return
    t.id[o] = ident
    t.start[o] = start
    t.len[o] = length
    t.l_n[a] = n + 1


@outlined(TokenLists)
def common_prefix(t, a, b):
    """Tokens that lists ``a`` and ``b`` share from the beginning, however they are cut into spans."""
    i, j = t.l_off[a], t.l_off[b]
    i_end, j_end = i + t.l_n[a], j + t.l_n[b]
    di, dj, n = 0, 0, 0
    while i < i_end and j < j_end:
        if t.id[i] != t.id[j] or t.start[i] + di != t.start[j] + dj:
            return n
        step = min(t.len[i] - di, t.len[j] - dj)
        n += step
        di += step
        dj += step
        if di == t.len[i]:
            i += 1
            di = 0
        if dj == t.len[j]:
            j += 1
            dj = 0
    return n


@inline
def swap_lists(t, a, b):
    """Exchange the contents of lists ``a`` and ``b``."""
    t.l_off[a], t.l_off[b] = t.l_off[b], t.l_off[a]
    t.l_n[a], t.l_n[b] = t.l_n[b], t.l_n[a]
    t.l_cap[a], t.l_cap[b] = t.l_cap[b], t.l_cap[a]
    t.l_tok[a], t.l_tok[b] = t.l_tok[b], t.l_tok[a]


@outlined(TokenLists)
def cut_out(t, a, keep, discard, spare):
    """Remove tokens [keep, keep + discard) of list ``a``; the content of list ``spare`` is lost."""
    clear_list(t, spare)
    room_for(t, spare, t.l_n[a] + 2)
    o, at = t.l_off[a], 0
    for j in range(o, o + t.l_n[a]):
        length = t.len[j]
        head = min(max(keep - at, 0), length)
        gone = min(max(keep + discard - at, 0), length)
        if head > 0:
            append_span(t, spare, t.id[j], t.start[j], head)
        if gone < length:
            append_span(t, spare, t.id[j], t.start[j] + gone, length - gone)
        at += length
    swap_lists(t, a, spare)
    return discard


@outlined(TokenLists)
def copy_list(t, a, b):
    """Make list ``b`` equal to list ``a``."""
    n = t.l_n[a]
    room_for(t, b, n + 1)
    p, q = t.l_off[a], t.l_off[b]
    for j in range(n):
        t.id[q + j] = t.id[p + j]
        t.start[q + j] = t.start[p + j]
        t.len[q + j] = t.len[p + j]
    t.l_n[b] = n
    t.l_tok[b] = t.l_tok[a]
    return n


@inline
def put_prompt(s, t, a, slot):
    """Make list ``a`` of ``t`` the prompt of the request in ``slot`` of state ``s``; without spans its content is nobody else's."""
    clear_list(t, a)
    k = s.r_spans[slot]
    room_for(t, a, k + 3)
    if k == 0:
        append_span(t, a, -2 - s.r_id[slot], 0, s.r_prompt[slot])
    for j in range(s.r_span[slot], s.r_span[slot] + k):
        append_span(t, a, s.sp_id[j], s.sp_start[j], s.sp_len[j])
