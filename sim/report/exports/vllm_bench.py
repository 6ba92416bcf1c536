"""``vllm bench serve`` JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from sim.ledger import FINISHED
from sim.metrics.series import fleet
from sim.registry import register
from sim.report.exports._base import Export
from sim.report.exports._facts import gap_lists, sent

if TYPE_CHECKING:
    from sim.document import Json
    from sim.ledger import Values
    from sim.metrics.result import Result

_NAMES: Final = {"ttft_s": "ttft", "tpot_s": "tpot", "e2e_s": "e2el"}
_PERCENTILES: Final = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9}
_ITL: Final = {"p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "p99.9": "p999"}
_ERRORS: Final = np.array(["", "rejected", "failed", "in flight at the end"])


def vllm_bench(result: Result, detailed: bool = False) -> dict[str, Json]:
    """The JSON of ``vllm bench serve --save-result`` (in ms), with ``detailed`` that of ``--save-detailed`` (lists in s).

    Statistics are over successes, as there. ``queue_times`` is a client's wait for one of its ``max_concurrency`` places (0 without a
    limit; left out with a rate besides), and ``max_concurrent_requests`` counts requests that are active within one second; both as vLLM
    means them. ``itls``: see `_facts.gap_lists`; ``std_itl_ms`` follows from them. Left out because a simulation has none: ``date``,
    ``generated_texts``. Source: vLLM, vllm/benchmarks/serve.py.
    """
    s, c = result.summary, result.columns
    rate, burstiness, limit = sent(result)
    done = c["status"] == FINISHED
    duration = s.duration_s or 0.0
    tokens_in, tokens_out = float(c["prompt_tokens"][done].sum()), float(c["output_tokens"][done].sum())

    def per_second(n: float) -> float:
        return n / duration if duration > 0 else 0.0

    out: dict[str, Json] = {
        "endpoint_type": "openai",
        "backend": "servesim",
        "label": s.name,
        "model_id": s.context.get("model"),
        "tokenizer_id": s.context.get("model"),
        "num_prompts": int(c["status"].size),
        "request_rate": "inf" if math.isinf(rate) else rate,
        "burstiness": burstiness,
        "max_concurrency": limit,
        "duration": duration,
        "completed": int(done.sum()),
        "failed": int((~done).sum()),
        "total_input_tokens": int(tokens_in),
        "total_output_tokens": int(tokens_out),
        "request_throughput": per_second(float(done.sum())),
        "request_goodput": s.slo.goodput_requests_per_s,
        "output_throughput": per_second(tokens_out),
        "total_token_throughput": per_second(tokens_in + tokens_out),
    }
    gaps: list[list[float]] = []
    if detailed:
        gaps = [g.tolist() for g in gap_lists(result)]
        out |= _lists(result, gaps, done, limit)
        if limit and math.isfinite(rate):  # how long requests waited for a place is not in a result
            del out["queue_times"]
    peak = fleet(result.series)["decode_tokens_per_s"]
    if peak.size:
        out["max_output_tokens_per_s"] = float(peak.max())
    out |= {"max_concurrent_requests": _most_in_a_second(c["arrival_s"][done], c["finish_s"][done]), "rtfx": 0.0}
    for key, name in _NAMES.items():
        out |= _figures(name, c[key][done])
    return out | _itl(result, [g for g in gaps if g])


def _lists(result: Result, gaps: list[list[float]], done: Values, limit: int | None) -> dict[str, Json]:
    c = result.columns
    waited = c["arrival_s"] - c["arrival_s"].min() if limit and c["arrival_s"].size else np.zeros(c["arrival_s"].size)
    return {
        "input_lens": c["prompt_tokens"].tolist(),
        "output_lens": np.where(done, c["output_tokens"], 0).tolist(),
        "ttfts": np.nan_to_num(c["ttft_s"]).tolist(),
        "itls": gaps,
        "latencies": np.nan_to_num(c["e2e_s"]).tolist(),
        "start_times": c["arrival_s"].tolist(),
        "queue_times": waited.tolist(),
        "errors": _ERRORS[c["status"]].tolist(),
    }


def _figures(name: str, values: Values) -> dict[str, Json]:
    values = values[np.isfinite(values)]
    if not values.size:
        values = np.zeros(1)  # as the tool does
    out = {f"mean_{name}_ms": values.mean(), f"median_{name}_ms": np.median(values), f"std_{name}_ms": values.std()}
    out |= {f"{p}_{name}_ms": np.percentile(values, q) for p, q in _PERCENTILES.items()}
    return {k: 1e3 * float(v) for k, v in out.items()}


def _itl(result: Result, gaps: list[list[float]]) -> dict[str, Json]:
    """From the recorder's exact sums and its histogram; the standard deviation from the lists, where they are written."""
    stats = result.summary.latency.itl
    if gaps:
        return _figures("itl", np.concatenate([np.asarray(g) for g in gaps]))
    out = {"mean_itl_ms": stats.mean, "median_itl_ms": stats.p50} | {f"{p}_itl_ms": stats[k] for p, k in _ITL.items()}
    return {k: None if v is None else 1e3 * v for k, v in out.items()}


def _most_in_a_second(start: Values, end: Values) -> int:
    """Most requests that are active within one of the seconds counted from the first start."""
    if not start.size:
        return 0
    first = (start - start.min()).astype(np.int64)
    last = (end - start.min()).astype(np.int64)
    change = np.zeros(int(last.max()) + 2, np.int64)
    np.add.at(change, first, 1)
    np.add.at(change, last + 1, -1)
    return int(np.cumsum(change).max())


def write_vllm_bench(result: Result, path: str | Path, detailed: bool = False) -> Path:
    """Write that JSON file."""
    return (VllmBenchDetailed if detailed else VllmBench)().write(result, Path(path))


@register("export")
class VllmBench(Export):
    """``vllm bench serve --save-result`` JSON."""

    name = "vllm-bench"
    file = "vllm_bench.json"

    def text(self, result: Result) -> Iterator[str]:
        """One JSON object."""
        yield json.dumps(vllm_bench(result), allow_nan=False) + "\n"


@register("export")
class VllmBenchDetailed(Export):
    """``vllm bench serve --save-result --save-detailed`` JSON: also lists of every request."""

    name = "vllm-bench-detailed"
    file = "vllm_bench_detailed.json"

    def text(self, result: Result) -> Iterator[str]:
        """One JSON object."""
        yield json.dumps(vllm_bench(result, detailed=True), allow_nan=False) + "\n"
