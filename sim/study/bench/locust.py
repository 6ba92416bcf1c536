"""Locust: ``…_stats.csv``. It knows requests and their times, nothing of tokens."""

from __future__ import annotations

from collections.abc import Iterator

from sim.errors import DataError
from sim.registry import register
from sim.study.bench._base import Bench
from sim.study.bench._document import Document
from sim.study.bench._run import Run, of_figures, refusal

_FIGURES = {"Average Response Time": "mean", "50%": "p50", "90%": "p90", "95%": "p95", "99%": "p99"}


@register("bench")
class Locust(Bench):
    """``Type,Name,Request Count,Failure Count,Median Response Time,…``: E2E in ms and requests per second of all requests together.

    Source: locust, docs: retrieve test statistics in CSV format.
    """

    name = "locust"
    title = "locust _stats.csv"
    beside = ("*_stats_history.csv", "*_failures.csv", "*_exceptions.csv")

    def fits(self, document: Document) -> bool:
        """By its header."""
        return document.kind == "csv" and {"Request Count", "Median Response Time", "Average Response Time"} <= {
            c.strip() for c in document.value[0]
        }

    def runs(self, document: Document) -> Iterator[Run]:
        """The row of all requests."""
        rows = document.table()
        row = next((r for r in rows if r.get("Name", "").strip() == "Aggregated"), rows[-1])

        def number(name: str) -> float:
            try:
                value = float(row.get(name) or 0)
            except ValueError:
                value = -1.0
            if not 0 <= value < 1e12:
                raise DataError(str(document.path), f"column {name!r}: must be a finite number of at least 0 (got {row[name]!r})")
            return value

        count, failed = number("Request Count"), number("Failure Count")
        if count <= failed:
            yield refusal(self.name, document.path.name, f"no request was served: {failed:g} of {count:g} failed")
            return
        measured = {f"e2e_s.{mine}": number(theirs) * 1e-3 for theirs, mine in _FIGURES.items()}
        rate = number("Requests/s") - number("Failures/s")
        lacks = ("how long prompts and answers were", "how requests were sent (users and their waiting times)")
        yield of_figures(self.name, document.path.name, measured | {"requests_per_s": rate}, lacks)
