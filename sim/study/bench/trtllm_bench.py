"""trtllm-bench: the JSON of ``--report_json``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sim.registry import register
from sim.study.bench._base import Bench
from sim.study.bench._document import Document
from sim.study.bench._run import Run, of_aggregates, refusal
from sim.study.bench._sent import Sent

_RATES = {"request_throughput_req_s": "requests_per_s", "system_output_throughput_tok_s": "output_tokens_per_s"}
_PERCENTILES = {"p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99"}


@register("bench")
class TrtLlmBench(Bench):
    """``{"request_info", "performance", "streaming_metrics"}``: means and percentiles, in ms.

    The file does not say the limit of requests in flight (``--concurrency``): all are taken as sent at once, the tool's default, unless the mean in
    flight shows a limit. Source: NVIDIA/TensorRT-LLM, tensorrt_llm/bench/dataclasses/reporting.py.
    """

    name = "trtllm-bench"
    title = "trtllm-bench --report_json"

    def fits(self, document: Document) -> bool:
        """By its sections."""
        head = document.first
        return isinstance(head.get("performance"), Mapping) and isinstance(head.get("request_info"), Mapping)

    def runs(self, document: Document) -> Iterator[Run]:
        """The one run."""
        keys = document.keys
        info, speed, stream = keys.sub("request_info"), keys.sub("performance"), keys.sub("streaming_metrics")
        measured = {ours: v for theirs, ours in _RATES.items() if (v := speed.number(theirs))}
        for where, mean, percentiles, ours in (
            (speed, "avg_request_latency_ms", "request_latency_percentiles_ms", "e2e_s"),
            (stream, "avg_ttft_ms", "ttft_percentiles", "ttft_s"),
            (stream, "avg_tpot_ms", "tpot_percentiles", "tpot_s"),
        ):
            if value := where.number(mean):
                measured[f"{ours}.mean"] = value * 1e-3
            if isinstance(where.raw(percentiles), Mapping):
                one = where.sub(percentiles)
                measured |= {f"{ours}.{mine}": v * 1e-3 for theirs, mine in _PERCENTILES.items() if (v := one.number(theirs))}
        said = {"engine": "tensorrt-llm"}
        count, prompt, output = info.count("num_requests"), info.number("avg_input_length"), info.number("avg_output_length")
        name = document.path.name
        if not count or not prompt or not output:
            yield refusal(self.name, name, "no request was served: request_info has no num_requests or lengths", said)
            return
        flying = info.number("avg_num_concurrent_requests")
        limit = round(flying) if flying and flying < 0.5 * count else None
        why = (
            f"the file does not say --concurrency: its mean in flight, {limit}, is taken for it"
            if limit
            else "the file does not say --concurrency: all requests sent at once, the tool's default"
        )
        sent = Sent(concurrency=limit) if limit else Sent(rate=float("inf"))
        yield of_aggregates(
            self.name, name, requests=count, prompt=prompt, output=output, measured=measured, sent=sent, said=said, notes=(why,)
        )
