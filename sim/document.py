"""What a document of JSON or YAML holds, as types: what is written down, and what has been read and is not yet looked into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | float | bool | None"
"""Any value of such a document."""
Table: TypeAlias = Mapping[str, Json]
"""A mapping in it."""
