"""Results in the formats that other tools read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sim.metrics.series import fleet
from sim.metrics.store import write_csv

if TYPE_CHECKING:
    from sim.metrics.result import Result

_VLLM_NAMES: Final = {"ttft_s": "ttft", "tpot_s": "tpot", "itl_s": "itl", "e2e_s": "e2el"}
_VLLM_PERCENTILES: Final = {"p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "p999": "p99.9"}


def vllm_bench(result: Result, detailed: bool = False) -> dict[str, Any]:
    """The JSON of ``vllm bench serve --save-result`` (in ms), with ``detailed`` that of ``--save-detailed`` (lists in s).

    Left out because a simulation has none: ``date``, ``generated_texts``; ``itls`` (the gaps of each request are not kept) and
    ``std_itl_ms``. Source: vLLM, vllm/benchmarks/serve.py.
    """
    s = result.summary
    context, t, slo = s["context"], s["throughput"], s["slo"]
    c = result.columns
    done = c["status"] == 0
    out: dict[str, Any] = {
        "endpoint_type": "servesim",
        "backend": str(context.get("engine", "servesim")),
        "label": s["name"],
        "model_id": context.get("model"),
        "tokenizer_id": context.get("model"),
        "num_prompts": s["requests"]["injected"],
        "request_rate": context.get("request_rate", "inf"),
        "max_concurrency": context.get("max_concurrency"),
        "duration": s["duration_s"],
        "completed": s["requests"]["finished"],
        "failed": s["requests"]["rejected"] + s["requests"]["failed"],
        "total_input_tokens": s["tokens"]["prompt"],
        "total_output_tokens": s["tokens"]["output"],
        "request_throughput": t["requests_per_s"],
        "request_goodput": slo["goodput_requests_per_s"],
        "output_throughput": t["output_tokens_per_s"],
        "total_token_throughput": t["total_tokens_per_s"],
        "max_concurrent_requests": _most_at_once(c["arrival_s"], c["finish_s"]),
    }
    peak = fleet(result.series)["decode_tokens_per_s"]
    if peak.size:
        out["max_output_tokens_per_s"] = float(peak.max())
    for key, name in _VLLM_NAMES.items():
        stats = s["latency"][key]
        out[f"mean_{name}_ms"], out[f"median_{name}_ms"] = _ms(stats["mean"]), _ms(stats["p50"])
        if stats["std"] is not None:
            out[f"std_{name}_ms"] = _ms(stats["std"])
        out |= {f"{title}_{name}_ms": _ms(stats[p]) for p, title in _VLLM_PERCENTILES.items()}
    if detailed:
        out |= {
            "input_lens": c["prompt_tokens"].tolist(),
            "output_lens": c["output_tokens"].tolist(),
            "ttfts": np.nan_to_num(c["ttft_s"]).tolist(),
            "latencies": np.nan_to_num(c["e2e_s"]).tolist(),
            "start_times": c["arrival_s"].tolist(),
            "queue_times": np.nan_to_num(c["queue_s"]).tolist(),
            "errors": np.where(done, "", np.array(["", "rejected", "failed", "in flight"])[c["status"]]).tolist(),
        }
    return out


def write_vllm_bench(result: Result, path: str | Path, detailed: bool = False) -> Path:
    """Write that JSON file."""
    path = Path(path)
    path.write_text(json.dumps(vllm_bench(result, detailed)) + "\n", encoding="utf-8")
    return path


def write_requests_csv(result: Result, path: str | Path) -> Path:
    """The request table as CSV, compressed when the name ends in ``.gz``."""
    path = Path(path)
    write_csv(result.columns, path)
    return path


def _ms(value: float | None) -> float | None:
    return None if value is None else 1e3 * value


def _most_at_once(arrival: Any, finish: Any) -> int:
    finish = finish[~np.isnan(finish)]
    if arrival.size == 0:
        return 0
    times = np.concatenate([finish, arrival])  # at equal times a finish comes first
    change = np.concatenate([np.full(finish.size, -1), np.ones(arrival.size, np.int64)])
    return int(np.cumsum(change[np.argsort(times, kind="stable")]).max())
