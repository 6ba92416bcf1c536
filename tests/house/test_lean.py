"""Functions that are compiled as parts of others: the same answers inside kernels and from Python, whoever asks first."""

import numpy as np
import pytest

from sim import jit, lean

pytestmark = pytest.mark.skipif(not jit.JIT, reason="needs the compiler")


def _made():
    @jit.inline
    def leaf(x):
        return np.sqrt(x) + 1.0

    @jit.inline
    def middle(a):
        total = 0.0
        for i in range(a.size):
            total += leaf(a[i])
        return total

    @jit.kernel
    def whole(a):
        return middle(a) + leaf(4.0)

    return leaf, middle, whole


def test_a_part_is_no_function_of_its_own_until_python_asks():
    leaf, middle, whole = _made()
    a = np.arange(5.0)

    assert whole(a) == pytest.approx(np.sqrt(a).sum() + 5.0 + 3.0)
    assert middle.overloads and leaf.overloads
    assert middle(a) == pytest.approx(np.sqrt(a).sum() + 5.0)
    assert leaf(9.0) == 4.0
    assert whole(a) == pytest.approx(np.sqrt(a).sum() + 5.0 + 3.0)


def test_python_first():
    leaf, middle, whole = _made()

    assert leaf(9.0) == 4.0
    assert whole(np.ones(2)) == pytest.approx(4.0 + 3.0)
    assert middle(np.ones(3)) == pytest.approx(6.0)


def test_an_error_inside_a_part_is_raised():
    @jit.inline
    def checked(x):
        if x < 0:
            raise ValueError("negative")
        return x

    @jit.kernel
    def whole(x):
        return checked(x) + 1

    assert whole(1) == 2
    with pytest.raises(ValueError, match="negative"):
        whole(-1)


def test_functions_of_others_are_compiled_as_numba_does_it():
    import numba

    @numba.njit
    def leaf(x):
        return x + 1

    @numba.njit
    def whole(x):
        return leaf(x) * 2

    assert whole(1) == 4
    assert not any(lean.is_part(result) for result in leaf.overloads.values())


def test_this_numba_was_tried():
    assert lean.LEAN, "run this file and the digests of the scenarios with this version of Numba, then add it to TRIED"
