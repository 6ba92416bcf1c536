"""Values in nested figures, by dotted path."""

from __future__ import annotations

from typing import Any


def at(data: Any, path: str) -> Any:
    """``at({"a": {"b": 1}}, "a.b")`` → 1; None where there is none."""
    for key in path.split("."):
        data = data.get(key) if data is not None else None
    return data
