"""Columns of a table: found by any of their usual names, turned into numbers, checked row by row."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim.errors import did_you_mean
from sim.ledger import Values
from sim.workload import content, textfile
from sim.workload.table import MAX_TOKENS
from sim.workload.traces._source import Source

if TYPE_CHECKING:
    import pandas as pd

ARRIVAL = ("arrival_s", "arrival_time_s", "arrival_time", "arrived_at", "arrival_timestamp", "timestamp_s")
PROMPT = (
    "prompt_tokens", "input_tokens", "input_length", "input_toks", "ContextTokens", "num_prefill_tokens", "prompt_size", "prompt_len", "input_len",
    "prompt_length", "num_prompt_tokens", "num_input_tokens", "input_token_count", "prompt_token_count", "isl",
)  # fmt: skip
OUTPUT = (
    "output_tokens", "output_length", "output_toks", "GeneratedTokens", "num_decode_tokens", "token_size", "completion_tokens", "output_len",
    "generated_tokens", "num_output_tokens", "num_generated_tokens", "output_token_count", "response_tokens", "osl",
)  # fmt: skip
HASHES = ("hash_ids", "block_hash_ids")
PRIORITY = ("priority",)
SESSION = ("session_id", "session", "conversation_id", "chat_id")
LORA = ("lora", "lora_name", "adapter", "adapter_id")
LIMIT = ("max_tokens", "max_output_tokens")

Wanted = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Column:
    """A column as the file has it: its name there and a pandas Series (or an array)."""

    name: str
    values: pd.Series | Values


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows of a table: the part of the file they are in, and its columns by our name."""

    source: Source
    columns: dict[str, Column]
    unused: tuple[str, ...]
    """Columns that nobody asked for."""

    def __getitem__(self, ours: str) -> Column:
        return self.columns[ours]

    def __contains__(self, ours: str) -> bool:
        return ours in self.columns


def csv_pieces(path: Path, wanted: Wanted, optional: Wanted | None = None, text: tuple[str, ...] = ()) -> Iterator[Piece]:
    """A CSV file with a header, some rows at a time (or a Parquet file as one piece); columns of ``text`` are kept as strings.

    Raises `DataError` for a missing or doubled column and for rows that do not have the header's fields.
    """
    if is_parquet(path):
        yield _parquet(Source(path), wanted, optional or {})
        return
    header: list[str] = []
    names: dict[str, str] = {}
    rows = 0
    for source in Source(path).pieces():
        if not header:
            before, head = head_of(source.data)
            between = delimiter(head)
            header = _header(source, head, between)
            names = _find(source, header, wanted, optional or {})
            source.header_lines = 1 + before
        frame = _frame(source, header, between, {names[ours]: str for ours in text if ours in names})
        if not len(frame):
            continue
        rows += len(frame)
        unused = tuple(n for n in header if n not in names.values())
        yield Piece(source, {ours: Column(theirs, frame[theirs]) for ours, theirs in names.items()}, unused)
    if not rows:
        Source(path).fail("has a header and no rows")


def piece_of(source: Source, frame: pd.DataFrame, wanted: Wanted, optional: Wanted) -> Piece:
    """Some rows that are a pandas table already. Raises `DataError` for a column that is missing."""
    header = [str(name) for name in frame.columns]
    names = _find(source, header, wanted, optional)
    unused = tuple(n for n in header if n not in names.values())
    return Piece(source, {ours: Column(theirs, frame[theirs]) for ours, theirs in names.items()}, unused)


def head_of(data: bytes) -> tuple[int, str]:
    """How many lines of comment (``#``) a table begins with, and its header."""
    lines = data.lstrip().splitlines()
    before = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith(b"#")), 0)
    return before, lines[before].decode("utf-8", "replace")


def delimiter(line: str) -> str:
    """What stands between the names of a header: a comma, or where it has none a tab, semicolon or bar."""
    return "," if "," in line else next((c for c in "\t;|" if c in line), ",")


def _header(source: Source, line: str, between: str) -> list[str]:
    try:
        return [name.strip() for name in next(csv.reader([line], delimiter=between))]
    except csv.Error as error:
        source.fail(f"has no header that can be read ({error})")


def is_parquet(path: Path) -> bool:
    """Whether a file begins as Parquet does. Raises `DataError` when it cannot be read."""
    with textfile.opened(path) as stream:
        try:
            return bytes(stream.read(4)) == b"PAR1"
        except OSError:
            return False


def _parquet(source: Source, wanted: Wanted, optional: Wanted) -> Piece:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(io.BytesIO(source.data))
        header = list(file.schema_arrow.names)
        names = _find(source, header, wanted, optional)
        table = file.read(columns=list(names.values()))
    except (pa.ArrowException, OSError) as error:
        source.fail(f"is not a Parquet file ({error})")
    if not table.num_rows:
        source.fail("has no rows")
    columns = {ours: Column(theirs, table.column(theirs).to_pandas()) for ours, theirs in names.items()}
    return Piece(source, columns, tuple(n for n in header if n not in names.values()))


def _frame(source: Source, header: list[str], between: str, dtypes: dict[str, type[str]]) -> pd.DataFrame:
    import pandas as pd

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                io.BytesIO(source.data),
                names=header,
                header=None,
                skiprows=source.header_lines,
                sep=between,
                dtype=dtypes,
                index_col=False,
                keep_default_na=False,
                na_values=[""],
                low_memory=False,
            )
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    except (pd.errors.ParserError, pd.errors.ParserWarning, ValueError, OverflowError) as error:
        source.fail(f"is not a CSV table ({' '.join(str(error).split())})")


def _find(source: Source, header: list[str], wanted: Wanted, optional: Wanted) -> dict[str, str]:
    found: dict[str, str] = {}
    for ours, aliases in (*wanted.items(), *optional.items()):
        here = [name for name in aliases if name in header] or _alike(header, aliases)
        if len(here) > 1:
            source.fail(f"has several columns of {ours} tokens or times: {', '.join(here)}", "name the one to use")
        if here:
            if header.count(here[0]) > 1:
                source.fail(f"has column {here[0]!r} twice")
            found[ours] = here[0]
        elif ours in wanted:
            near = next((hint for name in aliases if (hint := did_you_mean(name, header))), "")
            setting = (
                f"; a setting {ours}_column names it" if ours in ("arrival", "prompt", "output") and len(aliases) > 1 else ""
            )
            found_names = ", ".join(header)[:200]
            source.fail(
                f"has no column {' or '.join(map(repr, aliases))}; its columns: {found_names}",
                near + setting if near else setting[2:],
            )
    return found


def _alike(header: list[str], aliases: tuple[str, ...]) -> list[str]:
    """Columns that differ from these names in capitals, blanks and dashes only."""
    plain = {re.sub(r"[\W_]+", "", alias).lower() for alias in aliases}
    return [name for name in dict.fromkeys(header) if re.sub(r"[\W_]+", "", name).lower() in plain]


def numbers(source: Source, column: Column, rule: str) -> NDArray[np.float64]:
    """f8[n]; refuses what is no finite number."""
    import pandas as pd

    series = pd.Series(column.values)
    if series.dtype.kind not in "iuf":
        known = series.astype(object).where(series.map(lambda x: not isinstance(x, bool)))
        try:
            as_numbers = pd.to_numeric(known, errors="coerce")
        except OverflowError:  # a whole number of more than 308 digits
            as_numbers = pd.to_numeric(
                known.map(lambda x: np.inf if isinstance(x, int) and abs(x) > 1e308 else x), errors="coerce"
            )
    else:
        as_numbers = series
    values = np.asarray(as_numbers, np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        row = int(np.argmax(bad))
        value = series.iloc[row]
        source.fail_at(row, column.name, "" if value is None or value is pd.NA or value != value else value, rule)
    return values


def maybe(source: Source, column: Column, missing: float) -> NDArray[np.float64]:
    """f8[n] numbers, ``missing`` where a cell is empty; refuses what is neither."""
    import pandas as pd

    series = pd.Series(column.values)
    found = numbers(source, Column(column.name, _filled(series)), "must be a finite number, or empty")
    return np.where(series.isna().to_numpy(), missing, found)


def _filled(series: pd.Series) -> pd.Series:
    """0 where a cell is empty."""
    return series.fillna(0) if series.dtype.kind in "iuf" else series.astype(object).where(series.notna(), 0)


def tokens(source: Source, column: Column, least: int = 1) -> NDArray[np.int32]:
    """i4[n] token counts; refuses anything but whole numbers in [``least``, `MAX_TOKENS`]."""
    rule = f"must be a whole number of tokens in [{least}, {MAX_TOKENS}]"
    values = numbers(source, column, rule)
    bad = (values < least) | (values > MAX_TOKENS) | (values != np.floor(values))
    if bad.any():
        row = int(np.argmax(bad))
        source.fail_at(row, column.name, _plain(values[row]), rule)
    return values.astype(np.int32)


def whole(source: Source, column: Column, low: int, high: int) -> NDArray[np.int64]:
    """i8[n] whole numbers in [``low``, ``high``]; an empty cell is 0."""
    import pandas as pd

    rule = f"must be a whole number in [{low}, {high}]"
    values = numbers(source, Column(column.name, _filled(pd.Series(column.values))), rule)
    bad = (values < low) | (values > high) | (values != np.floor(values))
    if bad.any():
        row = int(np.argmax(bad))
        source.fail_at(row, column.name, _plain(values[row]), rule)
    return values.astype(np.int64)


@dataclass
class Clock:
    """Times of a file from its first one, checked for order from piece to piece. ``unit_s``: seconds of one unit."""

    unit_s: float = 1.0
    first: float | None = None
    last: float | None = None
    any_order: bool = False
    """Times may run backwards: the requests are put in order afterwards."""

    def arrivals(self, source: Source, column: Column) -> NDArray[np.float64]:
        """f8[n] seconds; refuses negative times and times that run back."""
        values = numbers(source, column, "must be a finite time")
        negative = values < 0
        if negative.any():
            row = int(np.argmax(negative))
            source.fail_at(row, column.name, _plain(values[row]), "must not be negative")
        return self.since_first(source, column, values) * self.unit_s

    def since_first(self, source: Source, column: Column, values: Values) -> NDArray[np.float64]:
        """f8[n] ``values`` less the first one; refuses values that run backwards."""
        if self.first is None or self.last is None:
            self.first = self.last = values[0]
        backwards = np.diff(values, prepend=self.last) < 0
        if backwards.any() and not self.any_order:
            row = int(np.argmax(backwards))
            shown = _plain(values[row]) if values.dtype.kind == "f" else pick(column.values, row)
            source.fail_at(row, column.name, shown, "arrivals must be sorted; this one precedes the line above")
        self.last = values[-1]
        since: NDArray[np.float64] = (values - self.first).astype(np.float64)
        return since


def pick(values: pd.Series | Values, row: int) -> Any:
    """The value of a row of a Series or an array."""
    return values.iloc[row] if hasattr(values, "iloc") else values[row]


def hash_spans(
    source: Source, name: str, ids: Values, counts: NDArray[np.int64], prompt: NDArray[np.int32], block: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Spans of prompts given as ids of ``block``-token pieces, row after row: one id, one span, the last one perhaps shorter.

    A row may have no ids (its prompt is shared with nobody); any other row needs exactly as many as its prompt has pieces.
    """
    need = -(-prompt.astype(np.int64) // block)
    bad = (counts != need) & (counts > 0)
    if bad.any():
        row = int(np.argmax(bad))
        rule = f"a prompt of {prompt[row]} tokens has {need[row]} blocks of {block} tokens"
        source.fail_at(row, name, f"{counts[row]} ids", rule)
    if ids.dtype != np.int64 or (len(ids) and (ids.min() < 0 or ids.max() >= content.NUMBERS)):
        # wide hashes: equal ids stay equal, and 60 of their bits keep different ones apart
        ids = np.array([int(x) % content.NUMBERS for x in ids.tolist()], np.int64)
    off = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    length = np.full(len(ids), block, np.int64)
    some = counts > 0
    length[off[1:][some] - 1] = prompt[some] - (counts[some] - 1) * block
    return off, ids + content.RECORDED, np.zeros(len(ids), np.int64), length


def split_ids(source: Source, column: Column) -> tuple[Values, NDArray[np.int64]]:
    """(ids, ids per row) of a text column such as ``"3 4 5"`` or ``"3|4|5"``; an empty field has none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        text = pa.array(column.values, pa.large_string(), from_pandas=True)
        split = pc.ascii_split_whitespace(pc.ascii_trim_whitespace(pc.replace_substring(pc.fill_null(text, ""), "|", " ")))
        if isinstance(split, pa.ChunkedArray):
            split = split.combine_chunks()
        parts = split.flatten()
        some = np.asarray(pc.not_equal(parts, ""))
        ids = pc.cast(parts if some.all() else parts.filter(pa.array(some)), pa.int64()).to_numpy()
        off = np.asarray(split.offsets, np.int64)
        before = np.concatenate([[0], np.cumsum(some)])
        return ids, np.diff(before[off - off[0]])
    except pa.ArrowException:
        pass
    rows = ["" if x is None or x != x else str(x).replace("|", " ") for x in column.values]
    counts = np.fromiter((len(r.split()) for r in rows), np.int64, len(rows))
    wide: list[int] = []
    for row, line in enumerate(rows):
        try:
            wide += [int(x) for x in line.split()]
        except ValueError:
            source.fail_at(row, column.name, line, "must be whole numbers with blanks or '|' between")
    return np.array(wide, object), counts


def number_of(text: str) -> int:
    """A number in [0, 2^60) for any text; different texts get different ones (60 bits of BLAKE2)."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") % content.NUMBERS


def labels(values: Sequence[object] | pd.Series | Values, none: int = -1) -> NDArray[np.int64]:
    """i8[n] numbers for session names and the like: whole numbers stay, texts are hashed, nothing is ``none``."""
    column = np.asarray(values) if hasattr(values, "dtype") else None
    if column is not None and column.dtype.kind in "iu" and (len(column) == 0 or int(column.min()) >= 0):
        return np.asarray(column, np.int64) % content.NUMBERS
    code, names = coded(values)
    return np.append(np.array([_label(x, none) for x in names], np.int64), none)[code]


def coded(values: Sequence[object] | pd.Series | Values) -> tuple[NDArray[np.int64], list[object]]:
    """(code [n], names): the number of each value among the different ones, the length of ``names`` where there is none."""
    import pandas as pd

    column = values if isinstance(values, pd.Series | np.ndarray) else pd.Series(list(values), dtype=object)
    names: Sequence[object] | pd.Index | Values
    try:
        code, names = pd.factorize(column)
    except TypeError:  # lists and the like: a name of any other kind is as good as its text
        code, names = pd.factorize(pd.Series([x if isinstance(x, str | int | float) else repr(x) for x in column], dtype=object))
    return np.where(code < 0, len(names), code), list(names)


def _label(value: object, none: int) -> int:
    if isinstance(value, str):
        return number_of(value) if value else none
    if value is None or value != value:
        return none
    if isinstance(value, int | float | np.number) and 0 <= value < content.NUMBERS and value == int(value):
        return int(value)
    return number_of(str(value))


def _plain(x: float) -> float | int:
    return int(x) if x == int(x) else float(x)
