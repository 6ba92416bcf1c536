"""Any JSON lines, or array of objects, with lengths, and mostly with arrival times."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from sim.registry import register
from sim.workload.table import RequestBlock
from sim.workload.traces._base import Head
from sim.workload.traces._columns import Piece, piece_of
from sim.workload.traces._objects import Item, columns
from sim.workload.traces._source import Source
from sim.workload.traces._stamps import normal, time_columns
from sim.workload.traces._table import OPTIONAL
from sim.workload.traces.plain_csv import PlainCsv, has_lengths

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@register("trace")
class JsonRows(PlainCsv):
    """One object a request, such as ``{"arrival_s": 0.5, "prompt_tokens": 90, "output_tokens": 12}``: names and settings of format ``csv``."""

    name = "json-rows"
    rank: ClassVar[int] = -2
    holds: ClassVar[frozenset[str] | None] = None

    def fits(self, head: Head) -> bool:
        """Objects with lengths under any of their names."""
        return head.kind in ("json", "jsonl") and has_lengths(head)

    def pieces(self, path: Path) -> Iterator[RequestBlock]:
        """The requests of a file, block after block."""
        yield from self.blocks(path, self._pieces(path))

    def _pieces(self, path: Path) -> Iterator[Piece]:
        import pyarrow as pa

        p = self.params
        wanted = self.lengths
        more = dict(OPTIONAL) | ({} if p.hash_column is None else {"hashes": (p.hash_column,)})
        first = True
        for number, frame in columns(path, pa.schema([]), _from_table, _from_items, others=True):
            if first:
                times = (p.arrival_column,) if p.arrival_column else time_columns(frame.columns)
                there = bool(p.arrival_column) or bool({normal(name) for name in frame.columns} & set(map(normal, times)))
                self.timed = p.times == "needed" or (p.times == "auto" and there)
                wanted |= {"arrival": times} if self.timed else {}
                first = False
            source = Source(path, b"\n".join([b"{}"] * len(frame)), number + 1)
            yield piece_of(source, frame, wanted, more)


def _from_table(table: pa.Table) -> pd.DataFrame:
    found: pd.DataFrame = table.to_pandas()
    return found


def _from_items(some: list[Item]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame([item.value for item in some])
