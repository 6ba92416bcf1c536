"""Calls of OpenTelemetry spans in arrays, for files whose spans all have the form of the first ones."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sim.document import Table
from sim.ledger import Values
from sim.workload.table import MAX_TOKENS
from sim.workload.traces._columns import labels

if TYPE_CHECKING:
    import pyarrow as pa

INPUT = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.usage.prompt_tokens", "llm.token_count.prompt")
OUTPUT = (
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.usage.completion_tokens",
    "llm.token_count.completion",
)
STARTS = ("startTimeUnixNano", "start_time_unix_nano", "start_time", "startTime", "start_time_ns")
_GROUPS, _SCOPES, _IDS = ("resourceSpans", "resource_spans"), ("scopeSpans", "scope_spans"), ("traceId", "trace_id")
_VALUES = ("intValue", "doubleValue", "stringValue", "int_value", "double_value", "string_value")

Calls = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Start (ns), tokens of prompt and output, and session of each."""


@dataclass(frozen=True)
class Shape:
    """Of which kind values are, by the first spans of a file; ``listed``: attributes are a list of key and value, as in OTLP."""

    kinds: Mapping[str, type]
    listed: bool

    @property
    def fields(self) -> pa.Schema:
        """A schema with every place where spans may be; what is of another kind than the first ones makes Arrow refuse."""
        import pyarrow as pa

        of = {str: pa.string(), int: pa.int64(), float: pa.float64()}
        if self.listed:
            value = pa.struct([(name, of[self.kinds.get(name, str)]) for name in _VALUES])
            attributes = pa.list_(pa.struct([("key", pa.string()), ("value", value)]))
        else:
            attributes = pa.struct([(name, of[self.kinds.get(name, int)]) for name in (*INPUT, *OUTPUT)])
        span = [(name, of[self.kinds.get(name, str)]) for name in (*STARTS, *_IDS)] + [("attributes", attributes)]
        spans = pa.list_(pa.struct(span))
        scopes = pa.list_(pa.struct([("spans", spans)]))
        groups = pa.list_(pa.struct([(name, scopes) for name in _SCOPES]))
        return pa.schema([(name, groups) for name in _GROUPS] + [("spans", spans), *span])

    def calls(self, table: pa.Table) -> tuple[Calls, int] | None:
        """The calls of some objects, and how many spans are none; None where something needs a closer look."""
        spans = _all_spans(table)
        if spans is None:
            return None
        find = self._listed if self.listed else self._mapped
        prompt, output = (find(spans["attributes"], names) for names in (INPUT, OUTPUT))
        if prompt is None or output is None:
            return None
        some = ~np.isnan(prompt)
        counts = np.array([prompt[some], output[some]])
        if not ((counts >= 0) & (counts <= MAX_TOKENS) & (counts == np.floor(counts))).all():
            return None
        start = _starts(spans, some & (prompt > 0) & (output > 0))
        if start is None:
            return None
        if any(spans[name].type != spans[_IDS[0]].type for name in _IDS):
            return None
        traces = _first(spans, _IDS).to_numpy(zero_copy_only=False)[some]
        return (start[some], *counts.astype(np.int64), labels(np.where(traces == "", None, traces))), int((~some).sum())

    def _mapped(self, attributes: pa.StructArray, names: Sequence[str]) -> NDArray[np.float64] | None:
        out = np.full(len(attributes), np.nan)
        for name in reversed(names):
            found = _numbers(attributes.field(name))
            if found is None:
                return None
            out = np.where(np.isnan(found), out, found)
        return out

    def _listed(self, attributes: pa.StructArray, names: Sequence[str]) -> NDArray[np.float64] | None:
        import pyarrow as pa
        import pyarrow.compute as pc

        out = np.full(len(attributes), np.nan)
        flat = attributes.flatten()
        owner = np.repeat(np.arange(len(attributes)), np.asarray(pc.fill_null(pc.list_value_length(attributes), 0)))
        keys = flat.field("key")
        for name in reversed(names):
            mine = np.flatnonzero(np.asarray(pc.fill_null(pc.equal(keys, name), False)))
            if not len(mine):
                continue
            value = flat.field("value").take(pa.array(mine))
            given = [n for n in _VALUES if value.field(n).null_count < len(value)]
            found = _numbers(_first({n: value.field(n).cast(pa.string()) for n in given}, given)) if given else None
            if found is None or np.isnan(found).any():
                return None
            out[owner[mine]] = found
        return out


def shape_of(spans: Sequence[Table]) -> Shape:
    """The shape of these spans."""
    kinds: dict[str, type] = {}
    listed = False
    for span in spans:
        found = span.get("attributes")
        listed = listed or isinstance(found, list)
        attributes = found if isinstance(found, Mapping) else {}
        values = [pair.get("value") for pair in found if isinstance(pair, Mapping)] if isinstance(found, list) else []
        for where in (span, attributes, *(v for v in values if isinstance(v, Mapping))):
            kinds |= {k: type(v) for k, v in where.items() if type(v) in (str, int, float)}
    return Shape(kinds, listed)


def _all_spans(table: pa.Table) -> Mapping[str, pa.Array] | None:
    """The spans of a table by their keys; None where objects hold them in different places."""
    import pyarrow as pa

    whole = {name: table.column(name).combine_chunks() for name in table.column_names}
    whole = {name: x.chunk(0) if isinstance(x, pa.ChunkedArray) else x for name, x in whole.items()}
    places = [name for name in (*_GROUPS, "spans") if whole[name].null_count < table.num_rows]
    bare = {name: x for name, x in whole.items() if name not in (*_GROUPS, "spans")}
    if not places:
        return bare
    outside = any(x.null_count < table.num_rows for name, x in bare.items() if name != "attributes")
    if len(places) > 1 or whole[places[0]].null_count or outside:
        return None
    spans = whole[places[0]].flatten()
    if places[0] in _GROUPS:
        inner = [spans.field(name) for name in _SCOPES]
        used = [x for x in inner if x.null_count < len(x)]
        if spans.null_count or len(used) != 1 or used[0].null_count:
            return None
        scopes = used[0].flatten()
        lists = scopes.field("spans")
        if scopes.null_count or lists.null_count:
            return None
        spans = lists.flatten()
    return None if spans.null_count else {name: spans.field(name) for name in bare}


def _first(spans: Mapping[str, pa.Array], names: Sequence[str]) -> pa.Array:
    import pyarrow.compute as pc

    return pc.coalesce(*(spans[name] for name in names))


def _numbers(values: pa.Array) -> NDArray[np.float64] | None:
    """f8, NaN where there is none; None for what is no number."""
    import pyarrow as pa

    try:
        return np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
    except pa.ArrowException:
        return None


def _starts(spans: Mapping[str, pa.Array], needed: NDArray[np.bool_]) -> NDArray[np.int64] | None:
    import pyarrow as pa

    out = np.zeros(len(needed), np.int64)
    for name in STARTS:
        column = spans[name]
        mine = needed & np.asarray(column.is_valid())
        if not mine.any():
            continue
        given = column.filter(pa.array(mine))
        with contextlib.suppress(pa.ArrowException):  # OTLP writes whole numbers as strings
            given = given if pa.types.is_floating(given.type) else given.cast(pa.int64())
        try:
            out[mine] = nanoseconds(name, given.to_numpy(zero_copy_only=False))
        except (TypeError, ValueError, OverflowError):
            return None
        needed = needed & ~mine
    return None if needed.any() else out


def nanoseconds(name: str, values: Values) -> NDArray[np.int64]:
    """Times as ns: ISO 8601 (UTC where it names no zone), or numbers of s, ms, us or ns by their size and the key's name.

    Raises `ValueError` or `TypeError` for what is no time, or one before 0.
    """
    import pandas as pd

    if values.dtype.kind in "OU" and all(isinstance(x, str) for x in values):
        digits = pd.Series(values, dtype=object).str.fullmatch(r"\d+(\.\d*)?")
        if not digits.any():
            times = pd.to_datetime(pd.Series(values), format="ISO8601", utc=True).astype("datetime64[ns, UTC]")
            return np.asarray(times.astype(np.int64), np.int64)
        if not digits.all():
            raise ValueError("times of two kinds")
        whole = "." not in "".join(values)
        values = np.array([int(x) for x in values] if whole else [float(x) for x in values])
    if values.dtype.kind == "O":
        if any(isinstance(x, bool) or not isinstance(x, int | float) for x in values):
            raise TypeError("no number")
        values = np.array(values.tolist())
    size = values.astype(np.float64)
    if not ((size >= 0) & (size < 1e20)).all():
        raise ValueError("before 0")
    if "nano" in name.lower() or name.endswith("_ns"):
        scale = np.ones(len(size))
    else:
        scale = np.where(size > 1e16, 1.0, np.where(size > 1e13, 1e3, np.where(size > 1e11, 1e6, 1e9)))
    exact = values.dtype.kind in "iu" and bool((scale == 1).all())
    return values.astype(np.int64) if exact else np.round(size * scale).astype(np.int64)
