"""What MindIE predicts of batches: exact for times that follow its own laws, means as their definition says, batch sizes towards the target."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from sim.engine.schedulers.mindie import predict
from sim.jit import in_python

fit_decode, learn_prefill = in_python(predict._fit_decode), in_python(predict._learn_prefill)
note_batch, mean_batch, search = in_python(predict._note_batch), in_python(predict._mean_batch), in_python(predict._search)


@pytest.mark.parametrize("count", [3, 400, 1700])
def test_decodes_that_take_a_plane_are_learnt_exactly(count):
    rng = np.random.default_rng(count)
    rows, blocks = rng.integers(1, 200, 1000).astype(float), rng.integers(1, 3000, 1000).astype(float)
    s = SimpleNamespace(d_count=count, d_rows=rows, d_blocks=blocks, d_time=0.03 * rows + 0.002 * blocks + 7, d_coef=np.zeros(3))
    fit_decode(s)
    np.testing.assert_allclose(s.d_coef, [0.03, 0.002, 7], rtol=1e-6)


def test_decodes_fit_least_squares_and_only_with_positive_coefficients():
    rng = np.random.default_rng(1)
    rows, blocks = rng.integers(1, 200, 1000).astype(float), rng.integers(1, 3000, 1000).astype(float)
    times = 0.03 * rows + 0.002 * blocks + 7 + rng.normal(0, 2, 1000)
    s = SimpleNamespace(d_count=900, d_rows=rows, d_blocks=blocks, d_time=times, d_coef=np.zeros(3))
    fit_decode(s)
    expected = np.linalg.lstsq(np.stack([rows, blocks, np.ones(1000)], 1)[:900], times[:900], rcond=None)[0]
    np.testing.assert_allclose(s.d_coef, expected, rtol=1e-6)
    for falling in (30 - 0.03 * rows + 0.002 * blocks, 30 + 0.03 * rows - 0.002 * blocks, 0.03 * rows + 0.002 * blocks - 1):
        s.d_time = falling
        fit_decode(s)
        np.testing.assert_allclose(s.d_coef, expected, rtol=1e-6)
    s.d_rows, s.d_blocks = np.full(1000, 8.0), np.full(1000, 90.0)  # of one kind of batch no plane follows
    fit_decode(s)
    np.testing.assert_allclose(s.d_coef, expected, rtol=1e-6)


def test_prefills_on_a_line_are_learnt_and_one_that_makes_it_fall_is_left_out():
    s = SimpleNamespace(p_sums=np.zeros(4, np.float32), p_count=0, slope=0.0, intercept=0.0)
    for tokens in (100, 700, 1500, 4000, 300):
        learn_prefill(s, tokens, 0.05 * tokens + 20)
    assert (s.slope, s.intercept) == (pytest.approx(0.05, rel=1e-3), pytest.approx(20, rel=1e-2))
    before, sums = (s.slope, s.intercept, s.p_count), s.p_sums.copy()
    learn_prefill(s, 9000, 0.0)
    assert (s.slope, s.intercept, s.p_count) == before
    assert (s.p_sums == sums).all()


def test_two_prefills_that_make_no_rising_line_are_forgotten():
    s = SimpleNamespace(p_sums=np.zeros(4, np.float32), p_count=0, slope=1.0, intercept=2.0)
    learn_prefill(s, 100, 50)
    learn_prefill(s, 1000, 40)
    assert s.p_count == 0
    assert not s.p_sums.any()
    assert (s.slope, s.intercept) == (1.0, 2.0)


@pytest.mark.parametrize("window", [5, 40])
def test_the_mean_batch_is_that_of_the_latest_rows(window):
    """The latest batches that make up ``window`` rows, each weighted by itself, the oldest by what it exceeds the window."""
    rng = np.random.default_rng(window)
    s = SimpleNamespace(bat=np.zeros(window + 1, np.int64), bat_at=0, bat_n=0, bat_sum=0, bat_square=0)
    assert mean_batch(s) == 0
    batches: list[int] = []
    for size in rng.integers(1, 30, 300).tolist():
        note_batch(s, size)
        batches.append(size)
        totals = np.cumsum(batches[::-1])
        latest = np.array(batches[::-1][: int(np.searchsorted(totals, window)) + 1])
        weights = latest.copy()
        if latest.sum() > window:
            weights[-1] = latest.sum() - window
        assert mean_batch(s) == (latest * weights).sum() // weights.sum()


@pytest.mark.parametrize(
    ("latency", "batch", "bounds", "then"),
    [
        (60.0, 40, (20, 80), (18, 40)),  # too slow: no more than now
        (60.0, 4, (20, 80), (18, 23)),
        (60.0, 40, (4, 80), (3, 40)),
        (30.0, 40, (20, 80), (40, 82)),  # quick enough: no less than now
        (30.0, 90, (20, 80), (77, 82)),
        (30.0, 40, (20, 99), (40, 100)),
        (50.0, 40, (20, 80), (38, 43)),  # near the target: around now
        (55.0, 40, (20, 80), (38, 43)),
        (45.0, 40, (20, 80), (38, 43)),
        (50.0, 4, (20, 80), (3, 7)),
        (50.0, 99, (20, 80), (97, 100)),
    ],
)
def test_bounds_close_in_on_the_batch_whose_latency_is_the_target(latency, batch, bounds, then):
    s = SimpleNamespace(decode_target=50.0, dyn_bound=100, dyn_lower=bounds[0], dyn_upper=bounds[1], mb=50, mpb=0)
    search(s, 10, latency, batch)
    assert (s.dyn_lower, s.dyn_upper) == then
    assert s.mb == min(max(sum(then) // 2, 48), 52)  # by two at a time
    assert s.mpb == s.mb - 10
    search(s, 90, latency, batch)
    assert (s.mb, s.mpb) == (90, 0)  # nobody who runs is thrown out
