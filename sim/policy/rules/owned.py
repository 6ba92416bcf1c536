# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Sessions on a hash ring: whose owner is found before their requests are routed; what has no session is drawn, or goes to the lowest rate."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from sim.jit import f8s, i8s
from sim.policy.requests import Requests
from sim.rules import MORE, Rule, draw, fields, for_workers


class Owners(NamedTuple):
    """``owner``: [row] place, −1: no session."""

    owner: i8s


def owned(memory, seen, row, now):
    """Without a session: drawn."""
    m = fields(memory, Owners)
    return m.owner[row] if m.owner[row] >= 0 else draw(seen.source, seen.outstanding.size)


class Rates(NamedTuple):
    """``times``, ``whose``: requests of the last ``window``, a ring from ``ring[0]`` on, ``ring[1]`` of them; ``counts``: [number], −1: never any."""

    owner: i8s
    window: f8s
    times: f8s
    whose: i8s
    ring: i8s
    counts: i8s


def owned_or_rarest(memory, seen, row, now):
    """Without a session: the first replica that never got any, else the one with the fewest requests in the window."""
    m = fields(memory, Rates)
    size = m.times.size
    while m.ring[1] > 0 and m.times[m.ring[0]] < now - m.window[0]:
        m.counts[m.whose[m.ring[0]]] -= 1
        m.ring[0] = (m.ring[0] + 1) % size
        m.ring[1] -= 1
    if m.ring[1] == size:
        return np.int64(MORE)
    place = m.owner[row]
    if place < 0:
        place = np.int64(0)
        for k in range(seen.numbers.size):
            if m.counts[seen.numbers[k]] < 0:
                place = np.int64(k)
                break
            if m.counts[seen.numbers[k]] < m.counts[seen.numbers[place]]:
                place = np.int64(k)
    number = seen.numbers[place]
    m.counts[number] = max(m.counts[number], 0) + 1
    at = (m.ring[0] + m.ring[1]) % size
    m.times[at], m.whose[at] = now, number
    m.ring[1] += 1
    return place


class OwnedRule(Rule):
    """``owner``: of a session, as a place. ``window``: in which requests of the workers ``order`` are counted; None: they are not."""

    def __init__(self, owner: Callable[[int], int], order: Sequence[int] = (), window: float | None = None) -> None:
        self._owner = owner
        self._block: Requests | None = None
        self._known: dict[int, int] = {}
        none = np.zeros(0, np.int64)
        if window is None:
            super().__init__(owned, Owners(none), None, self._look_up)
            return
        seconds, counts = np.array([window], np.float64), np.full(max(order, default=-1) + 1, -1, np.int64)
        memory = Rates(none, seconds, np.zeros(1024), np.zeros(1024, np.int64), np.zeros(2, np.int64), counts)
        super().__init__(owned_or_rarest, memory, self._longer, self._look_up)

    def workers(self, order: Sequence[int]) -> None:
        """Other owners from now on."""
        self._known.clear()
        if isinstance(self.memory, Rates):
            self.replace(for_workers(self.memory, max(order, default=-1) + 1, counts=-1))

    def _look_up(self, block: Requests, lo: int, hi: int) -> None:
        if block is not self._block:
            self._block = block
            self.replace(self.memory._replace(owner=np.full(len(block), -1, np.int64)))
        known = self._known
        for row, session in enumerate(block.session[lo:hi].tolist(), lo):
            if session >= 0:
                if session not in known:
                    known[session] = self._owner(session)
                self.memory.owner[row] = known[session]

    def _longer(self) -> Rates:
        m: Rates = self.memory
        order = (m.ring[0] + np.arange(len(m.times))) % len(m.times)
        m.ring[0] = 0
        room = np.zeros(len(m.times))
        return m._replace(
            times=np.concatenate([m.times[order], room]), whose=np.concatenate([m.whose[order], room.astype(np.int64)])
        )
