"""All requests of a run on their way from prefill to decode pools in compiled code: what Python does around `sim.fleet.hand_over_ahead`."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np

from sim.engine.group import EngineGroup
from sim.engine.hand_over import Sides
from sim.engine.seam import F8, Group
from sim.engine.sides import HandOver
from sim.fleet.dispatch import rule_of
from sim.fleet.engines import JoinedEngines
from sim.fleet.hand_over_ahead import (
    AT_WIDTH,
    D_SLOT,
    DONE,
    MORE_OUTCOMES,
    NEED,
    NO_MEMORY,
    NO_ROOM,
    OPEN,
    OUTCOME,
    OUTCOMES,
    REFUSED,
    ROOM,
    ROOM_ROW,
    ROW,
    SENDS,
    SENT,
    SIDE,
    TIMES,
    USES,
    WIDTH,
    Book,
    Choosers,
    D,
    Who,
    Window,
    run,
)
from sim.fleet.journey import SideColumns
from sim.fleet.kv_links import Ports
from sim.policy.router import ReplicaFacts, Router
from sim.rules import seen_of, source_of
from sim.workload.table import RequestBlock


class Flow:
    """The way of all requests of a run. ``members``: replicas of each side, ``routers``: its router; ``pairs``: both are chosen at arrival."""

    NOTES = 4096
    """Transfers that are noted between two looks of Python."""

    def __init__(
        self,
        engines: JoinedEngines,
        members: Sequence[Sequence[int]],
        protocol: HandOver,
        pairs: bool,
        facts: Sequence[ReplicaFacts],
        routers: Sequence[Router],
        ports: Ports,
    ) -> None:
        groups = engines.groups
        self._joined, self._groups, self._ports = engines.joined, groups, ports
        self._rules = [rule for r in routers if (rule := rule_of(r)) is not None]
        self._sources = [source_of(r.rng) for r in routers]
        pool = np.array([g for g, group in enumerate(groups) for _ in range(group.n)])
        first = np.cumsum([0, *(g.n for g in groups)])[:-1]
        sides = [np.array(side, np.int64) for side in members]
        kinds = (protocol.first == "decode", pairs, protocol.sends == "chunks", protocol.delivered)
        self._who = Who(
            pool,
            np.arange(len(pool)) - first[pool],
            np.isin(first, sides[1]),
            sides[0],
            sides[1],
            np.array(kinds, np.int64),
            np.array([facts[0].block_size], np.int64),
        )
        self._wires = ports.arrays(np.array([f.kv_bytes_per_token for f in facts]))
        self._book = Book(
            np.zeros(AT_WIDTH, np.int64),
            np.empty(64),
            np.empty((64, 6), np.int64),
            np.empty((self.NOTES, 3)),
            np.empty((2 * self.NOTES, 3)),
            np.empty(self.NOTES),
            np.zeros(1),
        )
        self._block: RequestBlock | None = None
        self._rows: RequestBlock | None = None  # the block with the rows kept from those before
        self._window: Window | None = None
        self._choosers: Choosers | None = None
        self._stages: list[F8] = []

    def send(self, block: RequestBlock, lo: int, hi: int, first: int) -> None:
        """Rows [lo, hi) of a block, each at its time; its first row is number ``first``."""
        if block is not self._block:
            self._renew(block, first)
        assert self._window is not None
        kept = int(self._window.kept[0])
        self._book.at[ROW] = kept + lo
        self._go(kept + lo, kept + hi, inf)

    def advance(self, until: float) -> None:
        """Nobody comes until then."""
        if self._window is not None:
            row = int(self._book.at[ROW])
            self._go(row, row, until)

    def stages(self) -> Sequence[F8]:
        """Notes on requests: number, when D had memory, when its KV was there (f8[note] each)."""
        return list(np.concatenate([np.zeros((0, 3)), *self._stages]).T)

    def _renew(self, block: RequestBlock, first: int) -> None:
        """A new block, and of those before what is still on its way."""
        n = len(block)
        numbers = first + np.arange(n)
        journey = np.full((n, WIDTH), -1)
        journey[:, [NEED, SENT, OPEN]] = 0
        kept = 0
        rows, window, before = block, self._window, self._rows
        if window is not None and before is not None and len(on := np.flatnonzero(window.journey[:, OPEN])):
            kept = len(on)
            rows = RequestBlock.concat([before.take(on), block])
            numbers = np.concatenate([window.numbers[on], numbers])
            journey = np.concatenate([window.journey[on], journey])
        self._block, self._rows = block, rows
        self._window = Window(numbers, np.array([kept]), *SideColumns().of(rows), rows.spans, journey)
        seen = []
        for rule, source, side in zip(self._rules, self._sources, (self._who.p, self._who.d), strict=True):
            rule.prepare(rows, 0, len(rows))
            seen.append(seen_of(np.zeros(len(side), np.int64), np.arange(len(side)), rows, source))
        self._choosers = Choosers(np.array([r.address for r in self._rules], np.int64), *(r.table for r in self._rules), *seen)

    def _go(self, lo: int, hi: int, until: float) -> None:
        joined, book, window, choosers = self._joined, self._book, self._window, self._choosers
        assert window is not None and choosers is not None
        while True:
            code = run(
                joined.states, joined.keys, joined.recorders, self._who, window, choosers, self._wires, book, lo, hi, until
            )  # fmt: skip
            if code == DONE:
                break
            if code == NO_ROOM:
                r = int(book.at[ROOM])
                place = np.array([self._who.number[r]], np.int32)
                self._groups[self._who.pool[r]]._grow(place, window.spans, int(book.at[ROOM_ROW]))
            elif code == NO_MEMORY:
                short = int(book.at[SIDE])
                self._rules[short].grow()
                choosers = self._choosers = choosers._replace(**{("p_memory", "d_memory")[short]: self._rules[short].table})
            elif code == MORE_OUTCOMES:
                size = 2 * int(book.at[OUTCOMES])
                book = self._book = book._replace(times=np.empty(size), rows=np.empty((size, 6), np.int64))
            elif code == REFUSED:  # P has refused what D has memory for
                journey = window.journey[book.at[ROOM_ROW]]
                d = journey[D]
                side = Sides(self._groups[self._who.pool[d]])
                side.drop_remote(int(self._who.number[d]), int(journey[D_SLOT]), float(book.times[book.at[OUTCOME]]))
                journey[D_SLOT] = -1
            else:
                self._write_down()
        self._write_down()

    def _write_down(self) -> None:
        """Empty the notes."""
        book = self._book
        notes, uses, sends = (int(n) for n in book.at[[TIMES, USES, SENDS]])
        if notes:
            self._stages.append(book.stages[:notes].copy())
        self._ports.note(book.uses[:uses], book.waits[:sends], self._wires, float(book.bytes[0]))
        book.at[[TIMES, USES, SENDS]] = 0


def known(protocol: HandOver, routers: Sequence[Router], groups: Sequence[Group]) -> bool:
    """Whether compiled code can do it all: routers with rules on either side, and a protocol whose requests never come back."""
    return (
        not (protocol.returns or protocol.first_token == "prefill" or routers[0].whole)
        and all(
            r.interval is None and not r.hears and type(r).reached is Router.reached and rule_of(r) is not None for r in routers
        )
        and all(isinstance(g, EngineGroup) and Sides.playable(g) for g in groups)
    )
