"""Mooncake traces: prompts as ids of 512-token blocks, so that shared prefixes survive."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sim.errors import NotModelledError
from sim.registry import register
from sim.workload.settings import Params
from sim.workload.table import RequestBlock
from sim.workload.traces._base import Trace
from sim.workload.traces._columns import Column, arrivals, hash_spans, tokens
from sim.workload.traces._source import Source
from sim.workload.traces.plain_csv import CsvParams, PlainCsv

_NUMBERS = ("timestamp", "input_length", "output_length")
_EXTENSIONS = ("delay", "delay_ms", "wait_for", "tool_wait_ms", "priority", "strict_priority", "policy_class")
_READ_SIZE = 1 << 26


class MooncakeParams(Params):
    """Settings of a Mooncake trace."""

    block_tokens: int = Field(
        default=512, ge=1, description="tokens of one hash id; the file does not say (published traces: 512)"
    )
    spread: bool = Field(
        default=False,
        description="spread requests of one time stamp evenly up to the next one: the conversation trace was released "
        "in batches every 3 s, which real users are not",
    )


@register("trace")
class Mooncake(Trace):
    """One JSON object per line: ``timestamp`` (ms), ``input_length``, ``output_length``, ``hash_ids`` (gzip allowed).

    An id stands for its block *and everything before it*, so equal ids are equal prefixes; each becomes one span, the last one
    perhaps shorter. Generated tokens have no ids in the format: a later prompt that repeats them does not find them in the
    cache. Also reads copies in CSV with ``arrival_s,input_tokens,output_tokens,hash_ids``.

    *Source*: github.com/kvcache-ai/Mooncake, FAST25-release/traces.
    """

    name = "mooncake"
    Params: ClassVar[type[Params]] = MooncakeParams
    unit_s = 1e-3
    foreign = True
    """Rows of other formats are refused."""

    def read(self, path: Path) -> RequestBlock:
        """All requests of a file."""
        source = Source(path)
        if source.data.lstrip()[:1] == b"{":
            block = self._read_json(source)
        else:
            if b"hash_ids" not in source.data.lstrip().splitlines()[0]:
                source.fail("is neither JSON lines nor a CSV table with hash_ids", "its first line must be a JSON object")
            block = PlainCsv(CsvParams(block_tokens=self.params.block_tokens)).read(path)
        if self.params.spread:
            block.arrival_s = _spread(block.arrival_s)
        return block

    def _read_json(self, source: Source) -> RequestBlock:
        columns, ids, counts = _by_arrow(source, self.foreign) or _by_line(source, self.foreign)
        arrival = arrivals(source, columns["timestamp"], self.unit_s)
        prompt, output = tokens(source, columns["input_length"]), tokens(source, columns["output_length"])
        spans = hash_spans(source, "hash_ids", ids, counts, prompt, self.params.block_tokens)
        return RequestBlock.of(arrival, prompt, output, spans=spans)


_MOST_BRACKETS = 256

_Parsed = tuple[dict[str, Column], NDArray[Any], NDArray[np.int64]]


def _by_arrow(source: Source, foreign: bool) -> _Parsed | None:
    """The fast way for well-formed files; None sends the caller to the slow way, which says what is wrong where."""
    import pyarrow as pa
    import pyarrow.json as pj

    kinds = [pa.field(name, pa.float64()) for name in _NUMBERS] + [pa.field("hash_ids", pa.list_(pa.int64()))]
    options = pj.ParseOptions(explicit_schema=pa.schema(kinds), unexpected_field_behavior="infer")
    try:
        table = pj.read_json(io.BytesIO(source.data), pj.ReadOptions(block_size=_READ_SIZE), options)
    except pa.ArrowException:
        return None
    if foreign:
        _refuse_extensions(source, table.column_names)
    if any(table.column(name).null_count for name in (*_NUMBERS, "hash_ids")):
        return None
    hashes = table.column("hash_ids").combine_chunks()
    if hashes.values.null_count:
        return None
    columns = {name: Column(name, table.column(name).to_numpy()) for name in _NUMBERS}
    return columns, hashes.flatten().to_numpy(zero_copy_only=False), np.diff(hashes.offsets.to_numpy()).astype(np.int64)


def _by_line(source: Source, foreign: bool) -> _Parsed:
    columns: dict[str, list[Any]] = {name: [] for name in _NUMBERS}
    ids: list[int] = []
    counts: list[int] = []
    for row, record in _records(source):
        if foreign:
            _refuse_extensions(source, record)
        for name in _NUMBERS:
            if name not in record:
                source.fail(f"line {source.line(row)}: has no field {name!r}")
            value = record[name]
            if isinstance(value, bool) or not isinstance(value, int | float):
                source.fail_at(row, name, value, "must be a number")
            columns[name].append(value)
        hashes = record.get("hash_ids")
        if not isinstance(hashes, list) or not all(type(x) is int for x in hashes):
            source.fail_at(row, "hash_ids", hashes, "must be a list of whole numbers")
        ids += hashes
        counts.append(len(hashes))
    try:
        array = np.array(ids, np.int64)
    except OverflowError:
        array = np.array(ids, object)
    found = {name: Column(name, _as_floats(source, name, values)) for name, values in columns.items()}
    return found, array, np.array(counts, np.int64)


def _records(source: Source) -> Iterator[tuple[int, dict[str, Any]]]:
    for row, line in enumerate(text for text in source.data.splitlines() if text.strip()):
        try:
            if line.count(b"[") + line.count(b"{") > _MOST_BRACKETS:  # what the parser would follow down the C stack
                raise ValueError("nested too deeply")
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            source.fail(f"line {source.line(row)}: is not JSON ({str(error)[:80]})")
        if not isinstance(record, dict):
            source.fail(f"line {source.line(row)}: must be a JSON object with {', '.join(_NUMBERS)} and hash_ids")
        yield row, record


def _as_floats(source: Source, name: str, values: list[Any]) -> NDArray[np.float64]:
    for row, value in enumerate(values):
        if isinstance(value, int) and abs(value) > 1 << 62:
            source.fail_at(row, name, value, "is too large")
    return np.array(values, np.float64)


def _refuse_extensions(source: Source, names: Any) -> None:
    if "chat_id" in names or "parent_chat_id" in names:
        source.fail("is a Qwen-Bailian trace: its times are seconds and its blocks have 16 tokens", "use format: bailian")
    for name in _EXTENSIONS:
        if name in names:
            raise NotModelledError(
                "traffic.trace.path", str(source.path), f"field {name!r} of the Mooncake extensions is not modelled"
            )


def _spread(arrival: NDArray[np.float64]) -> NDArray[np.float64]:
    """Requests with one time stamp, evenly spaced up to the next stamp; the last batch takes the length of the one before it."""
    stamps, first, count = np.unique(arrival, return_index=True, return_counts=True)
    if len(stamps) < 2:
        return arrival
    width = np.diff(stamps)
    width = np.append(width, width[-1])
    rank = np.arange(len(arrival)) - np.repeat(first, count)
    spread: NDArray[np.float64] = arrival + np.repeat(width / count, count) * rank
    return spread
