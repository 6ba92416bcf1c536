"""What a document of JSON or YAML holds, as types: what is written down, and what has been read and is not yet looked into; JSON is read here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, TypeAlias, TypeGuard

from sim.errors import brief

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | float | bool | None"
"""Any value of such a document."""
Table: TypeAlias = Mapping[str, Json]
"""A mapping in it."""

DEEPEST = 100
"""Brackets within brackets; more is no document, and every parser calls itself for each."""


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON from its members. Raises `ValueError` for a key that is given twice: which of the values is meant nobody knows."""
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        again = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {brief(again)!r} is given twice")
    return found


def loads(text: str | bytes) -> Any:
    """The value of JSON text (bytes in any of its encodings).

    Raises `ValueError` for what is none, for a key given twice, and before a parser's stack could overflow.
    """
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    if text.count("[") + text.count("{") > DEEPEST:
        from sim.brackets import deeper

        if deeper(text, DEEPEST) is not None:
            raise ValueError("nested too deeply")
    return json.loads(text, object_pairs_hook=once)


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether it is one; true and false are none, although Python counts with them."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def number(value: object) -> float:
    """A value that must be a number, as it is. Raises TypeError."""
    if is_number(value):
        return value
    raise TypeError(f"{value!r} is no number")


def at(data: Mapping[str, object], path: str) -> object:
    """``at({"a": {"b": 1}}, "a.b")`` → 1; None where there is none."""
    here: object = data
    for key in path.split("."):
        here = here.get(key) if isinstance(here, Mapping) else None
    return here


def number_at(data: Mapping[str, object], path: str) -> float | None:
    """The number at a path; None where there is none."""
    found = at(data, path)
    return found if is_number(found) else None


def finite(value: Json) -> Json:
    """The same as JSON can hold it: None for what is not finite, lists for tuples, texts as keys."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return value
