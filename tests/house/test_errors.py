"""Errors say the same after a journey: out of a SimPy process (a copy from ``args``), out of another process (a pickle)."""

import pickle

import pytest

from sim.errors import ConfigError, DataError, LawViolation, NotModelledError, UnknownNameError

ERRORS = [
    ConfigError("a.b", 1, "is wrong", "2", "try 2"),
    NotModelledError("a.b", 1, "is not modelled"),
    UnknownNameError("engine", "vlm", ["vllm", "sglang"]),
    DataError("file.csv", "is empty", "fill it"),
    LawViolation("1 request is missing"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_a_copy_says_the_same(error):
    assert str(type(error)(*error.args)) == str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
