"""Any CSV table with arrival times and lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from sim.registry import register
from sim.workload.settings import Params
from sim.workload.table import RequestBlock
from sim.workload.traces._base import Trace
from sim.workload.traces._columns import ARRIVAL, HASHES, OUTPUT, PROMPT, arrivals, hash_spans, read_csv, split_ids, tokens
from sim.workload.traces._source import Source

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


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


@register("trace")
class PlainCsv(Trace):
    """A CSV file (gzip allowed) with a header and one request per line, such as ``arrival_s,input_tokens,output_tokens``."""

    name = "csv"
    Params = CsvParams

    def read(self, path: Path) -> RequestBlock:
        """All requests of a file."""
        p: CsvParams = self.params
        source = Source(path)
        wanted: dict[str, tuple[str, ...]] = {
            "arrival": (p.arrival_column,) if p.arrival_column else ARRIVAL,
            "prompt": (p.prompt_column,) if p.prompt_column else PROMPT,
            "output": (p.output_column,) if p.output_column else OUTPUT,
        }
        hashes: dict[str, tuple[str, ...]] = {"hashes": (p.hash_column,) if p.hash_column else HASHES}
        if p.hash_column:
            wanted |= hashes
        table = read_csv(source, wanted, hashes, text=("hashes",))
        arrival = arrivals(source, table["arrival"], SECONDS[p.time_unit])
        prompt, output = tokens(source, table["prompt"]), tokens(source, table["output"])
        if "hashes" not in table:
            return RequestBlock.of(arrival, prompt, output)
        ids, counts = split_ids(source, table["hashes"])
        spans = hash_spans(source, table["hashes"].name, ids, counts, prompt, p.block_tokens)
        return RequestBlock.of(arrival, prompt, output, spans=spans)
