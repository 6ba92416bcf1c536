"""A result file parsed once: JSON, JSON lines or a CSV table, and checked access to its keys."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from sim.document import loads
from sim.errors import DataError, brief, did_you_mean
from sim.tables import by_name
from sim.tables import lines as table_lines
from sim.workload.textfile import read_all

if TYPE_CHECKING:
    from sim.document import Json

LARGEST = 1 << 30
"""Bytes of a result file, unpacked."""


@dataclass(frozen=True)
class Document:
    """``path`` and what is in it. ``value``: the JSON value, the list of JSON lines, or the list of rows (mappings) of a table."""

    path: Path

    @cached_property
    def _parsed(self) -> tuple[str, Any]:
        text = read_all(self.path, LARGEST).decode("utf-8")
        start = text.lstrip()[:1]
        if start in "{[":
            try:
                return "json", loads(text)
            except ValueError as error:
                lines = [(i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
                if len(lines) < 2 or not isinstance(error, json.JSONDecodeError) or error.msg != "Extra data":
                    raise DataError(str(self.path), f"is no readable JSON: {str(error)[:120]}") from None
                return "jsonl", [self._line(number, line) for number, line in lines]
        rows = table_lines(self.path, text)
        if len(rows) < 2 or len(rows[0]) < 2:
            raise DataError(str(self.path), "is neither JSON, JSON lines nor a CSV table")
        return "csv", rows

    def _line(self, number: int, line: str) -> Json:
        try:
            found: Json = loads(line)
            return found
        except ValueError as error:
            raise DataError(str(self.path), f"line {number}: is not JSON ({str(error)[:80]})") from None

    def beside(self, name: str) -> Json:
        """What is in a JSON file of the same folder; None where there is none that can be read."""
        try:
            found: Json = loads(read_all(self.path.with_name(name), LARGEST))
            return found
        except (DataError, OSError, ValueError):
            return None

    @property
    def kind(self) -> str:
        """``json``, ``jsonl`` or ``csv``. Raises `DataError` for a file that is none of them."""
        return self._parsed[0]

    @property
    def value(self) -> Any:
        """The JSON value; for ``jsonl`` the list of values; for ``csv`` the list of rows, the header among them."""
        return self._parsed[1]

    @property
    def records(self) -> list[Mapping[str, Json]]:
        """Objects of JSON lines, of a JSON array, or the one object; other things are left out."""
        values = self.value if isinstance(self.value, list) and self.kind != "csv" else [self.value]
        return [v for v in values if isinstance(v, Mapping)]

    @property
    def first(self) -> Mapping[str, Json]:
        """The first object, empty when there is none."""
        return self.records[0] if self.records else {}

    @property
    def keys(self) -> Keys:
        """Checked access to the keys of the only object."""
        return Keys(self.path, self.value)

    def table(self) -> list[dict[str, str]]:
        """Rows of a CSV table by column. Raises `DataError` for rows of another length."""
        return [row for _, row in by_name(self.path, self.value)[1]]


class Keys:
    """An object of a file whose values are checked when they are asked for; ``inside`` is the path of keys to it."""

    def __init__(self, path: Path, value: object, inside: str = "") -> None:
        self.path, self.inside = path, inside
        if not isinstance(value, Mapping):
            self.fail("", "must be an object", value)
        self.value: Mapping[str, Json] = value

    def fail(self, key: str, rule: str, value: object) -> NoReturn:
        """Raise a `DataError` about a key."""
        name = ".".join(x for x in (self.inside, key) if x)
        got = f"{rule} (got {brief(repr(value))})"
        raise DataError(str(self.path), f"key {name!r}: {got}" if name else got)

    def __contains__(self, key: str) -> bool:
        return self.value.get(key) is not None

    def raw(self, key: str) -> Any:
        """The value as it is; None when absent."""
        return self.value.get(key)

    def needed(self, key: str) -> Any:
        """The value; raises `DataError` when absent."""
        if key not in self:
            near = did_you_mean(key, [str(k) for k in self.value])
            name = ".".join(x for x in (self.inside, key) if x)
            raise DataError(str(self.path), f"key {name!r}: is missing", near)
        return self.value[key]

    def sub(self, key: str) -> Keys:
        """The object under a key, empty when absent."""
        value = self.value.get(key)
        return Keys(self.path, {} if value is None else value, ".".join(x for x in (self.inside, key) if x))

    def number(self, key: str, *, low: float = 0.0, default: float | None = None) -> float | None:
        """A finite number of at least ``low``; ``default`` when absent."""
        value = self.value.get(key)
        if value is None:
            return default
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                self.fail(key, "must be a number", value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
            self.fail(key, "must be a finite number", value)
        if value < low:
            self.fail(key, f"must be at least {low:g}", value)
        return float(value)

    def count(self, key: str, *, low: int = 0) -> int | None:
        """A whole number; None when absent."""
        value = self.number(key, low=low)
        if value is None:
            return None
        if value != int(value) or value > 1 << 40:
            self.fail(key, "must be a whole number", value)
        return int(value)

    def rate(self, key: str) -> float | None:
        """Requests per second, infinite for ``"inf"``; None when absent."""
        value = self.value.get(key)
        if value in ("inf", "Infinity", "-1", -1) or (isinstance(value, float) and value == math.inf):
            return math.inf
        found = self.number(key)
        if found is not None and found <= 0:
            self.fail(key, "must be more than 0, or 'inf'", value)
        return found

    def text(self, key: str) -> str | None:
        """A text; None when absent or empty."""
        value = self.value.get(key)
        return str(value) if value not in (None, "") else None

    def column(self, key: str, *, low: float | None = 0.0, holes: bool = False) -> NDArray[np.float64]:
        """f8[n] of a list of numbers; with ``holes`` None becomes NaN."""
        values = self.needed(key)
        if not isinstance(values, list):
            self.fail(key, "must be a list", values)
        return numbers(values, lambda i, rule, v: self.fail(f"{key}[{i}]", rule, v), low, holes)


_HUGE = 1e20


def _finite(value: int | float) -> bool:
    try:
        return math.isfinite(value) and abs(value) < _HUGE
    except OverflowError:
        return False


def numbers(
    values: Sequence[Json], fail: Callable[[int, str, Json], NoReturn], low: float | None = 0.0, holes: bool = False
) -> NDArray[np.float64]:
    """f8[n] of finite numbers of at least ``low``. ``fail(i, rule, value)`` raises."""
    found: list[float] = []
    for i, value in enumerate(values):
        if value is None and holes:
            found.append(math.nan)
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
            fail(i, "must be a finite number", value)
        if low is not None and value < low:
            fail(i, f"must be at least {low:g}", value)
        found.append(value)
    return np.array(found, np.float64)
