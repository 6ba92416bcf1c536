"""Errors at equal load relative to capacity, and of the predicted capacity."""

from __future__ import annotations

import numpy as np
import pytest

from sim.study.accuracy import AccuracyReport, Outcome
from sim.study.accuracy.saturation import at_equal_load, capacities, paced, stretched
from tests.study.test_accuracy import point

STAGES = {"kind": "stages", "stages": [{"rate": 8.0, "duration": 60.0}], "prompt_tokens": 100, "output_tokens": 100}


def loop(n: int, tokens: float) -> Outcome:
    traffic = {"kind": "closed_loop", "concurrency": n, "num_requests": 10 * n, "prompt_tokens": 100, "output_tokens": 100}
    return Outcome(point(traffic=traffic, measured={"output_tokens_per_s": tokens}), {"output_tokens_per_s": 1.2 * tokens})


def test_arrivals_are_stretched_by_the_error_of_the_time_per_token():
    slow = Outcome(point(traffic=STAGES, measured={"tpot_s.mean": 0.010}), {"tpot_s.mean": 0.0125})
    (even,) = at_equal_load([slow, loop(4, 100.0)])

    assert paced(slow) == pytest.approx(1.25)
    assert even.traffic["stages"] == [{"rate": 6.4, "duration": 75.0}]
    assert at_equal_load([Outcome(slow.point, {"ttft_s.mean": 1.0})]) == []


def test_a_trace_keeps_its_requests_and_its_window():
    columns = {"arrival_s": np.array([0.0, 1.0, 2.0]), "prompt_tokens": np.array([5, 6, 7]), "output_tokens": np.array([1, 2, 3])}
    made = stretched(point(traffic={"kind": "trace"}, columns=columns, window={"after_s": 1.0, "skip_first": 1}), 2.0)

    assert made.columns["arrival_s"].tolist() == [0.0, 2.0, 4.0]
    assert made.columns["prompt_tokens"] is columns["prompt_tokens"]
    assert made.window == {"after_s": 2.0, "skip_first": 1}


def test_capacity_is_the_highest_throughput_of_a_saturated_deployment():
    (found,) = capacities([loop(8, 1000.0), loop(16, 1900.0), loop(32, 1950.0)])
    assert (found.measured, found.points) == (1950.0, 3)
    assert found.error == pytest.approx(0.2)
    assert capacities([loop(8, 1000.0), loop(16, 1900.0)]) == []  # it still grows


def burst(n: int, rate: float) -> Outcome:
    traffic = {"kind": "burst", "num_requests": n, "prompt_tokens": 100, "output_tokens": 100}
    return Outcome(point(traffic=traffic, measured={"requests_per_s": rate}), {"requests_per_s": 0.8 * rate})


def test_a_burst_says_what_can_be_served_where_its_requests_wait_in_line():
    assert [c.metric for c in capacities([burst(500, 5.0)])] == ["requests_per_s"]
    assert capacities([burst(4, 2.0)]) == capacities([burst(4, 2.0), burst(8, 3.0)]) == []
    assert [c.measured for c in capacities([burst(4, 2.0), burst(8, 2.05)])] == [2.05]  # it no longer grows


def test_the_report_puts_both_beside_the_plain_errors():
    plain = Outcome(
        point(traffic=STAGES, measured={"ttft_s.mean": 0.1, "tpot_s.mean": 0.01}), {"ttft_s.mean": 0.2, "tpot_s.mean": 0.011}
    )
    even = Outcome(plain.point, {"ttft_s.mean": 0.11, "tpot_s.mean": 0.011})
    report = AccuracyReport((plain,), even=(even,))

    rows = [(r.group, round(r.median, 3)) for r in report.at_equal_load(("ttft_s.mean",))]
    assert rows == [("at equal rates", 1.0), ("at equal load", 0.1)]
    assert report.as_dict()["equal_load"]
    assert report.capacities() == []
