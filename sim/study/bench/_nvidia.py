"""What aiperf and genai-perf have in common: figures as ``{unit, avg, p50, …}``, named alike."""

from __future__ import annotations

from collections.abc import Mapping

from sim.document import is_number
from sim.study.bench._document import Keys
from sim.study.bench._run import Run, of_aggregates, of_figures, refusal
from sim.study.bench._sent import Sent

FIGURES = {
    "time_to_first_token": "ttft_s", "inter_token_latency": "tpot_s", "inter_chunk_latency": "itl_s", "request_latency": "e2e_s",
}  # fmt: skip
_STATISTICS = {"avg": "mean", "p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99"}
UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "seconds": 1.0, "milliseconds": 1e-3}
NOTE = "inter_token_latency of this tool is the mean of a request, (E2E − TTFT) / (output − 1): compared as TPOT"


def figures(keys: Keys) -> dict[str, float]:
    """Latencies and throughput of an aggregate, by our names."""
    out: dict[str, float] = {}
    for theirs, ours in FIGURES.items():
        if isinstance(keys.raw(theirs), Mapping):
            one = keys.sub(theirs)
            unit = UNITS.get(str(one.raw("unit") or "ms"))
            if unit is None:
                one.fail("unit", f"must be one of {', '.join(UNITS)}", one.raw("unit"))
            for stat, mine in _STATISTICS.items():
                value = one.number(stat)
                if value:
                    out[f"{ours}.{mine}"] = value * unit
    for theirs, mine in (("request_throughput", "requests_per_s"), ("output_token_throughput", "output_tokens_per_s")):
        value = average(keys, theirs)
        if value:
            out[mine] = value
    return out


def average(keys: Keys, name: str) -> float | None:
    """``avg`` of a figure, or the figure itself where it is a number."""
    if isinstance(keys.raw(name), Mapping):
        return keys.sub(name).number("avg")
    return keys.number(name) if isinstance(keys.raw(name), int | float) else None


def sent(config: Mapping[str, object]) -> tuple[int | None, float | None]:
    """(concurrency, rate) of ``input_config``, wherever the version of the tool put them."""
    found: dict[str, float] = {}
    stack: list[object] = [config]
    while stack:
        part = stack.pop()
        if isinstance(part, Mapping):
            for key, value in part.items():
                if is_number(value):
                    found.setdefault(str(key), value)
                else:
                    stack.append(value)
        elif isinstance(part, list):
            stack += part[:100]
    rate = found.get("request_rate")
    concurrency = found.get("concurrency")
    return (int(concurrency) if concurrency and concurrency >= 1 else None), (float(rate) if rate and rate > 0 else None)


def aggregate(tool: str, keys: Keys, name: str) -> Run:
    """A run of an aggregate JSON."""
    config = keys.raw("input_config")
    concurrency, rate = sent(config if isinstance(config, Mapping) else {})
    measured = figures(keys)
    counts = [average(keys, k) for k in ("request_count", "input_sequence_length", "output_sequence_length")]
    errors = average(keys, "error_request_count") or 0
    if not measured:
        return refusal(tool, name, "has no figure that can be compared")
    lacks = [
        text
        for text, missing in (
            ("how many requests were served (request_count)", not counts[0]),
            ("how long prompts were (input_sequence_length)", not counts[1]),
            ("how long answers were (output_sequence_length)", not counts[2]),
            ("how requests were sent (input_config: concurrency or request_rate)", not (concurrency or rate)),
        )
        if missing
    ]
    if lacks:
        return of_figures(tool, name, measured, lacks, notes=(NOTE,))
    n, prompt, output = (float(x or 0) for x in counts)
    return of_aggregates(
        tool, name, requests=int(n), prompt=prompt, output=output, measured=measured, sent=Sent(rate=rate, concurrency=concurrency),
        notes=(NOTE,), failed=int(errors),
    )  # fmt: skip
