"""Clients of whom some send at the times of the traffic and others when they have answers: turns, agents with tools, loops beside open traffic."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from sim.fleet.client_side import ClientSide
from sim.fleet.clients import LABELS, Clients, said
from sim.fleet.clock import Clock
from sim.fleet.request import Request
from sim.ledger import WATCH_FINISH, Values
from sim.workload.table import RequestBlock

if TYPE_CHECKING:
    from sim.fleet.mix import Mix
    from sim.workload.base import Traffic
    from sim.workload.closed_loop import ClosedLoop


class _Pending:
    """A request that waits for ``left`` more answers; ``since``: when the last of those that are there came."""

    __slots__ = ("block", "left", "row", "since")

    def __init__(self, block: RequestBlock, row: int) -> None:
        self.block, self.row, self.left, self.since = block, row, 0, 0.0


class AnsweringClients(Clients):
    """``traffic``: a `sim.workload.base.Traffic` with `waits` or `loops`. ``side``: how long answers are under way; None: no time.

    A request whose predecessor was cut out of the traffic waits for the others only. An error is an answer, as for clients that wait.
    """

    watches = WATCH_FINISH

    def __init__(
        self, clock: Clock, traffic: Traffic, until: float = inf, mix: Mix | None = None, side: ClientSide | None = None
    ) -> None:
        super().__init__(clock, min(until, traffic.until), mix)
        self._blocks, self._side, self._classes = traffic.blocks(), side, bool(traffic.classes)
        self._most = inf if traffic.most is None else traffic.most
        self._loops: Sequence[ClosedLoop] = [loop.fresh() for loop in traffic.loops]
        self._who = [(loop, k) for loop in self._loops for k in range(loop.concurrency)]
        self._labels: dict[str, list[int]] = {name: [] for name in LABELS}
        self._block: RequestBlock | None = None
        self._row = 0
        self._arrivals: list[float] = []
        self._alive: set[int] = set()  # awaited requests without an answer yet, sent or not
        self._ended: dict[
            int, list[float]
        ] = {}  # awaited requests: when the answer was there, how many have not come to ask for it
        self._waiting: dict[int, list[_Pending]] = {}

    def start(self) -> None:
        """Loops begin at once, everything else at its time."""
        for client in range(len(self._who)):
            self._later(client, 0.0)
        self._go()

    def labels(self) -> dict[str, Values]:
        """Of each request in the order of sending."""
        return said({name: np.array(values, LABELS.get(name, np.int32)) for name, values in self._labels.items()})

    def notes(self) -> list[str]:
        """Also who was never sent."""
        left = sum({id(p): 1 for nodes in self._waiting.values() for p in nodes}.values())
        text = f"{left:,} requests waited for answers to others when the run ended and were not sent"
        return super().notes() + ([text] if left else [])

    def refused(self, request: Request, time: float, busy: bool = False) -> None:
        """An error is an answer."""
        super().refused(request, time, busy)
        self.ended(request, time, 0)

    def ended(self, request: Request, time: float, replica: int) -> None:
        """The answer is on its way; whoever waits for it goes on from when it is there."""
        at = time + (self._side.away(replica, request.prompt_tokens) if self._side is not None else 0.0)
        if request.client >= 0:
            self._later(request.client, at + self._who[request.client][0].think_time)
            return
        waits = request.block.waits
        if waits is None or not waits.awaited[request.row]:
            return
        key = int(request.block.out_content[request.row])
        self._alive.discard(key)
        asked = self._waiting.pop(key, [])
        left = int(waits.awaited[request.row]) - len(asked)
        if left > 0:
            self._ended[key] = [at, left]
        for pending in asked:
            pending.left -= 1
            pending.since = max(pending.since, at)
            if not pending.left:
                self._when_due(pending)

    def _go(self, _: object = None) -> None:
        """Take what has come, and come back at the next arrival."""
        now = self._clock.now
        while not self._stopped:
            if self._row == len(self._arrivals):
                self._stopped = self.look_up() or self._stopped
                block = self._block = next(self._blocks, None)
                if block is None:
                    return
                self._not_too_late(float(block.arrival_s[-1]))
                self._arrivals, self._row = block.arrival_s.tolist(), 0
            block = self._block
            assert block is not None, "rows are left of it"
            for row in range(self._row, len(self._arrivals)):
                arrival = self._arrivals[row]
                if arrival > now:
                    self._row = row
                    self._clock.at(arrival).callbacks.append(self._go)
                    return
                self._take(block, row)
            self._row = len(self._arrivals)

    def _take(self, block: RequestBlock, row: int) -> None:
        waits = block.waits
        if waits is None:
            self._post(block, row)
            return
        if waits.awaited[row]:
            self._alive.add(int(block.out_content[row]))
        if np.isnan(waits.wait_s[row]):
            self._post(block, row)
            return
        pending = _Pending(block, row)
        pending.since = float(block.arrival_s[row])
        for key in waits.key[waits.off[row] : waits.off[row + 1]].tolist():
            if key in self._alive:
                pending.left += 1
                self._waiting.setdefault(key, []).append(pending)
            elif key in self._ended:
                found = self._ended[key]
                pending.since = max(pending.since, found[0])
                found[1] -= 1
                if not found[1]:
                    del self._ended[key]
        if not pending.left:
            self._when_due(pending)

    def _when_due(self, p: _Pending) -> None:
        assert p.block.waits is not None, "who waits says for how long"
        time = p.since + float(p.block.waits.wait_s[p.row])
        self._not_too_late(time)
        self._clock.call(time, lambda: self._post(p.block, p.row))

    def _later(self, client: int, time: float) -> None:
        self._not_too_late(time)
        self._clock.call(time, lambda: self._next(client))

    def _next(self, client: int) -> None:
        loop, k = self._who[client]
        if self._over():
            return
        found = loop.next(k)
        if found is not None:
            block, row = found
            self._paced(loop, float(block.arrival_s[row]), lambda: self._post(block, row, client))

    def _over(self) -> bool:
        return self._clock.now >= self._until or self._stopped or self.sent >= self._most

    def _post(self, block: RequestBlock, row: int, client: int = -1) -> None:
        if not self._over():
            self._ask(block, row, client, self._labels, by_model=not self._classes)
