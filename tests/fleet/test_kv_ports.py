"""The ports that KV leaves and enters replicas by: first come, first served on both sides, every second of them counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sim.fleet.disaggregation import HandOvers
from sim.fleet.kv_links import Ports, Wire
from tests.fleet.test_disaggregation import random_setting, run

WIRE = Wire("test", 100.0, 0.5, "here", "estimated")


def test_a_transfer_takes_both_sides_and_the_slower_one_says_how_long() -> None:
    ports = Ports(WIRE, [1, 2, 4])

    assert ports.send(0, 1, 200.0, 10.0) == 10.0 + 2.0 + 0.5  # 100 bytes a second leave, 200 can arrive
    assert ports.send(0, 2, 100.0, 10.5) == 12.0 + 1.0 + 0.5  # waits for the port of replica 0
    assert (
        ports.send(2, 1, 400.0, 11.0) == 12.25 + 2.0 + 0.5
    )  # waits for the port of replica 2, which took 100 bytes in a quarter of a second
    assert ports.send(1, 0, 0.0, 20.0) == 20.5
    assert ports.busy == pytest.approx([3.0, 3.0, 1.25])
    assert ports.waits.tolist() == [0.0, 1.5, 1.25, 0.0]
    assert ports.bytes == 700.0
    uses = list(zip(*(column.tolist() for column in ports.log), strict=True))
    assert uses[:6] == [(0, 10.0, 2.0), (1, 10.0, 1.0), (0, 12.0, 1.0), (2, 12.0, 0.25), (2, 12.25, 1.0), (1, 12.25, 2.0)]
    found = ports.totals(20.0)
    assert found == {
        "fleet_kv_transfers": 4.0, "fleet_kv_transferred_bytes": 700.0, "fleet_kv_port_wait_mean_s": 2.75 / 4,
        "fleet_kv_port_wait_max_s": 1.5, "fleet_kv_port_busy_max": pytest.approx(0.15),
    }  # fmt: skip
    assert Ports(WIRE, [1]).totals(0.0)["fleet_kv_port_busy_max"] == 0.0
    assert Ports(WIRE, [1]).totals(9.0)["fleet_kv_port_wait_mean_s"] == 0.0


def test_links_that_are_slow_or_down_for_a_while() -> None:
    ports = Ports(WIRE, [1, 1])

    ports.scale(0.5, 99.0)
    assert ports.send(0, 1, 100.0, 0.0) == 2.5
    ports.scale(1.0, 99.0)
    assert ports.send(0, 1, 100.0, 2.0) == 3.5
    ports.scale(0.0, 50.0)
    assert ports.send(0, 1, 100.0, 4.0) == 51.5
    ports.scale(0.0, 40.0)  # what is down for longer stays down
    assert ports.send(0, 1, 100.0, 4.0) == 52.5


def test_compiled_code_has_them_and_gives_them_back() -> None:
    ports = Ports(WIRE, [1, 2])
    ports.send(0, 1, 100.0, 0.0)
    now = ports.arrays(np.array([3.0, 4.0]))
    assert (now.free.tolist(), now.rate.tolist(), now.busy.tolist()) == ([1.0, 0.5], [100.0, 200.0], [1.0, 0.5])
    assert (now.bytes_of.tolist(), now.latency.tolist()) == ([3.0, 4.0], [0.5])
    now.busy[:] += 1.0
    ports.note(np.array([[1.0, 5.0, 0.25]]), np.array([0.125]), now, 300.0)
    assert (ports.busy, ports.bytes, ports.waits.tolist()) == ([2.0, 1.5], 300.0, [0.0, 0.125])
    assert [column.tolist()[-1] for column in ports.log] == [1, 5.0, 0.25]


@pytest.mark.parametrize("seed", [1, 4, 7, 11, 103])
def test_what_replicas_hold_is_counted_up_and_down(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    init = HandOvers.__init__

    def counted(self: Any, *given: Any, **more: Any) -> None:
        init(self, *given, **more)
        self.use.asked = True
        made.append(self)

    monkeypatch.setattr(HandOvers, "__init__", counted)
    settings, traffic = random_setting(seed)
    raw, _ = run(settings, traffic=traffic)

    (station,) = made
    if settings.until is None:
        assert not any(station.use.of)
        assert not station._there
    assert (raw.requests["status"] == 0).any()
