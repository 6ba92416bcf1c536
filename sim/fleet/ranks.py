"""Engines with data-parallel ranks: the scenario's router chooses the engine, the engine's own balancer the rank.

To the world such a group looks like any `EngineGroup`: one replica is one engine, whatever its ranks. A request stands at the door of its
engine until its time has come; then the balancer, a router over the ranks of that engine, sees them as of that time and chooses. Results are
by rank: rows of requests, time series and parts carry the number ``replica · ranks + rank``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from heapq import heappop, heappush, heapreplace
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from sim import registry
from sim.engine.contract import Ranks, Scheduler
from sim.engine.group import EngineGroup
from sim.fleet.rank_view import RankView
from sim.ledger import request_row
from sim.policy.requests import Requests
from sim.policy.router import ReplicaFacts, Router
from sim.streams import stream

if TYPE_CHECKING:
    from sim.cost.shared import SharedCost
    from sim.engine.recorder import Recorder
    from sim.engine.seam import F8, I4, I8, Columns, Rows, Spans, Watched
    from sim.engine.state import EngineState
    from sim.engine.tiers.counts import TiersUse
    from sim.fleet.clock import Clock
    from sim.ledger import Series


class _Rows(NamedTuple):
    """Columns of a block under the names that routers know."""

    arrival_s: F8
    prompt_tokens: I4
    output_tokens: I4
    max_tokens: I4
    priority: I4
    lora: I4
    out_content: I8


class _Batch:
    """Rows [at, hi) of a block that stand at the door, in order of arrival. ``replica``: i4[1] or i4[n]."""

    def __init__(self, replica: I4, columns: Columns, spans: Spans, at: int, hi: int, first_id: int, watch: int) -> None:
        self.replica, self.columns, self.spans = replica, columns, spans
        self.at, self.hi, self.first_id, self.watch = at, hi, first_id, watch
        self.rows = cast(Requests, _Rows(*columns))  # which balancers look at

    def replica_of(self, row: int) -> int:
        return int(self.replica[row if len(self.replica) > 1 else 0])

    def settle(self) -> bool:
        """Skip rows of other groups; False when none is left."""
        while self.at < self.hi and self.replica_of(self.at) < 0:
            self.at += 1
        return self.at < self.hi

    @property
    def arrival(self) -> float:
        return float(self.columns[0][self.at])


class RankedGroup:
    """Replicas of ``ranks`` ranks each in front of ``inner``, whose states they are. ``balancers``: a router for each replica, told ``facts``."""

    def __init__(self, inner: EngineGroup, ranks: int, balancers: Sequence[Router], facts: Sequence[ReplicaFacts] = ()) -> None:
        self.inner = inner
        self.ranks = ranks
        self.n = inner.n // ranks
        self._balancers, self._facts = list(balancers), facts
        self.at_once = False
        """Others run the ranks, in order of time with theirs: who comes goes to a rank at once."""
        self._views = [RankView(self, k) for k in range(self.n)]
        self._due = [0.0 if b.interval is not None else inf for b in balancers]
        self._quiet = [inf] * self.n
        self._door: list[tuple[float, int, _Batch]] = []
        self._entered = 0
        self._pending = np.zeros(self.n, np.int64)
        self._one = np.zeros(1, np.int32)
        self._clients: NDArray[np.int64] | None = None
        self._client_of: dict[int, int] = {}
        self._came = [0] * self.n
        self._seen = 0

    # -- the door

    def submit(self, replica: int, columns: Columns, spans: Spans, lo: int, hi: int, first_id: int, watch: int = 0) -> None:
        """Rows [lo, hi) of a block to one replica."""
        self._stand(_Batch(np.array([replica], np.int32), columns, spans, lo, hi, first_id, watch))

    def submit_routed(self, replica_of: I4, columns: Columns, spans: Spans, first_id: int, watch: int = 0) -> None:
        """A whole block, each row to its replica (i4 array); negative: not for this group."""
        self._stand(_Batch(replica_of, columns, spans, 0, columns[0].size, first_id, watch))

    def looks_with(self, clock: Clock, looked: Callable[[], None]) -> None:
        """Balancers look at times of ``clock``, as others run the ranks (`at_once`)."""
        for k, balancer in enumerate(self._balancers):
            if balancer.interval is not None:
                clock.repeat(partial(self._look_again_at, clock, looked, k))

    def _look_again_at(self, clock: Clock, looked: Callable[[], None], k: int) -> float:
        balancer, view = self._balancers[k], self._views[k]
        view.now = float(clock.now)
        balancer.poll(view)
        looked()
        again, left_out = clock.next_look(balancer.interval or inf)
        balancer.rested(left_out)
        return again

    def _stand(self, batch: _Batch) -> None:
        if not batch.settle():
            return
        chosen = batch.replica if len(batch.replica) > 1 else np.repeat(batch.replica, batch.hi)
        self._pending += np.bincount(chosen[batch.at : batch.hi][chosen[batch.at : batch.hi] >= 0], minlength=self.n)
        heappush(self._door, (batch.arrival, self._entered, batch))
        self._entered += 1
        while self.at_once and self._door:
            self._admit()

    def _admit(self) -> None:
        """The first request at the door goes to the rank that the balancer chooses now."""
        arrival, number, batch = self._door[0]
        row = batch.at
        replica = batch.replica_of(row)
        view, balancer = self._views[replica], self._balancers[replica]
        view.now = arrival
        if not self.at_once:
            self._look_again(replica, arrival)
        rank = replica * self.ranks + balancer.choose(view, batch.rows, row)
        if self._clients is not None:
            client = self._came[replica] % len(self._clients)
            self._client_of[batch.first_id + row] = client
            self._clients[client, rank] += 1
        self._came[replica] += 1
        self._pending[replica] -= 1
        self._one[0] = rank
        self.inner._submit(self._one, batch.columns, batch.spans, row, row + 1, batch.first_id, batch.watch)
        batch.at = row + 1
        if batch.settle():
            heapreplace(self._door, (batch.arrival, number, batch))
        else:
            heappop(self._door)

    # -- running

    def advance(self, until: float, watched: bool) -> bool:
        """Run to ``until``; with ``watched`` stop at the first watched outcome (True)."""
        while True:
            arrival = self._door[0][0] if self._door else inf
            due = min(self._due)
            time = min(arrival, due)
            if time > until or time == inf or (arrival == inf and self.inner.next_event() == inf):
                return self.inner.advance(until, watched)
            if self.inner.advance(time, watched):
                return True
            if due <= arrival:
                self._poll(due)
            else:
                self._admit()

    def _poll(self, now: float) -> None:
        for k, due in enumerate(self._due):
            if due <= now:
                balancer, view = self._balancers[k], self._views[k]
                view.now = now
                balancer.poll(view)
                self._due[k] = now + (balancer.interval or inf)
                if not view.outstanding.any():  # nothing to see before the next request comes
                    self._quiet[k], self._due[k] = self._due[k], inf

    def _look_again(self, replica: int, now: float) -> None:
        """The looks that a quiet balancer left out have passed."""
        due, interval = self._quiet[replica], self._balancers[replica].interval
        if due < inf and interval:
            while due <= now:
                due += interval
            self._quiet[replica], self._due[replica] = inf, due

    def catch_up(self, now: float, replica: int | None = None) -> None:
        """Bring the ranks of one replica (None: of all) up to ``now``; nothing watched can happen before."""
        for rank in (None,) if replica is None else range(replica * self.ranks, (replica + 1) * self.ranks):
            self.inner.catch_up(now, rank)

    def settle(self, now: float, replica: int) -> None:
        """Whoever stands at the door has come in, too."""
        self.advance(now, False)
        self.catch_up(now, replica)

    @property
    def recorder(self) -> Recorder:
        """Of the ranks."""
        return self.inner.recorder

    def renewed(self, rank: int, fresh: EngineState) -> None:
        """State ``fresh`` is about to take the place of a rank, counted over all replicas."""
        self.inner.renewed(rank, fresh)

    def anew(self, replica: int) -> None:
        """All ranks of a replica are new, and so is their balancer."""
        self.inner.anew(replica * self.ranks, self.ranks)
        old = self._balancers[replica]
        self._balancers[replica] = fresh = old.renewed(old.rng)
        fresh.setup(self._facts)
        self._quiet[replica], self._due[replica] = inf, self._due[replica]

    def next_event(self) -> float:
        """A time before which nothing that anyone could see happens here."""
        return min(float(self.inner.next_event()), self._door[0][0] if self._door else inf)

    def by_client(self, clients: int) -> NDArray[np.int64]:
        """i8[clients, ranks of all replicas]: requests in flight by the API server they came through."""
        if self._clients is None:
            self._clients = np.zeros((clients, self.inner.n), np.int64)
        self._settle_clients()
        return self._clients

    def _settle_clients(self) -> None:
        """Take in which requests have finished since the last time."""
        if self._clients is None:
            return
        ids, rows = self.inner.finished_since(self._seen)
        self._seen += len(ids)
        for number, row in zip(ids.tolist(), rows.tolist(), strict=True):
            self._clients[self._client_of.pop(number), row] -= 1

    # -- what the fleet sees

    @property
    def outstanding(self) -> NDArray[np.int64]:
        """i8[n]: requests submitted to each replica and not yet finished."""
        found: I8 = self.inner.outstanding.reshape(self.n, self.ranks).sum(axis=1) + self._pending
        return found

    def gauges(self) -> NDArray[np.float64]:
        """f8[5, n]: running, waiting, KV in use, KV total, clock of each replica: sums over its ranks, and their latest clock."""
        rows = self.inner.gauges().reshape(5, self.n, self.ranks)
        return np.vstack([rows[:4].sum(axis=2), rows[4:].max(axis=2)])

    def capacity(self) -> NDArray[np.float64]:
        """f8[n · ranks]: KV blocks of each rank."""
        return self.inner.capacity()

    def kv_peak(self) -> F8:
        """Most KV blocks in use at once, by rank."""
        return self.inner.kv_peak()

    def pool_use(self) -> tuple[F8, F8, F8]:
        """Use of the pools within each rank."""
        return self.inner.pool_use()

    def kv_kinds(self) -> list[tuple[str, int, str]]:
        """What shares the KV memory of a rank."""
        return self.inner.kv_kinds()

    def tiers(self) -> TiersUse | None:
        """What tiers behind the caches did."""
        return self.inner.tiers()

    def take_watched(self) -> Watched:
        """Watched outcomes since the last call: (ids, times, replicas)."""
        ids, times, rows = self.inner.take_watched()
        return ids, times, rows // self.ranks

    def take_outcomes(self) -> tuple[list[float], list[Sequence[int]]]:
        """The same with all that is known, as of any group."""
        times, rows = self.inner.take_outcomes()
        return times, [[number, row // self.ranks, *rest] for number, row, *rest in rows]

    @property
    def parts(self) -> NDArray[np.float64]:
        """f8[n · ranks, part], live: seconds of the steps begun so far, by part."""
        return self.inner.parts

    @property
    def finished(self) -> int:
        """Rows in the recorder, not yet drained."""
        return int(self.inner.finished)

    def drain(self) -> Rows:
        """Finished rows since the last drain; column ``replica`` counts ranks."""
        self._settle_clients()
        self._seen = 0
        return self.inner.drain()

    def in_flight(self) -> Rows:
        """Requests that have not left, also those at the door; column ``replica`` counts ranks."""
        rows = self.inner.in_flight()
        for _, _, batch in sorted(self._door, key=lambda entry: entry[:2]):
            at = np.arange(batch.at, batch.hi)
            chosen = batch.replica[at] if len(batch.replica) > 1 else np.repeat(batch.replica, at.size)
            at, chosen = at[chosen >= 0], chosen[chosen >= 0]
            known = request_row(
                id=at + batch.first_id,
                replica=chosen * self.ranks,
                arrival_s=batch.columns[0][at],
                prompt_tokens=batch.columns[1][at],
            )
            for name, value in known.items():
                rows[name] = np.concatenate([rows[name], np.broadcast_to(value, at.size).astype(rows[name].dtype)])
        return rows

    def totals(self) -> dict[str, float]:
        """As of any group."""
        return self.inner.totals()

    def series(self) -> tuple[Series, F8, F8]:
        """As of any group, by rank."""
        return self.inner.series()

    def set_front(self, serial: float) -> None:
        """Each rank has an API server of its own, which takes ``serial`` seconds for a request."""
        self.inner.set_front(serial)

    def set_multi_step(self, on: bool) -> None:
        """Switch the one-stroke advance of unchanged decode steps."""
        self.inner.set_multi_step(on)

    def record_tokens(self) -> None:
        """As of any group."""
        self.inner.record_tokens()

    def token_times(self) -> tuple[I8, F8]:
        """As of any group."""
        return self.inner.token_times()

    @property
    def _states(self) -> Sequence[EngineState]:
        states: Sequence[EngineState] = self.inner._states
        return states

    @property
    def _keys(self) -> F8:
        return self.inner._keys


def ranked_group(
    scheduler: type[Scheduler[Any]],
    states: Sequence[EngineState],
    recorder: Recorder,
    ranks: Ranks,
    shared: SharedCost | None,
    facts: ReplicaFacts,
) -> RankedGroup:
    """The replicas of a pool, ``ranks.n`` states to each, with a balancer of the engine's own in front of each. Raises `ConfigError`."""
    made = (
        scheduler.lockstep(states, recorder, ranks.n, shared, ranks.interval)
        if ranks.together
        else scheduler.group(states, recorder)
    )
    inner = cast(EngineGroup, made)
    cls = registry.lookup("router", ranks.balancer)
    settings = cls.Params(**ranks.settings)
    balancers = [cls(settings, ranks.n, stream(0, f"balancer.{k}")) for k in range(len(states) // ranks.n)]
    seen = [replace(facts, rank=True)] * ranks.n
    for balancer in balancers:
        balancer.setup(seen)
    return RankedGroup(inner, ranks.n, balancers, seen)
