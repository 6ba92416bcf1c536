"""What a document of JSON or YAML holds, as types: what is written down, and what has been read and is not yet looked into; JSON is read here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | float | bool | None"
"""Any value of such a document."""
Table: TypeAlias = Mapping[str, Json]
"""A mapping in it."""

DEEPEST = 100
"""Brackets within brackets; more is no document, and every parser calls itself for each."""


def loads(text: str | bytes) -> Any:
    """The value of JSON text (bytes in any of its encodings). Raises `ValueError` for what is none, and before a parser's stack could overflow."""
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    if text.count("[") + text.count("{") > DEEPEST:
        from sim.brackets import deeper

        if deeper(text, DEEPEST) is not None:
            raise ValueError("nested too deeply")
    return json.loads(text)
