"""Metric names of each engine's own ``/metrics``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sim.report.exports._facts import scenario_of

if TYPE_CHECKING:
    from sim.metrics.result import Result

_FINE: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
_TOKEN: Final = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
_WHOLE: Final = (
    0.3,
    0.5,
    0.8,
    1.0,
    1.5,
    2.0,
    2.5,
    5.0,
    10.0,
    15.0,
    20.0,
    30.0,
    40.0,
    50.0,
    60.0,
    120.0,
    240.0,
    480.0,
    960.0,
    1920.0,
    7680.0,
)


@dataclass(frozen=True)
class Names:
    """Our figure → (the engine's name, what it says). ``histograms``: (name, help, buckets in s). ``counters`` are written with ``_total``."""

    gauges: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    counters: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    histograms: Mapping[str, tuple[str, str, tuple[float, ...]]] = field(default_factory=dict)
    label: str = "model_name"


_VLLM: Final = Names(
    {
        "running": ("vllm:num_requests_running", "Number of requests in model execution batches."),
        "waiting": ("vllm:num_requests_waiting", "Number of requests waiting to be processed."),
        "kv_use": ("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage."),
    },
    {
        "prompt": ("vllm:prompt_tokens", "Number of prefill tokens processed."),
        "output": ("vllm:generation_tokens", "Number of generation tokens processed."),
        "preemptions": ("vllm:num_preemptions", "Cumulative number of preemption from the engine."),
        "cache_queries": ("vllm:prefix_cache_queries", "Prefix cache queries, in terms of number of queried tokens."),
        "cache_hits": ("vllm:prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens."),
        "finished": ("vllm:request_success", "Count of successfully processed requests."),
    },
    {
        "ttft_s": ("vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds.", _FINE),
        "itl_s": ("vllm:inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", _TOKEN),
        "tpot_s": (
            "vllm:request_time_per_output_token_seconds",
            "Histogram of time_per_output_token_seconds per request.",
            _TOKEN,
        ),
        "e2e_s": ("vllm:e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", _WHOLE),
        "queue_s": ("vllm:request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.", _WHOLE),
        "prefill_s": ("vllm:request_prefill_time_seconds", "Histogram of time spent in PREFILL phase for request.", _WHOLE),
        "decode_s": ("vllm:request_decode_time_seconds", "Histogram of time spent in DECODE phase for request.", _WHOLE),
        "inference_s": ("vllm:request_inference_time_seconds", "Histogram of time spent in RUNNING phase for request.", _WHOLE),
    },
)
_SGLANG: Final = Names(
    {
        "running": ("sglang:num_running_reqs", "The number of running requests."),
        "waiting": ("sglang:num_queue_reqs", "The number of requests in the waiting queue."),
        "kv_use": ("sglang:token_usage", "The token usage."),
        "gen_throughput": ("sglang:gen_throughput", "The generation throughput (token/s)."),
    },
    {
        "prompt": ("sglang:prompt_tokens", "Number of prefill tokens processed."),
        "output": ("sglang:generation_tokens", "Number of generation tokens processed."),
        "cache_hits": ("sglang:cached_tokens", "Number of cached prompt tokens."),
        "finished": ("sglang:num_requests", "Number of requests processed."),
    },
    {
        "ttft_s": ("sglang:time_to_first_token_seconds", "Histogram of time to first token in seconds.", _FINE),
        "itl_s": ("sglang:inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", _TOKEN),
        "e2e_s": ("sglang:e2e_request_latency_seconds", "Histogram of End-to-end request latency in seconds.", _WHOLE),
        "queue_s": ("sglang:queue_time_seconds", "Histogram of queueing time in seconds.", _WHOLE),
    },
)
_TGI: Final = Names(
    {
        "running": ("tgi_batch_current_size", "Current batch size"),
        "waiting": ("tgi_queue_size", "Current number of requests in the queue"),
    },
    {
        "requests": ("tgi_request_count", "Number of requests"),
        "finished": ("tgi_request_success", "Number of successful requests"),
    },
    {
        "e2e_s": ("tgi_request_duration", "Request duration", _WHOLE),
        "queue_s": ("tgi_request_queue_duration", "Request queue duration", _WHOLE),
        "inference_s": ("tgi_request_inference_duration", "Request inference duration", _WHOLE),
        "tpot_s": ("tgi_request_mean_time_per_token_duration", "Mean time per token per request", _TOKEN),
    },
    "model_id",
)
_LLAMA: Final = Names(
    {
        "running": ("llamacpp:requests_processing", "Number of requests processing."),
        "waiting": ("llamacpp:requests_deferred", "Number of requests deferred."),
        "kv_use": ("llamacpp:kv_cache_usage_ratio", "KV-cache usage. 1 means 100 percent usage."),
    },
    {
        "prompt": ("llamacpp:prompt_tokens", "Number of prompt tokens processed."),
        "output": ("llamacpp:tokens_predicted", "Number of generation tokens processed."),
    },
    {},
)
_OWN: Final = Names(
    {k: (f"servesim:{v}", f"{k} of the simulated engine, which has no such metric of its own") for k, v in
     {"running": "requests_running", "waiting": "requests_waiting", "kv_use": "kv_cache_usage_ratio"}.items()},
    {k: (f"servesim:{v}", f"{k} of the simulated engine") for k, v in
     {"prompt": "prompt_tokens", "output": "generation_tokens", "finished": "requests_finished", "preemptions": "preemptions"}.items()},
    {k: (f"servesim:{v}", f"{k} of the simulated engine", b) for k, v, b in
     (("ttft_s", "time_to_first_token_seconds", _FINE), ("itl_s", "inter_token_latency_seconds", _TOKEN), ("e2e_s", "request_latency_seconds", _WHOLE))},
)  # fmt: skip
_BY_ENGINE: Final = {
    "vllm": _VLLM, "vllm-ascend": _VLLM, "vllm-v0": _VLLM, "sglang": _SGLANG, "tgi": _TGI, "llama.cpp": _LLAMA, "llamacpp": _LLAMA,
}  # fmt: skip


def names_of(result: Result) -> Names:
    """The names of the engine that the scenario deploys (of its first pool); names of our own for an engine that has no such metrics."""
    scenario = scenario_of(result)
    listed = scenario.get("pools")
    pools = [scenario.get("deployment"), *(listed if isinstance(listed, list) else ())]
    engine = next((p.get("engine") for p in pools if isinstance(p, Mapping) and p.get("engine")), None)
    name = engine.get("name") if isinstance(engine, Mapping) else engine
    if name is None:
        name = str(result.summary.context.get("engine", "")).split(" ")[0]
    return _BY_ENGINE.get(str(name), _OWN)


def escaped(text: object) -> str:
    """A label's value."""
    return str(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
