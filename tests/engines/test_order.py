"""The order of events: of engines with times before which nothing happens there, who goes on, and how far."""

from __future__ import annotations

from math import inf, nextafter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.engine.order import stretch
from sim.jit import in_python

law = in_python(stretch)
times = st.sampled_from([0.0, 1.0, 1.5, 2.0, 7.0, inf])


@pytest.mark.parametrize(
    ("keys", "until", "last", "found"),
    [
        ([3.0], 9.0, -inf, (3.0, 9.0, 0)),
        ([3.0], 2.0, -inf, (3.0, 2.0, 0)),
        ([5.0, 3.0, 4.0], 9.0, -inf, (3.0, 4.0, 1)),
        ([5.0, 3.0, 4.0], 3.5, -inf, (3.0, 3.5, 1)),
        ([3.0, 8.0, 3.0], 9.0, -inf, (3.0, 3.0, -1)),  # at one time all complete first …
        ([3.0, 8.0, 3.0], 9.0, 3.0, (3.0, nextafter(3.0, inf), -1)),  # … then all decide
        ([3.0, 8.0, 3.0], 3.0, 3.0, (3.0, 3.0, -1)),
        ([inf, inf], 9.0, -inf, (inf, 9.0, -1)),
    ],
)
def test_known_answers(keys: list[float], until: float, last: float, found: tuple[float, float, int]) -> None:
    first, target, who = law(np.array(keys), until, last)
    assert (first, min(target, until), who) == found


@given(keys=st.lists(times, min_size=1, max_size=6), until=times, last=st.sampled_from([-inf, 0.0, 1.0]))
def test_nobody_goes_past_what_another_may_still_do(keys: list[float], until: float, last: float) -> None:
    first, target, who = law(keys, until, last)
    assert first == min(keys)
    others = [k for i, k in enumerate(keys) if i != who]
    if first <= until and first < inf:
        assert first <= target <= until
    if who >= 0:
        assert keys[who] == first
        assert all(k > first and target <= k for k in others)
    else:
        assert keys.count(first) > 1
        assert target <= nextafter(first, inf)
