"""A run of more requests than are held in memory: the same bytes as one that is held, and nothing left on disk."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sim
from sim import scratch
from sim.fleet import kept, world
from sim.metrics import on_disk, store
from sim.metrics.on_disk import DiskTable
from sim.metrics.result import Result, load_result
from sim.metrics.sections import sessions
from sim.study.single import Prepared
from sim.workload.base import Traffic

ROWS = 3000
PLAIN = (f"traffic.synthetic.requests={ROWS}", "deployment.replicas=2", "slo={ttft: 100ms, tpot: 12ms}")
CUT = (*PLAIN, "until=100s")
SCENARIOS = {
    "plain": ("quickstart", PLAIN),
    "cut off": ("quickstart", CUT),
    "clients that leave": ("quickstart", (*PLAIN, "clients={name: openai, timeout: 3s}", "deployment.replicas=1")),
    "sessions": ("multi-turn", ("traffic.synthetic.requests=400",)),
}


def small(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    for module in (on_disk, world, store):
        monkeypatch.setattr(module, "HELD_ROWS", rows)
    for module in (on_disk, store):
        monkeypatch.setattr(module, "BLOCK_ROWS", 1 << 8)


def files(result: Result, folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(result.save(folder).iterdir())}


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_same_bytes_as_in_memory(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario, settings = SCENARIOS[name]
    loaded = sim.load(scenario, settings)
    monkeypatch.setattr(store, "BLOCK_ROWS", 1 << 8)
    held = sim.run(loaded)
    small(monkeypatch, 100)
    spilt = sim.run(loaded)

    assert isinstance(held.columns, dict) and isinstance(spilt.columns, DiskTable)
    assert files(held, tmp_path / "held") == files(spilt, tmp_path / "spilt")
    assert held.requests.equals(spilt.requests)
    assert held.sessions.equals(spilt.sessions)
    back = load_result(tmp_path / "spilt")
    assert isinstance(back.columns, DiskTable) and back.requests.equals(held.requests)
    assert back.summary == spilt.summary


def test_sessions_are_looked_at_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Prepared(sim.load(*SCENARIOS["sessions"]))
    whole = run.run().summary["sessions"]
    monkeypatch.setattr(sessions, "_ROWS", 37)
    parts = run.run().summary["sessions"]
    assert whole.count > 50
    for name in ("duration_s", "served_s"):  # sums may come in another order
        assert getattr(parts, name).as_dict() == pytest.approx(getattr(whole, name).as_dict(), rel=1e-12)
    assert replace(parts, duration_s=whole.duration_s, served_s=whole.served_s) == whole


def test_rows_leave_memory_while_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, 100)
    seen: list[int] = []
    add = kept.Kept.add

    def watched(self: kept.Kept, rows: Any) -> None:
        add(self, rows)
        seen.append(sum(len(part["id"]) for part in self._parts))

    monkeypatch.setattr(kept.Kept, "add", watched)
    monkeypatch.setattr(Traffic.blocks, "__defaults__", (64,))
    sim.run(sim.load("quickstart", PLAIN))
    assert max(seen) <= 100 and seen.count(0) > 10


def test_without_room_on_disk_rows_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, 100)
    monkeypatch.setattr(on_disk, "has_room", lambda rows: False)
    assert sim.run(sim.load("quickstart", PLAIN)).columns["id"].size == ROWS


def test_nothing_of_it_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    table = DiskTable()
    table["a"] = np.arange(5)
    assert scratch.place() == str(tmp_path) and list(tmp_path.iterdir()) == []


class TestTable:
    def made(self) -> DiskTable:
        table = DiskTable()
        table.append({"id": np.array([3, 1], np.int64), "x": np.array([0.3, 0.1])})
        table.append({"id": np.array([2, 0], np.int64), "x": np.array([0.2, np.nan])})
        return table

    def test_rows_come_back_in_order(self) -> None:
        table = self.made()
        table.sort("id")
        assert table["id"].tolist() == [0, 1, 2, 3]
        np.testing.assert_array_equal(table["x"], [np.nan, 0.1, 0.2, 0.3])
        assert list(table) == ["id", "x"] and len(table) == 2 and "x" in table and "y" not in table

    def test_what_is_read_is_a_copy(self) -> None:
        table = self.made()
        table["x"][:] = 7.0
        assert table["x"][0] == 0.3

    def test_columns_are_changed_and_added_block_by_block(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(on_disk, "BLOCK_ROWS", 3)
        table = self.made()
        sizes = []

        def of(rows: Any) -> dict[str, Any]:
            sizes.append(len(rows["id"]))
            return {"x": rows["x"] * 2, "y": rows["id"].astype(np.int32)}

        on_disk.put(table, of)
        assert sizes == [3, 1]
        np.testing.assert_array_equal(table["x"], [0.6, 0.2, 0.4, np.nan])
        assert table["y"].tolist() == [3, 1, 2, 0] and table["y"].dtype == np.int32

    def test_a_column_of_another_length_is_refused(self) -> None:
        with pytest.raises(ValueError, match="y has 3 rows, the table 4"):
            self.made()["y"] = np.zeros(3)

    def test_columns_in_another_order(self) -> None:
        table = self.made()
        table.arrange(("x", "nothing", "id"))
        assert list(table) == ["x", "id"]
        table.arrange(("x",))
        assert list(table) == ["x"]

    def test_a_pickle_holds_its_columns(self) -> None:
        back = pickle.loads(pickle.dumps(self.made()))
        assert isinstance(back, dict) and back["id"].tolist() == [3, 1, 2, 0]

    def test_an_empty_one(self) -> None:
        table = DiskTable()
        table["a"] = np.zeros(0)
        assert table["a"].size == 0 and list(table.blocks()) == []
