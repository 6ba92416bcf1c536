# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, call-arg, var-annotated"
"""Requests between prefill and decode pools up to the next event of the world, in one compiled call: advance, choose, hand over, carry.

What `sim.fleet.disaggregation.HandOvers` does at each outcome, in the same order and with the same numbers, where both routers have rules in
compiled code and nobody else acts: no clients that wait, no scaling, no faults, no engine that gives requests back.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.engine.borrow import lend, view
from sim.engine.group import _outcomes
from sim.engine.hand_over import kv_arrived, release_kept
from sim.engine.loop import accept, outlook
from sim.engine.order import advance
from sim.engine.seam import F8, I8, Columns, Spans
from sim.jit import inline, kernel
from sim.ledger import ALLOCATED, CHUNK_DONE, FINISHED, HAND_OVER, REMOTE_KV, WATCH_CHUNKS
from sim.rules import Seen, ask

NAN: Final = np.nan

# columns of `Window.journey`
P, D, P_SLOT, D_SLOT, NEED, SENT, OPEN, WIDTH = range(8)
# entries of `Book.at`
ROW, OUTCOME, OUTCOMES, LEFT, SIDE, ROOM, ROOM_ROW, TIMES, USES, SENDS, AT_WIDTH = range(11)
# what a call ends with
DONE, NO_ROOM, MORE_OUTCOMES, NO_MEMORY, REFUSED, FULL = range(6)


class Who(NamedTuple):
    """Who is who. Replicas are numbered over all pools."""

    pool: I8  # [replica]
    number: I8  # [replica] in its pool
    decodes: NDArray[np.bool_]  # [pool]
    p: I8  # the replicas of each side
    d: I8
    protocol: I8  # decode comes first? both are chosen at arrival? KV goes in chunks? tokens that come with it
    block: I8  # [1] tokens


class Window(NamedTuple):
    """Requests that are on their way, and the latest block: numbers ascending, columns as P and as D get them."""

    numbers: I8
    kept: I8  # [1] rows before those of the block
    columns_p: Columns
    columns_d: Columns
    spans: Spans
    journey: I8  # [row, WIDTH]


class Choosers(NamedTuple):
    """The rules of the routers (`sim.rules`) of either side: where they are, their memory, and what they see of the window's rows."""

    rule: I8  # [2]
    p_memory: I8
    d_memory: I8
    p_seen: Seen
    d_seen: Seen


class Book(NamedTuple):
    """What is under way between two calls, and what they note."""

    at: I8
    times: F8  # outcomes to be handled
    rows: I8
    stages: F8  # [note, 3]: request, memory taken, KV there
    uses: F8  # [note, 3]: replica, start, length
    waits: F8
    bytes: F8  # [1]


@inline
def _choose(recorders, who, window, choosers, book, row, now, side):
    """The replica of a request on a side (`P`, `D`), if it has none; False if the rule needs more memory."""
    if window.journey[row, side] >= 0:
        return True
    members = who.p if side == P else who.d
    seen = choosers.p_seen if side == P else choosers.d_seen
    for k in range(members.size):
        seen.outstanding[k] = view(recorders[who.pool[members[k]]]).outstanding[who.number[members[k]]]
    place = ask(choosers.rule[side], choosers.p_memory if side == P else choosers.d_memory, seen, row, now)
    if place < 0:
        book.at[SIDE] = side
        return False
    window.journey[row, side] = members[place]
    return True


@inline
def _put(states, keys, who, window, book, row, decode, t):
    """The request to one of its engines, at ``t``. False, and nothing done, if there is no room."""
    r = window.journey[row, D if decode else P]
    flags = REMOTE_KV
    if not decode:
        flags = HAND_OVER | WATCH_CHUNKS if who.protocol[2] else HAND_OVER
    columns = window.columns_d if decode else window.columns_p
    columns[0][row] = t
    if not accept(view(states[r]), row, window.numbers[row] - row, flags, columns, window.spans):
        book.at[ROOM] = r
        book.at[ROOM_ROW] = row
        return False
    keys[r] = min(keys[r], t)
    return True


@inline
def _send(wires, book, source, destination, size, now):
    """As `kv_links.Ports.send`."""
    start = max(now, max(wires.free[source], wires.free[destination]))
    out, into = size / wires.rate[source], size / wires.rate[destination]
    wires.free[source] = start + out
    wires.free[destination] = start + into
    wires.busy[source] += out
    wires.busy[destination] += into
    n = book.at[USES]
    for k in range(2):
        book.uses[n + k, 0] = source if k == 0 else destination
        book.uses[n + k, 1] = start
        book.uses[n + k, 2] = out if k == 0 else into
    book.at[USES] = n + 2
    book.waits[book.at[SENDS]] = start - now
    book.at[SENDS] += 1
    book.bytes[0] += size
    return start + max(out, into) + wires.latency[0]


@inline
def _note(book, number, allocated, there):
    n = book.at[TIMES]
    book.stages[n, 0] = number
    book.stages[n, 1] = allocated
    book.stages[n, 2] = there
    book.at[TIMES] = n + 1


@inline
def _carry(states, keys, who, window, wires, book, row, number, allocated, t, tokens):
    """The rest of the KV travels; both who are told when it will have arrived."""
    j = window.journey[row]
    p, d, block = j[P], j[D], who.block[0]
    there = _send(wires, book, p, d, (tokens + block - 1) // block * block * wires.bytes_of[d], t)
    _note(book, number, allocated, there)
    kv_arrived(view(states[d]), j[D_SLOT], there, who.protocol[3])
    keys[d] = min(keys[d], outlook(view(states[d])))
    release_kept(view(states[p]), j[P_SLOT], there)
    keys[p] = min(keys[p], outlook(view(states[p])))
    j[OPEN] = 0


@inline
def _give_up(states, keys, window, row, t):
    j = window.journey[row]
    if j[P_SLOT] >= 0:
        s = view(states[j[P]])
        release_kept(s, j[P_SLOT], t)
        keys[j[P]] = min(keys[j[P]], outlook(s))
    j[OPEN] = 0


@inline
def _row_of(window, number):
    kept = window.kept[0]
    if number >= window.numbers[kept]:
        return kept + number - window.numbers[kept]
    return np.searchsorted(window.numbers[:kept], number)


@inline
def _happened(states, keys, recorders, who, window, choosers, wires, book, i):
    """One outcome. Anything but `DONE`: nothing has happened, it is to be tried again."""
    t, number, g, kind, slot, value = (
        book.times[i],
        book.rows[i, 0],
        book.rows[i, 1],
        book.rows[i, 3],
        book.rows[i, 4],
        book.rows[i, 5],
    )
    row = -1
    if number >= window.numbers[0]:
        row = _row_of(window, number)
        if row >= window.numbers.size or window.numbers[row] != number or not window.journey[row, OPEN]:
            row = -1
    if row < 0:  # decode failed after the hand-over: the engine has written its row
        return DONE
    j = window.journey[row]
    decode_first = who.protocol[0]
    if kind == ALLOCATED:
        j[D_SLOT], j[NEED] = slot, value
        if not decode_first:
            _carry(states, keys, who, window, wires, book, row, number, t, t, value)
            return DONE
        if not _put(states, keys, who, window, book, row, False, t):
            return NO_ROOM
        _note(book, number, t, NAN)
    elif kind == CHUNK_DONE:
        block = who.block[0]
        due = max(value - (window.columns_p[1][row] - j[NEED]), 0) // block * block
        if due > j[SENT]:
            _send(wires, book, j[P], j[D], (due - j[SENT]) * wires.bytes_of[j[D]], t)
            j[SENT] = due
    elif who.decodes[g]:
        _give_up(states, keys, window, row, t)
    elif value == FINISHED:
        j[P_SLOT] = slot
        if decode_first:
            _carry(states, keys, who, window, wires, book, row, number, NAN, t, j[NEED] - j[SENT])
            return DONE
        if not _choose(recorders, who, window, choosers, book, row, t, D):
            return NO_MEMORY
        if not _put(states, keys, who, window, book, row, True, t):
            return NO_ROOM
    else:
        if j[D_SLOT] >= 0:
            book.at[ROOM_ROW] = row
            return REFUSED
        _give_up(states, keys, window, row, t)
    return DONE


@inline
def _begin(states, keys, recorders, who, window, choosers, book, row, t):
    """The request of a row comes, at ``t``."""
    if not _choose(recorders, who, window, choosers, book, row, t, P):
        return NO_MEMORY
    if who.protocol[1] and not _choose(recorders, who, window, choosers, book, row, t, D):
        return NO_MEMORY
    if not _put(states, keys, who, window, book, row, who.protocol[0] != 0, t):
        return NO_ROOM
    window.journey[row, OPEN] = 1
    return DONE


@kernel
def run(states, keys, recorders, who, window, choosers, wires, book, lo, hi, until):
    """Rows [``book.at[ROW]``, ``hi``) of the window, each at its time; without rows (``lo`` = ``hi``) on to ``until``.

    Returns `DONE`, or what is lacking to go on.
    """
    who, window, choosers, wires, book = lend(who), lend(window), lend(choosers), lend(wires), lend(book)
    at = book.at
    while True:
        while at[OUTCOME] < at[OUTCOMES]:
            if at[TIMES] + 2 > book.stages.shape[0] or at[USES] + 2 > book.uses.shape[0] or at[SENDS] + 1 > book.waits.size:
                return FULL
            code = _happened(states, keys, recorders, who, window, choosers, wires, book, at[OUTCOME])
            if code != DONE:
                return code
            at[OUTCOME] += 1
        row = at[ROW]
        if row == hi and hi > lo:
            return DONE
        t = window.columns_p[0][row] if row < hi else until
        if at[LEFT] or advance(states, None, keys, t, True):
            at[LEFT] = 1
            n = _outcomes(recorders, book.times, book.rows)
            if n > book.times.size:
                at[OUTCOMES] = n
                at[OUTCOME] = n
                return MORE_OUTCOMES
            at[LEFT] = at[OUTCOME] = 0
            at[OUTCOMES] = n
            continue
        if row == hi:
            return DONE
        code = _begin(states, keys, recorders, who, window, choosers, book, row, t)
        if code != DONE:
            return code
        at[ROW] = row + 1
