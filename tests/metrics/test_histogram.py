"""Log bins against exact quantiles."""

import math

import numpy as np
import pytest

from sim.metrics.histogram import ITL_BINS, ITL_LO, bin_of, cdf, edges, quantiles


def _filled(gaps: np.ndarray) -> np.ndarray:
    hist = np.zeros(ITL_BINS)
    for gap in gaps:
        hist[bin_of(float(gap))] += 1
    return hist


@pytest.mark.parametrize("gap", [2e-5, 0.0123, 1.0, 999.0])
def test_bin_contains_its_gap(gap: float) -> None:
    k = bin_of(gap)

    assert edges()[k] * (1 - 1e-9) <= gap <= edges()[k + 1] * (1 + 1e-9)


def test_ends_of_the_scale() -> None:
    assert bin_of(0.0) == bin_of(ITL_LO) == 0
    assert bin_of(1e9) == ITL_BINS - 1


def test_quantiles_within_a_bin_of_numpy() -> None:
    gaps = np.random.default_rng(1).lognormal(-4, 0.6, 20_000)
    qs = (0.5, 0.9, 0.99, 0.999)

    found = quantiles(_filled(gaps), qs, float(gaps.max()))

    assert found == pytest.approx(np.quantile(gaps, qs), rel=0.006)


def test_quantile_of_one_value_is_bounded_by_the_largest() -> None:
    assert quantiles(_filled(np.full(5, 0.02)), (0.0, 1.0), 0.02) == pytest.approx([0.02, 0.02], rel=0.006)
    assert quantiles(_filled(np.full(5, 0.02)), (1.0,), 0.02)[0] <= 0.02


def test_quantiles_lie_within_their_bin_as_far_as_its_gaps_are_counted() -> None:
    hist = np.zeros(ITL_BINS)
    hist[10], hist[20], hist[ITL_BINS - 1] = 4, 2, 2

    found = quantiles(hist, (0.0, 0.25, 0.5, 0.625, 0.75, 0.875, 1.0))

    assert [math.log(x / ITL_LO) * 200 for x in found] == pytest.approx([10, 10.5, 11, 20.5, 21, ITL_BINS - 0.5, ITL_BINS])


def test_empty_histogram() -> None:
    assert math.isnan(quantiles(np.zeros(ITL_BINS), (0.5,))[0])
    assert cdf(np.zeros(ITL_BINS))[0].size == 0


def test_cdf_rises_to_one() -> None:
    x, share = cdf(_filled(np.array([0.01, 0.02, 0.02, 0.04])))

    assert share.tolist() == [0.25, 0.75, 1.0]
    assert (np.diff(x) > 0).all()
