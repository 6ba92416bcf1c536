"""Laws of small pieces of a fleet: sums over models and ranks, whose engine is asked, what is counted up and down, texts of engines that began again."""

from __future__ import annotations

import itertools
import random
from math import inf
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import sim
from sim.errors import NotModelledError
from sim.fleet.breakage import evidence_of, make_faults
from sim.fleet.build import plan
from sim.fleet.caches import shift_of, unseen
from sim.fleet.clock import Clock
from sim.fleet.hosts import HostView
from sim.fleet.journey import InUse
from sim.fleet.ranks import RankedGroup
from sim.fleet.view import View
from sim.ledger import request_row
from sim.policy.router import ReplicaFacts
from sim.workload.table import RequestBlock


def test_whoever_cannot_be_moved_is_named_by_its_own_engine() -> None:
    class Inside:
        def __init__(self, moves: bool) -> None:
            self.moves = moves

        def movable(self, engine: str) -> None:
            if not self.moves:
                raise NotModelledError("router", engine, "stays", "others")

    groups: Any = [SimpleNamespace(n=2), SimpleNamespace(n=3), SimpleNamespace(n=1)]
    facts = [ReplicaFacts(engine=e) for e in ("a", "a", "b", "b", "b", "c")]
    for fixed in range(3):
        view = View(groups, Clock(), facts)
        view._insides = [Inside(k != fixed) for k in range(3)]  # type: ignore[misc]
        with pytest.raises(NotModelledError, match="abc"[fixed]):
            view.movable()


def test_a_host_is_the_sum_of_its_models() -> None:
    outstanding, hosts = np.arange(6), 3
    look = {"running": np.arange(6.0), "used": 10.0 + np.arange(6.0), "seen_until": np.arange(6.0)}
    inner: Any = SimpleNamespace(
        facts=[ReplicaFacts()] * 6,
        outstanding=outstanding,
        now=2,
        look=lambda: look,
        gauges=lambda: np.arange(30.0).reshape(5, 6),
    )
    held: Any = [SimpleNamespace(held=[0] * k) for k in range(hosts)]
    view = HostView(inner, held)
    assert (view.replicas, len(view.facts), view.now) == (3, 3, 2.0)
    assert view.outstanding.tolist() == [3 + 0, 5 + 1, 7 + 2]
    found = view.look()
    assert {k: v.tolist() for k, v in found.items()} == {
        "running": [3.0, 5.0, 7.0], "used": [23.0, 25.0, 27.0], "seen_until": [inf] * 3,
    }  # fmt: skip
    gauges = view.gauges()
    assert gauges.shape == (5, 3) and gauges[4].tolist() == [27.0, 28.0, 29.0]
    assert gauges[:4].tolist() == [[12.0 * i + 3 + 2 * h for h in range(3)] for i in range(4)]


@pytest.mark.parametrize("asked", [False, True])
def test_what_is_in_use_is_what_came_and_has_not_left(asked: bool) -> None:
    rng = random.Random(3)
    clock = Clock()
    use = InUse(clock, 4)
    use.asked = asked
    journeys: list[Any] = [SimpleNamespace(p=k % 2, d=2 + k % 2 if k % 5 else -1, p_held=False, d_held=False) for k in range(20)]
    p, d = [0] * 2, [0] * 2
    for j in journeys:
        use.at_p(j)
        p[j.p] += 1
        use.at_d(j)
        use.at_d(j)  # told twice, counted once
        if j.d >= 0:
            d[j.d - 2] += 1
        assert use.of == [*p, *d]
    for t, j in enumerate(rng.sample(journeys, 20)):
        use.left_d(j)
        use.left_d(j)
        use.left_p(j, t + 0.5)
        use.left_p(j, t + 0.6)
        p[j.p] -= asked
        if j.d >= 0:
            d[j.d - 2] -= 1
        clock.call(t + 1.0, lambda now=([*p], [*d]): seen.append((use.of[:2], now[0])))
        assert use.of[2:] == d
    seen: list[Any] = []
    clock.run()
    assert len(seen) == 20 and all(found == now for found, now in seen)
    assert use.of == ([0] * 4 if asked else [10, 10, 0, 0])


def test_who_is_at_the_door_of_ranks_is_in_flight() -> None:
    inside = {name: np.atleast_1d(value) for name, value in request_row(id=7, replica=3).items()}
    inner: Any = SimpleNamespace(n=4, outstanding=np.zeros(4, np.int64), in_flight=lambda: inside)
    group = RankedGroup(inner, 2, [SimpleNamespace(interval=None)] * 2)  # type: ignore[list-item]
    block = RequestBlock.of([1.0, 2.0, 3.0, 4.0], [10, 20, 30, 40], [1] * 4)
    group.submit_routed(np.array([1, -1, 0, 1], np.int32), block.columns, block.spans, 70)
    group.submit(0, block.columns, block.spans, 1, 3, 90)
    rows = group.in_flight()
    found = sorted(
        zip(*(np.asarray(rows[k]).tolist() for k in ("id", "replica", "arrival_s", "prompt_tokens")), strict=True),
        key=lambda r: r[0],
    )
    assert found[1:] == [(70, 2, 1.0, 10), (72, 0, 3.0, 30), (73, 2, 4.0, 40), (91, 0, 2.0, 20), (92, 0, 3.0, 30)]
    assert found[0][:2] == (7, 3)


def test_an_engine_that_began_again_has_seen_no_text() -> None:
    spans = (np.array([0, 1, 1, 3]), np.array([5, 5, 9]), np.zeros(3, int), np.array([4, 4, 6]))
    block = RequestBlock.of([0.0, 1.0, 2.0], [10, 11, 12], [2, 3, 4], out_content=[100, 200, 300], spans=spans)
    assert unseen(block, 2, 0) == (block, 2)
    texts = []
    for start in range(1, 4):
        for row in range(3):
            one, at = unseen(block, row, start)
            assert at == 0 and len(one) == 1
            assert one.prompt_tokens.tolist() == [10 + row] and one.output_tokens.tolist() == [2 + row]
            assert (one.span_id - shift_of(start)).tolist() == [[5], [], [5, 9]][row]
        texts.append(set(unseen(block, 0, start)[0].span_id) | set(unseen(block, 2, start)[0].span_id))
    assert all(not a & b for a, b in itertools.combinations([{5, 9}, *texts], 2))
    bare = RequestBlock.of([0.0], [10], [2])
    assert unseen(bare, 0, 3) == (bare, 0)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("{name: crash, at: 1s, for: 2s}", []),
        ("{name: crash, at: 1s}", ["estimated"]),
        ("{name: crash, mtbf: 1000s}", ["estimated"]),
        ("{name: rank}", ["measured", "estimated"]),
        ("{name: rank, for: 2s}", ["measured"]),
        ("{name: slow, at: 1s, for: 2s, replica: 0}", []),
    ],
)
def test_what_a_fault_rests_on_is_told_where_nobody_gave_it(fault: str, told: list[str]) -> None:
    scenario = sim.load("quickstart", [f"faults=[{fault}]"])
    assert [row["grade"] for row in evidence_of(make_faults(scenario.faults), plan(scenario))] == told
