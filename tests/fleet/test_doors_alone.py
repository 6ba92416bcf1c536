"""Gateways, doors, waiting rooms, views and clients by themselves, before and behind them somebody who writes down what he is told and when."""

from __future__ import annotations

from math import inf, nan
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import sim
from sim.fleet.answering import AnsweringClients
from sim.fleet.attempts import HANGING, UNREACHABLE
from sim.fleet.build import plan
from sim.fleet.by_model import ByModel
from sim.fleet.client_side import ClientSide
from sim.fleet.clients import OpenClients, WaitingClients, said
from sim.fleet.clock import Clock
from sim.fleet.door import Door
from sim.fleet.engines import Engines
from sim.fleet.gateway import Gateway
from sim.fleet.kv_links import Ports, Wire
from sim.fleet.members import Members
from sim.fleet.migration import Migrator
from sim.fleet.mix import Mix
from sim.fleet.outage import Front
from sim.fleet.ranks import RankedGroup
from sim.fleet.request import Request
from sim.fleet.scaling_plan import plan_scaling
from sim.fleet.side_choice import SideChoice
from sim.fleet.upkeep import Upkeep
from sim.fleet.view import View
from sim.metrics.scaling import Life
from sim.policy.gateway import GatewayParams
from sim.policy.startup import Maintenance, Spot
from sim.workload.table import RequestBlock
from sim.workload.waits import Waits


def request(number: int, priority: int = 0, tenant: int = 0, klass: int = 0, model: int = 0) -> Request:
    block = RequestBlock.of([0.0], [100], [20], max_tokens=[30], priority=[priority], tenant=[tenant], klass=[klass])
    return Request(block, 0, number, 0.0, model=model)


class Behind:
    """Takes whom ``takes`` says at that time."""

    def __init__(self, clock: Clock, takes: Any = lambda now: True) -> None:
        self.clock, self.takes, self.said = clock, takes, []

    def arrive(self, r: Request) -> bool:
        taken = bool(self.takes(self.clock.now))
        self.said.append((self.clock.now, r.number, taken))
        return taken

    def in_turn(self, r: Request) -> bool:
        self.said.append((self.clock.now, r.number, "in turn"))
        return True

    def withdraw(self, r: Request) -> bool:
        self.said.append((self.clock.now, r.number, "withdrawn"))
        return True


class Before:
    def __init__(self) -> None:
        self.said: list[Any] = []

    def refused(self, r: Request, time: float, busy: bool = False) -> None:
        self.said.append(("refused", r.number, time, busy))

    def ended(self, r: Request, time: float, replica: int) -> None:
        self.said.append(("ended", r.number, time, replica))

    def first_token(self, r: Request, time: float) -> None:
        self.said.append(("first", r.number, time))


def placed(station: Any, clock: Clock, takes: Any = lambda now: True) -> tuple[Behind, Before]:
    station.then, station.before = Behind(clock, takes), Before()
    return station.then, station.before


# ---- the gateway


def gateway(takes: Any = lambda now: True, **params: Any) -> Any:
    clock = Clock()
    station = Gateway(clock, GatewayParams(**params))
    behind, before = placed(station, clock, takes)
    return SimpleNamespace(clock=clock, station=station, behind=behind, before=before)


def test_a_worker_tries_again_every_second_until_the_time_is_over() -> None:
    g = gateway(lambda now: now >= 3.0, wait_queue_threads=1)
    g.clock.call(0.5, lambda: [g.station.arrive(request(k)) for k in range(2)])
    g.clock.run()
    assert g.behind.said == [(0.5, 0, False), (1.5, 0, False), (2.5, 0, False), (3.5, 0, True), (3.5, 1, True)]
    assert g.station.waited == 1 and g.station.held == {} and g.before.said == []
    assert g.station.totals() == {"fleet_gateway_waited": 1.0, "fleet_gateway_failed": 0.0}
    never = gateway(lambda now: False, wait_queue_threads=1, wait_scheduling_timeout=2.0)
    never.clock.call(0.5, lambda: [never.station.arrive(request(k)) for k in range(2)])
    never.clock.run()
    assert [t for t, _, _ in never.behind.said] == [0.5, 1.5, 2.5, 2.5, 3.5, 4.5]
    assert never.before.said == [("refused", 0, 2.5, False), ("refused", 1, 4.5, False)]


def test_the_lower_priority_goes_first_and_workers_are_few() -> None:
    g = gateway(lambda now: now >= 2.0, wait_queue_threads=2, wait_scheduling_retry_interval=2.0)
    g.clock.call(0.0, lambda: [g.station.arrive(request(k, priority=p)) for k, p in enumerate((5, 5, 9, 1, 1))])
    g.clock.run()
    assert [n for _, n, ok in g.behind.said if ok] == [0, 3, 4, 2, 1] and g.station.waited == 2


def test_before_a_full_buffer_one_knocks() -> None:
    g = gateway(lambda now: now >= 2.25, wait_queue_threads=1, max_queue_size=1, wait_queue_interval=0.5)
    g.clock.call(0.0, lambda: [g.station.arrive(request(k)) for k in range(4)])
    seen: list[int] = []
    g.clock.call(0.1, lambda: seen.append(g.station.knocking))
    g.clock.call(0.2, lambda: g.station.withdraw(g.station.held[3]))
    g.clock.run()
    assert seen == [2] and g.station.knocking == 0
    # worker with 0, 1 in the buffer, 2 knocks until there is room; 3 has gone
    assert [(t, n) for t, n, ok in g.behind.said if ok is True] == [(3.0, 0), (3.0, 1), (3.0, 2)]


def test_whoever_leaves_the_buffer_is_not_asked_for() -> None:
    g = gateway(lambda now: now >= 2.0, wait_queue_threads=1)
    g.clock.call(0.0, lambda: [g.station.arrive(request(k)) for k in range(3)])
    g.clock.call(0.5, lambda: [g.station.withdraw(g.station.held[k]) for k in (0, 1)])
    g.clock.run()
    assert [(t, n, ok) for t, n, ok in g.behind.said] == [(0.0, 0, False), (1.0, 2, False), (2.0, 2, True)]
    assert g.station.withdraw(request(9)) and g.behind.said[-1] == (2.0, 9, "withdrawn")


def test_while_the_scheduler_is_away_they_go_in_turn() -> None:
    g = gateway(scheduler_outage=(1.0, 2.0))
    for at in (0.5, 1.0, 1.5, 2.0):
        g.clock.call(at, lambda: g.station.arrive(request(int(10 * g.clock.now))))
    g.clock.run()
    assert [what for _, _, what in g.behind.said] == [True, "in turn", "in turn", True]


# ---- the door of an admission policy


class Policy:
    """Lets ``places`` requests through at a time; whoever waits for ``patience`` seconds is refused; refuses above ``most`` that wait."""

    name, hears_first_tokens = "p", True

    def __init__(self, places: int, patience: float = inf, most: int = 99, clock: Any = None) -> None:
        self.places, self.patience, self.most, self.clock = places, patience, most, clock
        self.waiting: list[Any] = []
        self.inside: set[int] = set()
        self.said: list[Any] = []

    def offer(self, ticket: Any, view: Any) -> bool:
        self.said.append(ticket)
        if len(self.waiting) >= self.most:
            return False
        self.waiting.append(ticket)
        return True

    def release(self, view: Any) -> list[int]:
        gone = [t.number for t in self.waiting[: max(self.places - len(self.inside), 0)]]
        self.waiting = self.waiting[len(gone) :]
        self.inside |= set(gone)
        return gone

    def expired(self, now: float) -> list[int]:
        late = [t.number for t in self.waiting if now >= t.came + self.patience]
        self.waiting = [t for t in self.waiting if t.number not in late]
        return late

    def wake(self, now: float) -> float:
        return min((t.came + self.patience for t in self.waiting), default=inf)

    def ended(self, ticket: Any, now: float, output: int) -> None:
        self.inside.discard(ticket.number)
        self.said.append(("ended", ticket.number, now, output))

    def first_token(self, ticket: Any, now: float) -> None:
        self.said.append(("first", ticket.number, now))

    def withdraw(self, ticket: Any, now: float) -> None:
        self.waiting = [t for t in self.waiting if t.number != ticket.number]
        self.said.append(("withdrawn", ticket.number, now))


def door(places: int, takes: Any = lambda now: True, **how: Any) -> Any:
    clock = Clock()
    policy = Policy(places, **how)
    station = Door(clock, policy, None, "p")  # type: ignore[arg-type]
    behind, before = placed(station, clock, takes)
    return SimpleNamespace(clock=clock, policy=policy, station=station, behind=behind, before=before)


def test_a_place_is_free_when_somebody_has_ended() -> None:
    d = door(1)
    first = request(0, priority=3, tenant=7)
    d.clock.call(
        1.0, lambda: [d.station.arrive(first), d.station.arrive(request(1, klass=4)), d.station.arrive(request(2, model=5))]
    )
    d.clock.call(2.0, lambda: (d.station.first_token(first, 2.5), d.station.ended(first, 4.0, 6)))
    d.clock.run()
    assert [tuple(t) for t in d.policy.said[:3]] == [(0, 7, 3, 100, 30, 1.0), (1, 4, 0, 100, 30, 1.0), (2, 5, 0, 100, 30, 1.0)]
    assert d.policy.said[3:] == [("first", 0, 2.5), ("ended", 0, 4.0, 20)]
    assert d.behind.said == [(1.0, 0, True), (4.0, 1, True)] and d.before.said == [("first", 0, 2.5), ("ended", 0, 4.0, 6)]
    assert d.station.totals() == {"fleet_p_waited": 2.0, "fleet_p_refused": 0.0, "fleet_p_timed_out": 0.0}
    assert list(d.station.held) == [2] and d.station.watches == 3


def test_who_fails_without_a_token_has_used_none() -> None:
    d = door(1)
    one = request(0)
    d.clock.call(1.0, lambda: (d.station.arrive(one), d.station.arrive(request(1))))
    d.clock.call(2.0, lambda: d.station.refused(one, 3.0, True))
    d.clock.run()
    assert (
        d.policy.said[-1] == ("ended", 0, 3.0, 0)
        and d.before.said == [("refused", 0, 3.0, True)]
        and d.behind.said[-1] == (3.0, 1, True)
    )


def test_waiting_and_refusing_at_the_door() -> None:
    d = door(0, patience=2.0, most=2)
    d.clock.call(1.0, lambda: [d.station.arrive(request(k)) for k in range(3)])
    d.clock.call(1.5, lambda: d.station.withdraw(d.station.held[1]))
    d.clock.run()
    assert d.before.said == [("refused", 2, 1.0, True), ("refused", 0, 3.0, True)] and d.behind.said == []
    assert d.station.totals() == {"fleet_p_waited": 2.0, "fleet_p_refused": 1.0, "fleet_p_timed_out": 1.0}
    assert d.policy.said[-1] == ("withdrawn", 1, 1.5)
    full = door(1, takes=lambda now: False)
    full.clock.call(1.0, lambda: full.station.arrive(request(0)))
    full.clock.run()
    assert full.before.said == [("refused", 0, 1.0, False)] and full.policy.said[-1] == ("ended", 0, 1.0, 0)
    gone = door(1)
    one = request(0)
    gone.clock.call(1.0, lambda: (gone.station.arrive(one), gone.station.arrive(request(1)), gone.station.withdraw(one)))
    gone.clock.run()
    assert gone.behind.said == [
        (1.0, 0, True),
        (1.0, 0, "withdrawn"),
        (1.0, 1, True),
    ]  # gone without an outcome: its place is free


def test_a_door_that_is_shut() -> None:
    clock = Clock()
    front = Front(clock)
    behind, before = placed(front, clock, lambda now: now != 5.0)
    a, b, c = request(0), request(1), request(2)
    front.shut(hangs=True)
    assert front.arrive(a) and front.arrive(b) and a.status == HANGING and list(front.held) == [0, 1] and behind.said == []
    assert front.withdraw(b) and list(front.held) == [0]
    clock.call(5.0, front.open)
    clock.run()
    assert a.status == 0 and before.said == [("refused", 0, 5.0, True)] and front.held == {}
    front.shut(hangs=False)
    assert front.arrive(c) and c.status == UNREACHABLE and before.said[-1] == ("refused", 2, 5.0, False)
    front.open()
    assert not front.arrive(c) and behind.said[-1] == (5.0, 2, False)


# ---- what clients see


def profile(request_s: float, first: float, token: float = 0.0) -> Any:
    return SimpleNamespace(before_engine=lambda n: request_s + token * n, client_first_token=first)


def test_times_are_those_of_the_pool_that_a_row_is_of() -> None:
    """Two pools of two and one replicas with two and one ranks: rows 0 to 3, and 4."""
    side = ClientSide([profile(1.0, 0.5, 0.01), profile(10.0, 5.0)], [2, 1], [2, 1])
    assert [side.away(k, 100) for k in (0, 1, 2)] == [2.5, 2.5, 15.0]
    names = ("taken_s", "first_scheduled_s", "first_token_s", "finish_s")
    rows = {n: np.zeros(5) for n in names} | {
        "replica": np.array([0, 3, 4, 1, 4]),
        "prompt_tokens": np.array([0, 100, 0, 0, 100]),
    }
    side.shift(rows)
    assert rows["taken_s"].tolist() == rows["first_scheduled_s"].tolist() == [1.0, 2.0, 10.0, 1.0, 10.0]
    assert rows["first_token_s"].tolist() == rows["finish_s"].tolist() == [1.5, 2.5, 15.0, 1.5, 15.0]


class Road:
    """Behind clients."""

    by_blocks, ahead = False, False

    def __init__(self, clock: Clock, takes: bool = True) -> None:
        self.clock, self.said, self.takes = clock, [], takes

    def arrive(self, r: Request) -> bool:
        self.said.append((self.clock.now, r.number, r.row, r.arrival))
        return self.takes

    def arrive_block(self, block: RequestBlock, first: int) -> None:
        self.said.append((self.clock.now, first, len(block)))

    def arrive_ahead(self, block: RequestBlock, lo: int, hi: int, first: int) -> None:
        self.said.append((self.clock.now, lo, hi, first))


def blocks() -> list[RequestBlock]:
    return [
        RequestBlock.of([1.0, 2.0, 2.0], [10, 11, 12], [1, 1, 1], tenant=[1, 2, 3]),
        RequestBlock.of([5.0, 9.0], [13, 14], [1, 1], tenant=[4, 5]),
    ]


@pytest.mark.parametrize(("until", "sent"), [(inf, 5), (9.0, 4), (2.0, 1), (5.0, 3), (0.5, 0)])
def test_who_sends_at_the_times_of_the_traffic(until: float, sent: int) -> None:
    clock = Clock()
    clients = OpenClients(clock, iter(blocks()), until)
    clients.then = road = Road(clock)  # type: ignore[assignment]
    clients.start()
    clock.run()
    want = [(1.0, 0, 0, 1.0), (2.0, 1, 1, 2.0), (2.0, 2, 2, 2.0), (5.0, 3, 0, 5.0), (9.0, 4, 1, 9.0)][:sent]
    assert road.said == want and clients.sent == sent and clients.turned_away == []
    assert clients.labels()["tenant"].tolist() == [1, 2, 3, 4, 5][:sent] if sent else True


def test_blocks_and_stretches_of_them() -> None:
    clock = Clock()
    clients = OpenClients(clock, iter(blocks()), 9.0)
    clients.then = road = Road(clock)  # type: ignore[assignment]
    road.by_blocks = True
    clients.start()
    clock.run()
    assert road.said == [(1.0, 0, 3), (5.0, 3, 1)] and clients.sent == 4
    clock = Clock()
    ahead = OpenClients(clock, iter(blocks()))
    ahead.then = road = Road(clock)  # type: ignore[assignment]
    road.ahead = True
    clock.call(4.0, lambda: None)
    ahead.start()
    clock.run()
    assert road.said == [(1.0, 0, 3, 0), (5.0, 0, 2, 3)] and ahead.sent == 5


def test_whoever_is_turned_away_is_told_of() -> None:
    clock = Clock()
    clients = OpenClients(clock, iter(blocks()))
    clients.then = Road(clock, takes=False)  # type: ignore[assignment]
    clients.start()
    clock.run()
    assert [(r.number, t) for r, t in clients.turned_away] == [(0, 1.0), (1, 2.0), (2, 2.0), (3, 5.0), (4, 9.0)]
    assert clients.totals() == {"fleet_gateway_failed": 5.0}
    assert [row["finish_s"] for row in clients.rows()] == [1.0, 2.0, 2.0, 5.0, 9.0]
    busy = OpenClients(Clock(), iter([]))
    busy.refused(request(1), 3.0, True)
    assert busy.totals() == {} and len(busy.turned_away) == 1


class Loop:
    """Two clients with three requests between them."""

    concurrency, total, think_time, paced = 2, 3, 0.5, False

    def __init__(self) -> None:
        self.row = -1

    def next(self, client: int) -> Any:
        self.row += 1
        return (RequestBlock.of([0.0, 0.0, 7.0], [10] * 3, [1] * 3), self.row) if self.row < 3 else None


@pytest.mark.parametrize(("paced", "third"), [(False, 3.75), (True, 7.0)])
def test_who_waits_for_answers(paced: bool, third: float) -> None:
    clock = Clock()
    loop: Any = Loop()
    loop.paced = paced
    clients = WaitingClients(clock, loop, side=ClientSide([profile(0.2, 0.05)], [1], [1]))
    clients.then = road = Road(clock)  # type: ignore[assignment]
    clients.start()
    one = request(0)
    one.client = 1
    clock.call(2.0, lambda: clients.ended(one, 3.0, 0))  # its answer is there at 3.25, and it thinks until 3.75
    clock.run()
    assert [(t, n) for t, n, *_ in road.said] == [(0.0, 0), (0.0, 1), (third, 2)] and clients.sent == 3
    assert road.said[2][3] == third


def test_labels_that_say_something() -> None:
    columns = {"klass": np.zeros(2, int), "tenant": np.zeros(2, int), "session": np.array([-1, -1])}
    assert set(said(columns)) == {"klass"} and set(said(columns | {"tenant": np.array([0, 1])})) == {"klass", "tenant"}
    assert set(said(columns | {"session": np.array([-1, 0])})) == {"klass", "session"}


# ---- machines


def upkeep(spot: Spot | None = None, *windows: Maintenance, replicas: int = 3) -> Any:
    clock = Clock()
    lives: dict[int, Life | None] = {k: Life(5 + k, float(k), 0.0, 0.0) for k in range(replicas)}
    done: list[Any] = []

    def stop(k: int, life: Life, why: str) -> None:
        assert why == "taken back"
        life.drain = clock.now
        done.append((clock.now, "stop", k))

    def kill(k: int, life: Life) -> int:
        life.gone = clock.now
        lives[k] = None
        done.append((clock.now, "kill", k))
        return 4

    def shrink(away: int) -> int:
        done.append((clock.now, "away", away))
        return away

    pool: Any = SimpleNamespace(
        first=5,
        there=lambda: [(k, x) for k, x in lives.items() if x is not None and np.isnan(x.drain)],
        life=lambda k: lives[k],
        stop=stop,
        kill=kill,
        shrink=shrink,
    )
    made = Upkeep(clock, pool, SimpleNamespace(spot=spot, maintenance=windows), np.random.default_rng(4))  # type: ignore[arg-type]
    clock.call(1000.0, lambda: None)  # the traffic goes on until then
    made.start()
    clock.run()
    return SimpleNamespace(made=made, done=done, lives=lives)


def test_spot_machines_are_taken_back_the_oldest_first() -> None:
    seen = upkeep(Spot(at=(10.0, 20.0, 30.0), notice=5.0, on_demand=1))
    assert seen.done == [
        (10.0, "stop", 1),
        (15.0, "kill", 1),
        (20.0, "stop", 2),
        (25.0, "kill", 2),
    ]  # 0 is on a machine of its own
    assert seen.made.totals() == {"fleet_spot_reclaimed": 2.0, "fleet_spot_cut_off": 8.0}
    drawn = upkeep(Spot(mtbf=20.0, notice=0.0), replicas=200)
    times = np.array([t for t, what, _ in drawn.done if what == "stop"])
    assert len(times) == 200 and times.mean() == pytest.approx(20.0, rel=0.2) and upkeep().made.totals() == {}


def test_maintenance_takes_replicas_for_a_while() -> None:
    seen = upkeep(None, Maintenance(start=10.0, duration=20.0, replicas=2), Maintenance(start=20.0, duration=30.0))
    assert seen.done == [(10.0, "away", 2), (20.0, "away", 3)] and seen.made.away == 0
    assert seen.made.totals() == {"fleet_maintenance_drained": 5.0}


# ---- engines and views


class Group:
    """Of ``n`` replicas of ``ranks`` each; writes down what it is given."""

    def __init__(self, n: int, ranks: int = 1, outstanding: tuple[int, ...] = ()) -> None:
        self.n, self.ranks, self.said = n, ranks, []
        self.outstanding = np.array(outstanding or (0,) * (n * ranks))
        self.left = np.arange(float(n))

    def submit(self, *given: Any) -> None:
        self.said.append(given)

    def submit_routed(self, mine: Any, columns: Any, spans: Any, first: int) -> None:
        self.said.append((mine.tolist(), first))

    def catch_up(self, now: float, rank: Any = None) -> None:
        self.said.append((now, rank))

    def gauges(self) -> Any:
        return np.arange(5.0 * self.n * self.ranks).reshape(5, -1)


def test_requests_go_to_the_pool_and_the_replica_of_that_number() -> None:
    clock = Clock()
    groups = [Group(2), Group(3, ranks=2)]
    engines = Engines(clock, groups)  # type: ignore[arg-type]
    assert [engines.row_of(k) for k in range(5)] == [0, 1, 2, 4, 6] and engines.first == [0, 2, 5]
    block = RequestBlock.of([1.0, 2.0, 3.0], [10, 20, 30], [1, 1, 1])
    for replica, row in ((1, 0), (2, 2), (4, 1)):
        r = Request(block, row, 10 + row, float(block.arrival_s[row]), watch=1)
        clock.call(r.arrival, lambda r=r, k=replica: engines.submit(r, k))
    clock.run()
    got = [(g, s[0], s[3], s[4], s[5]) for g, group in enumerate(groups) for s in group.said]
    assert got == [(0, 1, 0, 1, 10), (1, 2, 1, 2, 10), (1, 0, 2, 3, 10)] and engines.taken == [1, 2]
    late = Request(block, 1, 40, 2.0)
    engines.submit(late, 0)  # who was kept on the way comes now, at 3 s
    replica, columns, spans, lo, hi, first, watch = groups[0].said[-1]
    assert (
        (replica, lo, hi, first, watch) == (0, 0, 1, 40, 0)
        and columns[0].tolist() == [3.0]
        and columns[1].tolist() == [20]
        and len(spans[0]) == 2
    )
    engines.submit_block(block, np.array([0, 4, 2], np.int32), 50)
    assert groups[0].said[-1] == ([0, -1, -1], 50) and groups[1].said[-1] == ([-1, 2, 0], 50)
    engines.submit_block(block, np.array([3], np.int32), 60)
    assert groups[1].said[-1] == ([1], 60) and groups[0].said[-1][1] == 50


def test_an_engine_looks_for_clients_that_have_gone_now_and_then() -> None:
    clock = Clock()
    engines = Engines(clock, [Group(1)])  # type: ignore[list-item]
    seen: list[float] = []
    engines._let_go = lambda r: seen.append(clock.now)  # type: ignore[assignment, method-assign]
    r = request(1)
    r.replica, r.came = 0, 2.0
    engines.withdraw(r)
    engines.notices_after = [1.5]
    for at in (2.5, 3.5, 4.0):
        clock.call(at, lambda: engines.withdraw(r))
    clock.run()
    assert seen == [0.0, 3.5, 5.0, 5.0]  # every 1.5 s from when it came


def test_views_put_pools_side_by_side() -> None:
    clock = Clock()
    groups: Any = [Group(2, outstanding=(3, 4)), Group(3, outstanding=(5, 6, 7))]
    view = View(groups, clock)
    assert view.replicas == 5 and view.outstanding.tolist() == [3, 4, 5, 6, 7]
    view.moment = 4.0
    found = view.gauges()
    assert (
        found.shape == (5, 5)
        and found[0].tolist() == [0.0, 1.0, 0.0, 1.0, 2.0]
        and groups[1].said == [(4.0, None)]
        and view.looks == 1
    )
    assert view.now == 4.0 and View(groups[:1], clock).outstanding is groups[0].outstanding
    clock.call(6.0, lambda: None)
    clock.run()
    assert view.now == 6.0


def test_ranks_look_like_one_replica() -> None:
    class Inner(Group):
        _states: tuple[Any, ...] = ()

        def __init__(self) -> None:
            super().__init__(4, 1, (1, 2, 3, 4))
            self.ends = [10.0]

        def _submit(self, where: Any, columns: Any, spans: Any, lo: int, hi: int, first: int, watch: int) -> None:
            self.said.append((int(where[0]), lo, hi, first))
            self.outstanding[int(where[0])] += 1

        def advance(self, until: float, watched: bool) -> bool:
            self.said.append(("to", until))
            return False

        def next_event(self) -> float:
            return inf

    class Least:
        interval = None

        def choose(self, seen: Any, rows: Any, row: int) -> int:
            return int(np.argmin(seen.outstanding))

    inner: Any = Inner()
    group = RankedGroup(inner, 2, [Least(), Least()])  # type: ignore[list-item]
    assert group.outstanding.tolist() == [3, 7] and group.n == 2
    gauges = group.gauges()
    assert (
        gauges[0].tolist() == [1.0, 5.0] and gauges[3].tolist() == [25.0, 29.0] and gauges[4].tolist() == [17.0, 19.0]
    )  # sums, and the latest clock
    block = RequestBlock.of([1.0, 2.0, 3.0, 4.0], [10] * 4, [1] * 4)
    group.submit_routed(np.array([1, -1, 0, 1], np.int32), block.columns, block.spans, 70)
    group.submit(0, block.columns, block.spans, 1, 2, 90)
    assert group.outstanding.tolist() == [5, 9] and group.next_event() == 1.0
    group.advance(3.0, False)
    assert [s for s in inner.said if s[0] != "to"] == [(2, 0, 1, 70), (0, 1, 2, 90), (0, 2, 3, 70)]  # the rank with the fewest
    assert group.outstanding.tolist() == [5, 9] and group.next_event() == 4.0
    group.advance(9.0, False)
    assert inner.said[-2:] == [(2, 3, 4, 70), ("to", 9.0)]
    assert group.next_event() == inf


def test_each_model_has_its_own_replicas_and_all_outcomes_go_back() -> None:
    clock = Clock()
    routers: Any = [
        SimpleNamespace(choose=lambda seen, block, row: 1, setup=lambda facts: None, interval=None, hears=False) for _ in range(2)
    ]
    views: Any = [SimpleNamespace(facts=[]), SimpleNamespace(facts=[])]
    station = ByModel(clock, routers, views, {"a": ["p"], "b": ["q"]}, [[0, 2], [1, 5]])
    submitted: list[Any] = []
    station.then, station.before = SimpleNamespace(submit=lambda r, k: submitted.append((r.number, k))), Before()  # type: ignore[assignment]
    one, two = request(1), request(2, model=1)
    assert station.arrive(one) and station.arrive(two) and submitted == [(1, 2), (2, 5)]
    station.first_token(two, 3.0)
    station.ended(two, 4.0, 5)
    station.refused(one, 5.0, True)
    assert station.before.said == [("first", 2, 3.0), ("ended", 2, 4.0, 5), ("refused", 1, 5.0, True)]  # type: ignore[attr-defined]


# ---- choices of two sides, moves, ports


class Chooser:
    whole = pairs = decides = False

    def __init__(self, *answers: int) -> None:
        self.answers, self.said = list(answers), []

    def __getattr__(self, name: str) -> Any:
        return lambda *given: self.said.append((name, *given))

    def choose(self, seen: Any, block: Any, row: int) -> int:
        return self.answers.pop(0)


def side_choice(together: bool, p: tuple[int, ...], d: tuple[int, ...]) -> Any:
    routers: Any = [Chooser(*p), Chooser(*d)]
    views: Any = [SimpleNamespace(facts=["p"]), SimpleNamespace(facts=["d"], moment=0.0)]
    return SideChoice(views, routers, [[4, 6], [5, 9]], together), routers, views


def test_two_sides_are_chosen_together_or_one_after_the_other() -> None:
    pair, routers, _ = side_choice(True, (1, -1, 0), (0, -1))
    assert pair.choose(None, 0) == (6, 5) and pair.count == 1
    assert pair.choose(None, 0) == (-1, -1) and pair.choose(None, 0) == (-1, -1) and pair.count == 1
    assert [s[0] for s in routers[0].said] == ["plays", "setup", "revert"]  # the prefill side is told that it came to nothing
    later, _, views = side_choice(False, (1, -1), (1, -1))
    assert later.choose(None, 0) == (6, -1) and later.choose(None, 0) == (-1, -1)
    assert later.choose_decode(None, 0, 6, 3.5) == 9 and later.choose_decode(None, 0, 6, 4.5) == -1 and views[1].moment == 4.5


def test_a_decode_side_may_choose_first_and_keep_the_prompt() -> None:
    class First(Chooser):
        decides = True

        def hands_over(self, seen: Any, block: Any, row: int) -> bool:
            return row > 0

    routers: Any = [Chooser(1, -1), First(1, 0, 1, -1)]
    views: Any = [SimpleNamespace(facts=["p"]), SimpleNamespace(facts=["d"], moment=0.0)]
    choice = SideChoice(views, routers, [[4, 6], [5, 9]], False)
    assert choice.pairs and [choice.choose(None, row) for row in (1, 0, 1, 1)] == [(6, 9), (-1, 5), (-1, 9), (-1, -1)]  # type: ignore[arg-type]
    assert choice.count == 3


def test_moves_are_of_the_replicas_that_serve() -> None:
    members: Any = SimpleNamespace(numbers=[4, 7], _seen=None, interval=0.0)
    members._router = SimpleNamespace(poll=lambda seen: [], interval=2.0)
    assert Members.poll(members, None) == [] and members.interval == 2.0  # type: ignore[arg-type]
    members.numbers = []
    assert Members.poll(members, None) == ()  # type: ignore[arg-type]


def test_a_transfer_waits_for_both_ports_and_counts_on_both() -> None:
    wires = [Wire("x", 100.0, 0.5, "", ""), Wire("x", 100.0, 0.25, "", "")]
    ports = Ports(wires, [1, 2])
    assert ports.send(0, 1, 1000.0, 3.0) == 13.5  # ten seconds at the slower side, and the latency of the source
    assert ports.busy == [10.0, 5.0] and ports.bytes == 1000.0
    assert ports.send(1, 0, 200.0, 4.0) == pytest.approx(13.0 + 2.0 + 0.25) and list(ports.waits) == [0.0, 9.0]
    told = ports.totals(40.0)
    assert told == {
        "fleet_kv_transfers": 2.0,
        "fleet_kv_transferred_bytes": 1200.0,
        "fleet_kv_port_wait_mean_s": 4.5,
        "fleet_kv_port_wait_max_s": 9.0,
        "fleet_kv_port_busy_max": 0.3,
    }
    assert [list(x) for x in ports.log] == [[0, 1, 1, 0], [3.0, 3.0, 13.0, 13.0], [10.0, 5.0, 1.0, 2.0]]
    ports.scale(0.0, 50.0)
    assert ports.send(0, 1, 100.0, 20.0) == 51.5
    ports.scale(0.5, 0.0)
    assert ports.send(0, 1, 100.0, 60.0) == 62.5
    whole = Ports(wires[:1] * 2, [1, 1])
    assert whole.send_while(0, 1, 400.0, 10.0, 18.0, 4) == pytest.approx(
        max(12.0 + 4.0, 18.0 + 1.0) + 0.5
    )  # the last of four layers
    assert Ports(wires[0], [1]).totals(0.0)["fleet_kv_port_busy_max"] == 0.0


def test_what_migration_tells() -> None:
    made: Any = SimpleNamespace(
        outcomes={"moved": 4, "gone": 2, "no_memory": 1},
        worse=2,
        relieved=1,
        _moves={1: 2, 2: 1, 3: 1},
        down_times=[0.1, 0.3],
        copied_blocks=1200,
    )
    assert Migrator.totals(made) == {
        "fleet_migrations": 4.0, "fleet_migrations_aborted": 3.0, "fleet_migrations_to_fuller": 2.0, "fleet_migrations_relieving": 1.0,
        "fleet_requests_moved_again": 1.0, "fleet_migration_downtime_mean_s": 0.2, "fleet_migration_downtime_max_s": 0.3, "fleet_migration_blocks": 1200.0,
    }  # fmt: skip
    notes = Migrator.notes(made)
    assert notes[0].startswith(
        "migration moved 4 running requests, 1 of them more than once; down-time 200.0 ms on average, 300.0 ms at most; 1,200 KV blocks"
    )
    assert (
        notes[1] == "migrations given up: gone 2, no memory 1"
        and notes[2].startswith("1 of 4 migrations left a replica")
        and notes[3].startswith("2 of 4 ")
    )
    made.worse = 1
    assert len(Migrator.notes(made)) == 3


# ---- models, waits, groups of answers


def test_the_model_that_a_request_names() -> None:
    n = 4000
    block = RequestBlock.of(
        np.arange(float(n)),
        [10] * n,
        [1] * n,
        klass=np.arange(n) % 3,
        session=np.where(np.arange(n) % 3 == 2, np.arange(n) // 30, -1),
    )
    mix = Mix([1.0, 3.0], np.random.default_rng(1))
    found = mix.models(block)
    assert found[np.arange(n) % 3 < 2].mean() == pytest.approx(0.75, abs=0.03) and not mix.told
    sessions = {int(s): set(found[block.session == s].tolist()) for s in np.unique(block.session) if s >= 0}
    assert all(len(models) == 1 for models in sessions.values()) and {m for s in sessions.values() for m in s} == {0, 1}
    again = mix.models(block[2:3])
    assert again[0] == found[2] == mix.draw(block, 2)  # a session stays
    own = Mix([1.0, 1.0], np.random.default_rng(1), [1, -1, 0], told=True)
    made = own.models(block)
    assert set(made[::3].tolist()) == {1} and set(made[1::3].tolist()) == {0, 1} and set(made[2::3].tolist()) == {0} and own.told


def test_answers_are_forgotten_when_all_have_asked_for_them() -> None:
    """One answer is awaited by two: of these one waits already when it comes, and one asks later."""
    clock = Clock()
    waits = Waits(np.array([nan, 1.0, 0.5]), np.array([2, 0, 0], np.int32), np.array([0, 0, 1, 2]), np.array([77, 77]))
    block = RequestBlock.of([1.0, 2.0, 9.0], [10] * 3, [1] * 3, out_content=[77, 78, 79], waits=waits)
    traffic: Any = SimpleNamespace(until=inf, blocks=lambda: iter([block]), classes=(), most=None, loops=())
    clients = AnsweringClients(clock, traffic)
    clients.then = road = Road(clock)  # type: ignore[assignment]
    clients.start()
    clock.call(4.0, lambda: clients.ended(Request(block, 0, 0, 1.0), 5.0, 0))
    clock.run()
    assert [(t, n, row) for t, n, row, _ in road.said] == [(1.0, 0, 0), (6.0, 1, 1), (9.5, 2, 2)]
    assert clients._ended == clients._waiting == {} and clients._alive == set() and clients.notes() == []


def test_what_is_planned_for_a_pool_that_scales() -> None:
    s = sim.load(
        "pai-autoscale",
        ["deployment.tp=2", "deployment.accelerator=h100-sxm", "deployment.replicas=3", "scaling.min=2", "scaling.max=7"],
    )
    made = plan_scaling(s, plan(s))
    assert made is not None
    (pool,) = made.pools
    assert (pool.accelerators, pool.ranks, pool.start, pool.side, pool.role, made.most) == (2, 1, 3, 0, "", 7)
    assert [p.replicas for p in made.grown(plan(s))] == [7]
