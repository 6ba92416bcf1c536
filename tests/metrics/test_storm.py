"""Storms of retries: tables with a known number of requests in each window of ten seconds."""

import numpy as np
import pytest

from sim.metrics.storm import Storm, storm

WIDTH = 10.0


def found(came: list[int], again: list[int], ok: list[int]) -> Storm | None:
    """``came`` requests, ``again`` attempts more and ``ok`` answers of each window; the first request comes at 0 s, the last one ends the last window."""
    arrival = np.concatenate([k * WIDTH + np.arange(n) * WIDTH / n for k, n in enumerate(came)])
    arrival[-1] = len(came) * WIDTH
    served = np.concatenate([np.arange(n) < good for n, good in zip(came, ok, strict=True)])
    retries = np.concatenate([k * WIDTH + (np.arange(n) + 0.5) * WIDTH / n for k, n in enumerate(again) if n])
    order = np.random.default_rng(0).permutation(arrival.size)  # rows lie in the order in which requests end
    return storm(arrival[order], retries, served[order])


EVEN = [30] * 10
SURGE = [22, 22, 22, 102, 22, 22, 22, 22, 22, 22]


def test_a_storm_without_a_surge() -> None:
    s = found(EVEN, [0, 0, 0, 30, 45, 30, 0, 0, 0, 0], EVEN)

    assert s is not None
    assert (s.start_s, s.end_s, s.ended, s.width_s) == pytest.approx((30, 60, True, WIDTH))
    assert (s.before_per_s, s.wanted_per_s) == pytest.approx((3, 3))
    assert s.peak == pytest.approx(1 + 45 / 30)
    assert (s.load_back_s, s.served_after, s.metastable_s) == pytest.approx((30, 1.0, 0.0))  # it never was more
    assert s.sentences() == ["retry storm from 30 s to 60 s: up to 2.5 attempts for each request wanted"]


def test_one_calm_window_ends_no_storm_and_two_do() -> None:
    one = found(EVEN, [0, 0, 30, 0, 30, 30, 0, 0, 0, 0], EVEN)
    two = found(EVEN, [0, 0, 30, 0, 0, 30, 30, 30, 0, 0], EVEN)

    assert one is not None and (one.start_s, one.end_s) == pytest.approx((20, 60))
    assert two is not None and (two.start_s, two.end_s) == pytest.approx((50, 80))


def test_a_storm_that_outlives_its_surge_is_metastable() -> None:
    s = found(SURGE, [0, 0, 0, 60, 60, 60, 60, 60, 60, 60], [22, 22, 22, 0, 0, 4, 4, 4, 4, 4])

    assert s is not None
    assert (s.start_s, s.end_s, s.ended) == pytest.approx((30, 100, False))
    assert (s.before_per_s, s.wanted_per_s) == pytest.approx((2.2, 10.2))
    assert s.peak == pytest.approx(1 + 60 / 22)
    assert (s.load_back_s, s.served_after, s.metastable_s) == pytest.approx((50, 4 / 22, 50))
    assert s.sentences() == [
        "retry storm from 30 s on, without end: up to 3.7 attempts for each request wanted",
        "metastable: since 50 s clients want no more than before the storm (2.2 requests/s), yet only 18% are served: retries alone keep it overloaded",
    ]


@pytest.mark.parametrize(("last", "served", "metastable"), [(7, 4, 30.0), (6, 4, 0.0), (9, 11, 0.0), (9, 10, 50.0)])
def test_metastable_is_what_lasts_three_windows_and_serves_less_than_half(last: int, served: int, metastable: float) -> None:
    s = found(SURGE, [60 if 3 <= k <= last else 0 for k in range(10)], [22, 22, 22, 0, 0, *[served] * 5])

    assert s is not None
    assert s.load_back_s == pytest.approx(50)
    assert s.metastable_s == pytest.approx(metastable)


def test_in_a_long_run_a_fifth_of_it_must_have_passed() -> None:
    came = [22] * 7 + [214] + [22] * 16  # 24 windows, normal again from the tenth on: 0.2 × 24 = 4.8
    for length, metastable in ((4, False), (5, True)):
        s = found(came, [200 if 7 <= k < 9 + length else 0 for k in range(24)], [22] * 7 + [0] * 17)
        assert s is not None
        assert (s.metastable_s > 0) is metastable


def test_a_surge_that_lasts_as_long_as_the_storm_never_goes_back() -> None:
    s = found([20, 20, 20, 45, 45, 45, 45, 20, 20, 20], [0, 0, 0, 60, 60, 60, 60, 0, 0, 0], [0] * 10)

    assert s is not None
    assert (s.load_back_s, s.served_after, s.metastable_s) == (None, None, 0.0)


def test_a_storm_from_the_first_window_on_is_measured_against_the_whole_run() -> None:
    s = found(EVEN, [30, 30, 0, 0, 0, 0, 0, 0, 0, 0], EVEN)

    assert s is not None
    assert (s.start_s, s.end_s, s.before_per_s) == pytest.approx((0, 20, 3))


def test_windows_in_which_hardly_anybody_came_do_not_make_a_storm() -> None:
    came = [58, 58, 58, 58, 2, 2, 58, 2, 2, 2]  # a quarter of the mean, 7.5, stands for what came at least
    assert found(came, [0, 0, 0, 0, 3, 3, 0, 0, 0, 0], came) is None
    s = found(came, [0, 0, 0, 0, 3, 6, 0, 0, 0, 0], came)
    assert s is not None and s.peak == pytest.approx(1 + 6 / 7.5)


def test_few_requests_few_retries_or_no_time_say_nothing() -> None:
    arrival, retries = np.linspace(0, 80, 30), np.full(6, 40.0)
    assert storm(arrival, retries, np.ones(30, bool)) is not None
    assert storm(arrival[:29], retries, np.ones(29, bool)) is None
    assert storm(arrival, retries[:5], np.ones(30, bool)) is None
    assert storm(np.full(40, 7.0), retries, np.ones(40, bool)) is None
