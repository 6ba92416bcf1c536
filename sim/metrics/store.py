"""A result as a folder of files that other tools read; written all or nothing.

``requests, timeseries`` (Parquet and CSV), ``itl_histogram.csv, summary.json, scenario.yaml, report.html``.
"""

# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from sim.errors import ConfigError, DataError
from sim.metrics.histogram import ITL_BINS, edges
from sim.metrics.summary import FORMAT, Summary

if TYPE_CHECKING:
    from sim.metrics.result import Result

Array = npt.NDArray[Any]

LARGE_CSV: Final = 100_000
"""Tables with more rows are compressed."""


def save(result: Result, folder: Path) -> Path:
    """Write a result; see `write_folder`."""
    return write_folder(folder, lambda to: _write(result, to))


def write_folder(folder: Path, fill: Callable[[Path], None]) -> Path:
    """``fill`` a sibling folder first, then rename: what bears the name is always whole. Raises ConfigError, OSError.

    ``fill`` must write a ``summary.json`` with a ``format`` of this package: a later run may then replace the folder.
    """
    folder = folder.resolve()  # a link stays one
    check_target(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder.with_name(f".{folder.name}.new-{os.getpid()}")
    old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir()
        fill(fresh)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)
    return folder


def check_target(folder: Path) -> None:
    """Refuse a place that holds anything but an earlier result or nothing: cheap, for before a long run. Raises ConfigError."""
    folder = folder.resolve()
    parent = next(p for p in folder.parents if p.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise ConfigError("output", str(folder), f"cannot be made: {parent} cannot be written", hint="name another folder")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError("output", str(folder), "is a file, not a folder", hint="name a new folder")
    if any(folder.iterdir()) and _format(folder) is None:
        raise ConfigError(
            "output",
            str(folder),
            "is a folder that holds something else than a servesim result",
            hint="name a new or an empty folder",
        )


def _format(folder: Path) -> str | None:
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        return str(summary["format"]) if str(summary["format"]).startswith("servesim-") else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(result: Result, to: Path) -> None:
    write_table(result.columns, to, "requests")
    write_table(result.series, to, "timeseries")
    used = np.flatnonzero(result.itl_hist)
    bins = edges(result.itl_hist.size)
    write_csv({"from_s": bins[used], "to_s": bins[used + 1], "gaps": result.itl_hist[used]}, to / "itl_histogram.csv")
    write_json(result.summary.as_dict(), to / "summary.json")
    (to / "scenario.yaml").write_text(result.scenario, encoding="utf-8")
    if result.renderer is not None:
        (to / "report.html").write_text(result.html(), encoding="utf-8")


def write_json(data: Any, path: Path) -> None:
    """Indented JSON without NaN."""
    path.write_text(json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


def write_table(columns: Mapping[str, Array], folder: Path, name: str) -> None:
    """The same table as Parquet and as CSV (compressed when large)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrow = pa.table(dict(columns))
    pq.write_table(arrow, folder / f"{name}.parquet", compression="zstd")
    large = arrow.num_rows > LARGE_CSV
    write_csv(columns, folder / (f"{name}.csv.gz" if large else f"{name}.csv"))


def write_csv(columns: Mapping[str, Array], path: Path) -> None:
    """CSV with a header; a missing number is an empty cell; ``.gz`` in the name compresses."""
    import pyarrow as pa
    import pyarrow.csv

    arrow = pa.table({k: pa.array(v, from_pandas=True) for k, v in columns.items()})
    header = ",".join(columns) + "\n"  # Arrow would put the names in quotes
    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="none")
    with path.open("wb") as raw:
        # no time in the gzip header: the same result is the same bytes
        to: Any = gzip.GzipFile("", "wb", 1, raw, mtime=0) if path.suffix == ".gz" else raw
        to.write(header.encode())
        pyarrow.csv.write_csv(arrow, to, options)
        if to is not raw:
            to.close()


def load(folder: Path) -> Result:
    """Read a saved result back; equal to what was saved. Raises DataError."""
    from sim.metrics.result import Result

    if _format(folder) != FORMAT:
        raise DataError(
            str(folder),
            "is not a servesim result" if folder.exists() else "does not exist",
            "expected a folder with summary.json",
        )
    import pyarrow.csv
    import pyarrow.parquet as pq

    try:
        summary = Summary.from_dict(json.loads((folder / "summary.json").read_text(encoding="utf-8")))
        columns, series = (_arrays(pq.read_table(folder / f"{name}.parquet")) for name in ("requests", "timeseries"))
        hist = np.zeros(ITL_BINS)
        rows = _arrays(pyarrow.csv.read_csv(folder / "itl_histogram.csv"))
        if rows["from_s"].size:
            hist[np.searchsorted(edges() * (1 - 1e-9), rows["from_s"], side="right") - 1] = rows["gaps"]
        scenario = (folder / "scenario.yaml").read_text(encoding="utf-8")
    except (OSError, ValueError, KeyError) as error:
        raise DataError(str(folder), f"is a damaged servesim result: {error}") from error
    return Result(summary, columns, series, hist, scenario)


def _arrays(table: Any) -> dict[str, Array]:
    return {name: table.column(name).to_numpy() for name in table.column_names}
