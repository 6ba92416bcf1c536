"""Intervals for a further sample: they hold their share of it whatever the law of the samples, and what was predicted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sim.metrics.conformal import LEVEL, ends, moved

LAWS = {
    "normal": lambda rng, n: 0.1 * rng.standard_normal(n),
    "some far off": lambda rng, n: np.where(rng.random(n) < 0.15, 1.0, 0.05) * rng.standard_normal(n),
    "to one side": lambda rng, n: 0.1 * rng.exponential(size=n) - 0.02,
}


def alike(n):
    return np.ones((n, n)), np.ones(n)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("n", [8, 25])
def test_a_further_sample_lies_inside_as_often_as_it_should(law, n):
    rng, held = np.random.default_rng(3), []
    for _ in range(120):
        samples = LAWS[law](rng, n)[:, None]
        low, high = moved(samples, *alike(n))
        held.append(np.mean([low <= x <= high for x in LAWS[law](rng, 50)]))

    assert LEVEL - 0.04 <= np.mean(held) <= 0.95


def test_a_class_of_its_own_is_as_uncertain_as_others_would_be_without_their_members():
    """Classes of three whose samples agree, each off in its own way: their own quantiles are too narrow, and their neighbours too sure."""
    rng, held, narrow = np.random.default_rng(5), [], []
    for _ in range(150):
        middle = 0.2 * rng.standard_normal(12)
        samples = np.repeat(middle, 3)[:, None] + 0.01 * rng.standard_normal((36, 1))
        groups = np.repeat(np.arange(12), 3)
        likeness = np.where(groups[:, None] == groups[None, :], 1.0, 0.2)
        asked = np.full(36, 0.2)  # of a class of its own
        low, high = moved(samples, likeness, asked)
        own_low, own_high = ends(samples, asked)
        further = 0.2 * rng.standard_normal(20)
        held.append(np.mean((low <= further) & (further <= high)))
        narrow.append(np.mean((own_low <= further) & (further <= own_high)))

    assert np.mean(held) > np.mean(narrow)
    assert np.mean(held) >= LEVEL - 0.05


@settings(max_examples=60, deadline=None)
@given(
    samples=st.integers(1, 12).flatmap(lambda n: arrays(float, (n, 3), elements=st.floats(-3, 3))),
    weight=st.floats(0.01, 1.0),
)
def test_what_was_predicted_lies_inside_and_ends_are_in_order(samples, weight):
    n = len(samples)
    likeness = np.full((n, n), weight)
    np.fill_diagonal(likeness, 1.0)
    low, high = moved(np.sort(samples, axis=1), likeness, np.full(n, weight))

    assert low <= 0.0 <= high
    reach = 2.0 * max(np.ptp(samples), np.abs(samples).max()) + 0.1  # no further than twice what was seen
    assert -reach <= low
    assert high <= reach


def test_samples_to_one_side_begin_at_what_was_predicted():
    samples = np.linspace(0.2, 0.3, 9)[:, None]

    low, high = moved(samples, *alike(9))

    assert low == 0.0
    assert high >= 0.28


def test_equal_factors_on_all_weights_change_nothing():
    rng = np.random.default_rng(1)
    samples, likeness = rng.standard_normal((7, 5)), rng.uniform(0.1, 1.0, (7, 7))
    weights = rng.uniform(0.1, 1.0, 7)

    assert moved(samples, 3.0 * likeness, 3.0 * weights) == pytest.approx(moved(samples, likeness, weights))
