"""Any CSV table with lengths, and mostly with arrival times."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from sim.registry import register
from sim.workload.settings import Params
from sim.workload.table import RequestBlock
from sim.workload.traces._base import SECONDS, Head, Trace
from sim.workload.traces._columns import ARRIVAL, HASHES, OUTPUT, PROMPT, is_parquet
from sim.workload.traces._source import Source
from sim.workload.traces._table import plain_rows
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
    time_unit: Literal["s", "ms", "us", "ns"] = Field(default="s", description="unit of the arrival times")
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
    rank: ClassVar[int] = -1
    holds: ClassVar[frozenset[str] | None] = frozenset(("times", "sessions", "priorities", "adapters", "limits", "prefixes"))
    ends_with = ".csv"
    opening: ClassVar[str] = "arrival_s,input_tokens,output_tokens,max_tokens,session_id,priority,lora,hash_ids\n"

    def fits(self, head: Head) -> bool:
        """A header with lengths under any of their names."""
        return head.kind in ("csv", "parquet") and bool(set(PROMPT) & set(head.keys)) and bool(set(OUTPUT) & set(head.keys))

    def pieces(self, path: Path) -> Iterator[RequestBlock]:
        """The requests of a file, block after block."""
        p: CsvParams = self.params
        if not is_parquet(path) and next(Source(path).pieces()).data.lstrip()[:1] in (b"{", b"["):
            Source(path).fail("is JSON, not a CSV table", "use format: auto, or the name of its format")
        wanted: dict[str, tuple[str, ...]] = {
            "prompt": (p.prompt_column,) if p.prompt_column else PROMPT,
            "output": (p.output_column,) if p.output_column else OUTPUT,
        }
        self.timed = p.times == "needed" or (p.times == "auto" and (bool(p.arrival_column) or _may_have_times(path)))
        if self.timed:
            wanted = {"arrival": (p.arrival_column,) if p.arrival_column else ARRIVAL} | wanted
        hashes: dict[str, tuple[str, ...]] = {"hashes": (p.hash_column,) if p.hash_column else HASHES}
        if p.hash_column:
            wanted |= hashes
        harmless = ("request_id", "id", "request_type", "application_id", "index", "")
        yield from plain_rows(
            self, path, wanted, unit_s=SECONDS[p.time_unit], optional=hashes, block_tokens=p.block_tokens, harmless=harmless
        )

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


def _may_have_times(path: Path) -> bool:
    """Whether any column but the lengths could be one of arrival times; a file of which the header cannot be told says yes."""
    if is_parquet(path):
        return True
    lines = next(Source(path).pieces()).data.lstrip().splitlines()
    try:
        names = next(csv.reader([lines[0].decode(errors="replace")]), []) if lines else []
    except csv.Error:
        return True
    left = {n.strip().lower() for n in names} - {n.lower() for n in (*PROMPT, *OUTPUT, *HASHES)} - _NO_TIMES
    return bool(left)
