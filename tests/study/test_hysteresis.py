"""Load in steps: arrivals follow the course, a fleet without memory shows no hysteresis, one that stays down is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sim
from sim.study.stress.hysteresis import LEVELS, Level, _found, course, judge
from sim.workload.stretched import Course


def test_arrivals_follow_the_course() -> None:
    steps = Course((100.0, 50.0, 200.0), (1.0, 3.0, 0.5))
    moved = steps.warp(np.arange(0.0, 400.0, 0.1))

    assert np.all(np.diff(moved) > 0)
    counts = [((moved >= a) & (moved < b)).sum() for a, b in ((0, 100), (100, 150), (150, 350))]
    assert counts == pytest.approx([1000, 1500, 1000], abs=2)
    assert 1 / np.diff(moved)[-1] == pytest.approx(10 * 0.5)


def test_the_same_load_stands_on_both_sides_and_the_queue_has_time() -> None:
    seconds, factors = course(10.0)
    assert factors == factors[::-1]
    queue = (max(factors) - 1.0) * seconds[len(LEVELS)]
    assert queue / (1.0 - LEVELS[-1]) <= seconds[-1] / 2


def columns(bad_from: float, seconds: Any, factors: Any) -> dict[str, Any]:
    arrival = Course(seconds, factors).warp(np.arange(0.0, 10_000.0))
    arrival = arrival[arrival < sum(seconds)]
    return {"arrival_s": arrival, "slo_met": arrival < bad_from}


@pytest.mark.parametrize(("bad_from", "worse"), [(np.inf, False), (0.0, False), (300.0, True)])
def test_a_fleet_that_stays_down_is_told_from_one_that_is_always_slow(bad_from: float, worse: bool) -> None:
    seconds, factors = course(10.0)
    shares = judge(columns(bad_from, seconds, factors), (seconds, factors))
    found = _found([shares, shares], 10.0, seconds, 0.95)

    assert [v.rate for v in found.levels] == [10.0 * share for share in LEVELS]
    assert any(v.worse for v in found.levels) == worse
    assert ("no hysteresis" not in found.sentence()) == worse


def test_what_chance_may_do_is_no_hysteresis() -> None:
    assert not Level(1.0, (0.99, 0.98, 1.0), (0.97, 0.94, 1.0), (0.02, -0.01, 0.05)).worse
    assert not Level(1.0, (0.99, 0.99, 0.99), (0.985, 0.985, 0.985), (0.005, 0.004, 0.006)).worse


def test_one_server_has_none() -> None:
    answer = sim.stress(sim.load("quickstart", ["traffic.synthetic.requests=1000"]), spike=None, replications=2, jobs=1)

    assert answer.hysteresis is not None
    assert all(v.up[0] > 0.9 for v in answer.hysteresis.levels[:2])
    assert "no hysteresis" in answer.hysteresis.sentence()
    assert answer.as_dict()["hysteresis"]["sentence"] == answer.hysteresis.sentence()
