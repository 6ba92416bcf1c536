"""A limit of requests in flight on traffic with arrival times of its own."""

import numpy as np
import pytest

from sim.workload import RequestBlock
from sim.workload.closed_loop import ClosedLoop
from sim.workload.recorded import RecordedTraffic
from tests.laws.bench import group, run

N = 400


def requests(gap: float = 1.0):
    rng = np.random.default_rng(1)
    made = RecordedTraffic(RequestBlock.of(np.cumsum(rng.exponential(1.0, N)) * gap, rng.integers(50, 150, N), np.ones(N, int)))
    return made, lambda clients, paced: made.with_closed_loop(ClosedLoop(clients, 0.0, made, paced))


def times(traffic, batch: int = 2):
    _, rows = run([group(1, batch, 1.0, 0.004)], traffic)
    order = np.argsort(rows["id"])
    return rows["arrival_s"][order], rows["finish_s"][order]


def test_a_limit_that_never_binds_is_open_traffic():
    made, limited = requests()

    np.testing.assert_array_equal(times(made), times(limited(N, True)))


def test_requests_that_have_all_arrived_are_plain_waiting_clients():
    _, limited = requests(gap=0.0)

    np.testing.assert_array_equal(times(limited(5, True)), times(limited(5, False)))


@pytest.mark.parametrize("clients", [1, 3])
def test_no_more_in_flight_none_early_and_none_late_without_need(clients):
    made, limited = requests()
    due = next(iter(made.blocks(N))).arrival_s
    sent, ended = times(limited(clients, True), batch=4)
    free = np.sort(ended)

    assert (sent >= due).all()
    late = sent > due
    assert 0 < late.sum() < N
    np.testing.assert_array_equal(sent[late], free[np.flatnonzero(late) - clients])  # at the end of the one whose place it takes
    assert max((np.sum((sent <= t) & (ended > t))) for t in sent) == clients
