"""genai-perf: ``profile_export_genai_perf.json`` and its CSV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sim.errors import DataError
from sim.registry import register
from sim.study.bench._base import Bench
from sim.study.bench._document import Document, Keys
from sim.study.bench._nvidia import NOTE, UNITS, aggregate
from sim.study.bench._run import Run, of_figures, refusal

_NAMES = {
    "time to first token": "ttft_s", "inter token latency": "tpot_s", "request latency": "e2e_s", "output sequence length": "output",
    "input sequence length": "prompt", "request throughput": "requests_per_s", "output token throughput": "output_tokens_per_s",
    "request count": "count", "inter chunk latency": "itl_s",
}  # fmt: skip
_COLUMNS = {"avg": "mean", "p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99"}


@register("bench")
class GenAiPerf(Bench):
    """Aggregates of a run: ``{"time_to_first_token": {"unit": "ms", "avg": …}}``, or rows such as ``Time To First Token (ms),16.26,…``.

    ``Inter Token Latency`` is TPOT, as in aiperf. The CSV does not say how requests were sent.
    """

    name = "genai-perf"
    title = "genai-perf JSON or CSV"
    beside = ("*genai_perf*.csv", "inputs.json", "profile_export.json")

    def fits(self, document: Document) -> bool:
        """By a figure with a unit, or by the header of its CSV."""
        if document.kind == "csv":
            return [c.strip() for c in document.value[0][:2]] == ["Metric", "avg"]
        head = document.first
        latency = head.get("request_latency")
        return (
            "aiperf" not in document.path.name and isinstance(latency, Mapping) and "unit" in latency and "metadata" not in head
        )

    def runs(self, document: Document) -> Iterator[Run]:
        """The one run."""
        if document.kind != "csv":
            for record in document.records:
                yield aggregate(self.name, Keys(document.path, record), document.path.name)
            return
        yield self._table(document)

    def _table(self, document: Document) -> Run:
        header = [c.strip() for c in document.value[0]]
        measured: dict[str, float] = {}
        means: dict[str, float] = {}
        for line, row in enumerate(document.value[1:], 2):
            if len(row) < 2 or row[0].strip() == "Metric":
                continue
            title, _, unit = row[0].strip().rstrip(")").partition(" (")
            ours = _NAMES.get(title.lower())
            if ours is None:
                continue
            values = dict(zip(header[1:], (_number(document, line, x) for x in row[1:]), strict=False))
            if ours.endswith("_s") and not ours.endswith("per_s"):
                if unit not in UNITS:
                    raise DataError(str(document.path), f"line {line}: unit {unit!r} of {title!r} is none of {', '.join(UNITS)}")
                measured |= {f"{ours}.{s}": values[c] * UNITS[unit] for c, s in _COLUMNS.items() if values.get(c)}
            elif ours.endswith("per_s"):
                measured[ours] = next(iter(values.values()))
            else:
                means[ours] = next(iter(values.values()))
        if not measured:
            return refusal(self.name, document.path.name, "has no figure that can be compared")
        lacks = [
            text
            for text, key in (
                ("how many requests were served", "count"),
                ("how long prompts were", "prompt"),
                ("how long answers were", "output"),
            )
            if not means.get(key)
        ]
        return of_figures(self.name, document.path.name, measured, (*lacks, "how requests were sent"), notes=(NOTE,))


def _number(document: Document, line: int, text: str) -> float:
    try:
        value = float(text.replace(",", "") or "nan")
    except ValueError:
        raise DataError(str(document.path), f"line {line}: must have numbers (got {text!r})") from None
    if value < 0:
        raise DataError(str(document.path), f"line {line}: must have numbers of at least 0 (got {text!r})")
    return value
