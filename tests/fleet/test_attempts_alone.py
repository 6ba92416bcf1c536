"""What a client does with answers that come when the test says: every time, alarm and count is worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sim.fleet.attempt_rows import MORE
from sim.fleet.attempts import HANGING, UNREACHABLE, Attempts
from sim.fleet.clock import Clock
from sim.fleet.faults import Faults
from sim.fleet.request import Request
from sim.fleet.timers import Timers
from sim.ledger import FAILED, FINISHED, IN_FLIGHT, REJECTED
from sim.policy.client import ClientParams
from sim.policy.fault import Unit
from sim.workload.table import RequestBlock

AWAY = 0.25
"""Seconds from the engine of the first attempt to the client; each next one is as much further away."""


class Client:
    """Pauses of one second, then two, three, …"""

    name, source = "test", "here"

    def __init__(
        self,
        tries: int = 3,
        connect: float = inf,
        first_byte: float = inf,
        total: float = inf,
        never: tuple[str, ...] = (),
        **params: Any,
    ) -> None:
        self.params = ClientParams(**params)
        self.attempts, self.connect, self.first_byte, self.total = tries, connect, first_byte, total
        self.deadline = float(self.params.deadline or inf)
        self._never = never

    def retries(self, failure: str) -> bool:
        return failure not in self._never

    def delay(self, attempt: int, rng: np.random.Generator) -> float:
        return 1.0 + attempt


class Engine:
    """Below: what becomes of the n-th attempt, as ``(seconds to the first token, seconds to the end, status)``, or a word."""

    def __init__(self, clock: Clock, *script: Any) -> None:
        self.clock, self.script = clock, list(script)
        self.came: list[tuple[float, int]] = []
        self.withdrawn: list[tuple[float, int]] = []
        self.before: Any = None

    def arrive(self, leg: Request) -> bool:
        now = self.clock.now
        what = self.script[len(self.came)] if len(self.came) < len(self.script) else "silent"
        self.came.append((now, leg.number))
        leg.replica = len(self.came) - 1
        if what == "busy":
            return False
        if what == "hangs":
            leg.status = HANGING
        elif what == "nobody":
            leg.status = UNREACHABLE
            self.clock.call(now + 0.5, lambda: self.before.refused(leg, now + 0.5))
        elif what != "silent":
            first, end, status = what
            leg.status = status
            if first is not None:
                self.clock.call(now + first, lambda: self.before.first_token(leg, now + first))
            if end is not None:
                self.clock.call(now + end, lambda: self.before.ended(leg, now + end, leg.replica))
        return True

    def withdraw(self, leg: Request) -> bool:
        self.withdrawn.append((self.clock.now, leg.number))
        return True


def play(client: Client, *script: Any, side: bool = False, until: float = inf, then: Callable[[Any], None] | None = None) -> Any:
    """One request at 10 s; what was seen of it."""
    clock = Clock()
    away = SimpleNamespace(away=lambda replica, prompt: AWAY * (1 + replica)) if side else None
    station = Attempts(clock, client, np.random.default_rng(1), np.random.default_rng(2), away)  # type: ignore[arg-type]
    engine = Engine(clock, *script)
    said: list[tuple[Any, ...]] = []
    engine.before = station
    station.then = engine  # type: ignore[assignment]
    station.before = SimpleNamespace(  # type: ignore[assignment]
        ended=lambda r, t, k: said.append(("ended", t, k)), first_token=lambda r, t: said.append(("first", t))
    )
    block = RequestBlock.of([10.0], [100], [20])
    clock.call(10.0, lambda: station.arrive(Request(block, 0, 0, 10.0)))
    if then is not None:
        then(SimpleNamespace(clock=clock, station=station, engine=engine))
    clock.run(until=None if until == inf else until)
    record = station.record
    odd = station._odd.get(0)
    lost = [*station._failed], dict(station._kinds), [*station._retries], [*station._given_up]
    return SimpleNamespace(
        said=said, came=engine.came, withdrawn=engine.withdrawn, odd=odd, lost=lost, record=record, station=station, clock=clock
    )


OK = (1.0, 4.0, FINISHED)


def test_an_answer_at_once_is_the_first_attempts_own_row() -> None:
    seen = play(Client(), OK, side=True)
    assert seen.said == [("first", 11.0), ("ended", 14.0, 0)] and seen.came == [(10.0, 0)] and seen.odd is None
    assert seen.lost == ([], {}, [], []) and seen.withdrawn == []


@pytest.mark.parametrize(("limit", "ok"), [(1.26, True), (1.24, False)])
def test_the_first_byte_has_come_when_it_is_there(limit: float, ok: bool) -> None:
    seen = play(Client(first_byte=limit), OK, (0.5, 2.0, FINISHED), side=True)
    if ok:
        assert seen.said[0] == ("first", 11.0) and len(seen.came) == 1
        return
    assert seen.came == [(10.0, 0), (pytest.approx(12.24), MORE)] and seen.withdrawn == [(pytest.approx(11.24), 0)]
    assert seen.lost == ([pytest.approx(11.24)], {"timeout": 1}, [pytest.approx(12.24)], [])
    assert seen.said == [("first", pytest.approx(12.74)), ("ended", pytest.approx(14.24), 1)]
    assert (seen.odd.status, seen.odd.leg, seen.odd.row, seen.odd.attempts) == (FINISHED, MORE, 1, 2)
    assert (seen.odd.time, seen.odd.sent, seen.odd.arrival, seen.odd.prompt) == (
        pytest.approx(14.24),
        pytest.approx(12.24),
        10.0,
        100,
    )


def test_every_attempt_has_its_own_time_and_there_are_so_many() -> None:
    seen = play(Client(tries=3, total=2.0), OK, OK, (0.1, 3.0, FINISHED))
    # attempts of 2 s each with pauses of 1 and 2 s between them; then it is given up
    assert [t for t, _ in seen.came] == [10.0, 13.0, 17.0] and [n for _, n in seen.came] == [0, MORE, MORE + 1]
    assert seen.withdrawn == [(12.0, 0), (15.0, MORE), (19.0, MORE + 1)]
    assert seen.lost == ([12.0, 15.0, 19.0], {"timeout": 3}, [13.0, 17.0], [19.0])
    assert [s for s in seen.said if s[0] == "ended"] == [("ended", 19.0, 2)]
    assert (seen.odd.status, seen.odd.time, seen.odd.attempts, seen.odd.sent) == (FAILED, 19.0, 3, 17.0)


def test_a_failure_that_is_not_worth_another_try() -> None:
    for what, kind, status in (
        ("busy", "overloaded", REJECTED),
        ("nobody", "connect", FAILED),
        ((None, 0.5, FAILED), "error", FAILED),
        ((0.2, 0.5, FAILED), "broken", FAILED),
    ):
        seen = play(Client(never=(kind,)), what)
        assert len(seen.came) == 1 and seen.lost[1] == {kind: 1}
        assert seen.odd.status == status and seen.odd.time == (10.0 if what == "busy" else 10.5)
        again = play(Client(), what, OK)
        assert len(again.came) == 2 and again.odd.status == FINISHED and again.came[1][0] == pytest.approx(again.lost[0][0] + 1.0)
    rejected = play(Client(tries=1), (None, 0.5, REJECTED))
    assert rejected.lost[1] == {"overloaded": 1} and rejected.odd.status == REJECTED


def test_a_connection_that_is_refused_does_not_hang() -> None:
    seen = play(Client(connect=0.3), "nobody", OK)
    assert seen.lost[:2] == ([10.5], {"connect": 1}) and seen.withdrawn == []


def test_a_connection_that_hangs() -> None:
    seen = play(Client(connect=0.75), "hangs", OK)
    assert seen.lost[:2] == ([10.75], {"connect": 1}) and seen.came[1] == (11.75, MORE) and seen.withdrawn == [(10.75, 0)]


def test_an_answer_comes_from_where_the_attempt_is() -> None:
    seen = play(
        Client(deadline=6.1), (None, 0.5, FAILED), OK, side=True
    )  # sent again at 11.5 to the second: its end is there at 16
    assert seen.said[-1] == ("ended", 15.5, 1) and seen.record.deadlines == 0
    late = play(Client(deadline=5.9), (None, 0.5, FAILED), OK, side=True)
    assert late.record.deadlines == 1 and late.said[-1] == ("ended", pytest.approx(15.9 - 0.5), 1)


@pytest.mark.parametrize("first", [None, 0.5])
def test_somebody_who_leaves_waits_for_the_first_token_only(first: float | None) -> None:
    seen = play(Client(patience={"mean": 2.0, "distribution": "fixed"}), (first, 5.0, FINISHED))
    if first is not None:
        assert seen.said == [("first", 10.5), ("ended", 15.0, 0)] and seen.record.left == 0
        return
    assert seen.record.left == 1 and seen.said == [("ended", 12.0, 0)] and seen.withdrawn == [(12.0, 0)]
    assert (seen.odd.status, seen.odd.time, seen.lost[3]) == (FAILED, 12.0, [12.0])


def test_a_deadline_is_over_all_attempts() -> None:
    seen = play(Client(first_byte=2.0, deadline=4.5), "silent", "silent", OK)
    assert (
        [t for t, _ in seen.came] == [10.0, 13.0]
        and seen.record.deadlines == 1
        and seen.odd.time == 14.5
        and seen.odd.attempts == 2
    )
    close = play(Client(first_byte=2.0, deadline=3.0), "silent", OK)  # the pause ends when it would be over
    assert (
        [t for t, _ in close.came] == [10.0]
        and close.record.deadlines == 0
        and (close.odd.time, close.odd.status) == (12.0, FAILED)
    )
    late = play(Client(deadline=4.2), OK, side=True)  # the end is on its way when the deadline comes
    assert late.record.deadlines == 1 and late.odd.status == FAILED and late.odd.time == 14.2
    assert late.said[-1] == ("ended", pytest.approx(14.2 - AWAY), 0)
    whole = play(Client(stream=False, first_byte=4.1), OK, side=True)  # in one piece: its first byte is its last
    assert whole.lost[0][0] == pytest.approx(14.1) and whole.lost[1]["timeout"] >= 1
    assert play(Client(stream=False, first_byte=4.3), OK, side=True).said == [("ended", 14.0, 0)]


def test_a_second_attempt_beside_the_first() -> None:
    """A hedge at 12 s answers at 12.5; the first is cancelled then."""
    seen = play(Client(hedge_after=2.0), (5.0, 9.0, FINISHED), (0.5, 1.5, FINISHED))
    assert seen.came == [(10.0, 0), (12.0, MORE)] and seen.withdrawn == [(12.5, 0)]
    assert (seen.record.hedges, seen.record.hedges_won) == (1, 1) and seen.said == [("first", 12.5), ("ended", 13.5, 1)]
    assert (seen.odd.leg, seen.odd.sent, seen.odd.attempts, seen.lost[2]) == (MORE, 12.0, 2, [12.0])
    own = play(Client(hedge_after=2.0), (2.5, 3.0, FINISHED), (3.0, 4.0, FINISHED))
    assert (own.record.hedges, own.record.hedges_won) == (1, 0) and own.withdrawn == [(12.5, MORE)] and own.odd is None
    quick = play(Client(hedge_after=2.0), OK)
    assert quick.record.hedges == 0 and len(quick.came) == 1
    many = play(Client(hedge_after=2.0, max_hedges=3), "silent", "silent", "silent", "silent", until=30.0)
    assert [t for t, _ in many.came] == [10.0, 12.0, 14.0, 16.0] and many.record.hedges == 3
    one_fails = play(Client(hedge_after=2.0), (None, 3.0, FAILED), (2.0, 4.0, FINISHED))
    assert one_fails.lost[:2] == ([13.0], {"error": 1}) and one_fails.odd.status == FINISHED and len(one_fails.came) == 2
    none_left = play(
        Client(tries=2, hedge_after=2.0), (None, 1.0, FAILED), until=13.5
    )  # nobody is there beside whom it could run
    assert [t for t, _ in none_left.came] == [10.0, 12.0] and none_left.record.hedges == 0


def test_a_gateway_may_send_it_again_unseen() -> None:
    asked: list[tuple[float, str]] = []

    def gateway(world: Any) -> None:
        def recover(attempt: Any, kind: str) -> bool:
            asked.append((world.clock.now, kind))
            world.clock.call(world.clock.now + 0.5, lambda: world.station.send_again(attempt))
            return len(asked) < 3

        world.station.recover = recover

    seen = play(Client(tries=1), (None, 1.0, FAILED), (0.2, 1.0, FAILED), OK, then=gateway)
    assert asked == [(11.0, "error"), (12.5, "broken")] and [t for t, _ in seen.came] == [10.0, 11.5, 13.0]
    assert seen.odd is not None and (seen.odd.status, seen.odd.attempts, seen.odd.leg) == (FINISHED, 1, MORE + 1)
    busy: list[str] = []
    never = play(Client(tries=1), "busy", then=lambda w: setattr(w.station, "recover", lambda a, k: busy.append(k) or True))
    assert never.odd.status == REJECTED and busy == []  # a server that has enough is no failure of the road


def test_all_connections_break() -> None:
    def at_twelve(world: Any) -> None:
        world.clock.call(12.0, lambda: said.append(world.station.break_off()))

    said: list[int] = []
    seen = play(Client(), (1.0, 9.0, FINISHED), OK, then=at_twelve)
    assert (
        said == [1]
        and seen.lost[:2] == ([12.0], {"broken": 1})
        and seen.withdrawn == [(12.0, 0)]
        and seen.came[1] == (13.0, MORE)
    )
    said.clear()
    silent = play(Client(), (3.0, 9.0, FINISHED), OK, then=at_twelve)
    assert silent.lost[1] == {"error": 1}


def test_rows_of_what_the_end_of_the_run_cuts_off() -> None:
    seen = play(Client(first_byte=2.0), "silent", "silent", until=13.5)
    names = ("arrival_s", "taken_s", "first_scheduled_s", "first_token_s", "finish_s")
    rows = {n: np.full(2, np.nan) for n in names} | {
        k: np.zeros(2, int) for k in ("replica", "prompt_tokens", "output_tokens", "cached_tokens", "preemptions")
    }
    rows |= {"id": np.array([0, MORE]), "status": np.array([FAILED, IN_FLIGHT], np.int32)}
    rows["arrival_s"][:] = 10.0, 13.0
    out = seen.station.join(rows, 1)
    assert (out["id"].tolist(), out["status"].tolist(), out["attempts"].tolist(), out["sent_s"].tolist()) == (
        [0],
        [IN_FLIGHT],
        [2],
        [13.0],
    )
    assert (
        seen.record.failures == {"timeout": 1}
        and seen.record.retries_s.tolist() == [13.0]
        and seen.record.failed_s.tolist() == [12.0]
    )
    assert seen.record.given_up_s.tolist() == [] and seen.station.totals() == {"unseen_gap_s": 0.0}
    gone = play(Client(tries=1), "busy")
    finish = {"finish_s": np.array([99.0])}
    gone.station.client_times(finish)
    assert finish["finish_s"].tolist() == [10.0]


def test_alarms_ring_in_order_and_dead_ones_do_not() -> None:
    clock, rung, dead = Clock(), [], {3}
    timers: Timers[int] = Timers(
        clock, lambda kind, what: rung.append((clock.now, kind, what)), lambda: False, lambda kind, what: what in dead
    )
    for time, kind, what in ((5.0, 0, 1), (2.0, 1, 2), (1.0, 1, 3), (5.0, 2, 4), (inf, 9, 9), (4.0, 0, 5)):
        timers.at(time, kind, what)
    clock.call(3.0, lambda: dead.add(5))
    clock.run()
    assert rung == [(2.0, 1, 2), (4.0, 0, 5), (5.0, 0, 1), (5.0, 2, 4)]  # the next one is set already when it dies


def test_a_clock_looks_last_before_something_happens() -> None:
    clock = Clock()
    seen: list[tuple[float, tuple[float, int]]] = []
    for at in (0.0, 2.5):
        clock.call(at, lambda: seen.append((clock.now, clock.next_look(1.0))))
    clock.call(10.25, lambda: None)
    clock.run()
    assert seen == [(0.0, (2.0, 1)), (2.5, (9.5, 6))]
    clock.resting = lambda: False
    assert clock.next_look(1.0) == (11.25, 0)
    clock.resting = lambda: True
    assert clock.next_look(1.0) == (11.25, 0)  # nothing is to come
    clock.call(1e8, lambda: None)
    again, left = clock.next_look(1.0)
    assert left > 9e7 and again == pytest.approx(10.25 + 1.0 + left) and again + 1.0 <= 1e8 + 1.0


# ---- what breaks


class Broken:
    """A fault that crashes its replica at a script, for two seconds."""

    name, scope, crashes = "crash", "replica", True

    def __init__(self, at: tuple[float, ...] | None, rate: float = 0.0, repair: str = "fixed") -> None:
        self.params = SimpleNamespace(at=at, repair=repair)
        self._rate = rate
        self.log: list[tuple[str, int]] = []

    def concerns(self, units: Any) -> Any:
        return units

    def rate(self, unit: Any) -> float:
        return self._rate

    def lasts(self, unit: Any) -> float:
        return 2.0

    def words(self, replica: int) -> str:
        return "x"

    def begin(self, hands: Any, replica: int) -> None:
        self.log.append(("begin", replica))
        hands.crash(replica)

    def end(self, hands: Any, replica: int) -> None:
        self.log.append(("end", replica))
        hands.restart(replica)


def faults(fault: Broken, until: float = 100.0, **recovery: Any) -> Any:
    clock = Clock()
    events: list[tuple[float, Any]] = []
    engines: Any = SimpleNamespace(
        dead=set(),
        pool_of=[0, 0],
        number_of=[0, 1],
        groups=[SimpleNamespace(recorder=None)],
        tell=lambda: events.append((clock.now, "tell")),
    )

    def crash(replica: int, fresh: Any) -> int:
        engines.dead.add(replica)
        return 3

    engines.crash = crash
    told = {
        "migrations": 0,
        "breaker": inf,
        "detects": 0.5,
        "returns": 1.0,
        "attempts": 3,
        "resends": True,
        "delay": lambda legs, rng: 0.25 * legs,
    }
    rules: Any = SimpleNamespace(**(told | recovery))
    made: Any = [fault]
    station = Faults(clock, made, [Unit(0, 1)], engines, [np.random.default_rng(3)] * 2, lambda k, r: [], rules)  # type: ignore[arg-type, return-value]
    station.members = True
    station.changed = lambda: events.append((clock.now, sorted(station.out)))
    clock.call(until, lambda: None)  # the traffic goes on until then
    station.start()
    clock.run()
    return SimpleNamespace(station=station, events=events, clock=clock, engines=engines)


def test_a_dead_replica_is_out_from_when_it_is_noticed_until_it_is_back() -> None:
    fault = Broken((5.0, 20.0))
    seen = faults(fault)
    assert fault.log == [("begin", 0), ("end", 0)] * 2
    assert seen.events == [(5.0, "tell"), (5.5, [0]), (8.0, []), (20.0, "tell"), (20.5, [0]), (23.0, [])]
    (one, two) = seen.station.leaves()["faults"]
    assert (one.start_s, one.end_s, one.replica, one.hurt) == (
        5.0,
        7.0,
        0,
        3,
    ) and two.end_s == 22.0
    slow = faults(Broken((5.0,)), detects=4.0)  # it is back before anybody has noticed
    assert slow.events == [(5.0, "tell")]
    at_once = faults(Broken((5.0,)), breaker=3)  # three broken streams are enough for the breaker
    assert at_once.events[0] == (5.0, [0])
    late = faults(Broken((5.0, 200.0)))
    assert late.station.notes() == ["1 fault by script came after the run had ended, and did not happen"]
    overlapping = Broken((5.0, 6.0))
    assert [e for e in faults(overlapping).events if e[1] == "tell"] == [(5.0, "tell")]  # who is dead does not die


def test_random_faults_come_at_their_rate() -> None:
    seen = faults(Broken(None, rate=0.1), until=6_000.0)
    incidents = seen.station.leaves()["faults"]
    assert len(incidents) == pytest.approx(6_000 / 12, rel=0.15)  # ten seconds until the next, after two of repair
    assert all(i.end_s - i.start_s == pytest.approx(2.0) for i in incidents)
    drawn = faults(Broken(None, rate=0.1, repair="exponential"), until=6_000.0).station.leaves()["faults"]
    lasts = np.array([i.end_s - i.start_s for i in drawn])
    assert lasts.mean() == pytest.approx(2.0, rel=0.2) and lasts.std() == pytest.approx(2.0, rel=0.3)
    assert faults(Broken(None)).station.leaves()["faults"] == []


def test_a_router_sends_elsewhere_what_has_not_begun() -> None:
    station = faults(Broken(None)).station
    sent: list[Any] = []
    station.attempts = SimpleNamespace(send_again=sent.append, record=SimpleNamespace(rerouted=0))

    def attempt(first: float = inf, legs: int = 1, migrated: int = 0) -> Any:
        carried: list[int] = []
        return SimpleNamespace(
            first=first,
            legs=legs,
            migrated=migrated,
            leg=SimpleNamespace(number=7),
            carry=lambda done, now: carried.append(done),
            carried=carried,
        )

    assert (
        station.elsewhere(attempt(), "error")
        and not station.elsewhere(attempt(first=3.0), "error")
        and not station.elsewhere(attempt(legs=3), "error")
    )
    assert station.elsewhere(attempt(legs=2), "connect") and station.attempts.record.rerouted == 2
    station._clock.run()
    assert len(sent) == 2 and station._clock.now == pytest.approx(100.5)
    station._recovery.resends = False
    assert not station.elsewhere(attempt(), "error") and station.elsewhere(attempt(), "connect")
    station._recovery.migrations, station._delivered = 1, {7: 4}
    begun = attempt(first=3.0)
    assert station.elsewhere(begun, "broken") and begun.carried == [4]
    station._delivered = {7: 4}
    assert not station.elsewhere(attempt(first=3.0, migrated=1), "broken")
    station._delivered = {7: 0}
    nothing = attempt(first=3.0)
    assert station.elsewhere(nothing, "broken") and nothing.carried == [0]


def test_the_breaker_counts_until_an_answer_comes() -> None:
    station = faults(Broken(None), breaker=2).station
    said: list[Any] = []
    station.before = SimpleNamespace(ended=lambda *a: said.append(a), refused=lambda *a: said.append(a))
    station.then = SimpleNamespace(submit=lambda r, k: said.append(("submit", k)))
    request = SimpleNamespace(status=FINISHED)
    station.refused_by(1)
    station.ended(request, 1.0, 1)
    station.refused_by(1)
    station._clock.run()
    assert station.out == set()
    station.ended(SimpleNamespace(status=FAILED), 1.0, 1)
    station.refused_by(1)
    station._clock.run()
    assert station.out == {1}
    station.down.add(0)
    station.submit(request, 0)
    assert request.status == UNREACHABLE and said[-1][0] is request
    station.submit(request, 1)
    assert said[-1] == ("submit", 1)
