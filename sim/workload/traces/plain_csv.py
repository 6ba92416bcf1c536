"""Any CSV table with lengths, and mostly with arrival times."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from sim.registry import register
from sim.workload.settings import Params
from sim.workload.table import RequestBlock
from sim.workload.traces._base import SECONDS, Head, Trace
from sim.workload.traces._columns import (
    ARRIVAL,
    HASHES,
    OUTPUT,
    PROMPT,
    Clock,
    Piece,
    csv_pieces,
    delimiter,
    head_of,
    is_parquet,
    tokens,
)
from sim.workload.traces._source import Source
from sim.workload.traces._stamps import BARE, normal, stamped_seconds, time_columns, unit_of
from sim.workload.traces._table import OPTIONAL, Rows, spans_of
from sim.workload.traces._turns import by_arrival
from sim.workload.traces._writing import block_ids

# Columns beside the lengths that are certainly no times: Vidur's processed traces, request numbers.
_NO_TIMES = frozenset(("total_tokens", "pd_ratio", "request_id", "id", "index", "", "request_type"))


class CsvParams(Params):
    """Settings of a CSV trace; columns are found by their usual names unless named here."""

    arrival_column: str | None = Field(
        default=None, description=f"column of arrival times; default: the first of {', '.join(ARRIVAL)}"
    )
    prompt_column: str | None = Field(
        default=None, description=f"column of prompt tokens; default: the first of {', '.join(PROMPT)}"
    )
    output_column: str | None = Field(
        default=None, description=f"column of output tokens; default: the first of {', '.join(OUTPUT)}"
    )
    hash_column: str | None = Field(
        default=None,
        description=f"column with the prompt's block ids, blanks or '|' between; default: {' or '.join(HASHES)}, if there",
    )
    time_unit: Literal["s", "ms", "us", "ns"] | None = Field(
        default=None,
        description="unit of the arrival times; default: the one in the column's name (timestamp_ms), else s; columns such as timestamp, whose unit "
        "nobody agrees on, may hold times in ISO 8601 or since 1970, and else need this",
    )
    sort: bool = Field(default=False, description="requests need not be in order of arrival: all are read, then put in order")
    block_tokens: int = Field(default=512, ge=1, description="tokens of one block id")
    times: Literal["auto", "needed", "none"] = Field(
        default="auto",
        description="none: the file has lengths only, and the traffic says when they arrive; auto: none where no column can be a time",
    )


@register("trace")
class PlainCsv(Trace):
    """A CSV file (gzip, zstd allowed) with a header and one request per line, such as ``arrival_s,input_tokens,output_tokens``.

    Also reads ``priority``, ``session_id``, ``lora`` (or ``adapter``) and ``max_tokens`` where they are there. The files of Vidur, splitwise-sim,
    APEX and of this package's own converter are such tables.
    """

    name = "csv"
    Params: ClassVar[type[Params]] = CsvParams
    params: CsvParams
    rank: ClassVar[int] = -1
    holds: ClassVar[frozenset[str] | None] = frozenset(("times", "sessions", "priorities", "adapters", "limits", "prefixes"))
    ends_with = ".csv"
    opening: ClassVar[str] = "arrival_s,input_tokens,output_tokens,max_tokens,session_id,priority,lora,hash_ids\n"

    def fits(self, head: Head) -> bool:
        """A header with lengths under any of their names."""
        return head.kind in ("csv", "parquet") and has_lengths(head)

    @property
    def lengths(self) -> dict[str, tuple[str, ...]]:
        """Under which names the columns of lengths are looked for."""
        p = self.params
        return {
            "prompt": (p.prompt_column,) if p.prompt_column else PROMPT,
            "output": (p.output_column,) if p.output_column else OUTPUT,
        }

    def pieces(self, path: Path) -> Iterator[RequestBlock]:
        """The requests of a file, block after block."""
        p = self.params
        names = _names(path)
        wanted = self.lengths
        may_be = bool(p.arrival_column) or is_parquet(path) or _may_have_times(names)
        self.timed = p.times == "needed" or (p.times == "auto" and may_be)
        if self.timed:
            wanted = {"arrival": (p.arrival_column,) if p.arrival_column else time_columns(names)} | wanted
        hashes: dict[str, tuple[str, ...]] = {"hashes": (p.hash_column,) if p.hash_column else HASHES}
        if p.hash_column:
            wanted |= hashes
        more = {k: v for k, v in OPTIONAL.items() if k not in wanted} | hashes
        yield from self.blocks(path, csv_pieces(path, wanted, more, text=("hashes",)))

    def blocks(self, path: Path, found: Iterator[Piece]) -> Iterator[RequestBlock]:
        """The requests in pieces of a table."""
        p = self.params
        rows = Rows(self, path, harmless=("request_id", "id", "request_type", "application_id", "index", ""))
        unit = ""
        held = []
        for piece in found:
            prompt, output = tokens(piece.source, piece["prompt"]), tokens(piece.source, piece["output"])
            if "arrival" not in piece:
                arrival = np.zeros(len(prompt))
            else:
                if not unit:
                    unit = unit_of(piece, p.time_unit)
                    rows.clock = Clock(SECONDS.get(unit, 1.0), any_order=p.sort)
                    if p.time_unit is None and unit != "s" and normal(piece["arrival"].name) in BARE:
                        what = "written out" if unit == "iso" else f"{unit} since 1970"
                        self.note(f"{path.name}: times of column {piece['arrival'].name} are {what}")
                arrival = (
                    stamped_seconds(piece, rows.clock) if unit == "iso" else rows.clock.arrivals(piece.source, piece["arrival"])
                )
            block = rows.block(piece, arrival, prompt, output, **spans_of(piece, prompt, p.block_tokens))
            if p.sort:
                held.append(block)
            else:
                yield block
        if held:
            yield by_arrival(RequestBlock.concat(held))

    def rows(self, block: RequestBlock, block_tokens: int) -> list[str]:
        """One line a request; ids of ``block_tokens``."""
        rows = zip(
            block.arrival_s.tolist(), block.prompt_tokens.tolist(), block.output_tokens.tolist(), block.max_tokens.tolist(), block.session.tolist(),
            block.priority.tolist(), block.lora.tolist(), block_ids(block, block_tokens), strict=True,
        )  # fmt: skip
        return [
            f"{at!r},{p},{o},{m},{'' if s < 0 else s},{pr},{lo or ''},{' '.join(map(str, i))}"
            for at, p, o, m, s, pr, lo, i in rows
        ]


def has_lengths(head: Head) -> bool:
    """Whether lengths of prompts and outputs are there under any of their names."""
    names = {normal(key) for key in head.keys}
    return all(names & {normal(name) for name in known} for known in (PROMPT, OUTPUT))


def _names(path: Path) -> list[str]:
    """The names of a file's columns; none where its header cannot be told. Raises `DataError` for JSON."""
    if is_parquet(path):
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return list(pq.ParquetFile(path).schema_arrow.names)
        except (pa.ArrowException, OSError):
            return []
    data = next(Source(path).pieces()).data
    if data.lstrip()[:1] in (b"{", b"["):
        Source(path).fail("is JSON, not a CSV table", "use format: auto, or the name of its format")
    head = head_of(data)[1]
    try:
        return next(csv.reader([head], delimiter=delimiter(head)), [])
    except csv.Error:
        return []


def _may_have_times(names: list[str]) -> bool:
    """Whether any column but the lengths could be one of arrival times; no names, where the header cannot be told, say yes."""
    return not names or bool({normal(n) for n in names} - {normal(n) for n in (*PROMPT, *OUTPUT, *HASHES)} - _NO_TIMES)
