"""Rows of attempts and of hand-overs become one for each request: small tables whose answer is known. A door that shuts, and what a migrator tells."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sim.fleet.attempt_rows import MORE, Folded, fold
from sim.fleet.attempts import HANGING, UNREACHABLE
from sim.fleet.hand_over_rows import HandOverRows
from sim.fleet.migration import Migrator
from sim.fleet.outage import Front
from sim.ledger import FAILED, FINISHED, IN_FLIGHT, REJECTED, RETURNED
from sim.metrics.clients import Waste

NAN = float("nan")


# ---- attempts


def attempts() -> dict[str, Any]:
    """Three requests; the second is sent again as number `MORE`, the third three times in vain."""
    return {
        "id": np.array([0, 1, MORE, 2, MORE + 1]), "status": np.array([0, 2, 0, 3, 2], np.int32), "replica": np.array([0, 1, 2, 0, 1], np.int32),
        "arrival_s": np.array([1.0, 2.0, 6.0, 3.0, 7.0]), "first_scheduled_s": np.array([1.1, 2.1, 6.1, 3.1, NAN]),
        "taken_s": np.array([1.05, 2.05, 6.05, 3.05, 7.05]),
        "first_token_s": np.array([1.5, 2.5, 6.5, NAN, NAN]), "finish_s": np.array([2.0, 5.0, 9.0, NAN, 8.0]),
        "prompt_tokens": np.array([10, 20, 20, 30, 30]), "cached_tokens": np.array([0, 4, 16, 0, 0]), "output_tokens": np.array([5, 3, 7, 0, 0]),
        "preemptions": np.array([0, 1, 2, 0, 0]),
    }  # fmt: skip


def test_a_request_has_the_row_of_the_attempt_that_was_answered() -> None:
    odd = {
        2: Folded(FAILED, 8.5, MORE + 1, 4, 3.0, 30, 3, 7.0),
        1: Folded(FINISHED, 9.0, MORE, 2, 2.0, 20, 2, 6.0),
    }  # fmt: skip

    rows, waste = fold(attempts(), odd)

    assert (rows["id"].tolist(), rows["status"].tolist(), rows["attempts"].tolist()) == (
        [0, 1, 2],
        [FINISHED, FINISHED, FAILED],
        [1, 2, 3],
    )
    assert (rows["sent_s"].tolist(), rows["replica"].tolist()) == ([1.0, 6.0, 7.0], [0, 2, 4])
    assert (rows["arrival_s"].tolist(), rows["finish_s"].tolist()) == ([1.0, 6.0, 3.0], [2.0, 9.0, 8.5])
    assert rows["first_token_s"].tolist()[:2] == [1.5, 6.5] and np.isnan(rows["first_token_s"][2])
    assert np.isnan(rows["first_scheduled_s"][2])
    assert (rows["prompt_tokens"].tolist(), rows["output_tokens"].tolist(), rows["cached_tokens"].tolist()) == (
        [10, 20, 30],
        [5, 7, 0],
        [0, 16, 0],
    )
    # in vain: what the second got at first, and the prompt of the third's first attempt; its last was never scheduled
    assert waste == Waste(2, 20 - 4 + 30, 3, 2.5)


def test_what_died_on_the_way_is_one_row_with_what_went_on() -> None:
    odd = {
        1: Folded(FINISHED, 9.0, MORE, 2, 2.0, 20, 1, 2.0, carried=3, kept=(1,)),
        2: Folded(IN_FLIGHT, NAN, -1, 0, 3.0, 30, 2, 7.0),
    }

    rows, waste = fold(attempts(), odd)

    assert [rows[k][1] for k in ("taken_s", "first_scheduled_s", "first_token_s", "finish_s")] == [2.05, 2.1, 2.5, 9.0]
    assert [rows[k][1] for k in ("prompt_tokens", "output_tokens", "cached_tokens", "preemptions")] == [20, 10, 4, 3]
    assert rows["status"][2] == IN_FLIGHT and np.isnan(rows["finish_s"][2])
    assert waste == Waste(1, 30, 0, 0.0)


def test_requests_that_no_engine_saw() -> None:
    nothing = {k: v[:0] for k, v in attempts().items()} | {"prefill_replica": np.zeros(0, np.int32)}
    rows, waste = fold(nothing, {5: Folded(REJECTED, 4.0, 5, 1, 3.0, 30, 1, 3.0)})
    assert {k: rows[k].tolist() for k in ("id", "status", "finish_s", "arrival_s", "output_tokens", "prefill_replica")} == {
        "id": [5], "status": [REJECTED], "finish_s": [4.0], "arrival_s": [3.0], "output_tokens": [0], "prefill_replica": [-1],
    }  # fmt: skip
    assert waste == Waste()


# ---- hand-overs


def sides() -> dict[str, Any]:
    """Replica 0 prefills, 1 decodes. Request 4 goes its way; 7 is given back once; 9 is on its way; 11 has one token; 12 found no decode replica."""
    rows = [  # id, replica, status, arrival, scheduled, first token, finish, prompt, cached, output, preemptions
        (4, 0, FINISHED, 0.0, 0.5, 1.0, 1.0, 50, 16, 0, 0), (4, 1, FINISHED, 1.2, 1.5, 1.6, 5.0, 50, 48, 8, 1),
        (7, 0, FINISHED, 0.0, 1.0, 2.0, 2.0, 60, 0, 0, 0), (7, 1, RETURNED, 2.0, 2.1, 2.2, 3.0, 60, 48, 4, 2),
        (7, 0, FINISHED, 3.0, 3.5, 4.0, 4.0, 64, 32, 0, 0), (7, 1, FINISHED, 4.1, 4.2, 4.3, 9.0, 64, 48, 6, 0),
        (9, 0, FINISHED, 5.0, 5.5, 6.0, 6.0, 70, 0, 0, 0),
        (11, 0, FINISHED, 6.0, 6.5, 7.0, 7.0, 80, 0, 0, 0),
        (12, 0, FINISHED, 7.0, 7.5, 8.0, 8.0, 90, 0, 0, 0),
    ]  # fmt: skip
    names = [
        "id",
        "replica",
        "status",
        "arrival_s",
        "first_scheduled_s",
        "first_token_s",
        "finish_s",
        "prompt_tokens",
        "cached_tokens",
    ]
    names += ["output_tokens", "preemptions"]
    columns = {name: np.array([row[k] for row in rows]) for k, name in enumerate(names)}
    return columns | {"taken_s": columns["arrival_s"] + 0.1}


@pytest.mark.parametrize(
    ("speaks", "tokens", "first"),
    [("prefill", [8, 10, 1, 1, 1], [1.0, 2.0, 6.0, 7.0, 8.0]), ("decode", [8, 10, 0, 0, 0], [1.6, 2.2, NAN, NAN, NAN])],
)
def test_one_row_of_two_sides(speaks: str, tokens: list[int], first: list[float]) -> None:
    made = HandOverRows([SimpleNamespace(role=role, replicas=1, rank_count=1) for role in ("prefill", "decode")], speaks)
    made.ended_on_p, made.failed_on_p = [11], [12]
    assert made.ended(sides()) == 2  # whose rows on the decode side are their last; nobody's on the other

    out = made.join(sides(), ([4, 7, 7, 9], [1.1, 2.0, 4.05, 6.0], [1.4, 2.05, 4.15, NAN]))

    assert out["id"].tolist() == [4, 7, 9, 11, 12]
    assert out["status"].tolist() == [FINISHED, FINISHED, IN_FLIGHT, FINISHED, FAILED]
    assert out["arrival_s"].tolist() == [0.0, 0.0, 5.0, 6.0, 7.0]
    assert out["finish_s"] == pytest.approx([5.0, 9.0, NAN, 7.0, 8.0], nan_ok=True)
    assert (out["output_tokens"].tolist(), out["preemptions"].tolist()) == (tokens, [1, 2, 0, 0, 0])
    assert (out["prompt_tokens"].tolist(), out["cached_tokens"].tolist()) == ([50, 60, 70, 80, 90], [16, 0, 0, 0, 0])
    assert out["first_token_s"] == pytest.approx(first, nan_ok=True)
    assert (out["replica"].tolist(), out["prefill_replica"].tolist()) == ([1, 1, 0, 0, 0], [0] * 5)
    assert out["prefill_end_s"].tolist() == [1.0, 4.0, 6.0, 7.0, 8.0]  # of the latest try
    assert out["kv_allocated_s"] == pytest.approx([1.1, 4.05, 6.0, NAN, NAN], nan_ok=True)
    assert out["kv_arrived_s"] == pytest.approx([1.4, 4.15, NAN, NAN, NAN], nan_ok=True)
    assert out["decode_start_s"] == pytest.approx([1.5, 4.2, NAN, NAN, NAN], nan_ok=True)
    made.lost, made.left_on_p = [4], [11]
    again = made.join(sides(), ([4], [1.1], [1.7]))
    assert np.isnan(again["kv_arrived_s"]).all() and again["status"][3] == FAILED


# ---- a door, a migrator


class Beyond:
    """Takes so many requests, and writes down what it is told."""

    def __init__(self, room: int) -> None:
        self.room, self.came, self.turned, self.gone = room, list[int](), list[tuple[int, float, bool]](), list[int]()

    def arrive(self, request: Any) -> bool:
        self.came.append(request.number)
        return len(self.came) <= self.room

    def refused(self, request: Any, time: float, busy: bool = False) -> None:
        self.turned.append((request.number, time, busy))

    def withdraw(self, request: Any) -> bool:
        self.gone.append(request.number)
        return True


def test_a_door_that_is_shut_refuses_or_keeps_who_comes() -> None:
    door, beyond = Front(SimpleNamespace(now=7.0)), Beyond(2)  # type: ignore[arg-type]
    door.then = door.before = beyond  # type: ignore[assignment]
    first, *others = (SimpleNamespace(number=k, status=0) for k in range(6))
    assert door.arrive(first) and beyond.came == [0]  # type: ignore[arg-type]
    door.shut(False)
    assert door.arrive(others[0]) and (others[0].status, beyond.turned) == (UNREACHABLE, [(1, 7.0, False)])  # type: ignore[arg-type]
    door.shut(True)
    assert all(door.arrive(r) for r in others[1:4])  # type: ignore[arg-type]
    assert [r.status for r in others[1:4]] == [HANGING] * 3 and beyond.came == [0]
    assert door.withdraw(others[2]) and list(door.held) == [2, 4] and beyond.gone == []  # type: ignore[arg-type]
    assert door.withdraw(first) and beyond.gone == [0]  # type: ignore[arg-type]
    door.open()
    assert (beyond.came, door.held, others[1].status) == ([0, 2, 4], {}, 0)
    assert beyond.turned[1:] == [(4, 7.0, True)]  # there was no room beyond


def migrator(**changes: Any) -> Any:
    given = {
        "outcomes": Counter(moved=4, gone=2, no_memory=1),
        "down_times": [0.1, 0.2, 0.3, 0.2],
        "worse": 1,
        "relieved": 0,
        "copied_blocks": 1500,
    }
    return SimpleNamespace(**(given | {"_moves": Counter({5: 2, 6: 1, 7: 1})} | changes))


def test_what_is_told_of_migrations() -> None:
    assert Migrator.totals(migrator()) == {
        "fleet_migrations": 4.0, "fleet_migrations_aborted": 3.0, "fleet_migrations_to_fuller": 1.0, "fleet_migrations_relieving": 0.0,
        "fleet_requests_moved_again": 1.0, "fleet_migration_downtime_mean_s": pytest.approx(0.2), "fleet_migration_downtime_max_s": 0.3,
        "fleet_migration_blocks": 1500.0,
    }  # fmt: skip
    nothing = Migrator.totals(migrator(outcomes=Counter(), down_times=[], _moves=Counter()))
    assert (nothing["fleet_migration_downtime_mean_s"], nothing["fleet_migrations_aborted"]) == (0.0, 0.0)
    assert Migrator.notes(migrator()) == [
        (
            "migration moved 4 running requests, 1 of them more than once; down-time 200.0 ms on average, 300.0 ms at most; 1,500 KV blocks copied"
        ),
        "migrations given up: gone 2, no memory 1",
    ]
    assert Migrator.notes(migrator(outcomes=Counter())) == ["migration is on, and nothing had to move"]
    more = Migrator.notes(migrator(outcomes=Counter(moved=4), relieved=1, worse=2))
    assert [text.split(" migrations ")[0] for text in more[1:]] == ["1 of 4", "2 of 4"]


def test_only_so_many_moves_are_under_way_at_a_replica() -> None:
    begun: list[Any] = []
    busy = np.zeros(3, np.int64)
    self = SimpleNamespace(
        _busy=busy,
        _under_way=set(),
        _p=SimpleNamespace(concurrency=2),
        _env=SimpleNamespace(process=begun.append),
        _migrate=lambda move: move.request,
    )
    moves = [
        SimpleNamespace(source=s, destination=d, request=r)
        for s, d, r in ((0, 0, 1), (0, 1, 2), (0, 2, 2), (0, 1, 3), (0, 2, 4), (2, 1, 5))
    ]
    Migrator.move(self, moves)  # type: ignore[arg-type]
    assert (begun, busy.tolist(), self._under_way) == ([2, 3], [2, 2, 0], {2, 3})
    assert [Migrator.in_use(self, k) for k in range(3)] == [True, True, False]  # type: ignore[arg-type]
