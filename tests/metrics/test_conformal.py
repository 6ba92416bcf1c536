"""Intervals for a further sample: they hold their share of it whatever the law of the samples, and what was predicted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sim.metrics.conformal import LEVEL, ends

LAWS = {
    "normal": lambda rng, n: 0.1 * rng.standard_normal(n),
    "some far off": lambda rng, n: np.where(rng.random(n) < 0.15, 1.0, 0.05) * rng.standard_normal(n),
    "to one side": lambda rng, n: 0.1 * rng.exponential(size=n) - 0.02,
}


def alike(n):
    return 1.0 - np.eye(n), np.ones(n)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("n", [8, 25])
def test_a_further_sample_lies_inside_as_often_as_it_should(law, n):
    rng, held = np.random.default_rng(3), []
    for _ in range(120):
        samples = LAWS[law](rng, n)[:, None]
        low, high = ends(samples, *alike(n))
        held.append(np.mean([low <= x <= high for x in LAWS[law](rng, 50)]))

    assert LEVEL - 0.04 <= np.mean(held) <= 0.95


def test_samples_of_one_source_do_not_make_each_other_sure():
    """Sources of three whose samples agree, each off in its own way: judged by one another they would need next to nothing."""
    rng, held, narrow = np.random.default_rng(5), [], []
    groups = np.repeat(np.arange(24), 3)
    for _ in range(80):
        middle = 0.2 * rng.standard_normal(24) * rng.choice([0.2, 1.0, 2.0], 24)
        samples = np.repeat(middle, 3)[:, None] + 0.01 * rng.standard_normal((72, 1))
        likeness = np.where(groups[:, None] == groups[None, :], 1.0, 0.2)
        asked = np.full(72, 0.2)  # of a source of its own
        low, high = ends(samples, np.where(groups[:, None] == groups[None, :], 0.0, likeness), asked)
        sure_low, sure_high = ends(samples, likeness - np.eye(72), np.ones(72))
        further = 0.2 * rng.standard_normal(20) * rng.choice([0.2, 1.0, 2.0], 20)
        held.append(np.mean((low <= further) & (further <= high)))
        narrow.append(np.mean((sure_low <= further) & (further <= sure_high)))

    assert np.mean(held) > np.mean(narrow)
    assert np.mean(held) >= LEVEL - 0.08


def test_one_sample_far_off_widens_the_ends_by_little():
    """A server that compiled while it was measured, a hundred times off, among others within a tenth: it is one of those that lie beyond."""
    rng = np.random.default_rng(2)
    near = 0.1 * rng.standard_normal((24, 1))
    usual = ends(near, *alike(24))

    beside = ends(np.vstack([near, [[4.7]]]), *alike(25))

    assert beside[1] - beside[0] < 1.5 * (usual[1] - usual[0])


def test_of_what_is_off_further_more_is_expected():
    """Two classes, one ten times as far off as the other: the ends of each are its own, though few of each are known."""
    rng = np.random.default_rng(4)
    samples = np.concatenate([0.05 * rng.standard_normal(10), 0.5 * rng.standard_normal(10)])[:, None]
    groups = np.repeat([0, 1], 10)
    likeness = np.where(groups[:, None] == groups[None, :], 1.0, 0.1) - np.eye(20)

    (low, high), (wide_low, wide_high) = (ends(samples, likeness, np.where(groups == g, 1.0, 0.1)) for g in (0, 1))

    assert 2.5 * (high - low) < wide_high - wide_low


@settings(max_examples=60)
@given(
    samples=st.integers(1, 12).flatmap(lambda n: arrays(float, (n, 3), elements=st.floats(-3, 3))),
    weight=st.floats(0.01, 1.0),
    one_source=st.booleans(),
)
def test_what_was_predicted_lies_inside_and_ends_are_in_order(samples, weight, one_source):
    n = len(samples)
    apart = np.zeros((n, n)) if one_source else np.full((n, n), weight) - weight * np.eye(n)
    low, high = ends(np.sort(samples, axis=1), apart, np.full(n, weight))

    assert low <= 0.0 <= high
    assert max(-low, high) <= 2.0 * np.abs(samples).max()  # no further than twice what was seen


def test_samples_to_one_side_begin_at_what_was_predicted():
    samples = np.linspace(0.2, 0.3, 9)[:, None]

    low, high = ends(samples, *alike(9))

    assert low == 0.0
    assert high >= 0.28


def test_equal_factors_on_all_weights_change_nothing():
    rng = np.random.default_rng(1)
    samples, apart = rng.standard_normal((7, 5)), rng.uniform(0.1, 1.0, (7, 7)) * (1.0 - np.eye(7))
    weights = rng.uniform(0.1, 1.0, 7)

    assert ends(samples, 3.0 * apart, 3.0 * weights) == pytest.approx(ends(samples, apart, weights))
