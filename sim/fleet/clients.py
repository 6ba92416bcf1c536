"""The beginning of the road: who sends, and who has the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import inf
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from sim.fleet.client_side import ClientSide
from sim.fleet.clock import LATEST, Clock, too_late
from sim.fleet.request import Request
from sim.fleet.station import Station
from sim.ledger import REJECTED, WATCH_FINISH, Values, request_row
from sim.workload.table import RequestBlock

if TYPE_CHECKING:
    from sim.fleet.mix import Mix
    from sim.workload.base import Traffic
    from sim.workload.closed_loop import ClosedLoop

LABELS: Final = {"klass": np.int32, "tenant": np.int32, "session": np.int64}
"""What results say of who sent a request: columns of a `RequestBlock`."""
_LOOK_UP = 4096  # answers of clients between two looks at the recorders


class Clients(Station):
    """What all clients have in common. ``mix`` names the model of each request where there are several (`sim.fleet.mix.Mix`)."""

    def __init__(self, clock: Clock, until: float = inf, mix: Mix | None = None) -> None:
        super().__init__()
        self.sent = 0
        self.asks = 0
        """Outcomes that stations on the road have to hear of."""
        self.look_up: Callable[[], bool] = lambda: False
        """Asked now and then; True: send no more."""
        self.row_of: Callable[[int], int] = lambda replica: replica
        """The number of a replica in results."""
        self.turned_away: list[tuple[Request, float]] = []
        self._clock, self._until, self._mix = clock, until, mix
        self._stopped = False
        self._unplaced = 0

    def refused(self, request: Request, time: float, busy: bool = False) -> None:
        """The request ends here."""
        self.turned_away.append((request, time))
        self._unplaced += not busy

    def ended(self, request: Request, time: float, replica: int) -> None:
        """Nobody waits."""

    def first_token(self, request: Request, time: float) -> None:
        """Nobody waits."""

    def rows(self) -> Iterable[Mapping[str, float]]:
        """Requests that were refused."""
        for r, end in self.turned_away:
            yield request_row(
                id=r.number,
                replica=self.row_of(r.replica),
                arrival_s=r.arrival,
                finish_s=end,
                prompt_tokens=r.prompt_tokens,
                status=REJECTED,
            )

    def labels(self) -> dict[str, Values]:
        """By name, [sent]: whose request each one is, those of `LABELS` that say something; without classes the model that it names is its class."""
        raise NotImplementedError

    def totals(self) -> dict[str, float]:
        """Who found no replica; `sim.study.reasons` says it in words."""
        return {"fleet_gateway_failed": float(self._unplaced)} if self._unplaced else {}

    def _send(self, request: Request) -> None:
        if not self.then.arrive(request):
            self.refused(request, max(request.arrival, self._clock.now))

    def _paced(self, loop: ClosedLoop, due: float, post: Callable[[], None]) -> None:
        """Now, or when it is due where the `ClosedLoop` is paced."""
        if loop.paced and due > self._clock.now:
            self._not_too_late(due)
            self._clock.call(due, post)
        else:
            post()

    def _ask(self, block: RequestBlock, row: int, client: int, labels: dict[str, list[int]], by_model: bool) -> None:
        """Send a row now. ``labels``: what is said of the requests so far; ``by_model``: the model that this one names is its class."""
        now = self._clock.now
        block.arrival_s[row] = now
        model = 0 if self._mix is None else self._mix.draw(block, row)
        request = Request(block, row, self.sent, now, self.asks, model, client)
        self.sent += 1
        for name in LABELS:
            labels[name].append(int(getattr(block, name)[row]))
        if self._mix is not None:
            if by_model:
                labels["klass"][-1] = model
            if self._mix.told:
                labels.setdefault("model", []).append(model)
        self._send(request)
        if self.sent % _LOOK_UP == 0:
            self._stopped = self.look_up() or self._stopped

    def _not_too_late(self, time: float) -> None:
        if min(time, self._until) > LATEST:
            raise too_late(time)


class OpenClients(Clients):
    """They send at the times of the traffic, whatever becomes of it. ``blocks``: an iterator of `RequestBlock`."""

    def __init__(
        self, clock: Clock, blocks: Iterator[RequestBlock], until: float = inf, mix: Mix | None = None, classes: bool = False
    ) -> None:
        super().__init__(clock, until, mix)
        self._blocks = blocks
        self._classes = classes
        self._labels: dict[str, list[Values]] = {name: [] for name in LABELS}
        self._models: NDArray[np.int32] | None = None
        self._block: RequestBlock | None = None
        self._base = 0  # number of the first row of the current block
        self._row = 0
        self._arrivals: list[float] = []
        self._ahead = False
        self._started = True  # False: stations behind have not said yet what they wait for

    def start(self) -> None:
        """Whole blocks where everybody takes them, else one request after the other."""
        self._ahead = self.then.ahead and not self.asks
        if self.then.by_blocks and not self.asks:
            self._next_of_blocks()
        else:
            self._started = False
            self._go()
            self._started = True

    def labels(self) -> dict[str, Values]:
        """As the traffic says."""
        return said(
            {name: np.concatenate([*parts, np.zeros(0, LABELS.get(name, np.int32))]) for name, parts in self._labels.items()}
        )

    def _next_block(self) -> RequestBlock | None:
        """Take the next block of the traffic; None when there is none, or the run was stopped."""
        if self._block is not None:
            self._base += len(self._block)
            self._block = None
        self._stopped = self.look_up() or self._stopped
        block = None if self._stopped else next(self._blocks, None)
        if block is not None and block.arrival_s[-1] >= self._until:  # who would send later sends nothing
            block = block[: int(np.searchsorted(block.arrival_s, self._until))]
        if block is None or not len(block):
            return None
        self._not_too_late(float(block.arrival_s[-1]))
        self._block = block
        for name in LABELS:
            self._labels[name].append(_small(getattr(block, name)))
        if self._mix is not None:
            self._models = self._mix.models(block)
            if self._mix.told:
                self._labels.setdefault("model", []).append(self._models)
            if not self._classes:
                self._labels["klass"][-1] = self._models
        return block

    def _next_of_blocks(self) -> None:
        block = self._next_block()
        if block is not None:
            self._clock.call(float(block.arrival_s[0]), lambda: self._send_block(block))

    def _send_block(self, block: RequestBlock) -> None:
        if self._clock.now < self._until:
            self.then.arrive_block(block, self._base)
            self.sent += len(block)
            self._next_of_blocks()

    def _send_ahead(self, block: RequestBlock, row: int) -> int:
        """All requests from ``row`` on that come before the next event; returns the first that does not."""
        limit = min(self._clock.peek(), self._until) if self._started else self._clock.now
        end = max(int(np.searchsorted(block.arrival_s, limit)), row + 1)
        self.then.arrive_ahead(block, row, end, self._base)
        self.sent += end - row
        return end

    def _go(self, _: object = None) -> None:
        """Send what is due, and come back at the next arrival."""
        clock, then, until, asks = self._clock, self.then, self._until, self.asks
        now = clock.now
        while True:
            if self._row == len(self._arrivals):
                found = self._next_block()
                if found is None:
                    return
                self._arrivals, self._row = found.arrival_s.tolist(), 0
            assert self._block is not None, "rows are left of it"
            block, base, arrivals = self._block, self._base, self._arrivals
            for row in range(self._row, len(arrivals)):
                arrival = arrivals[row]
                if arrival > now:
                    self._row = row
                    clock.at(arrival).callbacks.append(self._go)
                    return
                if arrival >= until or self._stopped:
                    return
                if self._ahead:
                    self._row = self._send_ahead(block, row)
                    break
                self.sent += 1
                request = Request(block, row, base + row, arrival, asks)
                if self._models is not None:
                    request.model = int(self._models[row])
                if not then.arrive(request):
                    self.refused(request, max(arrival, now))
            else:
                self._row = len(arrivals)


class WaitingClients(Clients):
    """Each sends its next request some thinking time after it has the answer to the last one; not before its arrival time where the loop is paced.

    ``loop``: a `sim.workload.closed_loop.ClosedLoop` with nothing asked yet. ``side``: how long answers are under way; None: no time.
    """

    watches = WATCH_FINISH

    def __init__(
        self, clock: Clock, loop: ClosedLoop, until: float = inf, mix: Mix | None = None, side: ClientSide | None = None
    ) -> None:
        super().__init__(clock, until, mix)
        self._loop, self._side = loop, side
        self._labels: dict[str, list[int]] = {name: [] for name in LABELS}

    def start(self) -> None:
        """All begin at once, no more of them than requests."""
        clients = self._loop.concurrency
        for client in range(clients if self._loop.total is None else min(clients, self._loop.total)):
            self._later(client, 0.0)

    def labels(self) -> dict[str, Values]:
        """Of each request in the order of sending."""
        return said({name: np.array(values, LABELS.get(name, np.int32)) for name, values in self._labels.items()})

    def refused(self, request: Request, time: float, busy: bool = False) -> None:
        """An error is an answer."""
        super().refused(request, time, busy)
        self.ended(request, time, 0)

    def ended(self, request: Request, time: float, replica: int) -> None:
        """The answer is on its way; the client thinks from when it has it."""
        away = self._side.away(replica, request.prompt_tokens) if self._side is not None else 0.0
        self._later(request.client, time + away + self._loop.think_time)

    def _later(self, client: int, time: float) -> None:
        self._not_too_late(time)
        self._clock.call(time, lambda: self._next(client))

    def _next(self, client: int) -> None:
        now = self._clock.now
        if now >= self._until or self._stopped:
            return
        found = self._loop.next(client)
        if found is None:
            return
        block, row = found
        self._paced(self._loop, float(block.arrival_s[row]), lambda: self._post(client, block, row))

    def _post(self, client: int, block: RequestBlock, row: int) -> None:
        if self._clock.now < self._until:
            self._ask(block, row, client, self._labels, by_model=True)


def _small(column: Values) -> Values:
    """The column, without memory where it says the same of all."""
    return np.broadcast_to(column[:1], column.shape) if len(column) and (column == column[0]).all() else column


def said(columns: dict[str, Values]) -> dict[str, Values]:
    """Classes always; tenants and sessions where there are any."""
    there = {"klass": True, "tenant": columns["tenant"].any(), "session": (columns["session"] >= 0).any()}
    return {name: column for name, column in columns.items() if there.get(name, True)}


def clients_of(clock: Clock, traffic: Traffic, until: float, mix: Mix | None, side: ClientSide | None) -> Clients:
    """The clients of a `sim.workload.base.Traffic`."""
    if traffic.waits or traffic.loops:
        from sim.fleet.answering import AnsweringClients

        return AnsweringClients(clock, traffic, until, mix, side)
    if traffic.closed_loop is not None:
        return WaitingClients(clock, traffic.closed_loop.fresh(), until, mix, side)
    return OpenClients(clock, traffic.blocks(), until, mix, bool(traffic.classes))
