"""Columns of times whose unit is not agreed on: written out, with the unit in their name, or counted from an epoch."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from sim.workload.traces._base import SECONDS
from sim.workload.traces._columns import ARRIVAL, Clock, Column, Piece, numbers, pick

_STEMS = (
    "arrival",
    "arrival_time",
    "arrival_timestamp",
    "timestamp",
    "time",
    "start_time",
    "request_time",
    "arrival_offset",
    "ts",
    "created_at",
    "datetime",
)
NAMED = tuple(f"{stem}_{unit}" for stem in _STEMS for unit in SECONDS if f"{stem}_{unit}" not in ARRIVAL)
BARE = ("timestamp", "time", "arrival", "start_time", "request_time", "ts", "created_at", "datetime", "date")
_EPOCHS = ((1e17, "ns"), (1e14, "us"), (1e11, "ms"), (1e8, "s"))
"""Numbers of at least so many units are times since 1970: 1e8 s were over in March 1973, 1e8 ms on its second day."""


def stamped_seconds(piece: Piece, clock: Clock) -> NDArray[np.float64]:
    """f8[n] seconds from the first one of times such as ``2023-11-16 18:17:03.9799600``; UTC where no zone is named. ``clock`` counts ns."""
    import pandas as pd

    source, column = piece.source, piece["arrival"]
    rule = "must be a time such as '2023-11-16 18:17:03.9799600'"
    if column.values.dtype.kind in "iufb":
        source.fail_at(0, column.name, pick(column.values, 0), rule)
    stamps = pd.to_datetime(pd.Series(column.values), format="ISO8601", utc=True, errors="coerce")
    bad = stamps.isna().to_numpy()
    if not bad.all():
        bad = bad | ((stamps.dt.year < 1970) | (stamps.dt.year > 2261)).to_numpy()  # what nanoseconds in 64 bits can hold
    if bad.any():
        row = int(np.argmax(bad))
        value = pick(column.values, row)
        source.fail_at(row, column.name, "" if value != value else value, rule)
    nanoseconds = stamps.dt.tz_convert(None).to_numpy().astype("datetime64[ns]").astype(np.int64)
    return clock.since_first(source, column, nanoseconds) * 1e-9


def time_columns(names: Iterable[str]) -> tuple[str, ...]:
    """Under which names times are looked for among these columns: those of seconds, else those with a unit, else those without."""
    here = {normal(name) for name in names}
    return next((known for known in (ARRIVAL, NAMED, BARE) if here & set(known)), ARRIVAL)


def unit_of(piece: Piece, given: str | None) -> str:
    """The unit of a file's times, by its first rows: ``given``, in the name of the column, ``iso``, or by their size.

    Raises `DataError` for numbers that could be of any unit.
    """
    column = piece["arrival"]
    name = normal(column.name)
    if given is not None:
        return given
    if name in NAMED:
        return name.rpartition("_")[2]
    if name not in BARE:
        return "s"
    if column.values.dtype.kind == "M" or (column.values.dtype.kind not in "iuf" and not _numeric(column)):
        return "iso"
    first = float(np.max(numbers(piece.source, column, "must be a finite time")))
    found = next((unit for least, unit in _EPOCHS if first >= least), None)
    if found is None:
        piece.source.fail(f"column {column.name!r} does not say the unit of its times", "settings.time_unit: s, ms, us or ns")
    return found


def normal(name: str) -> str:
    """A name of a column in small letters with underscores."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _numeric(column: Column) -> bool:
    import pandas as pd

    return bool(pd.to_numeric(pd.Series(column.values).head(1), errors="coerce").notna().all())
