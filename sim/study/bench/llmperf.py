"""llmperf: ``*_individual_responses.json`` and ``*_summary.json``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from sim.registry import register
from sim.study.bench._base import Bench
from sim.study.bench._document import Document, Keys
from sim.study.bench._run import Requests, Run, of_aggregates, of_figures, of_requests
from sim.study.bench._sent import Sent

_FIGURES = {"ttft_s": "ttft_s", "end_to_end_latency_s": "e2e_s"}
_STATISTICS = {"mean": "mean", "quantiles_p50": "p50", "quantiles_p90": "p90", "quantiles_p95": "p95", "quantiles_p99": "p99"}
_NOTE = "inter_token_latency_s of llmperf includes the first token and is not compared; TPOT follows from TTFT and E2E"


@register("bench")
class LlmPerf(Bench):
    """``[{ttft_s, end_to_end_latency_s, number_input_tokens, number_output_tokens, error_code}]``, or the summary with
    ``num_concurrent_requests`` and ``results_…``. Clients ask again when they have their answer; how many there are is in the summary.

    Source: ray-project/llmperf, token_benchmark_ray.py.
    """

    name = "llmperf"
    title = "llmperf individual responses or summary JSON"

    def fits(self, document: Document) -> bool:
        """By its names."""
        head = document.first
        return {"ttft_s", "end_to_end_latency_s"} <= set(head) or {"num_concurrent_requests", "results_ttft_s_mean"} <= set(
            _flat(head)
        )

    def told_by(self, folder):  # type: ignore[no-untyped-def]
        """The summary beside individual responses."""
        return [
            f for f in folder.glob("*_summary.json") if f.with_name(f.name.replace("_summary", "_individual_responses")).exists()
        ]

    def runs(self, document: Document) -> Iterator[Run]:
        """The one run."""
        yield self._records(document) if "ttft_s" in document.first else self._summary(document)

    def _records(self, document: Document) -> Run:
        rows: dict[str, list[float]] = {k: [] for k in ("prompt", "output", "ttft", "e2e")}
        errors = []
        for number, record in enumerate(document.records, 1):
            keys = Keys(document.path, record, f"[{number}]")
            for ours, theirs in (
                ("prompt", "number_input_tokens"),
                ("output", "number_output_tokens"),
                ("ttft", "ttft_s"),
                ("e2e", "end_to_end_latency_s"),
            ):
                value = keys.number(theirs)
                rows[ours].append(np.nan if value is None else value)
            code = record.get("error_code")
            errors.append("" if code is None else f"{code} {record.get('error_msg') or ''}".strip())
        a = {k: np.array(v, float) for k, v in rows.items()}
        concurrency = self._concurrency(document)
        requests = Requests(
            np.nan_to_num(a["prompt"]),
            np.nan_to_num(a["output"]),
            a["ttft"],
            a["e2e"],
            np.array([not e for e in errors]),
            errors=errors,
        )
        run = of_requests(self.name, document.path.name, requests, Sent(concurrency=concurrency or 1), notes=(_NOTE,))
        if concurrency or run.refused:
            return run
        return replace(run, lacks=("how many clients there were (num_concurrent_requests of *_summary.json)",))

    def _concurrency(self, document: Document) -> int | None:
        name = document.path.name.replace("individual_responses", "summary")
        if name == document.path.name:
            return None
        value = _flat(document.beside(name)).get("num_concurrent_requests")
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None

    def _summary(self, document: Document) -> Run:
        keys = Keys(document.path, _flat(document.first))
        measured: dict[str, float] = {}
        for theirs, ours in _FIGURES.items():
            for stat, mine in _STATISTICS.items():
                value = keys.number(f"results_{theirs}_{stat}")
                if value:
                    measured[f"{ours}.{mine}"] = value
        value = keys.number("results_mean_output_throughput_token_per_s")
        if value:
            measured["output_tokens_per_s"] = value
        per_minute = keys.number("results_num_completed_requests_per_min")
        if per_minute:
            measured["requests_per_s"] = per_minute / 60.0
        n = keys.count("results_num_completed_requests") or 0
        prompt = keys.number("results_number_input_tokens_mean") or keys.number("mean_input_tokens")
        output = keys.number("results_number_output_tokens_mean") or keys.number("mean_output_tokens")
        sent = Sent(concurrency=keys.count("num_concurrent_requests", low=1))
        if not prompt or not output:
            return of_figures(self.name, document.path.name, measured, ("how long prompts and answers were",))
        said = {"model": keys.text("model")}
        return of_aggregates(
            self.name,
            document.path.name,
            requests=n,
            prompt=prompt,
            output=output,
            measured=measured,
            sent=sent,
            said=said,
            notes=(_NOTE,),
        )


def _flat(value: object, prefix: str = "") -> dict[str, object]:
    """Nested results as ``results_ttft_s_mean``, however the version of the tool wrote them."""
    if not isinstance(value, dict):
        return {}
    out: dict[str, object] = {}
    for key, inner in value.items():
        name = f"{prefix}{key}"
        out |= _flat(inner, f"{name}_") if isinstance(inner, dict) else {name: inner}
    return out
