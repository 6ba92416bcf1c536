"""When a run was bad, for how long, and what it was then: made-up request tables with a known answer."""

from dataclasses import replace

import numpy as np
import pytest

import sim
from sim.metrics.bottleneck import judge, waiting
from sim.metrics.result import summarise
from sim.metrics.slo import Slo
from sim.metrics.spell import worst_spell
from sim.metrics.steady import steady
from sim.report import words
from tests.metrics.records import four_requests


def run(rate, bad, seconds=600.0, queue=0.0):
    """Columns of requests at ``rate(t)`` per second of which those with ``bad(t)`` miss; they wait ``queue`` seconds."""
    rng = np.random.default_rng(1)
    times, t = [], 0.0
    while t < seconds:
        t += rng.exponential(1.0 / rate(t))
        times.append(t)
    arrival = np.array(times)
    missed = np.array([bad(t) for t in times])
    wait = np.where(missed, queue, 0.0)
    columns = {
        "arrival_s": arrival, "first_scheduled_s": arrival + wait, "finish_s": arrival + wait + 2.0,
        "status": np.zeros(len(arrival), np.int8), "output_tokens": np.full(len(arrival), 10), "prompt_tokens": np.full(len(arrival), 100),
    }  # fmt: skip
    return columns, ~missed, np.ones(len(arrival), bool)


def burst(t):
    return 40.0 if 200 <= t < 260 else 8.0


def test_a_spike_is_found_with_its_recovery():
    found = worst_spell(*run(burst, lambda t: 205 <= t < 330, queue=30.0), 0.95)

    assert found["start_s"] == pytest.approx(205, abs=10)
    assert found["end_s"] == pytest.approx(330, abs=10)
    assert found["met"] < 0.1
    assert found["met_outside"] > 0.99
    assert found["recovered"]
    assert found["recovery_s"] == pytest.approx(70, abs=10)
    assert found["offered_peak_per_s"] == pytest.approx(40, rel=0.2)
    assert found["waiting_peak"] == pytest.approx(40 * 30, rel=0.2)  # Little's law


def test_two_spikes_are_counted():
    found = worst_spell(*run(burst, lambda t: 100 <= t < 120 or 300 <= t < 400), 0.95)

    assert found["stretches"] == 2
    assert found["bad_s"] == pytest.approx(120, abs=15)
    assert found["start_s"] == pytest.approx(300, abs=10)


def test_a_run_that_ends_badly_has_not_recovered():
    found = worst_spell(*run(lambda t: 10.0, lambda t: t > 400), 0.95)

    assert not found["recovered"]
    assert found["recovery_s"] is None


@pytest.mark.parametrize(
    "bad",
    [
        lambda t: False,  # all is well
        lambda t: True,  # the whole run
        lambda t: int(t * 1000) % 12 == 0,  # here and there, everywhere
        lambda t: 100 <= t < 300 or int(t * 1000) % 6 == 0,  # bad elsewhere too
    ],
)
def test_what_is_no_spell(bad):
    assert worst_spell(*run(lambda t: 10.0, bad), 0.95) is None


def test_a_short_run_says_nothing():
    assert worst_spell(*run(lambda t: 10.0, lambda t: t > 8, seconds=12.0), 0.95) is None


def test_steady_rates_are_those_that_come():
    """No queue: what is served is what is offered, whatever the last answers take."""
    columns, ok, counted = run(lambda t: 10.0, lambda t: False)
    columns["finish_s"] = columns["arrival_s"] + 100.0  # the drain is a sixth of the time

    found = steady(columns, counted, ok, counted, True)

    assert found["requests_per_s"] == pytest.approx(found["offered_requests_per_s"], rel=0.05)
    assert found["goodput_requests_per_s"] == found["requests_per_s"]
    assert found["output_tokens_per_s"] == pytest.approx(10 * found["requests_per_s"])
    assert steady(columns, counted & (columns["arrival_s"] < 1), ok, counted, True)["requests_per_s"] is None  # too few


def test_a_run_that_only_fills_and_drains_has_no_steady_rate():
    columns, ok, counted = run(lambda t: 10.0, lambda t: False, seconds=60.0)
    rates = []
    for takes in (1.0, 30.0):
        columns["finish_s"] = columns["arrival_s"] + takes
        rates.append(steady(columns, counted, ok, counted, True)["requests_per_s"])

    assert rates[0] == pytest.approx(10, rel=0.1)
    assert rates[1] is None


def test_the_peak_of_the_load():
    columns, ok, counted = run(burst, lambda t: False)

    found = steady(columns, counted, ok, counted, False)

    assert found["offered_peak_requests_per_s"] == pytest.approx(40, rel=0.15)
    assert found["goodput_requests_per_s"] is None


FACTS = {
    "finished": 1000, "shares": {"compute": 0.3, "memory_bandwidth": 0.6, "communication": 0.0, "host": 0.0, "other": 0.1, "idle": 0.0},
    "kv_blocked": 0.0, "preemptions": 0, "queue_share": 0.0, "queue_grows": False, "met": True, "step_s": 0.045,
}  # fmt: skip


def test_nothing_is_saturated_only_where_the_slo_is_met():
    assert judge(FACTS)[1].startswith("Nothing is saturated: memory bandwidth takes 60% of the time")
    assert judge(FACTS | {"met": None})[1].startswith("Nothing is saturated")
    missed = judge(FACTS | {"met": False})[1]
    assert (
        missed
        == "Steps are too long for the SLO (45 ms on average, longer at times), not the queue: memory bandwidth takes 60% of their time."
    )
    rarely = {"compute": 0.03, "memory_bandwidth": 0.06, "communication": 0.0, "host": 0.0, "other": 0.01, "idle": 0.9}
    assert judge(FACTS | {"met": False, "shares": rarely})[1] == missed  # an idle engine is not slow for that
    assert "then" in judge(FACTS | {"met": False, "spell": True})[1]


def test_the_way_in_is_no_queue():
    """The way into an engine takes some milliseconds when nobody is there; what it takes beyond that is waiting."""
    columns = {"ingress_s": np.array([0.004, 0.005, 0.009, np.nan]), "queue_s": np.array([0.0, 0.0, 0.003, np.nan])}
    assert waiting(columns, np.array([True, True, True, False])) == pytest.approx((0.001 + 0.005 + 0.003) / 3)
    short = sim.run(
        sim.load(
            "quickstart",
            [
                "traffic.synthetic={arrival: {process: poisson, rate: 5/s}, lengths: {kind: fixed, prompt_tokens: 50, output_tokens: 1}, requests: 300}"
            ],
        )
    )
    times = short.summary.bottleneck.request_time
    assert times["ingress"] > 0.1 and times["queue"] < 0.01
    assert short.summary.bottleneck.limit != "queueing"


def test_words_of_a_queue_and_of_memory():
    assert judge(FACTS | {"queue_share": 0.4, "spell": True, "met": False})[1].startswith(
        "Queueing breaks first: requests then wait for 40% of their time"
    )
    assert "1 preemption threw" in judge(FACTS | {"kv_blocked": 0.5, "preemptions": 1})[1]
    idle = FACTS["shares"] | {"idle": 0.5}
    assert "although the replicas idle 50% of the time" in judge(FACTS | {"queue_share": 0.4, "shares": idle})[1]


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "none"), (1e-6, "less than 0.01%"), (0.5, "50.00%"), (0.99999, "99.99%"), (1.0, "100.00%")]
)
def test_a_share_that_is_none_is_called_none(value, text):
    assert words.met_share(value) == text


def test_the_verdict_of_a_run_in_which_nobody_met_it():
    s = summarise(four_requests(slo=Slo(ttft=1e-3, attainment=0.95))).summary
    s = replace(s, slo=replace(s.slo, attainment={"ttft_s": 0.0, "joint": 0.0}))

    assert words.verdict(s) == ("misses", "Misses its SLO: no request meets TTFT ≤ 1 ms (95% required).")


def test_what_is_printed_of_a_result_has_its_verdict():
    assert "Misses: " in str(summarise(four_requests(slo=Slo(ttft=0.1, attainment=0.95))))


def test_plurals():
    assert [words.counted(n, "replica") for n in (0, 1, 2, 1000)] == ["0 replicas", "1 replica", "2 replicas", "1,000 replicas"]


def test_requests_that_were_turned_away_are_named_where_they_miss_the_slo():
    said = judge(FACTS | {"met": False, "turned_away": 0.33})[1]
    assert said == (
        "The SLO is missed by requests that were turned away or failed (33% of all), not by those that were served: "
        "memory bandwidth takes 60% of the time."
    )


def test_the_verdict_counts_who_was_turned_away():
    record = four_requests(slo=Slo(ttft=100.0))
    rows = record.requests
    record.totals["preemptions"] = 0
    rows["first_scheduled_s"][:] = np.where(np.isnan(rows["first_scheduled_s"]), np.nan, rows["arrival_s"])
    summary = summarise(record).summary
    assert summary.slo.met is False
    assert "requests that were turned away or failed (25% of all)" in summary.bottleneck.sentence
