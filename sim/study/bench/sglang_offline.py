"""SGLang's other benchmarks: ``bench_offline_throughput``, and those of one batch, which serve no requests."""

from __future__ import annotations

from collections.abc import Iterator

from sim.document import Json
from sim.registry import register
from sim.study.bench._base import Bench
from sim.study.bench._document import Document, Keys
from sim.study.bench._run import Run, of_aggregates, refusal
from sim.study.bench._sent import Sent

_RATES = {"request_throughput": "requests_per_s", "output_throughput": "output_tokens_per_s"}


@register("bench")
class SglangOffline(Bench):
    """``{"backend": "engine", "successful_requests", "total_latency", "total_input_tokens", …}``: all requests at once, throughput alone.

    Source: SGLang, python/sglang/bench_offline_throughput.py, bench_one_batch.py, bench_one_batch_server.py.
    """

    name = "sglang-offline"
    title = "sglang.bench_offline_throughput JSONL"

    def fits(self, document: Document) -> bool:
        """By keys that only these write."""
        head = document.first
        return {"successful_requests", "total_latency", "total_input_tokens"} <= set(head) or (
            {"batch_size", "input_len", "output_len"} <= set(head)
            and bool({"latency", "total_latency", "prefill_latency"} & set(head))
        )

    def runs(self, document: Document) -> Iterator[Run]:
        """One run a line."""
        several = len(document.records) > 1
        for number, record in enumerate(document.records, 1):
            inside = f"[{number}]" if several else ""
            yield self._run(Keys(document.path, record, inside), document.path.name + inside)

    def _run(self, keys: Keys, name: str) -> Run:
        said: dict[str, Json] = {"engine": "sglang"}
        if "batch_size" in keys:
            why = "is of one batch of equal requests, which no scheduler serves and no queue holds; needs `sglang.bench_serving`"
            return refusal(self.name, name, why, said)
        done = keys.count("successful_requests") or 0
        total_in, total_out = keys.number("total_input_tokens") or 0.0, keys.number("total_output_tokens") or 0.0
        if not done or not total_in or not total_out:
            return refusal(self.name, name, f"no request was served: successful_requests {done}", said)
        measured = {ours: v for theirs, ours in _RATES.items() if (v := keys.number(theirs))}
        return of_aggregates(
            self.name, name, requests=done, prompt=total_in / done, output=total_out / done, measured=measured,
            sent=Sent(rate=float("inf")), said=said,
        )  # fmt: skip
