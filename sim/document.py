"""What a document of JSON or YAML holds, as types: what is written down, and what has been read and is not yet looked into; JSON is read here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, TypeAlias

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | float | bool | None"
"""Any value of such a document."""
Table: TypeAlias = Mapping[str, Json]
"""A mapping in it."""

DEEPEST = 100
"""Brackets within brackets; more is no document, and every parser calls itself for each."""
_NUMBERS = {
    "tag:yaml.org,2002:int": r"[-+]?(?:0|[1-9][0-9_]*|0b[01_]+|0x[0-9a-fA-F_]+)",
    "tag:yaml.org,2002:float": r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
}
"""Of YAML's numbers those that mean what they look like: ``010`` is not eight, ``1:30`` is not ninety."""


def only_json(loader: Any) -> Any:
    """Class decorator for a loader of PyYAML: no dates, bytes, sets or other values that JSON has not; what looks like one is text."""
    odd = {f"tag:yaml.org,2002:{name}" for name in ("timestamp", "binary", "set", "omap", "pairs")}
    loader.yaml_constructors = {tag: make for tag, make in loader.yaml_constructors.items() if tag not in odd}
    loader.yaml_implicit_resolvers = {
        first: [(tag, re.compile(f"^(?:{_NUMBERS[tag]})$") if tag in _NUMBERS else form) for tag, form in forms if tag not in odd]
        for first, forms in loader.yaml_implicit_resolvers.items()
    }
    return loader


def loads(text: str | bytes) -> Any:
    """The value of JSON text (bytes in any of its encodings). Raises `ValueError` for what is none, and before a parser's stack could overflow."""
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    if text.count("[") + text.count("{") > DEEPEST:
        from sim.brackets import deeper

        if deeper(text, DEEPEST) is not None:
            raise ValueError("nested too deeply")
    return json.loads(text)


def number(value: object) -> float:
    """A value that must be a number, as it is. Raises TypeError."""
    if isinstance(value, int | float):
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
    return found if isinstance(found, int | float) else None


def finite(value: Json) -> Json:
    """The same as JSON can hold it: None for what is not finite, lists for tuples, texts as keys."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return value
