"""Rules of MindIE Motor: loads, limits, order, affinity."""

import numpy as np
import pytest

import sim
from sim.errors import ConfigError
from sim.fleet.clock import Clock
from sim.fleet.coordinator import Queue
from sim.fleet.request import Request
from sim.fleet.station import Station, link
from sim.policy.coordinator import Dispatch
from sim.policy.motor.default import CacheAffinity, RoundRobin
from sim.policy.motor.digs import LJF, MPRF, SJF, STATIC, GlobalScheduler, Instance
from sim.policy.motor.load import Demand, LoadCost, Resource, demand_of
from sim.policy.router import ReplicaFacts
from sim.policy.routing.mindie_motor import MindieMotor, MotorParams
from sim.study.single import Prepared


def pair(*, slots=(10, 10, 10), **settings):
    """One prefill instance and two decode instances of 100 blocks."""
    roles = ("prefill", "decode", "decode")
    made = [Instance(i, s, 100, role) for i, (s, role) in enumerate(zip(slots, roles, strict=True))]
    return GlobalScheduler(made, LoadCost(), **settings)


def ask(scheduler, *tokens, first=0):
    for i, t in enumerate(tokens):
        scheduler.add(first + i, demand_of(t, 128, (1, 0)))


def test_a_request_asks_for_a_slot_and_the_blocks_of_its_input():
    assert demand_of(129, 128, (1, 0)) == Demand(1, 2, 129)
    assert demand_of(129, 128, (1, 7)) == Demand(1, 7, 129)


def test_load_of_a_decode_instance_is_what_it_reported_and_what_it_was_asked():
    r = Resource(3, 20, [100, 200, 300])
    assert LoadCost().load(r, 3, 50.0, Demand(1, 2, 129)) == 50 + 20 + 2
    assert LoadCost(b=10.0, m=2.0).load(r, 3, 50.0, Demand(1, 2, 129)) == 50 + 22 + 40 + 2 * 4  # the busiest itself would have 4
    assert LoadCost(a=1.0, r=0.0, c=0.0).load(r, 3, 0.0, Demand(1, 2, 129)) == 600 + 3 * 1024 + 129


def test_tokens_are_summed_in_groups_as_long_as_their_longest():
    cost = LoadCost(a=1.0, o=0.0, n=4.0, k=1.0)
    assert cost.tokens([1, 2, 3], 2, 9) == 4 * 9
    assert cost.tokens([1, 2, 3, 4], 2, 9) == 4 * 4  # upstream forgets a tail behind a full group
    assert cost.tokens([5], 2, 9) == 2 * 9
    assert cost.tokens([], 2, 9) == 9 // 2 * 1  # not more than k: half
    assert cost.tokens([5], 1, 9) == 14


def test_prefill_goes_to_the_least_asked_and_decode_to_the_least_loaded():
    s = pair()
    ask(s, 128, 1280, 128)
    assert [tuple(a) for a in s.schedule([0, 5, 0])] == [(0, 0, 2), (1, 0, 2), (2, 0, 1)]


def test_a_limit_is_tested_before_the_demand_is_added_and_the_head_of_the_queue_waits():
    s = pair(slots=(2, 100, 100))
    ask(s, *[128] * 5)
    assert [a.request for a in s.schedule([0, 0, 0])] == [0, 1, 2]  # 2 of 2.2 slots: one more
    assert s.queued == 2
    assert s.schedule([0, 0, 0]) == []
    s.prefill_ended(0)
    assert [a.request for a in s.schedule([0, 0, 0])] == [3]
    s.ended(1)  # a request that ends has released its prefill too
    assert [a.request for a in s.schedule([0, 0, 0])] == [4]
    assert [i.prefill.slots for i in s.instances.values()] == [3, 0, 0]
    assert sum(i.decode.slots for i in s.instances.values()) == 4


def test_a_request_without_a_decode_instance_goes_to_the_end_of_the_queue():
    s = pair(slots=(10, 0, 0))
    ask(s, 128, 128, 128)
    assert [a.request for a in s.schedule([0, 0, 0])] == [0, 1]  # one each, which is not over nothing yet
    assert s.instances[0].prefill.slots == 2
    ask(s, 128, first=3)
    s.ended(0)
    assert [a.request for a in s.schedule([0, 0, 0])] == [2]
    s.ended(1)
    assert [a.request for a in s.schedule([0, 0, 0])] == [3]


@pytest.mark.parametrize(("order", "expected"), [(SJF, [2, 0, 1]), (LJF, [1, 0, 2]), (MPRF, [0, 1, 2])])
def test_order_of_the_queue(order, expected):
    s = pair(reordering_type=order)
    ask(s, 300, 400, 200)
    assert [a.request for a in s.schedule([0, 0, 0])] == expected


def test_static_selection_has_no_limit():
    s = pair(slots=(1, 1, 1), select_type=STATIC)
    ask(s, *[128] * 50)
    assert len(s.schedule([0, 0, 0])) == 50


def test_a_server_of_both_roles_decodes_what_it_prefills():
    s = GlobalScheduler([Instance(i, 8, 100) for i in range(3)], LoadCost())
    ask(s, 1280, 128, 128, 128)
    chosen = s.schedule([0, 0, 0])
    assert [(a.prefill, a.decode) for a in chosen] == [(0, 0), (1, 1), (2, 2), (2, 2)]  # of equals the one that stood first


def test_links_bound_the_requests_of_an_instance():
    s = GlobalScheduler([Instance(0, 100, 1000, links=3)], LoadCost())
    ask(s, 1, 1, 1)
    # each takes a link to prefill and one to decode: the first finds none left for its decode, and gives its own back to the second
    assert [a.request for a in s.schedule([0])] == [1]
    s.prefill_ended(1)
    assert [a.request for a in s.schedule([0])] == [2]  # which stood before the first by then


def test_everything_is_given_back():
    rng = np.random.default_rng(3)
    s = pair(slots=(4, 6, 6), reordering_type=SJF)
    alive, done = set(), set()
    for i in range(400):
        ask(s, int(rng.integers(1, 3000)), first=i)
        alive |= {a.request for a in s.schedule([0, 0, 0])}
        for r in sorted(alive):
            if rng.random() < 0.3:
                s.prefill_ended(r)
            if rng.random() < 0.3:
                s.ended(r)
                alive.discard(r)
                done.add(r)
        if i % 50 == 0:
            s.withdraw(i)
    while s.queued or alive:
        alive |= {a.request for a in s.schedule([0, 0, 0])}
        r = alive.pop()
        s.ended(r)
        done.add(r)
    assert len(done) >= 390
    assert [(i.prefill, i.decode) for i in s.instances.values()] == [(Resource(), Resource())] * 3


def test_round_robin_passes_over_what_is_not_available():
    turns = RoundRobin(3)
    assert [turns.choose(lambda n: n != 1) for _ in range(4)] == [0, 2, 0, 2]
    assert turns.choose(lambda n: False) == -1


def test_conversations_return_to_their_node_while_it_is_remembered_and_has_room():
    affinity = CacheAffinity(3, cache_size=2)
    assert [affinity.choose(c, lambda n: True) for c in "aba"] == [0, 1, 0]
    assert affinity.choose("a", lambda n: n != 0) == 2
    assert affinity.choose("a", lambda n: True) == 2
    assert affinity.choose("c", lambda n: True) == 0  # forgets b
    assert affinity.choose("b", lambda n: True) == 1
    assert affinity.choose("a", lambda n: True) == 2
    assert affinity.choose("d", lambda n: False) == -1


class Wait:
    """A router that sends so many requests at once."""

    period, patience, capacity = 0.1, 0.35, 4

    def __init__(self, room):
        self.room, self.line, self.log = room, [], []

    def arrive(self, view, number, block, row):
        self.line.append(number)

    def dispatch(self, view):
        out = []
        while self.line and self.room:
            self.room -= 1
            out.append(Dispatch(self.line.pop(0), 0))
        return out

    def withdraw(self, number):
        self.line.remove(number)

    def prompt_computed(self, number):
        self.log.append(("first", number))

    def ended(self, number):
        self.log.append(("ended", number))
        self.room += 1


def test_a_queue_asks_again_when_something_is_released_and_gives_up_in_time():
    env, router, log = Clock(), Wait(1), []

    class Neighbour(Station):
        def send(self, request, replica, decode=-1):
            log.append((env.now, request.number, "sent"))

        def refused(self, request, time, busy=False):
            log.append((time, request.number, "failed"))

        def ended(self, request, time, replica):
            pass

        def first_token(self, request, time):
            pass

    queue, neighbour = Queue(env, router, None), Neighbour()
    link([neighbour, queue, neighbour])
    requests = [Request(None, 0, number, 0.0) for number in range(5)]
    for request in requests:
        if not queue.arrive(request):
            neighbour.refused(request, env.now)
    queue.first_token(requests[0], 0.05)
    queue.ended(requests[0], 0.22, 0)
    env.run()
    assert log == [(0, 0, "sent"), (0, 4, "failed"), (0.22, 1, "sent"), (0.35, 2, "failed"), (0.35, 3, "failed")]
    assert router.log == [("first", 0), ("ended", 0)]
    assert queue.waited == 3


SMALL = ("traffic.synthetic.requests=150", "expect={}")
PLAIN = (*SMALL, "pools=null", "deployment={replicas: 3, accelerator: ascend-910b4, engine: {name: mindie}}")


@pytest.mark.parametrize(
    ("overrides", "router"),
    [
        (SMALL, "mindie_motor"),
        (SMALL, "{name: mindie_motor, scheduler_type: default_scheduler, algorithm_type: round_robin}"),
        (PLAIN, "{name: mindie_motor, reordering_type: 2}"),
        (PLAIN, "{name: mindie_motor, scheduler_type: default_scheduler, algorithm_type: cache_affinity}"),
        (PLAIN, "{name: mindie_motor, total_slots_num: 2}"),
    ],
)
def test_every_request_goes_through_the_coordinator(overrides, router):
    summary = Prepared(sim.load("mindie-pd", overrides=(*overrides, f"router={router}"))).run().summary
    assert summary["requests"]["finished"] == 150
    assert (summary["fleet"]["gateway_waited"] > 0) == ("total_slots" in router)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"algorithm_type": "round_robin"}, "is not one of digs_scheduler"),
        ({"load_cost_values": "1"}, "load_cost_values"),
        ({"load_cost_coefficient": "1,2"}, "must be 9 numbers"),
    ],
)
def test_settings_that_contradict_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        MindieMotor(MotorParams(**settings), 2, np.random.default_rng(1))


def test_servers_without_a_batch_size_or_with_roles_for_conversations_are_refused():
    router = MindieMotor(MotorParams(), 1, np.random.default_rng(1))
    with pytest.raises(ConfigError, match="total_slots_num"):
        router.setup([ReplicaFacts(16, 1.0, "static")])
    affinity = MotorParams(scheduler_type="default_scheduler", algorithm_type="cache_affinity")
    with pytest.raises(ConfigError, match="cache_affinity"):
        MindieMotor(affinity, 2, np.random.default_rng(1)).setup(
            [ReplicaFacts(slots=8, role="prefill"), ReplicaFacts(slots=8, role="decode")]
        )
