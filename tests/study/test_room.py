"""A run that this machine has no room for is refused before it begins."""

from math import inf
from types import SimpleNamespace

import pytest

import sim
from sim.errors import ConfigError
from sim.study import room


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("deployment.replicas=1000000", "deployment.replicas: so many engines would need about"),
        ("traffic.synthetic.requests=2147483647", "traffic: so many requests would need about"),
    ],
)
def test_what_has_no_room_is_refused(setting: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "memory_bytes", lambda: 64e9)
    with pytest.raises(ConfigError, match=says):
        sim.run(sim.load("quickstart", (setting,)))


def test_an_end_of_the_simulated_time_bounds_what_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "memory_bytes", lambda: 64e9)
    result = sim.run(sim.load("quickstart", ("traffic.synthetic.requests=2147483647", "until=5s")))
    assert 10 < result.summary["requests"]["injected"] < 100


def test_rows_that_go_to_disk_need_less_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "memory_bytes", lambda: 4e9)
    plans = [SimpleNamespace(replicas=1, rank_count=1)]
    traffic = SimpleNamespace(total=20_000_000, mean_rate=10.0)
    monkeypatch.setattr(room, "has_room", lambda rows: True)
    room.check_room(plans, traffic, inf)
    with pytest.raises(ConfigError, match="of memory"):
        room.check_room(plans, traffic, inf, held=True)
    monkeypatch.setattr(room, "has_room", lambda rows: False)
    with pytest.raises(ConfigError, match="of memory"):
        room.check_room(plans, traffic, inf)


def test_every_machine_has_some_memory() -> None:
    assert room.memory_bytes() > 1e8
