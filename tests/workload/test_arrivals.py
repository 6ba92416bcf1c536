"""Arrival processes against what mathematics says of them, and curves that are played to their end."""

import numpy as np
import pytest
from scipy import stats

from sim.errors import ConfigError
from sim.registry import lookup
from sim.streams import stream
from tests.workload.conftest import as_bytes, whole

SURPRISE = 1e-4
N = 20_000


def process(name, **settings):
    cls = lookup("arrival", name)
    return cls(cls.Params.model_validate(settings))


def first(arrival, n, seed=0):
    chunks, have = [], 0
    for times in arrival.times(stream(seed, "arrivals")):
        chunks.append(times)
        have += len(times)
        if have >= n:
            return np.concatenate(chunks)[:n]


def counts_by_share(at, edges, weights):
    """p-value of the counts in the parts against their weights."""
    found = np.histogram(at, edges)[0]
    return stats.chisquare(found, found.sum() * np.asarray(weights) / np.sum(weights)).pvalue


@pytest.mark.parametrize("settings", [{"cv": 0.5}, {"cv": 1.0}, {"cv": 2.5}, {"shape": 0.7}])
def test_weibull_gaps(settings):
    arrival = process("weibull", rate=5, **settings)
    gaps = np.diff(first(arrival, N), prepend=0.0)
    k = arrival.params.k

    assert stats.kstest(gaps, "weibull_min", (k, 0, 0.2 / stats.weibull_min(k).mean())).pvalue > SURPRISE
    if "cv" in settings:
        assert stats.weibull_min(k).std() / stats.weibull_min(k).mean() == pytest.approx(settings["cv"], rel=1e-9)


def test_mmpp_against_its_closed_form():
    """Mean rate, and the index of dispersion of counts in long windows (Fischer and Meier-Hellstern, 1993)."""
    a, b, ra, rb = 20.0, 4.0, 2.0, 40.0
    states = [{"rate": ra, "lasts": a}, {"rate": rb, "lasts": b}]
    arrival = process("mmpp", states=states)
    mean = (a * ra + b * rb) / (a + b)
    assert arrival.rate == pytest.approx(mean)

    at = first(arrival, 400_000)
    window = 240.0
    counts = np.histogram(at, np.arange(0.0, at[-1], window))[0]
    s1, s2 = 1 / a, 1 / b
    k = 2 * (ra - rb) ** 2 * s1 * s2 / ((s1 + s2) ** 2 * (ra * s2 + rb * s1))
    dispersion = 1 + k - k * (1 - np.exp(-(s1 + s2) * window)) / ((s1 + s2) * window)
    assert counts.mean() / window == pytest.approx(mean, rel=0.05)
    assert counts.var() / counts.mean() == pytest.approx(dispersion, rel=0.25)


def test_mmpp_with_moves_of_its_own_and_a_silent_state():
    states = [
        {"rate": 0, "lasts": 5, "then": [0, 1, 0]},
        {"rate": 10, "lasts": 5, "then": [0, 0, 1]},
        {"rate": 30, "lasts": 10, "then": [1, 0, 0]},
    ]
    arrival = process("mmpp", states=states)
    at = first(arrival, 200_000)

    assert arrival.rate == pytest.approx((0 * 5 + 10 * 5 + 30 * 10) / 20)
    assert len(at) / at[-1] == pytest.approx(arrival.rate, rel=0.05)
    assert (np.diff(at) >= 0).all()
    doubled = arrival.with_rate(2 * arrival.rate)
    assert len(at) / first(doubled, len(at))[-1] == pytest.approx(doubled.rate, rel=0.05)


@pytest.mark.parametrize(
    "states",
    [
        [{"rate": 1, "lasts": 1}],
        [{"rate": 0, "lasts": 1}, {"rate": 0, "lasts": 1}],
        [{"rate": 1, "lasts": 1, "then": [1, 1]}, {"rate": 2, "lasts": 1}],
        [{"rate": 1e-6, "lasts": 1e-6}, {"rate": 2e-6, "lasts": 1e-6}],
    ],
)
def test_states_that_make_no_sense_are_refused(states, synthetic):
    with pytest.raises(ConfigError, match="states"):
        synthetic(arrival={"process": "mmpp", "states": states})


def test_a_day_has_its_wave():
    arrival = process("diurnal", rate=3, swing=0.6, peak_at=15)
    at = first(arrival, arrival.whole(stream(0, "arrivals"))) / 3600
    hours = np.arange(25)
    wave = 1 + 0.6 * np.sinc(1 / 24) * np.cos(2 * np.pi * (np.arange(24) + 0.5 - 15) / 24)

    assert counts_by_share(at, hours, wave) > SURPRISE
    assert arrival.rate == pytest.approx(3)


def test_a_day_has_its_hours_and_may_begin_at_noon():
    loads = [1.0] * 12 + [3.0] * 12
    day = process("diurnal", rate=5, hours=loads, day="240s")
    noon = process("diurnal", rate=5, hours=loads, day="240s", begins=12)

    at = first(day, 50_000) % 240
    plain = np.histogram(at, [10, 110, 130, 230])[0]
    assert plain[2] / plain[0] == pytest.approx(3, rel=0.05)
    turned = np.histogram(first(noon, 50_000) % 240, [10, 110, 130, 230])[0]
    assert turned[0] / turned[2] == pytest.approx(3, rel=0.05)


def test_a_week_has_its_days():
    arrival = process("weekly", rate=20, swing=0.3, days=[5, 5, 5, 5, 5, 2, 1], day="600s", weeks=2)
    at = first(arrival, arrival.whole(stream(0, "arrivals"))) % 4200
    found = np.histogram(at, np.arange(0, 4201, 600))[0] / len(at)

    assert found == pytest.approx(np.array([5, 5, 5, 5, 5, 2, 1]) / 28, rel=0.04)
    assert arrival.rate == pytest.approx(20)


def test_a_ramp_is_straight():
    arrival = process("ramp", rate=2, to=18, duration="100s", before="10s", after="20s")
    at = np.concatenate([first(arrival, arrival.whole(stream(s, "arrivals")), s) for s in range(20)])
    ramp = at[(at >= 10) & (at < 110)] - 10

    assert len(at) / 20 == pytest.approx(20 + 1000 + 360, rel=0.03)
    assert at.max() < 130
    assert stats.kstest(ramp, lambda t: (2 * t + 0.08 * t * t) / 1000).pvalue > SURPRISE


def test_a_spike_is_played_to_its_end(synthetic):
    spike = {"process": "spike", "rate": "4/s", "factor": 5, "before": "50s", "duration": "30s", "after": "120s"}
    traffic = synthetic(requests=None, arrival=spike)
    at = whole(traffic).arrival_s

    assert traffic.total == len(at)
    assert 195 < at[-1] < 200
    assert np.histogram(at, [0, 50, 80, 200])[0] == pytest.approx([200, 600, 480], rel=0.2)
    cut = synthetic(requests=300, arrival=spike)
    at = whole(cut).arrival_s
    assert 79 < at[-1] < 80
    assert cut.notes == (
        f"traffic was to end after 300 requests: stage 2 of 3 is played to its end, with {len(at):,}; 1 later stage does not come",
    )


def test_another_rate_leaves_the_seconds_of_a_curve(synthetic):
    spike = {"process": "spike", "rate": "4/s", "factor": 5, "before": "50s", "duration": "30s", "after": "120s"}
    traffic = synthetic(requests=None, arrival=spike)
    twice = traffic.with_rate(2 * traffic.mean_rate)
    at = whole(twice).arrival_s

    assert 195 < at[-1] < 200
    assert twice.total == len(at) == pytest.approx(2 * traffic.total, rel=0.1)
    capped = synthetic(requests=300, arrival=spike)
    assert whole(capped.with_rate(2 * capped.mean_rate)).arrival_s[-1] == pytest.approx(80, abs=1)


def test_a_day_that_is_cut_is_said(synthetic):
    day = {"process": "diurnal", "rate": 10, "swing": 0.5, "day": "100s"}

    assert synthetic(requests=None, arrival=day).total == pytest.approx(1000, abs=130)
    assert whole(synthetic(requests=None, arrival=day | {"days": 2.5})).arrival_s[-1] == pytest.approx(250, abs=2)
    (note,) = synthetic(requests=300, arrival=day).notes
    assert "into 100 s of diurnal arrivals" in note
    assert synthetic(requests=300, arrival=day).total == 300


def test_sessions_begin_along_a_curve_and_are_played_to_its_end(synthetic):
    spike = {"process": "spike", "rate": "4/s", "factor": 5, "before": "100s", "duration": "50s", "after": "100s"}
    traffic = synthetic(requests=None, arrival=spike, sessions={"turns": 4, "think_time": "1s"})
    block = whole(traffic)
    begins = np.array([block.arrival_s[block.session == s].min() for s in np.unique(block.session)])

    assert np.histogram(begins, [0, 100, 150, 250])[0] == pytest.approx([100, 250, 100], rel=0.35)
    assert 240 < begins.max() < 250
    assert traffic.total == len(block) == 4 * len(begins)
    cut = synthetic(requests=600, arrival=spike, sessions={"turns": 4, "think_time": "1s"})
    assert "sessions: stage 2 of 3" in cut.notes[0]
    assert as_bytes(whole(cut)[:50]) == as_bytes(block[:50])


def test_a_stage_that_never_ends_is_refused(synthetic):
    with pytest.raises(ConfigError, match="shorten the stage"):
        synthetic(requests=100, arrival={"process": "piecewise", "stages": [{"rate": 1000, "duration": 1e9}]})


@pytest.mark.parametrize("requests", [None, 2**31 - 1])
def test_more_than_can_be_drawn_before_a_run_is_refused_at_once(synthetic, requests):
    with pytest.raises(ConfigError, match="at most 500,000,000"):
        synthetic(requests=requests, arrival={"process": "piecewise", "stages": [{"rate": 8, "duration": 1e9}]})


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({"process": "diurnal", "rate": 1}, "exactly one of swing and hours"),
        ({"process": "diurnal", "rate": 1, "hours": [1, 2]}, "hours"),
        ({"process": "weekly", "rate": 1, "swing": 0.5, "days": [0] * 7}, "some day"),
        ({"process": "weibull", "rate": 1}, "exactly one of cv and shape"),
        ({"process": "ramp", "rate": 0, "to": 0, "duration": 1}, "rate or to"),
        ({"process": "spike", "rate": 1, "factor": 0, "duration": 1}, "factor"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, wrong, synthetic):
    with pytest.raises(ConfigError, match=wrong):
        synthetic(arrival=settings)
