"""A run: SimPy's clock, and a chain of stations from the clients to the engines.

Engines run lazily: a compiled call brings them up to the next outside event, or to the first outcome that a station waits for. Open-loop traffic
behind stations that do not look costs one event per block of requests; who looks at state, or waits for an answer, costs one per request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf

import numpy as np

from sim.fleet.client_side import ClientSide
from sim.fleet.clients import Clients
from sim.fleet.clock import Clock
from sim.fleet.engines import Engines
from sim.fleet.station import Station, link
from sim.fleet.view import View
from sim.ledger import WATCH_FIRST_TOKEN, Values
from sim.metrics.on_disk import HELD_ROWS, DiskTable
from sim.metrics.scaling import Scaling

Columns = dict[str, Values]
Table = Mapping[str, Values]


class World:
    """``clients``, the ``stations`` between (in the order in which a request passes them), and ``engines``; `sim.fleet.wiring.wire` makes one.

    ``until``: end of the simulated time. ``progress(sent, finished)`` is called now and then; when it returns True no more is sent.
    ``side``: what clients see besides the engines; None: nothing.
    """

    def __init__(
        self,
        clock: Clock,
        clients: Clients,
        stations: Sequence[Station],
        engines: Engines,
        *,
        until: float = inf,
        progress: Callable[[int, int], object] | None = None,
        side: ClientSide | None = None,
    ) -> None:
        self.clock, self.clients, self.engines, self.until = clock, clients, engines, until
        self.stations = [clients, *stations, engines]
        self.record: Scaling | None = None
        """What an autoscaler did (`sim.metrics.scaling.Scaling`)."""
        self.finished = 0
        self.stopped = False
        self._progress = progress or (lambda sent, finished: False)
        self._side = side
        link(self.stations)
        clients.look_up, clients.row_of = self._look_up, engines.row_of
        clients.asks = 0
        for station in self.stations:
            clients.asks |= station.watches
        engines.watched = engines.watched or clients.asks != 0
        engines.first_tokens = bool(clients.asks & WATCH_FIRST_TOKEN)
        engines.kept.to_disk = all(
            type(s).join is Station.join and type(s).client_times is Station.client_times for s in self.stations
        )
        clock.resting = lambda: engines.at_rest and self.waiting == 0

    @property
    def sent(self) -> int:
        """Requests that have left their clients."""
        return self.clients.sent

    @property
    def waiting(self) -> int:
        """Requests between clients and engines."""
        return sum(len(station.held) for station in self.stations)

    @property
    def view(self) -> View:
        """What a router sees of all engines."""
        return self.engines.view

    def run(self) -> None:
        """Until the traffic is over and every engine is idle, or until the end of the simulated time."""
        clock, engines = self.clock, self.engines
        for station in self.stations:
            station.start()
        while not self.stopped:
            time = min(clock.peek(), self.until)
            if engines.advance(time):
                engines.tell()
            elif time >= self.until or time == inf:
                engines.catch_up(time)
                break
            else:
                clock.step()
        self.finished += engines.collect()

    def _look_up(self) -> bool:
        self.finished += self.engines.collect()
        if self._progress(self.sent, self.finished + len(self.clients.turned_away)):
            self.stopped = True
        return self.stopped

    def requests(self) -> Table:
        """All requests, by id, as their clients see them: finished ones and those still in flight."""
        last = self.engines.in_flight()
        like = last[0]
        rows = [row for station in self.stations for row in station.rows()]
        if rows:
            last.append({name: np.array([row[name] for row in rows], like[name].dtype) for name in like})
        kept = self.engines.kept.take()
        if isinstance(kept, DiskTable):
            return self._in_order(kept, last)
        parts = [*kept, *last]
        out = {name: np.concatenate([p[name] for p in parts]) for name in like}
        for station in reversed(self.stations):
            out = station.join(out, self.sent)
        order = np.argsort(out["id"], kind="stable")
        out = {name: column[order] for name, column in out.items()}
        if self._side is not None:
            self._side.shift(out)
        for station in self.stations:
            station.client_times(out)
        for name, values in self.clients.labels().items():
            out[name] = values[out["id"]]
        return out if len(out["id"]) <= HELD_ROWS else DiskTable.of(out)

    def _in_order(self, table: DiskTable, last: Sequence[Columns]) -> Table:
        """The same of rows on disk."""
        for rows in last:
            table.append(rows)
        table.sort("id")
        side = self._side
        if side is not None:

            def shifted(rows: Columns) -> Columns:
                side.shift(rows)
                return rows

            table.change(shifted)
        for name, values in self.clients.labels().items():
            table[name] = values[table["id"]]
        return table

    def totals(self) -> dict[str, float]:
        """What happened between clients and engines: figures with names that begin with ``fleet_``."""
        out: dict[str, float] = {}
        for station in reversed(self.stations):
            out |= station.totals()
        return out

    def leaves(self) -> Mapping[str, object]:
        """What stations leave for sections of the summary, by name of the section."""
        return {name: found for station in self.stations for name, found in station.leaves().items()}

    def notes(self) -> list[str]:
        """The same in sentences."""
        return [note for station in reversed(self.stations) for note in station.notes()]
