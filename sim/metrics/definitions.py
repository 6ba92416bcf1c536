"""THE table of metrics: every name that a table, a file or a plot of this package shows means what is written here.

The docs and every report print it. Names follow ``vllm bench serve``; where other tools use a word differently the note says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_VLLM = "vLLM: vllm/benchmarks/serve.py, calculate_metrics"


@dataclass(frozen=True)
class Metric:
    """One metric. ``key`` is its name in files, ``weight`` says what is averaged over."""

    key: str
    title: str
    unit: str
    formula: str
    weight: str
    source: str
    note: str = ""


DEFINITIONS: Final[tuple[Metric, ...]] = (
    Metric("ttft_s", "TTFT", "s", "first_token − arrival", "request", _VLLM, "Time to first token; queueing included."),
    Metric(
        "tpot_s",
        "TPOT",
        "s",
        "(E2E − TTFT) / (output_tokens − 1)",
        "request",
        _VLLM,
        "Time per output token after the first. A request of one token has none and meets any TPOT target.",
    ),
    Metric(
        "itl_s",
        "ITL",
        "s",
        "gap between consecutive chunks that the client receives",
        "chunk",
        _VLLM,
        "Inter-token latency, over all gaps of all requests. With speculative decoding a chunk holds several tokens: ITL > TPOT. "
        "Percentiles come from a histogram with bins 0.5 % wide; a warm-up cut does not apply to it.",
    ),
    Metric("e2e_s", "E2E", "s", "finish − arrival", "request", _VLLM, "End-to-end latency (vLLM: e2el)."),
    Metric(
        "ingress_s",
        "Ingress",
        "s",
        "taken − arrival",
        "request",
        "–",
        "Until the engine's scheduler has the request: HTTP, tokenising, the API server, gateways and routers, and the rest of the step that "
        "runs when it comes.",
    ),
    Metric(
        "queue_s",
        "Queue",
        "s",
        "first_scheduled − taken",
        "request",
        "vLLM: vllm:request_queue_time_seconds",
        "Only what the scheduler makes it wait: 0 when the request goes into the next step. Engines take requests between two steps.",
    ),
    Metric("duration_s", "Duration", "s", "last finish − first arrival", "run", _VLLM, "Makespan of the counted requests."),
    Metric("requests_per_s", "Request throughput", "1/s", "finished requests / duration", "run", _VLLM),
    Metric(
        "output_tokens_per_s", "Output throughput", "tokens/s", "generated tokens of finished requests / duration", "run", _VLLM
    ),
    Metric("total_tokens_per_s", "Total throughput", "tokens/s", "(prompt + generated tokens) / duration", "run", _VLLM),
    Metric(
        "attainment",
        "SLO attainment",
        "share",
        "requests that meet the target / (finished + rejected + failed)",
        "request",
        "DistServe (OSDI 2024); guidellm",
        "Rejected and failed requests are misses; what the end of the run cut off is not counted. Joint: all targets at once.",
    ),
    Metric(
        "goodput_requests_per_s",
        "Goodput",
        "1/s",
        "requests that meet all their targets / duration",
        "run",
        _VLLM,
        "Without start and drain where the run is long enough, else over all of it. "
        "Not the highest rate that a deployment holds: that is the answer of `servesim capacity`.",
    ),
    Metric("unserved", "Unserved", "share", "(rejected + failed) / (finished + rejected + failed)", "request", "guidellm"),
    Metric("busy", "Busy", "share", "time in which a step executes / time", "time", "–", "Over all replicas."),
    Metric(
        "kv_mean", "KV use", "share", "time-average of KV blocks in use / KV blocks", "time", "vLLM: vllm:kv_cache_usage_perc"
    ),
    Metric(
        "kv_peak",
        "KV peak",
        "share",
        "most KV blocks in use at once / KV blocks",
        "time",
        "vLLM: vllm:kv_cache_usage_perc",
        "Of the replica where it is highest, as of its steps; no average over a bin of the time series.",
    ),
    Metric(
        "preemptions",
        "Preemptions",
        "count",
        "times a running request lost its KV cache and started over",
        "run",
        "vLLM: vllm:num_preemptions_total",
    ),
    Metric(
        "cached_share",
        "Cached",
        "share",
        "prompt tokens found in the prefix cache / prompt tokens",
        "token",
        "vLLM: vllm:prefix_cache_hits_total",
    ),
    Metric(
        "shares",
        "Where the time went",
        "share",
        "time of each kind / (replicas × duration)",
        "time",
        "cost model of the step",
        "Compute, memory bandwidth, communication, host overhead, other, idle: they add to 1.",
    ),
    Metric("kv_blocked", "KV-blocked", "share", "time in which the queue's head waits for KV memory / time", "time", "–"),
)

_BY_KEY: Final = {m.key: m for m in DEFINITIONS}

LATENCIES: Final = ("ttft_s", "tpot_s", "itl_s", "e2e_s", "ingress_s", "queue_s")
SLO_METRICS: Final = ("ttft_s", "tpot_s", "e2e_s")


def definition(key: str) -> Metric:
    """The metric of that key. Raises KeyError."""
    return _BY_KEY[key]


def described(key: str) -> str:
    """What a key of the summary means, for its schema; empty for one that is not in the table."""
    m = _BY_KEY.get(key)
    return f"{m.title}, {m.unit}: {m.formula}" if m is not None else ""


def as_markdown() -> str:
    """The table as Markdown, for the docs."""
    rows = ["| metric | key | unit | formula | over | source |", "|---|---|---|---|---|---|"]
    for m in DEFINITIONS:
        formula = m.formula + (f" ({m.note})" if m.note else "")
        rows.append(f"| {m.title} | `{m.key}` | {m.unit} | {formula} | {m.weight} | {m.source} |")
    return "\n".join(rows) + "\n"
