"""The table of requests as CSV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sim.metrics.store import write_csv
from sim.registry import register
from sim.report.exports._base import Export

if TYPE_CHECKING:
    from sim.metrics.result import Result


def write_requests_csv(result: Result, path: str | Path) -> Path:
    """The request table as CSV, compressed when the name ends in ``.gz``."""
    path = Path(path)
    write_csv(result.columns, path)
    return path


@register("export")
class RequestsCsv(Export):
    """``arrival_s, prompt_tokens, output_tokens, ttft_s, e2e_s …``, one request a line: what ``servesim accuracy`` reads as a table."""

    name = "requests-csv"
    file = "requests.export.csv"

    def text(self, result: Result) -> Iterator[str]:
        """Not used: the table is written by columns."""
        raise NotImplementedError

    def fill(self, result: Result, path: Path) -> None:
        """Write the file."""
        write_csv(result.columns, path)
