# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Sessions stay where they are; a new one is drawn among all, or among those with the fewest requests or sessions."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.jit import i1s, i8s, i8ss, inline
from sim.rules import MORE, Rule, draw, fields, for_workers

ANY, REQUESTS, SESSIONS = range(3)


class Sessions(NamedTuple):
    """``table``: [slot, (session, worker)], −1: free; ``counts``: sessions; ``kind``: who gets a new one, whether one worker alone keeps none."""

    table: i8ss
    counts: i8s
    kind: i8s
    place: i8s  # [worker] −1: it is not there
    held: i8s  # [worker] sessions
    best: i1s  # [place]


@inline
def _slot(table, session):
    mask = table.shape[0] - 1
    i = (session ^ session >> 15) & mask
    while table[i, 0] != session and table[i, 0] >= 0:
        i = (i + 1) & mask
    return i


def sticky(memory, seen, row, now):
    """The worker of the session."""
    m = fields(memory, Sessions)
    n = seen.outstanding.size
    if n == 1 and m.kind[1]:
        return np.int64(0)
    session = seen.session[row]
    if session < 0:
        return draw(seen.source, n)
    i = _slot(m.table, session)
    if m.table[i, 0] == session:
        return m.place[m.table[i, 1]]
    if 2 * m.counts[0] >= m.table.shape[0]:
        return np.int64(MORE)
    least, ties = np.int64(0), np.int64(0)
    for k in range(n):
        load = np.int64(0)
        if m.kind[0] == REQUESTS:
            load = seen.outstanding[k]
        elif m.kind[0] == SESSIONS:
            load = m.held[seen.numbers[k]]
        if k == 0 or load < least:
            for j in range(k):
                m.best[j] = 0
            least, ties = load, np.int64(0)
        m.best[k] = load == least
        ties += m.best[k]
    left = draw(seen.source, ties)
    place = np.int64(-1)
    while left >= 0:
        place += 1
        left -= m.best[place]
    worker = seen.numbers[place]
    m.table[i, 0], m.table[i, 1] = session, worker
    m.held[worker] += 1
    m.counts[0] += 1
    return place


class StickyRule(Rule):
    """Of the workers ``order``. ``kind``: `ANY`, `REQUESTS` or `SESSIONS`."""

    def __init__(self, order: Sequence[int], kind: int, alone: bool = False) -> None:
        workers = max(order, default=-1) + 1
        memory = Sessions(
            np.full((256, 2), -1, np.int64),
            np.zeros(1, np.int64),
            np.array([kind, alone], np.int64),
            np.full(workers, -1, np.int64),
            np.zeros(workers, np.int64),
            np.zeros(workers, np.int8),
        )
        super().__init__(sticky, memory, lambda: self._with(self.memory.table, 2 * len(self.memory.table)))
        self.workers(order)

    def _with(self, entries: NDArray[np.int64], size: int) -> Sessions:
        m: Sessions = self.memory
        kept = entries[entries[:, 0] >= 0]
        table = np.full((size, 2), -1, np.int64)
        mask = size - 1
        for session, worker in kept.tolist():
            i = (session ^ session >> 15) & mask
            while table[i, 0] >= 0:
                i = (i + 1) & mask
            table[i] = session, worker
        m.counts[0] = len(kept)
        return m._replace(table=table)

    def workers(self, order: Sequence[int]) -> None:
        """Who left loses his sessions."""
        m: Sessions = for_workers(self.memory, max(order, default=-1) + 1, place=-1, held=0, best=0)
        self.replace(m)
        m.place[:] = -1
        m.place[list(order)] = np.arange(len(order))
        there = m.table[(m.table[:, 0] >= 0) & (m.place[m.table[:, 1]] >= 0)]
        m.held[:] = np.bincount(there[:, 1], minlength=len(m.held))
        self.replace(self._with(there, len(m.table)))
