"""Columns of a table: found by any of their usual names, turned into numbers, checked row by row."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.errors import did_you_mean
from sim.workload import content
from sim.workload.table import MAX_TOKENS
from sim.workload.traces._source import Source

ARRIVAL = ("arrival_s", "arrival_time_s", "arrival_time", "arrived_at", "arrival_timestamp", "timestamp_s")
PROMPT = ("prompt_tokens", "input_tokens", "input_length", "input_toks", "ContextTokens", "num_prefill_tokens", "prompt_size")
OUTPUT = ("output_tokens", "output_length", "output_toks", "GeneratedTokens", "num_decode_tokens", "token_size")
HASHES = ("hash_ids", "block_hash_ids")

Wanted = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Column:
    """A column as the file has it: its name there and a pandas Series (or an array)."""

    name: str
    values: Any


def read_csv(source: Source, wanted: Wanted, optional: Wanted | None = None, text: tuple[str, ...] = ()) -> dict[str, Column]:
    """The wanted columns of a CSV file with a header, by our name; those of ``text`` are kept as strings.

    Raises `DataError` for a missing or doubled column and for rows that do not have the header's fields.
    """
    import pandas as pd

    head = source.data.lstrip().splitlines()[0].decode()
    header = [name.strip() for name in next(csv.reader([head]))]
    names = _find(source, header, wanted, optional or {})
    dtypes: Any = {names[ours]: str for ours in text if ours in names}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                io.BytesIO(source.data),
                names=header,
                header=0,
                dtype=dtypes,
                index_col=False,
                keep_default_na=False,
                na_values=[""],
                low_memory=False,
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError, ValueError, OverflowError) as error:
        source.fail(f"is not a CSV table ({' '.join(str(error).split())})")
    source.header_lines = 1
    if not len(frame):
        source.fail("has a header and no rows")
    return {ours: Column(theirs, frame[theirs]) for ours, theirs in names.items()}


def read_parquet(source: Source, wanted: Wanted) -> dict[str, Column]:
    """The wanted columns of a Parquet file, by our name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(io.BytesIO(source.data))
        names = _find(source, list(file.schema_arrow.names), wanted, {})
        table = file.read(columns=list(names.values()))
    except (pa.ArrowException, OSError) as error:
        source.fail(f"is not a Parquet file ({error})")
    if not table.num_rows:
        source.fail("has no rows")
    return {ours: Column(theirs, table.column(theirs).to_pandas()) for ours, theirs in names.items()}


def _find(source: Source, header: list[str], wanted: Wanted, optional: Wanted) -> dict[str, str]:
    found: dict[str, str] = {}
    for ours, aliases in (*wanted.items(), *optional.items()):
        here = [name for name in aliases if name in header]
        if len(here) > 1:
            source.fail(f"has several columns of {ours} tokens or times: {', '.join(here)}", "name the one to use")
        if here:
            if header.count(here[0]) > 1:
                source.fail(f"has column {here[0]!r} twice")
            found[ours] = here[0]
        elif ours in wanted:
            near = next((hint for name in aliases if (hint := did_you_mean(name, header))), "")
            source.fail(f"has no column {' or '.join(map(repr, aliases))}; its columns: {', '.join(header)[:200]}", near)
    return found


def numbers(source: Source, column: Column, rule: str) -> NDArray[np.float64]:
    """f8[n]; refuses what is no finite number."""
    import pandas as pd

    series = pd.Series(column.values)
    if series.dtype.kind not in "iuf":
        as_numbers = pd.to_numeric(series.astype(object).where(series.map(lambda x: not isinstance(x, bool))), errors="coerce")
    else:
        as_numbers = series
    values = np.asarray(as_numbers, np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        row = int(np.argmax(bad))
        value = series.iloc[row]
        source.fail_at(row, column.name, "" if value is None or value is pd.NA or value != value else value, rule)
    return values


def tokens(source: Source, column: Column) -> NDArray[np.int32]:
    """i4[n] token counts; refuses anything but whole numbers in [1, `MAX_TOKENS`]."""
    rule = f"must be a whole number of tokens in [1, {MAX_TOKENS}]"
    values = numbers(source, column, rule)
    bad = (values < 1) | (values > MAX_TOKENS) | (values != np.floor(values))
    if bad.any():
        row = int(np.argmax(bad))
        source.fail_at(row, column.name, _plain(values[row]), rule)
    return values.astype(np.int32)


def arrivals(source: Source, column: Column, unit_s: float) -> NDArray[np.float64]:
    """f8[n] seconds from the first request, of times in ``unit_s`` seconds; refuses negative times and times that run back."""
    values = numbers(source, column, "must be a finite time")
    negative = values < 0
    if negative.any():
        row = int(np.argmax(negative))
        source.fail_at(row, column.name, _plain(values[row]), "must not be negative")
    return since_first(source, Column(column.name, column.values), values) * unit_s


def since_first(source: Source, column: Column, values: NDArray[Any]) -> NDArray[np.float64]:
    """f8[n] ``values`` less the first one; refuses values that run backwards."""
    backwards = np.diff(values) < 0
    if backwards.any():
        row = int(np.argmax(backwards)) + 1
        shown = _plain(values[row]) if values.dtype.kind == "f" else column.values[row]
        source.fail_at(row, column.name, shown, "arrivals must be sorted; this one precedes the line above")
    since: NDArray[np.float64] = (values - values[0]).astype(np.float64)
    return since


def hash_spans(
    source: Source, name: str, ids: NDArray[Any], counts: NDArray[np.int64], prompt: NDArray[np.int32], block: int
) -> tuple[NDArray[np.int64], ...]:
    """Spans of prompts given as ids of ``block``-token pieces, row after row: one id, one span, the last one perhaps shorter.

    A row may have no ids (its prompt is shared with nobody); any other row needs exactly as many as its prompt has pieces.
    """
    import pandas as pd

    need = -(-prompt.astype(np.int64) // block)
    bad = (counts != need) & (counts > 0)
    if bad.any():
        row = int(np.argmax(bad))
        rule = f"a prompt of {prompt[row]} tokens has {need[row]} blocks of {block} tokens"
        source.fail_at(row, name, f"{counts[row]} ids", rule)
    if ids.dtype != np.int64 or (len(ids) and (ids.min() < 0 or ids.max() >= content.NUMBERS)):
        ids = pd.factorize(ids)[0].astype(np.int64)  # wide hashes: equal ids stay equal, which is all that matters
    off = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    length = np.full(len(ids), block, np.int64)
    some = counts > 0
    length[off[1:][some] - 1] = prompt[some] - (counts[some] - 1) * block
    return off, ids + content.RECORDED, np.zeros(len(ids), np.int64), length


def split_ids(source: Source, column: Column) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """(ids, ids per row) of a text column such as ``"3 4 5"`` or ``"3|4|5"``; an empty field has none."""
    rows = ["" if x is None or x != x else str(x).replace("|", " ") for x in column.values]
    counts = np.fromiter((len(r.split()) for r in rows), np.int64, len(rows))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)
            parts = [np.fromstring(" ".join(rows[lo : lo + 4096]), np.int64, sep=" ") for lo in range(0, len(rows), 4096)]
        ids: NDArray[Any] = np.concatenate(parts)
        if len(ids) == counts.sum() and not (np.abs(ids + 0.5) >= 2.0**63 - 1024).any():
            return ids, counts
    except (ValueError, DeprecationWarning):
        pass
    wide: list[int] = []
    for row, text in enumerate(rows):
        try:
            wide += [int(x) for x in text.split()]
        except ValueError:
            source.fail_at(row, column.name, text, "must be whole numbers with blanks or '|' between")
    return np.array(wide, object), counts


def _plain(x: float) -> float | int:
    return int(x) if x == int(x) else float(x)
