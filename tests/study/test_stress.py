"""Stress tests: breaks that agree with plain runs, spikes against a queue that is known, what is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

import sim
from sim.errors import ConfigError
from sim.report.stress import facts
from sim.study.questions.stress import StressParams, recovery_sentence
from sim.study.stress.curve import Curve, Point
from sim.study.stress.recovery import Recovery, judge, windows
from sim.workload.stretched import Spike

QUICK: dict[str, Any] = {"replications": 2, "jobs": 1}


def quickstart(*more: str) -> Any:
    return sim.load("quickstart", ["traffic.synthetic.requests=1000", *more])


@pytest.fixture(scope="module")
def answer() -> Any:
    return sim.stress(quickstart(), spike="3x for 20s", **QUICK)


def test_it_breaks_where_a_plain_run_breaks(answer: Any) -> None:
    from sim.study.single import Prepared
    from sim.study.variants import repeated

    good, bad = answer.curve.breaks["joint"]
    assert bad / good < 1.05

    def attained(factor: float) -> float:
        runs = [Prepared(repeated(quickstart(), r)).run(rate=8.0 * factor).summary for r in range(2)]
        return float(np.mean([r["slo"]["attainment"]["joint"] for r in runs]))

    assert attained(good) >= 0.99 > attained(bad)


def test_the_joint_break_is_no_later_than_the_first_target(answer: Any) -> None:
    first = answer.curve.first()
    assert first is not None
    assert answer.curve.breaks["joint"][1] <= answer.curve.breaks[first][1] + 1e-9
    assert "breaks first" in answer.sentence()
    assert answer.verdict is True


def test_the_error_of_the_model_is_beside_the_break(answer: Any) -> None:
    good = answer.curve.breaks["joint"][0]
    assert answer.model.low <= good <= answer.model.high
    assert answer.model.step_time[0] < 1.0 < answer.model.step_time[1]
    assert f"Model error: {8 * answer.model.low:.3g} to {8 * answer.model.high:.3g}, as 80% of" in answer.sentence()


def test_throughput_saturates_and_the_knee_lies_before(answer: Any) -> None:
    capacity = answer.curve.capacity()
    assert capacity is not None
    assert answer.curve.knee() * answer.offered < 1.2 * capacity
    served = [p.figures["requests_per_s"][0] for p in answer.curve.points]
    assert max(served) <= capacity * 1.05


def test_a_spike_hurts_while_it_lasts_and_is_recovered_from(answer: Any) -> None:
    (own, *_) = answer.recoveries
    assert own.missed > 0
    assert own.recovered_s is not None
    assert own.recovered_s < 200
    assert not own.stuck
    before = [a for s, a in zip(answer.windows[0].start_s, answer.windows[0].attainment, strict=True) if s < 55 and a is not None]
    assert min(before) > 0.9


def columns(arrival: np.ndarray, ttft: np.ndarray) -> dict[str, np.ndarray]:
    n = len(arrival)
    made = {"arrival_s": arrival, "ttft_s": ttft, "status": np.zeros(n, np.int64), "output_tokens": np.ones(n, np.int64)}
    return made | {"slo_met": ttft <= 1.0}


def test_recovery_of_a_queue_worked_out_by_hand() -> None:
    """10/s served, 8/s come, from 60 s on 20/s for 30 s: 300 wait at 90 s, worked off at 2/s until 240 s; TTFT is the work ahead."""
    spike = Spike(2.5, 60.0, 30.0)
    arrival = spike.warp(np.arange(0, 800, 1 / 8))
    free, ttft = 0.0, []
    for t in arrival:
        free = max(free, t) + 0.1
        ttft.append(free - t)
    _, found = judge(columns(arrival, np.array(ttft)), 0.99, 8.0, (2.5, 60.0, 30.0), 10.0)
    assert found.expected_s == pytest.approx(150.0)
    assert found.recovered_s == pytest.approx(145.0, abs=6)  # one second of queue is allowed
    assert not found.stuck
    late = np.where(arrival > 70, 5.0, 0.1)  # never comes back though 8 < 10
    _, found = judge(columns(arrival, late), 0.99, 8.0, (2.5, 60.0, 30.0), 10.0)
    assert found.recovered_s is None
    assert found.stuck


def test_windows_count_every_request_once() -> None:
    arrival = np.sort(np.random.default_rng(0).uniform(0, 100, 500))
    seen = windows(columns(arrival, np.full(500, 0.5)), 7.0)
    assert sum(seen.requests) == 500
    assert all(a == 1.0 for a in seen.attainment if a is not None)


def test_a_spike_presses_arrivals_together_and_keeps_their_order() -> None:
    t = np.linspace(0, 100, 1001)
    moved = Spike(4.0, 20.0, 10.0).warp(t)
    assert (np.diff(moved) > 0).all()
    assert (moved[t <= 20] == t[t <= 20]).all()
    assert np.count_nonzero((moved >= 20) & (moved < 30)) == 400


@pytest.mark.parametrize("along", ["lengths", "burst"])
def test_other_axes(along: str) -> None:
    found = sim.stress(quickstart(), along=along, spike="none", most=4.0, **QUICK)
    points = found.curve.points
    assert [p.factor for p in points] == sorted(p.factor for p in points)
    assert points[0].attainment["joint"][0] >= points[-1].attainment["joint"][0]
    assert found.recoveries == []


@pytest.mark.parametrize(
    ("more", "options", "says"),
    [
        (["slo={}"], {}, "slo: is needed"),
        (["traffic.closed_loop={concurrency: 4}"], {}, "closed_loop"),
        ([], {"spike": "a lot"}, "3x for 60s"),
        ([], {"spike": "0.5x for 60s"}, "above 1"),
        ([], {"along": "failures"}, "along"),
        ([], {"most": 1.0}, "most"),
    ],
)
def test_what_cannot_be_asked(more: list[str], options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        sim.stress(quickstart(*more), **(QUICK | options))


@pytest.mark.parametrize(
    ("recovered", "missed", "text"),
    [
        (0.0, 0, "nobody misses the SLO."),
        (0.0, 9, "good again as soon as the spike had ended."),
        (30.0, 9, "recovered 30 s after the spike."),
        (None, 9, "not recovered when the run ended."),
    ],
)
def test_a_recovery_in_words(recovered: float | None, missed: int, text: str) -> None:
    assert recovery_sentence(Recovery(8.0, 3.0, 60.0, recovered, None, 2.0, missed, False)).endswith(text)


def test_what_was_missed_before_a_spike_does_not_come_back_after_it() -> None:
    arrival = np.arange(0.0, 200.0, 0.1)
    columns = {"arrival_s": arrival, "slo_met": np.zeros(arrival.size, bool), "ttft_s": np.ones(arrival.size)}
    _, found = judge(columns, 0.99, 10.0, (3.0, 60.0, 10.0), 40.0)
    assert found.before and not found.stuck and found.recovered_s is None
    assert recovery_sentence(found).endswith("the SLO is missed before the spike too, so there is nothing to come back to.")
    columns["slo_met"] = arrival < 60.0
    _, found = judge(columns, 0.99, 10.0, (3.0, 60.0, 10.0), 40.0)
    assert not found.before and found.stuck


def test_a_run_too_short_to_be_saturated_does_not_say_what_is_served_at_most() -> None:
    """Four a second over a run that is mostly its own end, while ten a second hold the SLO."""
    point = Point(2.0, 20.0, 1, {"requests_per_s": (4.0, 4.0, 4.0)}, {}, True, "")
    curve = Curve("rate", [point], 0.99, {"joint": (1.0, 2.0)})
    answer = SimpleNamespace(curve=curve, offered=10.0)
    assert "at most" not in " ".join(facts(answer))  # type: ignore[arg-type]
    curve = Curve("rate", [point], 0.99, {"joint": (0.1, 2.0)})
    assert "at most 4 requests/s" in " ".join(facts(SimpleNamespace(curve=curve, offered=10.0)))  # type: ignore[arg-type]


def test_one_class_grows_until_a_promise_breaks() -> None:
    """Documents beside a chat: the chat's promise breaks first though only the documents grow."""
    chat = "chat: {synthetic: {arrival: {process: poisson, rate: 6/s}, lengths: azure-2023-conv}, slo: {ttft: {p95: 400ms}}}"
    long = "{kind: fixed, prompt_tokens: 12000, output_tokens: 50}"
    docs = f"docs: {{synthetic: {{arrival: {{process: poisson, rate: 0.2/s}}, lengths: {long}}}, slo: {{e2e: 3min}}}}"
    base = quickstart(f"traffic={{classes: {{{chat}, {docs}}}, requests: 800}}", "slo={}")
    found = sim.stress(base, along="class", of="docs", spike=None, most=40, replications=1, jobs=1)
    assert found.curve.first() == "class chat ttft_s p95"
    assert "class chat TTFT p95 breaks first" in found.sentence()
    assert "times the rate of class docs" in found.sentence()
    with pytest.raises(ConfigError, match="must be a class"):
        sim.stress(base, along="class", of="cat", spike=None, **QUICK)


def points(rows: list[tuple[float, float, float, bool]]) -> Curve:
    """A curve of (factor, TTFT p99, requests/s, saturated)."""
    made = [
        Point(f, 10 * f, 1, {"ttft_p99_s": (t, t, t), "requests_per_s": (s, s, s)}, {}, saturated, "")
        for f, t, s, saturated in rows
    ]
    return Curve("rate", made, 0.99)


def test_the_knee_is_where_ttft_is_twice_that_of_the_lowest_load() -> None:
    """On straight lines between the logarithms: from 1.5 s at 2 to 6 s at 8 a doubling of load doubles TTFT, and 2 s are at 2.67."""
    assert points([(0.5, 1.0, 5, False), (2, 1.5, 20, False), (8, 6.0, 40, True)]).knee() == pytest.approx(8 / 3)
    assert points([(0.5, 1.0, 5, False), (2, 2.0, 20, False), (8, 6.0, 40, True)]).knee() == pytest.approx(2.0)
    assert points([(0.5, 1.0, 5, False), (2, 1.9, 20, False)]).knee() is None
    assert points([(0.5, 1.0, 5, False)]).knee() is None
    assert points([(0.5, 0.0, 5, False), (2, 1.0, 20, False)]).knee() is None


def test_the_capacity_is_the_most_that_a_saturated_load_had_served() -> None:
    assert points([(1, 1, 10, False), (2, 1, 12, True), (3, 1, 17, True), (4, 1, 15, True), (5, 1, 99, False)]).capacity() == 17
    assert points([(1, 1, 10, False)]).capacity() is None


def test_what_breaks_first_is_the_target_with_the_lowest_broken_load() -> None:
    none = float("nan")
    breaks = {"ttft": (2.0, 3.0), "tpot": (1.0, 1.5), "e2e": (8.0, none), "joint": (1.0, 1.2)}
    assert Curve("rate", [], 0.99, breaks).first() == "tpot"
    assert Curve("rate", [], 0.99, {"joint": (1.0, 1.2), "e2e": (8.0, none)}).first() is None


@pytest.mark.parametrize(
    ("given", "spike"),
    [
        *[("3x for 60s", (3.0, 60.0)), ("2.5 × for 2min", (2.5, 120.0)), ("none", None), (" NONE ", None), (None, None)],
        *[([3, 60], (3.0, 60.0)), ("1000x for 1d", (1000.0, 86_400.0)), ("1.01x for 1ms", (1.01, 0.001))],
        *[
            (given, "wrong")
            for given in ("1x for 60s", "1001x for 5s", "3x for 0s", "3x for 25h", "3x", [3, 60, 1], [3], "x for 3s", True)
        ],
    ],
)
def test_a_spike_is_a_factor_and_a_time(given: object, spike: object) -> None:
    if spike != "wrong":
        assert StressParams(spike=given).spike == spike  # type: ignore[arg-type]
        return
    with pytest.raises(ValidationError, match="3x for 60s"):
        StressParams(spike=given)  # type: ignore[arg-type]
