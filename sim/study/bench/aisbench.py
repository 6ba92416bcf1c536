"""AISBench (vLLM-Ascend's and MindIE's tool): the CSV of a performance run, with the JSON of its totals beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from sim.errors import DataError
from sim.registry import register
from sim.study.bench._base import Bench
from sim.study.bench._document import Document
from sim.study.bench._nvidia import UNITS
from sim.study.bench._run import Run, of_aggregates, of_figures, refusal
from sim.study.bench._sent import Sent

_ROWS = {"e2el": "e2e_s", "ttft": "ttft_s", "tpot": "tpot_s", "itl": "itl_s"}
_COLUMNS = {"average": "mean", "median": "p50", "p90": "p90", "p95": "p95", "p99": "p99"}
_MOST = 1e12
_RATES = {"request throughput": "requests_per_s", "output token throughput": "output_tokens_per_s"}


@register("bench")
class AisBench(Bench):
    """``Performance Parameters,Stage,Average,Min,Max,Median,…,N`` with rows ``E2EL, TTFT, TPOT, ITL, InputTokens, OutputTokens``.

    Figures carry their unit (``2048.3 ms``). The JSON of the same name says how many requests failed and how many were in flight.

    Source: AISBench/benchmark, docs: performance results.
    """

    name = "aisbench"
    title = "AISBench performance CSV"
    beside = ("*_details.json", "*_details.h5")

    def fits(self, document: Document) -> bool:
        """By its header, or by the totals."""
        if document.kind == "csv":
            return [c.strip() for c in document.value[0][:2]] == ["Performance Parameters", "Stage"]
        return {"Benchmark Duration", "Total Requests"} <= set(document.first)

    def told_by(self, folder: Path) -> Iterator[Path]:
        """The JSON beside each CSV."""
        yield from super().told_by(folder)
        yield from (file.with_suffix(".json") for file in folder.glob("*.csv"))

    def runs(self, document: Document) -> Iterator[Run]:
        """The one run."""
        name = document.path.name
        if document.kind != "csv":
            totals = _totals(document.first)
            figures = {ours: totals[theirs] for theirs, ours in _RATES.items() if theirs in totals}
            yield of_figures(self.name, name, figures, ("latencies and lengths, which are in the CSV of the same name",))
            return
        measured: dict[str, float] = {}
        means: dict[str, float] = {}
        count = 0
        for line, row in enumerate(document.table(), 2):
            which = row["Performance Parameters"].strip().lower()
            ours = _ROWS.get(which)
            values = {
                c.strip().lower(): _value(document, line, v)
                for c, v in row.items()
                if c not in ("Performance Parameters", "Stage")
            }
            if ours:
                measured |= {f"{ours}.{mine}": values[theirs] for theirs, mine in _COLUMNS.items() if values.get(theirs)}
                count = int(values.get("n") or count)
            elif which in ("inputtokens", "outputtokens"):
                means[which] = values.get("average") or 0.0
        totals = _totals(document.beside(document.path.with_suffix(".json").name))
        measured |= {ours: totals[theirs] for theirs, ours in _RATES.items() if totals.get(theirs)}
        if not measured:
            yield refusal(self.name, name, "has no figure that can be compared")
            return
        limit = int(totals.get("max concurrency") or 0)
        lacks = [
            text
            for text, there in (
                ("how long prompts were (InputTokens)", means.get("inputtokens")),
                ("how long answers were (OutputTokens)", means.get("outputtokens")),
                ("how many requests were served (N)", count),
                ("how requests were sent (Max Concurrency, in the JSON beside it)", limit),
            )
            if not there
        ]
        if lacks:
            yield of_figures(self.name, name, measured, lacks)
            return
        yield of_aggregates(
            self.name, name, requests=count, prompt=means["inputtokens"], output=means["outputtokens"], measured=measured,
            sent=Sent(concurrency=limit), failed=int(totals.get("failed requests") or 0),
        )  # fmt: skip


def _value(document: Document, line: int, text: str) -> float:
    """A number in s where it carries a unit of time, else as it is."""
    number, _, unit = text.strip().partition(" ")
    try:
        value = float(number.replace(",", "") or "0") * UNITS.get(unit, 1.0)
    except ValueError:
        value = -1.0
    if not 0 <= value < _MOST:
        raise DataError(str(document.path), f"line {line}: must have finite numbers of at least 0 (got {text!r})")
    return value


def _totals(value: object) -> dict[str, float]:
    """Figures such as ``{"Request Throughput": {"total": "0.4 req/s"}}`` by their name in small letters; none of what is no mapping."""
    out = {}
    for name, figure in value.items() if isinstance(value, Mapping) else ():
        total = figure.get("total") if isinstance(figure, Mapping) else figure
        try:
            number = float(str(total).split(" ")[0])
        except ValueError:
            continue
        if 0 <= number < _MOST:
            out[str(name).lower()] = number
    return out
