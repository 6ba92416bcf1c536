"""guidellm's ``benchmarks.json``, with its records of requests."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from sim.ledger import FINISHED
from sim.registry import register
from sim.report.exports._base import Export
from sim.report.exports._facts import sent

if TYPE_CHECKING:
    from sim.document import Json
    from sim.ledger import Values
    from sim.metrics.result import Result

_PERCENTILES = {
    "p001": 0.1,
    "p01": 1.0,
    "p05": 5.0,
    "p10": 10.0,
    "p25": 25.0,
    "p50": 50.0,
    "p75": 75.0,
    "p90": 90.0,
    "p95": 95.0,
    "p99": 99.0,
    "p999": 99.9,
}
_RATES = {
    "requests_per_second": "requests_per_s",
    "output_tokens_per_second": "output_tokens_per_s",
    "tokens_per_second": "total_tokens_per_s",
}
_GROUPS = {"successful": (0,), "errored": (1, 2), "incomplete": (3,)}


@register("export")
class GuideLlmReport(Export):
    """``{"benchmarks": [{"args": {"strategy"}, "metrics", "requests": {"successful", "errored", "incomplete"}}]}``; s, and ms where the name says so.

    ``time_per_output_token_ms`` includes the first token and ``inter_token_latency_ms`` does not, as in guidellm.
    """

    name = "guidellm"
    file = "guidellm_benchmarks.json"

    def text(self, result: Result) -> Iterator[str]:
        """One JSON object, a request a line."""
        yield '{"benchmarks":[{"type_":"generative_benchmark","args":' + json.dumps(
            {"profile": None, "strategy": _strategy(result)}
        )
        yield ',"metrics":' + json.dumps(_metrics(result), allow_nan=False)
        yield ',"requests":{'
        for k, (group, statuses) in enumerate(_GROUPS.items()):
            yield ("," if k else "") + f'"{group}":['
            rows = np.flatnonzero(np.isin(result.columns["status"], statuses))
            for j, i in enumerate(rows.tolist()):
                yield (",\n" if j else "\n") + json.dumps(_record(result.columns, i), allow_nan=False)
            yield "]"
        yield "}}]}\n"


def _strategy(result: Result) -> dict[str, Json]:
    rate, _, limit = sent(result)
    if limit:
        return {"type_": "concurrent", "streams": limit}
    return {"type_": "throughput"} if math.isinf(rate) else {"type_": "poisson", "rate": rate}


def _record(c: Mapping[str, Values], i: int) -> dict[str, Json]:
    def ms(x: float) -> float | None:
        return 1e3 * x if math.isfinite(x) else None

    e2e, output = float(c["e2e_s"][i]), int(c["output_tokens"][i])
    end = float(c["finish_s"][i])
    return {
        "type_": "generative_request_stats", "request_id": str(int(c["id"][i])), "request_start_time": float(c["arrival_s"][i]),
        "request_end_time": end if math.isfinite(end) else None, "request_latency": e2e if math.isfinite(e2e) else None,
        "prompt_tokens": int(c["prompt_tokens"][i]), "output_tokens": output, "time_to_first_token_ms": ms(float(c["ttft_s"][i])),
        "inter_token_latency_ms": ms(float(c["tpot_s"][i])), "time_per_output_token_ms": ms(e2e / output) if output else None,
    }  # fmt: skip


def _metrics(result: Result) -> dict[str, Json]:
    c, t = result.columns, result.summary.throughput
    done = c["status"] == FINISHED
    output = np.where(c["output_tokens"] > 0, c["output_tokens"], np.nan)
    values = {
        "request_latency": c["e2e_s"], "time_to_first_token_ms": 1e3 * c["ttft_s"], "inter_token_latency_ms": 1e3 * c["tpot_s"],
        "time_per_output_token_ms": 1e3 * c["e2e_s"] / output, "prompt_token_count": c["prompt_tokens"].astype(float),
        "output_token_count": c["output_tokens"].astype(float),
    }  # fmt: skip
    out: dict[str, Json] = {name: {"successful": _distribution(v[done])} for name, v in values.items()}
    for name, key in _RATES.items():
        out[name] = {"successful": {"mean": t[key]}}
    status = c["status"]
    counts = {g: int(np.isin(status, s).sum()) for g, s in _GROUPS.items()}
    return out | {"request_totals": {**counts, "total": int(status.size)}}


def _distribution(values: Values) -> dict[str, Json]:
    values = values[np.isfinite(values)]
    if not values.size:
        return {"count": 0}
    found = np.percentile(values, list(_PERCENTILES.values()))
    return {
        "count": int(values.size), "mean": float(values.mean()), "median": float(np.median(values)), "std_dev": float(values.std()),
        "min": float(values.min()), "max": float(values.max()), "percentiles": dict(zip(_PERCENTILES, map(float, found), strict=True)),
    }  # fmt: skip
