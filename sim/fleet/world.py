"""The world between the engines: SimPy's clock, the gateway, open-loop traffic and closed-loop clients.

Engines run lazily: a compiled call brings them up to the next outside event. Open-loop traffic behind a stateless router needs one SimPy
event per block of requests; a router that looks at state, or a client that waits for an answer, needs one per request.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from math import inf
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray

from sim.fleet.client_side import ClientSide
from sim.fleet.clock import LATEST, Clock, too_late
from sim.fleet.gateway import Gateway
from sim.policy.router import ReplicaFacts, Router

WATCH_FINISH = 1  # as in sim.engine.state, which would load the compiler
WATCH_FIRST_TOKEN = 2
FIRST_TOKEN = 1  # kind of an outcome
Columns = dict[str, NDArray[Any]]
_LOOK_UP = 4096  # answers of clients between two looks at the recorders
_NONE = np.zeros(0, np.int32)
_ROUNDING = 1e-12  # of SimPy's clock, which adds up delays


class View:
    """What routers see (`sim.policy.router.Snapshot`)."""

    def __init__(self, groups: list[Any], env: simpy.Environment, facts: Sequence[ReplicaFacts] | None = None) -> None:
        self._groups = groups
        self._env = env
        self.replicas = sum(g.n for g in groups)
        self.facts = list(facts) if facts is not None else [ReplicaFacts()] * self.replicas
        self._insides: list[Any] = []
        self._place = [(g, k) for g, group in enumerate(groups) for k in range(group.n)]
        self.moment = 0.0
        """Time of the outcome that is being handled, which may be ahead of SimPy's clock."""
        self.looks = 0
        """Times that a router brought engines up to now."""

    @property
    def now(self) -> float:
        """Simulated time."""
        return max(float(self._env.now), self.moment)

    def insides(self) -> list[Any]:
        """One `sim.engine.handover.Inside` per pool."""
        if not self._insides:
            from sim.engine.handover import Inside

            first = np.cumsum([0, *(g.n for g in self._groups)])
            self._insides = [Inside(g, self.facts[i].block_size) for g, i in zip(self._groups, first, strict=False)]
        return self._insides

    def inside(self, replica: int) -> tuple[Any, int]:
        """The inside of a replica's pool and its number there."""
        group, k = self._place[replica]
        return self.insides()[group], k

    def sync(self, replica: int) -> None:
        """Bring the pool of a replica up to now."""
        self.looks += 1
        self.inside(replica)[0].sync(self.now)

    def look(self) -> dict[str, NDArray[np.float64]]:
        """Queue and memory of all replicas as of now."""
        from sim.engine.handover import LOOK

        self.looks += 1
        for inside in self.insides():
            inside.sync(self.now)
        rows = np.concatenate([inside.look() for inside in self.insides()])
        return {name: rows[:, j] for j, name in enumerate(LOOK)}

    def running(self, replica: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Running requests of a replica as of now."""
        self.sync(replica)
        inside, k = self.inside(replica)
        rows: tuple[NDArray[np.int64], NDArray[np.float64]] = inside.requests(k)
        return rows

    def free_blocks(self, replica: int) -> float:
        """KV blocks of a replica that nobody holds."""
        inside, k = self.inside(replica)
        row = inside.look()[k]
        return float(row[0] - row[1])

    @property
    def outstanding(self) -> NDArray[np.int64]:
        """Live for one pool, joined for several."""
        if len(self._groups) == 1:
            return self._groups[0].outstanding  # type: ignore[no-any-return]
        return np.concatenate([g.outstanding for g in self._groups])

    def gauges(self) -> NDArray[np.float64]:
        """Of all pools, side by side."""
        return np.concatenate([g.gauges() for g in self._groups], axis=1)


class World:
    """One run: ``groups`` (an `EngineGroup` per pool) behind one ``router``, fed with ``traffic`` (a `sim.workload.base.Traffic`).

    Where the traffic has a ``closed_loop``, its clients send the next request some thinking time after the last answer. ``until``: end of
    the simulated time. ``progress(sent, finished)`` is called now and then; when it returns True the run stops there. ``host`` makes a
    `sim.fleet.ollama_host.OllamaHost`, which then takes the place of the router. ``elastic`` makes a `sim.fleet.scaling.Elastic`, which
    then stands before it. ``hand_overs`` makes a `sim.fleet.disaggregation.HandOvers`, which takes requests from prefill to decode pools.
    ``client_side``: what clients see besides the engines; None: nothing.
    """

    def __init__(
        self,
        groups: list[Any],
        router: Router,
        traffic: Any,
        *,
        until: float = inf,
        progress: Callable[[int, int], Any] | None = None,
        facts: Sequence[ReplicaFacts] | None = None,
        host: Callable[[World], Any] | None = None,
        elastic: Callable[[World], Any] | None = None,
        hand_overs: Callable[[World], Any] | None = None,
        client_side: ClientSide | None = None,
    ) -> None:
        self.env = Clock()
        self.groups = groups
        self.router = router
        self.view = View(groups, self.env, facts)
        self.until = until
        self.sent = 0
        self.finished = 0
        self.stopped = False
        self._clients = traffic.closed_loop.fresh() if traffic.closed_loop is not None else None
        self._blocks = traffic.blocks() if self._clients is None else iter(())
        self._progress = progress or (lambda sent, finished: False)
        self._first = np.cumsum([0, *(g.n for g in groups)])
        self._first_row = np.cumsum([0, *(g.n * g.ranks for g in groups)])  # results are by rank
        self._pool_of = np.repeat(np.arange(len(groups)), [g.n for g in groups])
        self._rows: list[Columns] = []
        self._klass: list[NDArray[np.int32]] = []
        self._watched = self._clients is not None or host is not None or hand_overs is not None
        self._client_side = client_side
        self._client_of: dict[int, tuple[int, int]] = {}  # who waits for a request, and the tokens of its prompt
        self._sent_klass: list[int] = []
        self._block: Any = None
        self._base = 0  # id of the first row of the current block
        self._turn = 0
        self._came: dict[int, float] = {}  # requests that the gateway kept for a while: when they came
        self._refused: list[tuple[int, float, float, int]] = []  # id, arrival, end, prompt tokens
        self._waiting: dict[int, tuple[float, int]] = {}  # requests in the gateway: arrival, prompt tokens
        self._gateway: Any = None
        self._migrator: Any = None
        self._host: Any = host(self) if host is not None else None
        self.elastic: Any = elastic(self) if elastic is not None else None
        if self.elastic is not None:
            router = self.router = self._gateway = self.elastic
        self._pd: Any = hand_overs(self) if hand_overs is not None else None
        if self._pd is None:
            router.setup(self.view.facts)
        if router.gateway is not None:
            ask = self._schedule if self.elastic is None else self.elastic.send
            self._gateway = Gateway(self.env, router.gateway, ask, self._in_turn, self.refuse)
        self._queue: Any = None
        if router.coordinates:
            from sim.fleet.coordinator import Queue

            self._watched = True
            self._queue = Queue(self.env, router, self.view, self._dispatch, self.refuse)
            if self._pd is not None:
                self._pd.tell_computed = self._queue.prompt_computed
        if router.migration is not None:
            from sim.fleet.migration import Migrator

            for inside, group_first in zip(self.view.insides(), self._first, strict=False):
                inside.movable(self.view.facts[group_first].engine)
            self._migrator = Migrator(self, router.migration)

    # -- traffic

    def _next_block(self) -> bool:
        """Take the next block of the traffic; False when there is none, or the run was stopped."""
        self._look_up()
        if self._block is not None:
            self._base += len(self._block)
            self._block = None
        block = None if self.stopped else next(self._blocks, None)
        if block is None:
            return False
        self._not_too_late(float(block.arrival_s[-1]))
        self._block = block if self._host is None else self._host.assign(block)
        self._klass.append(self._block.klass)
        return True

    def _send_block(self) -> None:
        """The whole block at once, each row to its replica; the engines keep future arrivals in their inboxes."""
        block = self._block
        replica = self.router.route(block)
        columns, spans = block.columns, block.spans
        for group, first in zip(self.groups, self._first, strict=False):
            if len(self.groups) == 1:
                mine = replica if group.n > 1 else np.zeros(1, np.int32)
            else:
                inside = (replica >= first) & (replica < first + group.n)
                mine = np.where(inside, replica - first, -1).astype(np.int32)
                if len(mine) == 1 and mine[0] < 0:
                    continue
            group.submit_routed(mine, columns, spans, self._base)
        self.sent += len(block)

    def _open_blocks(self) -> Generator[simpy.Event, Any, None]:
        while self._next_block():
            yield self._at(float(self._block.arrival_s[0]))
            if self.env.now >= self.until:
                return
            self._send_block()

    def _open_rows(self) -> Generator[simpy.Event, Any, None]:
        env = self.env
        while self._next_block():
            block = self._block
            columns, spans, base = block.columns, block.spans, self._base
            for row, arrival in enumerate(block.arrival_s.tolist()):
                if arrival > env.now:
                    yield env.timeout(arrival - env.now)
                    if arrival >= self.until or self.stopped:
                        return
                    if env.now != arrival and self._host is None and self._pd is None:  # rounding of the delay, in the last bit
                        self._advance(arrival)
                self.sent += 1
                if self._host is not None:
                    self._host.arrive((block, row, base + row, WATCH_FINISH), int(block.klass[row]))
                    continue
                if self._queue is not None:
                    self._queue_up((block, row, base + row, WATCH_FINISH | WATCH_FIRST_TOKEN))
                    continue
                if self._gateway is not None:
                    self._hand_in(block, row, base + row, 0)
                    continue
                if self._pd is not None:
                    if not self._pd.schedule((block, row, base + row, 0)):
                        self.refuse((block, row, base + row, 0))
                    continue
                replica = self.router.choose(self.view, block, row)
                if replica < 0:
                    self.refuse((block, row, base + row, 0))
                    continue
                pool = self._pool_of[replica]
                self.groups[pool].submit(replica - self._first[pool], columns, spans, row, row + 1, base)

    def _client_sends(self, client: int) -> None:
        """A client sends the next request of its own, now."""
        now = self.env.now
        if now >= self.until or self.stopped:
            return
        request = self._clients.next(client)  # type: ignore[union-attr]
        if request is None:
            return
        block, row = request
        block.arrival_s[row] = now
        number = self.sent
        self.sent = number + 1
        self._client_of[number] = client, int(block.prompt_tokens[row])
        self._sent_klass.append(int(block.klass[row]) if self._host is None else self._host.draw(block, row))
        if self._host is not None:
            self._host.arrive((block, row, number, WATCH_FINISH), self._sent_klass[-1])
        elif self._queue is not None:
            self._queue_up((block, row, number, WATCH_FINISH | WATCH_FIRST_TOKEN))
        elif self._gateway is not None:
            self._hand_in(block, row, number, WATCH_FINISH)
        elif not self._schedule((block, row, number, WATCH_FINISH)):
            self.refuse((block, row, number, WATCH_FINISH))
        if self.sent % _LOOK_UP == 0:
            self._look_up()

    # -- one request: (block, row, id, watch flags)

    def taken(self, number: int, arrival: float) -> None:
        """A request leaves the gateway for an engine; the time it came is kept."""
        self._waiting.pop(number, None)
        if self.env.now - arrival > _ROUNDING * max(1.0, arrival):
            self._came[number] = arrival

    def hold(self, request: tuple[Any, int, int, int]) -> None:
        """The request waits outside the engines."""
        block, row, number, _ = request
        self._waiting[number] = (float(block.arrival_s[row]), int(block.prompt_tokens[row]))

    @property
    def waiting(self) -> int:
        """Requests outside the engines."""
        return len(self._waiting)

    def _hand_in(self, block: Any, row: int, number: int, watch: int) -> None:
        self.hold((block, row, number, watch))
        self._gateway.arrive((block, row, number, watch), int(block.priority[row]))

    def _queue_up(self, request: tuple[Any, int, int, int]) -> None:
        self.hold(request)
        self._queue.arrive(request)

    def _dispatch(self, request: tuple[Any, int, int, int], replica: int, decode: int) -> None:
        """The router's queue lets a request go."""
        if self._pd is not None:
            self._pd.begin(request, replica, decode)
        else:
            self.submit(request, replica)

    def _schedule(self, request: tuple[Any, int, int, int]) -> bool:
        """Ask the router, send the request there; False if it has no replica for it."""
        if self._pd is not None:
            return self._pd.schedule(request)  # type: ignore[no-any-return]
        replica = self.router.choose(self.view, request[0], request[1])
        if replica < 0:
            return False
        self.submit(request, replica)
        return True

    def _in_turn(self, request: tuple[Any, int, int, int]) -> bool:
        if self._pd is not None:
            return self._pd.in_turn(request)  # type: ignore[no-any-return]
        replica, self._turn = self._turn, (self._turn + 1) % self.view.replicas
        self.submit(request, replica)
        return True

    def submit(self, request: tuple[Any, int, int, int], replica: int) -> None:
        """The request goes to this replica, now."""
        block, row, number, watch = request
        self._waiting.pop(number, None)
        pool = self._pool_of[replica]
        group, k = self.groups[pool], replica - self._first[pool]
        columns, spans, arrival = block.columns, block.spans, float(block.arrival_s[row])
        if self.env.now - arrival > _ROUNDING * max(1.0, arrival):  # engines take requests as of now
            self._came[number] = arrival
            columns = (np.array([self.env.now]), *(c[row : row + 1] for c in columns[1:]))
            spans = (spans[0][row : row + 2], *spans[1:])
            row = 0
        group.submit(k, columns, spans, row, row + 1, number - row, watch)

    def refuse(self, request: tuple[Any, int, int, int]) -> None:
        """Nobody takes it: the client gets an error now."""
        block, row, number, _ = request
        self._waiting.pop(number, None)
        arrival, now = float(block.arrival_s[row]), float(self.env.now)
        self._refused.append((number, arrival, max(arrival, now), int(block.prompt_tokens[row])))
        self.finished += 1
        self._tell_client(number, max(arrival, now), 0)

    def _poll(self) -> Generator[simpy.Event, Any, None]:
        """The router looks at the replicas at its interval, as long as anything can still happen."""
        while not self.stopped:
            moves = self.router.poll(self.view) if self._pd is None else self._pd.poll()
            if self._migrator is not None:
                self._migrator.start(moves)
            if self.env.peek() == inf and not self._waiting and all(group.next_event() == inf for group in self.groups):
                return
            yield self.env.timeout(self.router.interval or inf)

    def _at(self, time: float) -> simpy.Event:
        return self.env.at(time)

    # -- running

    def run(self) -> None:
        """Until the traffic is over and every engine is idle, or until the end of the simulated time."""
        env = self.env
        if self._clients is not None:
            for client in range(min(self._clients.concurrency, self._clients.total or self._clients.concurrency)):
                self._send_later(client, 0.0)
        else:
            alone = self.router.stateless and self._gateway is None and self._host is None and self._pd is None
            env.process(self._open_blocks() if alone else self._open_rows())
        if self.router.interval is not None:
            env.process(self._poll())
        while not self.stopped:
            time = min(env.peek(), self.until)
            if self._advance(time):
                self._wake_clients()
                continue
            if time >= self.until or time == inf:
                if self._pd is not None:
                    self._pd.catch_up(time)
                break
            env.step()
        self._collect()

    def _advance(self, until: float) -> bool:
        """Bring every engine up to ``until``; True if a watched request had an outcome before."""
        if self._pd is not None:
            return self._pd.advance(until)  # type: ignore[no-any-return]
        if len(self.groups) == 1:
            return self.groups[0].advance(until, self._watched)  # type: ignore[no-any-return]
        if not self._watched:
            for group in self.groups:
                group.advance(until, False)
            return False
        last = -inf
        while True:  # the same order as within a group: all completions at a time before all decisions
            keys = [group.next_event() for group in self.groups]
            first = min(keys)
            if first > until or first == inf:
                return False
            tied = keys.count(first) > 1
            later = min((k for k in keys if k > first), default=inf)
            target = min(until, later if not tied else first if first > last else float(np.nextafter(first, inf)))
            last = first
            if any([group.advance(target, True) for group, key in zip(self.groups, keys, strict=True) if key <= first]):  # noqa: C419 - all of them
                return True
            if first >= until:
                return False

    def _wake_clients(self) -> None:
        if self._pd is not None:
            self._pd.handle_outcomes()
            return
        if self._queue is not None:
            for pool, group in enumerate(self.groups):
                for t, (number, _, kind, *_) in zip(*group.take_outcomes(), strict=True):
                    if kind == FIRST_TOKEN:
                        self._queue.prompt_computed(number, t)
                    else:
                        self.answered(number, t, pool)
            return
        for pool, group in enumerate(self.groups):
            ids, times, _ = group.take_watched()
            for number, t in zip(ids.tolist(), times.tolist(), strict=True):
                if self._host is not None:
                    self._tell_host(number, t)
                self.answered(number, t, pool)

    def answered(self, number: int, time: float, pool: int = 0) -> None:
        """A request has ended in an engine of this pool: its answer goes to the client, who may wait for it."""
        if self._queue is not None:
            self._queue.ended(number, time)
        self._tell_client(number, time, pool)

    def _tell_client(self, number: int, time: float, pool: int) -> None:
        """Who waits for this request has its answer some time after the engines have it, and thinks from then on."""
        client, prompt = self._client_of.pop(number, (-1, 0))
        if client >= 0:
            away = self._client_side.away(pool, prompt) if self._client_side is not None else 0.0
            self._send_later(client, time + away + self._clients.think_time)  # type: ignore[union-attr]

    def _tell_host(self, number: int, time: float) -> None:
        self._at(time).callbacks.append(lambda _: self._host.finished(number))

    def _not_too_late(self, time: float) -> None:
        if min(time, self.until) > LATEST:
            raise too_late(time)

    def _send_later(self, client: int, time: float) -> None:
        self._not_too_late(time)
        self._at(time).callbacks.append(lambda _: self._client_sends(client))

    def _look_up(self) -> None:
        self._collect()
        if self._progress(self.sent, self.finished):
            self.stopped = True

    def _collect(self) -> None:
        """Take the finished rows out of the recorders, so that memory follows requests in flight."""
        for group, first in zip(self.groups, self._first_row, strict=False):
            rows = group.drain()
            if len(rows["id"]):
                rows["replica"] += np.int32(first)
                self._restore(rows)
                self.finished += len(rows["id"]) if self._pd is None else self._pd.ended(rows)
                self._rows.append(rows)

    def _restore(self, rows: Columns) -> None:
        """Requests that the gateway kept came earlier than the engine got them."""
        if self._came:
            for i in np.flatnonzero(np.isin(rows["id"], list(self._came))).tolist():
                # a request that was handed over has several rows; its first arrival counts
                rows["arrival_s"][i] = self._came.pop(int(rows["id"][i]), rows["arrival_s"][i])

    # -- results

    def requests(self) -> Columns:
        """All requests, by id: finished ones and those still in flight."""
        parts = list(self._rows)
        for group, first in zip(self.groups, self._first_row, strict=False):
            rows = group.in_flight()
            rows["replica"] += np.int32(first)
            self._restore(rows)
            parts.append(rows)
        parts += self._outside(parts[0])
        out = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
        self._rows = []
        if self._pd is not None:
            out = self._pd.join(out, self.sent)
        order = np.argsort(out["id"], kind="stable")
        for name in out:
            out[name] = out[name][order]
        if self._client_side is not None:
            self._client_side.shift(out)
        klass = np.array(self._sent_klass, np.int32) if self._clients is not None else np.concatenate([*self._klass, _NONE])
        out["klass"] = klass[out["id"]]
        return out

    def _outside(self, like: Columns) -> list[Columns]:
        """Rows of requests that are in no engine: refused, in the gateway, or between two replicas."""
        nan = float("nan")
        rows = [(i, 0, came, nan, nan, end, prompt, 0, 0, 0, 1, nan) for i, came, end, prompt in self._refused]
        rows += [(i, 0, came, nan, nan, nan, prompt, 0, 0, 0, 3, nan) for i, (came, prompt) in self._waiting.items()]
        for source, (counts, times, _) in self._migrator.in_transit() if self._migrator is not None else ():
            c = counts.tolist()
            rows.append((c[0], source, *times[:3].tolist(), nan, c[1], c[8], c[9], c[10], 3, float(times[4])))
        if not rows:
            return []
        columns = zip(*rows, strict=True)
        return [{name: np.array(values, like[name].dtype) for name, values in zip(like, columns, strict=True)}]

    def totals(self) -> dict[str, float]:
        """What happened between the engines: figures with names that begin with ``fleet_``."""
        out: dict[str, float] = {}
        if self._queue is not None:
            out["fleet_gateway_waited"] = float(self._queue.waited)
            out["fleet_gateway_failed"] = float(len(self._refused))
        if self._gateway is not None:
            out["fleet_gateway_waited"] = float(self._gateway.waited)
        if self._host is not None:
            out |= self._host.totals()
        elif self._gateway is not None or self._refused:
            out["fleet_gateway_failed"] = float(len(self._refused))
        if self._pd is not None:
            out |= self._pd.totals()
        return out | (self._migrator.totals() if self._migrator is not None else {})

    def notes(self) -> list[str]:
        """The same in sentences."""
        out = list(self._migrator.notes()) if self._migrator is not None else []
        if self._pd is not None:
            out += self._pd.notes()
        if self._host is not None:
            out += self._host.notes()
        elif self._refused:
            out.append(f"{len(self._refused):,} requests found no replica in time and failed at the gateway")
        return out
