"""Views of structs: the same fields, no references counted, nothing that somebody else owns replaced by accident."""

import sys

import numpy as np
import pytest
from numba import njit
from numba.core.errors import TypingError

from sim.engine.borrow import keep, view
from sim.jit import JIT, i8, i8s, new, struct

pytestmark = pytest.mark.skipif(not JIT, reason="without the compiler a view is the struct")


@struct
class Inner:
    """A struct in a struct."""

    values: i8s


@struct(viewed=True)
class Outer:
    """A struct of which kernels get views."""

    count: i8
    values: i8s
    inner: Inner


@njit
def make(n):
    s = new(Outer)
    s.count = 0
    s.values = np.arange(n)
    s.inner = new(Inner)
    s.inner.values = np.arange(n)
    return s


@njit
def total(s):
    v = view(s)
    v.count += 1
    v.values[0] = 10
    v.inner.values[1] += 5
    row = v.values[1:]
    return row.sum() + v.values[0] + v.inner.values.sum() + view(v).count


@njit
def chosen(s, n):
    v = view(s)
    a = v.values if n > 2 else v.inner.values
    return a[n] + a[2 * n]


@njit
def counted(s, n):
    a = s.values if n > 2 else s.inner.values
    return a[n] + a[2 * n]


@njit
def grow(s):
    v = view(s)
    bigger = np.zeros(2 * v.values.size, np.int64)
    bigger[: v.values.size] = v.values
    keep(v).values = bigger
    keep(v.inner).values = bigger
    return v.values.size + v.inner.values.size + keep(s).count


@njit
def replace(s):
    view(s).values = np.zeros(3, np.int64)


@njit
def plain(s):
    return view(s).values.size


def test_a_view_reads_and_writes_the_struct():
    s = make(4)

    assert total(s) == (1 + 2 + 3) + 10 + (0 + 6 + 2 + 3) + 1
    assert s.count == 1 and list(s.values) == [10, 1, 2, 3] and list(s.inner.values) == [0, 6, 2, 3]


def test_reading_counts_no_references():
    s = make(4)
    assert chosen(s, 1) == counted(s, 1) == 3
    calls = [next(iter(f.inspect_asm().values())).count("NRT_incref") for f in (chosen, counted)]

    assert calls[0] == 0 < calls[1]


def test_what_replaces_an_array_does_so_in_the_struct_and_keeps_it():
    s = make(4)
    for _ in range(3):
        grow(s)

    assert s.values.size == 32 and list(s.values[:4]) == [0, 1, 2, 3]
    held = s.values
    del s
    assert held.sum() == 6 and sys.getrefcount(held) >= 2


def test_an_array_cannot_be_replaced_in_a_view():
    with pytest.raises(TypingError, match=r"Outer.values cannot be replaced in a view: write keep\(s\).values"):
        replace(make(4))


def test_structs_that_do_not_ask_for_it_stay_as_they_are():
    @njit
    def inner():
        s = new(Inner)
        s.values = np.arange(3)
        return s

    assert plain(inner()) == 3
    assert plain.signatures[0][0].name.endswith("Inner")
