"""Hugging Face's inference-benchmarker (TGI): ``results/….json``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sim.document import Json
from sim.registry import register
from sim.study.bench._base import Bench
from sim.study.bench._document import Document, Keys
from sim.study.bench._run import Run, of_aggregates, of_figures, refusal
from sim.study.bench._sent import Sent

_NAMES = {"time_to_first_token_ms": "ttft_s", "inter_token_latency_ms": "itl_s", "e2e_latency_ms": "e2e_s"}
_STATISTICS = {"avg": "mean", "p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99"}


@register("bench")
class InferenceBenchmarker(Bench):
    """``{"config", "results": [{id, executor_type, config{max_vus, rate}, successful_requests, total_tokens, total_tokens_sent, …_ms_avg}]}``.

    The warm-up is left out. Failed requests are not sent.

    Source: huggingface/inference-benchmarker, src/writers.rs.
    """

    name = "inference-benchmarker"
    title = "inference-benchmarker (TGI) JSON"

    def fits(self, document: Document) -> bool:
        """By an entry of its results."""
        found = document.first.get("results")
        return isinstance(found, list) and bool(found) and isinstance(found[0], Mapping) and "executor_type" in found[0]

    def runs(self, document: Document) -> Iterator[Run]:
        """One run an entry."""
        config = document.keys.sub("config")
        said = {"model": config.text("model_name") or config.text("tokenizer") or config.text("tokenizer_name")}
        for i, entry in enumerate(document.keys.needed("results")):
            keys = Keys(document.path, entry, f"results[{i}]")
            if keys.text("id") != "warmup":
                yield self._run(keys, f"{document.path.name}[{keys.text('id') or i}]", said)

    def _run(self, keys: Keys, name: str, said: Mapping[str, Json]) -> Run:
        done, failed = keys.count("successful_requests") or 0, keys.count("failed_requests") or 0
        if not done:
            return refusal(
                self.name, name, f"no request was served: {failed} of {failed} failed; that is no operating point", said
            )
        measured: dict[str, float] = {}
        for theirs, ours in _NAMES.items():
            for stat, mine in _STATISTICS.items():
                value = keys.number(f"{theirs}_{stat}")
                if value:
                    measured[f"{ours}.{mine}"] = value * 1e-3
        for theirs, mine in (("request_rate", "requests_per_s"), ("token_throughput_secs", "output_tokens_per_s")):
            value = keys.number(theirs)
            if value:
                measured[mine] = value
        prompts, answers = keys.number("total_tokens_sent"), keys.number("total_tokens")
        if not prompts or not answers:
            return of_figures(
                self.name, name, measured, ("how long prompts and answers were (total_tokens_sent, total_tokens)",), said
            )
        how = keys.sub("config")
        constant = "rate" in str(keys.text("executor_type") or "").lower()
        sent = Sent(rate=how.number("rate"), constant=True) if constant else Sent(concurrency=how.count("max_vus", low=1))
        return of_aggregates(
            self.name,
            name,
            requests=done,
            prompt=prompts / done,
            output=answers / done,
            measured=measured,
            sent=sent,
            said=said,
            failed=failed,
        )
