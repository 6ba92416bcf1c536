"""The format of a file found by looking at it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sim import registry
from sim.document import Table, loads
from sim.errors import ConfigError, DataError
from sim.places import is_folder
from sim.tables import lines as table_lines
from sim.workload import textfile
from sim.workload.settings import build
from sim.workload.traces._base import Head, Trace
from sim.workload.traces._columns import delimiter, head_of, is_parquet

if TYPE_CHECKING:
    from sim.document import Json

_LOOK = 1 << 20
_ROWS = 64


def reader(path: Path, form: str = "auto", given: Mapping[str, Json] | None = None, field: str = "traffic.trace") -> Trace:
    """A reader of a file by the name of its format, or (``auto``) of the format that has its names of columns or keys.

    ``given``: settings of the format. Raises `ConfigError`, and `DataError` when no format fits.
    """
    name = find(path).name if form == "auto" else form
    made: Trace = build("trace", "format", {**(given or {}), "format": name}, field)
    if form == "auto":
        made.note(f"{path.name} is read as {name} (format: auto)")
    return made


def find(path: Path) -> Trace:
    """The reader that fits a file or folder. Raises `DataError`."""
    seen = look(path)
    every = {registry.lookup("trace", name) for name in registry.names("trace")}
    fitting = sorted((c() for c in every if c().fits(seen)), key=lambda t: (-t.rank, t.name))
    if not fitting:
        has = f"; it has: {', '.join(seen.keys)[:200]}" if seen.keys else ""
        names = ", ".join(registry.names("trace"))
        raise DataError(
            str(path),
            f"is of no known trace format ({seen.kind}){has}",
            f"known are {names}; format: csv takes names of columns as settings",
        )
    best = [t for t in fitting if t.rank == fitting[0].rank]
    if len(best) > 1:
        raise ConfigError("traffic.trace.format", "auto", f"{path.name} could be any of these", ", ".join(t.name for t in best))
    chosen: Trace = best[0]
    return chosen


def look(path: Path) -> Head:
    """What a file or folder looks like. Raises `DataError` for what cannot be read or is no text."""
    if is_folder(path):
        return Head(path, "folder", tuple(sorted(p.name for p in path.iterdir())[:20]))
    if is_parquet(path):
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return Head(path, "parquet", tuple(pq.ParquetFile(path).schema_arrow.names))
        except (pa.ArrowException, OSError) as error:
            raise DataError(str(path), f"is not a Parquet file ({error})") from None
    data = b""
    for piece in textfile.chunks(path, _LOOK):
        data += piece
        if len(data) >= _LOOK:
            break
    if not data.strip():
        raise DataError(str(path), "is empty")
    start = data.lstrip()[:1]
    textfile.check_text(path, data[: data.rfind(b"\n") + 1] or data)
    if start == b"{":
        return _lines(path, data)
    if start == b"[":
        first = _first_of_array(path)
        return Head(path, "json", tuple(first) if isinstance(first, Mapping) else (), first)
    head = head_of(data)[1]
    row = next(iter(table_lines(path, head, delimiter(head))), [])
    return Head(path, "csv", tuple(name.strip() for name in row))


def _lines(path: Path, data: bytes) -> Head:
    rows: list[Table] = []
    lines = [text for text in data.splitlines() if text.strip()][:_ROWS]
    for text in lines:
        try:
            rows.append(loads(text))
        except ValueError:
            break
    if rows and isinstance(rows[0], Mapping):
        keys: dict[str, None] = {}
        for row in rows:
            keys |= dict.fromkeys(row if isinstance(row, Mapping) else ())
        return Head(path, "jsonl", tuple(keys), rows[0], tuple(rows))
    first = _first_of_array(path)
    return Head(path, "json", tuple(first) if isinstance(first, Mapping) else (), first)


def _first_of_array(path: Path) -> Table:
    from sim.workload.traces._objects import items

    return next(items(path, 1 << 16)).value
