"""evalscope perf: ``benchmark_summary.json``, and ``benchmark_percentile.json`` beside it."""

from __future__ import annotations

from collections.abc import Iterator

from sim.registry import register
from sim.study.bench._base import Bench
from sim.study.bench._document import Document, Keys
from sim.study.bench._run import Run, of_aggregates, refusal
from sim.study.bench._sent import Sent

_MEANS = {
    "Average time to first token (s)": "ttft_s", "Average time per output token (s)": "tpot_s", "Average inter-token latency (s)": "itl_s",
    "Average latency (s)": "e2e_s",
}  # fmt: skip
_RATES = {"Request throughput (req/s)": "requests_per_s", "Output token throughput (tok/s)": "output_tokens_per_s"}
_PERCENTILES = {"TTFT (s)": "ttft_s", "TPOT (s)": "tpot_s", "ITL (s)": "itl_s", "Latency (s)": "e2e_s"}
_BESIDE = "benchmark_percentile.json"


@register("bench")
class EvalScope(Bench):
    """``{"Number of concurrency": 8, "Succeed requests": 100, "Average latency (s)": …}``: means, in s; percentiles are in a file of their own.

    Source: modelscope/evalscope, evalscope/perf/utils/db_util.py.
    """

    name = "evalscope"
    title = "evalscope perf benchmark_summary.json"
    beside = (_BESIDE, "benchmark_args.json", "benchmark_data.db")

    def fits(self, document: Document) -> bool:
        """By its keys."""
        return document.kind == "json" and {"Succeed requests", "Average latency (s)"} <= set(document.first)

    def runs(self, document: Document) -> Iterator[Run]:
        """The one run."""
        keys = document.keys
        measured = {f"{ours}.mean": v for theirs, ours in _MEANS.items() if (v := keys.number(theirs))}
        measured |= {ours: v for theirs, ours in _RATES.items() if (v := keys.number(theirs))}
        measured |= _percentiles(document)
        done, failed = keys.count("Succeed requests") or 0, keys.count("Failed requests") or 0
        prompt, output = (keys.number(f"Average {which} tokens per request") for which in ("input", "output"))
        if not done or not prompt or not output:
            why = "no request was served" if not done else "does not say how long prompts and answers were"
            yield refusal(self.name, document.path.name, f"{why}: Succeed requests {done}, tokens {prompt} and {output}")
            return
        rate = keys.number("Request rate (req/s)", low=-1.0)
        yield of_aggregates(
            self.name, document.path.name, requests=done, prompt=prompt, output=output, measured=measured, failed=failed,
            sent=Sent(rate=rate if rate and rate > 0 else None, concurrency=keys.count("Number of concurrency", low=1)),
        )  # fmt: skip


def _percentiles(document: Document) -> dict[str, float]:
    rows = document.beside(_BESIDE)
    found: dict[str, float] = {}
    for i, row in enumerate(rows if isinstance(rows, list) else []):
        keys = Keys(document.path.with_name(_BESIDE), row, f"[{i}]")
        which = str(keys.raw("Percentiles")).rstrip("%")
        if which in ("50", "90", "95", "99"):
            found |= {f"{ours}.p{which}": v for theirs, ours in _PERCENTILES.items() if (v := keys.number(theirs))}
    return found
