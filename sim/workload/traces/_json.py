"""JSON lines as columns, some records at a time: by Arrow where they are well formed, else line by line, which says what is wrong where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sim.brackets import marks
from sim.document import loads
from sim.ledger import Values
from sim.workload.traces import _scan
from sim.workload.traces._columns import Column
from sim.workload.traces._source import Source

if TYPE_CHECKING:
    from sim.document import Json


@dataclass(frozen=True)
class Fields:
    """What of an object is read: ``numbers`` must be there, ``optional`` numbers and ``texts`` (of any kind) may, ``ids`` are lists of numbers."""

    numbers: tuple[str, ...]
    optional: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Records:
    """Some objects as columns: numbers f8 (NaN: absent), texts as objects (None: absent), ids as (values, ids per row)."""

    source: Source
    columns: dict[str, Column]
    ids: dict[str, tuple[Values, NDArray[np.int64]]]
    others: frozenset[str]
    """Names that nobody asked for."""
    rows: int = 0
    present: frozenset[str] = field(default=frozenset())
    """Names that at least one object has."""

    def __getitem__(self, name: str) -> Column:
        return self.columns[name]


def json_pieces(path: Path, fields: Fields) -> Iterator[Records]:
    """The objects of a file of JSON lines. Raises `DataError` with line, field and value."""
    rows = 0
    for source in Source(path).pieces():
        found = _by_arrow(source, fields) or _by_line(source, fields)
        rows += found.rows
        yield found
    if not rows:
        Source(path).fail("has no rows")


def _by_arrow(source: Source, fields: Fields) -> Records | None:
    """The fast way for well-formed pieces; None sends the caller to the slow way."""
    import pyarrow as pa

    found = marks(source.data)
    kinds = [pa.field(name, pa.float64()) for name in (*fields.numbers, *fields.optional)]
    kinds += [pa.field(name, pa.list_(pa.int64())) for name in fields.ids]
    table = None if found.broken else _scan.parsed(source.data, found.deepest, pa.schema(kinds), others=True)
    if table is None or any(table.column(name).null_count for name in fields.numbers):
        return None
    ids = {}
    for name in fields.ids:
        column = table.column(name).combine_chunks()
        if isinstance(column, pa.ChunkedArray) or column.values.null_count:
            return None
        counts = np.nan_to_num(np.asarray(column.value_lengths().to_numpy(zero_copy_only=False), np.float64)).astype(np.int64)
        ids[name] = (column.flatten().to_numpy(zero_copy_only=False), counts)
    columns = {name: Column(name, table.column(name).to_numpy()) for name in (*fields.numbers, *fields.optional)}
    present = {name for name in table.column_names if table.column(name).null_count < table.num_rows}
    for name in fields.texts:
        if name in table.column_names:
            kind = table.schema.field(name).type
            if name in present and not (pa.types.is_integer(kind) or pa.types.is_string(kind)):
                return None
            columns[name] = Column(name, np.array(table.column(name).to_pylist(), object))
        else:
            columns[name] = Column(name, np.full(table.num_rows, None, object))
    asked = {*fields.numbers, *fields.optional, *fields.texts, *fields.ids}
    return Records(source, columns, ids, frozenset(present - asked), table.num_rows, frozenset(present))


def _by_line(source: Source, fields: Fields) -> Records:
    numbers: dict[str, list[float | None]] = {name: [] for name in (*fields.numbers, *fields.optional)}
    texts: dict[str, list[object]] = {name: [] for name in fields.texts}
    ids: dict[str, tuple[list[int], list[int]]] = {name: ([], []) for name in fields.ids}
    present: set[str] = set()
    rows = 0
    for row, record in line_records(source):
        rows += 1
        present |= {k for k, v in record.items() if v is not None}
        for name in numbers:
            numbers[name].append(_number(source, row, name, record, name in fields.numbers))
        for name in texts:
            texts[name].append(record.get(name))
        for name, (values, counts) in ids.items():
            found = record.get(name)
            found = [] if found is None and name not in record else found
            if not isinstance(found, list) or not all(type(x) is int for x in found):
                source.fail_at(row, name, found, "must be a list of whole numbers")
            values += found
            counts.append(len(found))
    columns = {name: Column(name, np.array(v, np.float64)) for name, v in numbers.items()}
    columns |= {name: Column(name, _objects(v)) for name, v in texts.items()}
    asked = {*fields.numbers, *fields.optional, *fields.texts, *fields.ids}
    arrays = {name: (_integers(v), np.array(c, np.int64)) for name, (v, c) in ids.items()}
    return Records(source, columns, arrays, frozenset(present - asked), rows, frozenset(present))


def _objects(values: list[object]) -> Values:
    out = np.empty(len(values), object)
    out[:] = values
    return out


def _integers(values: list[int]) -> Values:
    try:
        return np.array(values, np.int64)
    except OverflowError:
        return np.array(values, object)


def _number(source: Source, row: int, name: str, record: Mapping[str, object], needed: bool) -> float:
    if name not in record:
        if needed:
            source.fail(f"line {source.line(row)}: has no field {name!r}")
        return float("nan")
    value = record[name]
    if value is None and not needed:
        return float("nan")
    if isinstance(value, bool) or not isinstance(value, int | float):
        source.fail_at(row, name, value, "must be a number")
    if isinstance(value, int) and abs(value) > 1 << 62:
        source.fail_at(row, name, value, "is too large")
    return float(value)


def line_records(source: Source) -> Iterator[tuple[int, dict[str, Json]]]:
    """(row, object) of JSON lines. Raises `DataError` for what is no object."""
    for row, line in enumerate(text for text in source.data.splitlines() if text.strip()):
        try:
            record = loads(line)
        except ValueError as error:
            source.fail(f"line {source.line(row)}: is not JSON ({str(error)[:80]})")
        if not isinstance(record, dict):
            source.fail(f"line {source.line(row)}: must be a JSON object")
        yield row, record
