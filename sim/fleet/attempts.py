"""Clients that do not only wait: time-outs, retries, a second attempt beside the first, somebody who leaves (`sim.policy.client`).

Every request of the traffic has exactly one outcome, however often it is sent; each time that it is sent is an *attempt* with a number of its own,
under which it stands in queues and runs in engines. An attempt that its client gives up is withdrawn: from a queue at once, from an engine when
that engine does it (`sim.engine.withdraw`); what is computed for it after that nobody gets. A client acts when it sees something: a time-out
counts to the moment at which the answer has come all the way back.

*Not simulated*: time-outs between two bytes of an answer, so an answer that stalls for longer (after a preemption) is not given up.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Final

import numpy as np

from sim import registry
from sim.fleet.attempt_rows import MORE, Folded, fold
from sim.fleet.client_side import ClientSide
from sim.fleet.clock import Clock
from sim.fleet.journey import continued
from sim.fleet.request import Request
from sim.fleet.station import Station
from sim.fleet.timers import Timers
from sim.ledger import FAILED, FINISHED, IN_FLIGHT, REJECTED, Values
from sim.metrics.clients import ClientRecord
from sim.policy.client import BROKEN, BUSY, CONNECT, ERROR, TIMEOUT, Client
from sim.streams import stream

if TYPE_CHECKING:
    from sim.config.base import Clients
    from sim.fleet.build import Plan
    from sim.fleet.engines import Engines

UNREACHABLE: Final = -1
"""`Request.status` of what found nobody who listens; the connection is refused."""
HANGING: Final = -2
"""… of what waits for a connection."""
_KINDS: Final = {REJECTED: BUSY, UNREACHABLE: CONNECT}
FIRST, TOTAL, CONNECTED, LEAVE, END, RETRY, HEDGE = range(7)  # alarms


class Call:
    """A request of the traffic and what its client has done about it. Times in seconds, as the client sees them; infinity: not yet, or never."""

    __slots__ = ("ends_by", "first", "hedges", "leaves_at", "live", "over", "request", "retried", "sent", "tries")

    def __init__(self, request: Request, start: float, ends_by: float, leaves_at: float) -> None:
        self.request, self.sent, self.ends_by, self.leaves_at = request, start, ends_by, leaves_at
        self.live: list[Attempt] = []
        self.first = inf
        self.tries = self.retried = self.hedges = 0
        self.over = False


class Attempt:
    """One time that it is sent. ``leg``: the request that is under way for it."""

    __slots__ = ("block", "call", "carried", "first", "first_by", "kept", "leg", "legs", "migrated", "row", "sent", "total_by")

    def __init__(self, call: Call, sent: float, first_by: float, total_by: float) -> None:
        self.call, self.sent, self.first_by, self.total_by = call, sent, first_by, total_by
        self.first = inf
        self.legs = self.migrated = self.carried = 0
        self.kept: tuple[int, ...] = ()
        self.leg: Request = call.request
        self.block, self.row = call.request.block, call.request.row

    def carry(self, done: int, now: float) -> None:
        """It goes on elsewhere with the ``done`` tokens that its leg has given."""
        self.migrated += 1
        if done:
            self.block, self.row = continued(self.block, self.row, now, done), 0
            self.carried += done
            self.kept += (self.leg.number,)


class Attempts(Station):
    """Next to the clients. ``pauses`` and ``patience`` are random streams;"""

    watches = 1 | 2  # ends and first tokens

    def __init__(
        self, clock: Clock, client: Client, pauses: np.random.Generator, patience: np.random.Generator, side: ClientSide | None
    ) -> None:
        super().__init__()
        self._clock, self._client, self._pauses, self._patience, self._side = clock, client, pauses, patience, side
        p = client.params
        self._stream, self._wait = p.stream, p.patience
        self._hedge_after = inf if p.hedge_after is None else float(p.hedge_after)
        self._hedges = int(p.max_hedges)
        self._attempts, self._connect = client.attempts, client.connect
        self._first_byte, self._total, self._deadline = client.first_byte, client.total, client.deadline
        self._legs: dict[int, Attempt] = {}
        self._open: dict[int, Call] = {}
        self._more = MORE
        self._odd: dict[int, Folded] = {}
        self._timers = Timers(clock, self._ring, lambda: not self._open, self._dead)
        self.recover: Callable[[Attempt, str], bool] = lambda attempt, kind: False
        """Asked first when an attempt has failed below: whether a gateway sends it elsewhere without its client's knowledge."""
        self.row_of: Callable[[int], int] = lambda replica: replica
        """The row of results that stands for a replica."""
        self.record = ClientRecord(client.name, client.source)
        """What happened."""
        self._retries, self._second, self._failed, self._given_up = array("d"), array("d"), array("d"), array("d")
        self._kinds: Counter[str] = Counter()

    # -- down

    def arrive(self, request: Request) -> bool:
        """A request leaves its client for the first time."""
        now = self._clock.now
        leaves = now + self._wait.draw(self._patience) if self._wait is not None else inf
        call = Call(request, now, now + self._deadline, leaves)
        self._open[request.number] = call
        self._timers.at(call.leaves_at, LEAVE, call)
        self._timers.at(call.ends_by, END, call)
        self._try(call)
        self._timers.at(now + self._hedge_after, HEDGE, call)
        return True

    def _try(self, call: Call) -> None:
        now = self._clock.now
        attempt = Attempt(call, now, now + self._first_byte, now + self._total)
        call.sent = now
        call.tries += 1
        if call.tries > 1:
            self._retries.append(now)
        call.live.append(attempt)
        self._timers.at(attempt.first_by, FIRST, attempt)
        self._timers.at(attempt.total_by, TOTAL, attempt)
        self.send_leg(attempt)

    def send_leg(self, attempt: Attempt) -> None:
        """Send what the attempt asks for, now."""
        r = attempt.call.request
        number = r.number
        if attempt.call.tries > 1 or attempt.legs:
            number, self._more = self._more, self._more + 1
        attempt.legs += 1
        attempt.leg = leg = Request(attempt.block, attempt.row, number, r.arrival, r.watch, r.model, r.client)
        self._legs[number] = attempt
        if not self.then.arrive(leg):
            self._legs.pop(number, None)
            self._lost(attempt, BUSY)
        elif leg.status == HANGING:
            self._timers.at(self._clock.now + self._connect, CONNECTED, attempt)

    def send_again(self, attempt: Attempt) -> None:
        """The same, if its client still waits."""
        if not attempt.call.over and attempt in attempt.call.live:
            self.send_leg(attempt)

    def break_off(self) -> int:
        """All connections break, now; returns how many."""
        broken = list(dict.fromkeys(self._legs.values()))
        for attempt in broken:
            self._withdraw(attempt)
            self._lost_later(attempt)
        return len(broken)

    def _lost_later(self, attempt: Attempt) -> None:
        kind = BROKEN if attempt.first < inf else ERROR
        self._clock.call(self._clock.now, lambda: self._lost(attempt, kind, by_gateway=True))

    def _withdraw(self, attempt: Attempt) -> None:
        if self._legs.pop(attempt.leg.number, None) is not None:
            self.then.withdraw(attempt.leg)

    # -- up

    def _away(self, leg: Request) -> float:
        if self._side is None:
            return 0.0
        return self._side.away(max(leg.replica, 0), leg.prompt_tokens)

    def first_token(self, request: Request, time: float) -> None:
        """The first byte is on its way."""
        attempt = self._legs.get(request.number)
        if attempt is None or not self._stream or attempt.first < inf:
            return
        call, seen = attempt.call, time + self._away(request)
        if seen > min(attempt.first_by, call.leaves_at, call.ends_by):
            return  # nobody is there any more when it comes
        attempt.first = seen
        call.first = min(call.first, seen)
        if len(call.live) > 1:
            self._clock.call(seen, lambda: self._won(attempt))
        self.before.first_token(call.request, time)

    def _won(self, attempt: Attempt) -> None:
        """It is the first to answer: the others are cancelled."""
        call = attempt.call
        if call.over or attempt not in call.live:
            return
        for other in call.live:
            if other is not attempt:
                self._withdraw(other)
        self.record.hedges_won += attempt is not call.live[0]
        call.live = [attempt]

    def ended(self, request: Request, time: float, replica: int) -> None:
        """An attempt has left the engine, one way or another."""
        attempt = self._legs.pop(request.number, None)
        if attempt is None:
            return  # its client has gone
        call = attempt.call
        if request.status != FINISHED:
            kind = _KINDS.get(request.status) or (BROKEN if attempt.first < inf else ERROR)
            self._clock.call(time, lambda: self._lost(attempt, kind))
            return
        seen = time + self._away(request)
        if self._stream:
            late = attempt.first == inf or seen > min(attempt.total_by, call.ends_by)
        else:
            late = seen > min(attempt.first_by, attempt.total_by, call.leaves_at, call.ends_by)
        if late:
            return  # an alarm will tell
        if len(call.live) > 1 or (call.hedges < self._hedges and self._hedge_after < inf):
            self._clock.call(seen, lambda: self._answered(attempt, request, time, replica))
        else:
            self._answered(attempt, request, time, replica)

    def _answered(self, attempt: Attempt, leg: Request, time: float, replica: int) -> None:
        call = attempt.call
        if call.over or attempt not in call.live:
            return
        self._won(attempt)
        if leg.number != call.request.number:
            self._fold(call, attempt, FINISHED, time, leg.number, replica)
        self._close(call, time, replica)

    def refused(self, request: Request, time: float, busy: bool = False) -> None:
        """Somebody on the road has turned it away."""
        attempt = self._legs.pop(request.number, None)
        if attempt is not None:
            kind = CONNECT if request.status == UNREACHABLE else BUSY
            self._clock.call(time, lambda: self._lost(attempt, kind))

    # -- what a client does

    def _lost(self, attempt: Attempt, kind: str, by_gateway: bool = False) -> None:
        """An attempt has failed, now."""
        call = attempt.call
        if call.over or attempt not in call.live:
            return
        if kind in (CONNECT, ERROR, BROKEN) and not by_gateway and self.recover(attempt, kind):
            return
        call.live.remove(attempt)
        if attempt.first < inf:
            call.first = min((a.first for a in call.live), default=inf)
        self._kinds[kind] += 1
        self._failed.append(self._clock.now)
        if call.live:
            return
        now = self._clock.now
        if call.retried + 1 < self._attempts and self._client.retries(kind):
            pause = float(self._client.delay(call.retried, self._pauses))
            if now + pause < call.ends_by:
                call.retried += 1
                self._timers.at(now + pause, RETRY, call)
                return
        self._give_up(call, attempt, REJECTED if kind == BUSY else FAILED)

    def _give_up(self, call: Call, attempt: Attempt | None, status: int) -> None:
        now = self._clock.now
        for live in call.live:
            self._withdraw(live)
        call.live = []
        leg = call.request if attempt is None else attempt.leg
        self._given_up.append(now)
        self._fold(call, attempt, status, now, leg.number, leg.replica)
        self._close(call, now - self._away(leg), max(leg.replica, 0))

    def _fold(self, call: Call, attempt: Attempt | None, status: int, time: float, leg: int, replica: int) -> None:
        r = call.request
        sent = call.sent if attempt is None else attempt.sent
        self._odd[r.number] = Folded(
            status,
            time,
            leg,
            self.row_of(replica),
            r.arrival,
            r.prompt_tokens,
            call.tries,
            sent,
            *((0, ()) if attempt is None else (attempt.carried, attempt.kept)),
        )

    def _close(self, call: Call, time: float, replica: int) -> None:
        call.over = True
        del self._open[call.request.number]
        self.before.ended(call.request, time, replica)

    def _ring(self, kind: int, subject: Call | Attempt) -> None:
        now = self._clock.now
        call = subject if isinstance(subject, Call) else subject.call
        if call.over:
            return
        if kind == RETRY:
            self._try(call)
        elif kind == HEDGE:
            if call.first > now and call.hedges < self._hedges:
                if call.live:
                    call.hedges += 1
                    self.record.hedges += 1
                    self._second.append(now)
                    self._try(call)
                self._timers.at(now + self._hedge_after, HEDGE, call)
        elif kind == LEAVE:
            if call.first > now:
                self.record.left += 1
                self._give_up(call, call.live[-1] if call.live else None, FAILED)
        elif kind == END:
            self.record.deadlines += 1
            self._give_up(call, call.live[-1] if call.live else None, FAILED)
        elif isinstance(subject, Attempt) and subject in call.live:
            late = (
                kind == TOTAL or (kind == FIRST and subject.first > now) or (kind == CONNECTED and subject.leg.status == HANGING)
            )
            if late:
                self._withdraw(subject)
                self._lost(subject, CONNECT if kind == CONNECTED else TIMEOUT)

    def _dead(self, kind: int, subject: Call | Attempt) -> bool:
        """Whether an alarm means nothing any more; not all of them need be found."""
        call = subject if isinstance(subject, Call) else subject.call
        return call.over or (kind == FIRST and subject not in call.live)

    # -- in the end

    def join(self, rows: dict[str, Values], requests: int) -> dict[str, Values]:
        """One row per request."""
        for number, call in self._open.items():  # the run was cut off
            leg = call.live[-1].leg if call.live else None
            if leg is not None and leg.number not in self._legs and leg.status != FINISHED:
                leg = None  # it has failed below, and is to be sent elsewhere
            if leg is None or leg.number != number or call.tries > 1:
                self._fold(call, None, IN_FLIGHT, np.nan, *((-1, -1) if leg is None else (leg.number, leg.replica)))
        out, waste = fold(rows, self._odd)
        self.record.close(waste, self._kinds, self._retries, self._second, self._failed, self._given_up)
        return out

    def client_times(self, rows: dict[str, Values]) -> None:
        """Times of what has no row in an engine are the client's already."""
        for number, folded in self._odd.items():
            if folded.status in (REJECTED, FAILED):
                rows["finish_s"][number] = folded.time

    def leaves(self) -> Mapping[str, object]:
        """What clients did."""
        return {"clients": self.record}

    def totals(self) -> dict[str, float]:
        """What was computed for nobody; for laws."""
        return {"unseen_gap_s": self.record.waste.gap_s}


def client_of(section: Clients | None) -> Client | None:
    """The client of a scenario's ``clients`` section. Raises `ConfigError`, `UnknownNameError`."""
    if section is None:
        return None
    from sim.config import settings

    cls: type[Client] = registry.lookup("client", section.name, "clients.name")
    return cls(settings(cls.Params, section.settings, "clients"))


def attempts_of(
    clock: Clock, client: Client, plans: Sequence[Plan], engines: Engines, side: ClientSide | None, seed: int
) -> Attempts:
    """The station of a run's clients before its engines, which are told how soon they look for who has gone."""
    station = Attempts(clock, client, stream(seed, "clients.pauses"), stream(seed, "clients.patience"), side)
    station.row_of = engines.row_of
    if plans:
        engines.notices_after = [p.scheduler.notices_after for p in plans]
    return station
