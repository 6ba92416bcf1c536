"""The runs of a study as one tidy table: a row per trial, settings and figures; written as it grows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from sim.document import is_number, number

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")
FILE: Final = "runs.parquet"
_FIRST_S = 5.0
_SHARE = 20.0  # writing takes at most a twentieth of the time


class Table:
    """``runs.parquet`` in a folder (None: nowhere). What bears the name is always whole."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._next = time.monotonic() + _FIRST_S

    def grow(self, rows: Callable[[], Sequence[Mapping[str, object]]]) -> None:
        """Write what there is, now and then."""
        if self._folder is not None and time.monotonic() >= self._next:
            began = time.monotonic()
            self.write(rows())
            self._next = time.monotonic() + max(_FIRST_S, _SHARE * (time.monotonic() - began))

    def write(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Write all rows; the same rows give the same bytes."""
        if self._folder is None:
            return
        import pyarrow.parquet as pq

        fresh = self._folder / f".{FILE}.new"  # one process at a time writes here
        pq.write_table(arrow(rows), fresh, compression="zstd")
        fresh.replace(self._folder / FILE)


def arrow(rows: Sequence[Mapping[str, object]]) -> pa.Table:
    """Rows as an Arrow table; what is nested is flattened to dotted names, lists are left out."""
    import pyarrow as pa

    flat = [flatten(row) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    return pa.table({name: _column([row.get(name) for row in flat]) for name in names})


def flatten(row: Mapping[str, T], prefix: str = "") -> dict[str, T]:
    """``{"a": {"b": 1}, "c": [2]}`` → ``{"a.b": 1}``."""
    out: dict[str, T] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            out |= flatten(value, f"{prefix}{key}.")
        elif not isinstance(value, list | tuple):
            out[f"{prefix}{key}"] = value
    return out


def _column(values: list[object]) -> pa.Array:
    """Whole numbers, numbers, truth values, else text."""
    import pyarrow as pa

    known = [v for v in values if v is not None]
    if known and all(isinstance(v, bool) for v in known):
        return pa.array(values, pa.bool_())
    numbers = [v for v in known if is_number(v)]
    if len(numbers) < len(known) or not known:
        return pa.array([None if v is None else str(v) for v in values], pa.string())
    if all(isinstance(v, int) and abs(v) < 2**62 for v in numbers):
        return pa.array(values, pa.int64())
    return pa.array([v if v is None else float(number(v)) for v in values], pa.float64())
