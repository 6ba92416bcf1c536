"""The gateway: buffer, workers, retries, failing."""

import pytest

from sim.fleet.clock import Clock
from sim.fleet.gateway import Gateway
from sim.fleet.request import Request
from sim.fleet.station import Station, link
from sim.policy.gateway import GatewayParams
from sim.workload.table import RequestBlock


class Bench(Station):
    """The stations on both sides of a gateway."""

    def __init__(self, **settings):
        super().__init__()
        self.env = Clock()
        self.free = 0
        self.log = []
        self.gateway = Gateway(self.env, GatewayParams(**settings))
        link([self, self.gateway, self])

    def come(self, name, priority=0):
        block = RequestBlock.of([self.env.now], [10], [1], priority=[priority])
        request = Request(block, 0, name, self.env.now)
        assert self.gateway.arrive(request)

    def arrive(self, request):
        if self.free == 0:
            return False
        self.free -= 1
        self.log.append((self.env.now, request.number, "sent"))
        return True

    def in_turn(self, request):
        self.log.append((self.env.now, request.number, "in turn"))
        return True

    def refused(self, request, time, busy=False):
        self.log.append((time, request.number, "failed"))

    def at(self, time, action):
        self.env.timeout(time).callbacks.append(lambda _: action())


def test_a_request_goes_at_once_where_there_is_an_instance():
    b = Bench()
    b.free = 1
    b.come("a")
    b.env.run()
    assert b.log == [(0, "a", "sent")]
    assert b.gateway.waited == len(b.gateway.held) == 0


def test_without_an_instance_it_is_tried_every_second_and_fails_after_five():
    b = Bench()
    b.come("a")
    b.env.run()
    assert b.log == [(5, "a", "failed")]


def test_a_blocked_worker_serves_nobody_else():
    b = Bench(wait_queue_threads=2)
    for name in "abc":
        b.come(name)
    b.at(0.5, lambda: setattr(b, "free", 3))
    b.env.run()
    assert b.log == [(1, "a", "sent"), (1, "c", "sent"), (1, "b", "sent")]


def test_five_workers_and_fifo_within_a_class():
    b = Bench()
    for i in range(8):
        b.come(i)
    b.come("urgent", -1)
    b.env.run()
    assert [r for _, r, _ in b.log] == [0, 1, 2, 3, 4, "urgent", 5, 6, 7]
    assert [t for t, _, _ in b.log] == [5] * 5 + [10] * 4


def test_a_full_buffer_never_rejects_the_handler_tries_again():
    b = Bench(max_queue_size=1, wait_queue_threads=1)
    for name in "abc":
        b.come(name)
    assert b.gateway.knocking == 1
    assert len(b.gateway.held) == 3
    b.env.run()
    assert b.log == [(5, "a", "failed"), (10, "b", "failed"), (15, "c", "failed")]


def test_when_the_scheduler_is_out_it_goes_round_robin():
    b = Bench(scheduler_outage=(1.0, 2.0))
    b.at(1.5, lambda: b.come("a"))
    b.at(2.0, lambda: b.come("b"))
    b.env.run()
    assert b.log == [(1.5, "a", "in turn"), (7, "b", "failed")]


def test_an_outage_must_not_end_before_it_begins():
    with pytest.raises(ValueError, match="from ≤ to"):
        GatewayParams(scheduler_outage=(2.0, 1.0))
