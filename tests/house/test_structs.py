"""Structs of arrays: a field is one thing, whoever derives from whom."""

import pytest

from sim.errors import ConfigError
from sim.jit import f8s, i4s, i8, struct


class Base:
    n: i8
    told: i4s


def test_a_field_of_a_base_is_not_declared_again():
    class Mine(Base):
        told: f8s

    with pytest.raises(ConfigError, match=r"Mine\.told: is a field of a class that this one derives from"):
        struct(Mine)


def test_fields_are_those_of_the_bases_and_ones_own():
    class Mine(Base):
        own: f8s

    made = struct(Mine)
    names = [name for name, _ in made._fields] if hasattr(made, "_fields") else list(made.__slots__)
    assert names == ["n", "told", "own"]
