"""A result as a folder of files that other tools read; written all or nothing.

``requests, timeseries`` (Parquet and CSV), ``itl_histogram.csv, summary.json, scenario.yaml, report.html``.
"""

# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack
from io import BufferedWriter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from sim import output
from sim.document import loads
from sim.errors import DataError, LawViolation
from sim.ledger import REQUEST_COLUMNS
from sim.ledger import Values as Array
from sim.metrics.histogram import ITL_BINS, edges
from sim.metrics.latency import LATENCIES
from sim.metrics.on_disk import BLOCK_ROWS, HELD_ROWS, DiskTable
from sim.metrics.series import COLUMNS as SERIES_COLUMNS
from sim.metrics.summary import FORMAT, Summary
from sim.metrics.summary_laws import check_result
from sim.metrics.token_times import TokenTimes

if TYPE_CHECKING:
    import pyarrow as pa

    from sim.metrics.result import Result

_TIMES: Final = "token_times.parquet"
LARGE_CSV: Final = 100_000
"""Tables with more rows are compressed."""


def save(result: Result, folder: Path, also: Callable[[Path], object] | None = None) -> Path:
    """Write a result, and what ``also`` writes beside it; see `sim.output.write_folder`."""

    def fill(to: Path) -> None:
        _write(result, to)
        if also is not None:
            also(to)

    return output.write_folder(folder, fill)


def _write(result: Result, to: Path) -> None:
    write_table(result.columns, to, "requests")
    write_table(result.series, to, "timeseries")
    used = np.flatnonzero(result.itl_hist)
    bins = edges(result.itl_hist.size)
    write_csv({"from_s": bins[used], "to_s": bins[used + 1], "gaps": result.itl_hist[used]}, to / "itl_histogram.csv")
    if result.token_times is not None:
        _write_times(result.token_times, to / _TIMES)
    write_json(result.summary.as_dict(), to / "summary.json")
    (to / "scenario.yaml").write_text(result.scenario, encoding="utf-8")
    if result.renderer is not None:
        (to / "report.html").write_text(result.html(), encoding="utf-8")


def _write_times(times: TokenTimes, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"row": _arrow(times.row), "at_s": _arrow(times.at)}), path, compression="zstd")


def write_json(data: object, path: Path) -> None:
    """Indented JSON without NaN."""
    path.write_text(json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


def write_table(columns: Mapping[str, Array], folder: Path, name: str) -> None:
    """The same table as Parquet, a row group for each block of rows, and as CSV (compressed when large)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = 0
    with ExitStack() as opened:
        writer = None
        for block in _blocks(columns):
            arrow = pa.table({k: _arrow(v) for k, v in block.items()})
            if writer is None:
                writer = opened.enter_context(pq.ParquetWriter(folder / f"{name}.parquet", arrow.schema, compression="zstd"))
            writer.write_table(arrow, BLOCK_ROWS)
            rows += arrow.num_rows
    write_csv(columns, folder / (f"{name}.csv.gz" if rows > LARGE_CSV else f"{name}.csv"))


def _blocks(columns: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
    """A table in blocks of rows; one of no rows is a block too."""
    if isinstance(columns, DiskTable):
        yield from columns.blocks()
        return
    rows = len(next(iter(columns.values()), ()))
    for lo in range(0, max(rows, 1), BLOCK_ROWS):
        yield {k: v[lo : lo + BLOCK_ROWS] for k, v in columns.items()}


def write_csv(columns: Mapping[str, Array], path: Path) -> None:
    """CSV with a header; a missing number is an empty cell; ``.gz`` in the name compresses."""
    import pyarrow as pa
    import pyarrow.csv

    header = ",".join(columns) + "\n"  # Arrow would put the names in quotes
    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="none")
    with path.open("wb") as raw:
        # no time in the gzip header: the same result is the same bytes
        to: gzip.GzipFile | BufferedWriter = gzip.GzipFile("", "wb", 1, raw, mtime=0) if path.suffix == ".gz" else raw
        to.write(header.encode())
        for block in _blocks(columns):
            arrow = pa.table({k: _arrow(v, True) for k, v in block.items()})
            pyarrow.csv.write_csv(arrow, to, options)
        if to is not raw:
            to.close()


def _arrow(column: Array, missing: bool = False) -> pa.Array:
    """The column for Arrow, with ``missing`` numbers as what is not there. Numbers go there as they lie in memory: Arrow itself would load pandas."""
    import pyarrow as pa

    column = np.ascontiguousarray(column)
    if column.dtype.kind not in "biuf":
        return pa.array(column, from_pandas=missing)
    kind, n = pa.from_numpy_dtype(column.dtype), len(column)
    if column.dtype.kind == "b":
        return pa.Array.from_buffers(kind, n, [None, pa.py_buffer(np.packbits(column, bitorder="little"))])
    gaps = np.isnan(column) if missing and column.dtype.kind == "f" else np.zeros(0, bool)
    known = pa.py_buffer(np.packbits(~gaps, bitorder="little")) if gaps.any() else None
    return pa.Array.from_buffers(kind, n, [known, pa.py_buffer(column)], int(np.count_nonzero(gaps)))


def load(folder: Path) -> Result:
    """Read a saved result back; equal to what was saved. Raises DataError."""
    from sim.metrics.result import Result

    output.settle(folder)
    if output.summary_format(folder) != FORMAT:
        raise DataError(
            str(folder),
            "is not a servesim result" if folder.exists() else "does not exist",
            "expected a folder with summary.json",
        )
    import pyarrow.csv
    import pyarrow.parquet as pq

    try:
        timed = (folder / _TIMES).exists()
        for name in ("requests.parquet", "timeseries.parquet", "itl_histogram.csv", "scenario.yaml", *[_TIMES] * timed):
            _regular(folder / name)
        summary = Summary.from_dict(loads((folder / "summary.json").read_text(encoding="utf-8")))
        _numbers(pq.read_schema(folder / "requests.parquet"), "requests", (*REQUEST_COLUMNS, *LATENCIES, "slo_met"))
        _numbers(pq.read_schema(folder / "timeseries.parquet"), "time series", SERIES_COLUMNS)
        columns, series = _requests(folder / "requests.parquet"), _arrays(pq.read_table(folder / "timeseries.parquet"))
        hist = np.zeros(ITL_BINS)
        rows = _arrays(pyarrow.csv.read_csv(folder / "itl_histogram.csv"))
        if rows["from_s"].size:
            hist[np.searchsorted(edges() * (1 - 1e-9), rows["from_s"], side="right") - 1] = rows["gaps"]
        scenario = (folder / "scenario.yaml").read_text(encoding="utf-8")
        times = None
        if timed:
            found = _arrays(pq.read_table(folder / _TIMES))
            times = TokenTimes(found["row"], found["at_s"])
        check_result(columns, summary.as_dict())
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RuntimeError,
        MemoryError,
        LawViolation,
    ) as error:
        raise DataError(str(folder), f"is a damaged servesim result: {str(error)[:500]}") from error
    return Result(summary, columns, series, hist, scenario, times)


def _regular(path: Path) -> None:
    if not path.is_file():  # a pipe would be waited for, a folder is read as a table without rows
        raise OSError(f"{path.name} is no regular file" if path.exists() else f"{path.name} is missing")


def _numbers(schema: pa.Schema, table: str, names: Sequence[str]) -> None:
    """Raises ValueError where a column that every such table has is missing or holds something else than numbers."""
    import pyarrow as pa

    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    for name in names:
        if schema.get_field_index(name) < 0:
            raise ValueError(f"the {table} have no column {name!r}")
        if not any(is_kind(schema.field(name).type) for is_kind in kinds):
            raise ValueError(f"column {name!r} of the {table} holds no numbers")


def _requests(path: Path) -> MutableMapping[str, Array]:
    """The request table: in memory, or on disk as after the run."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        if file.metadata.num_rows <= HELD_ROWS:
            return _arrays(file.read())
        table = DiskTable()
        for group in range(file.num_row_groups):
            table.append(_arrays(file.read_row_group(group)))
        return table


def _arrays(table: pa.Table) -> dict[str, Array]:
    return {name: table.column(name).to_numpy() for name in table.column_names}
