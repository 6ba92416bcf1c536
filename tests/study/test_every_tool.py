"""The same run as every benchmark tool would write it: read back, it is the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.study.bench import read

START = np.array([10.0, 10.5, 11.0, 13.0, 13.25, 14.0])
PROMPT = np.array([100, 250, 7, 1200, 64, 31])
OUTPUT = np.array([10, 3, 1, 5, 40, 2])
TTFT = np.array([0.1, 0.25, 0.05, 0.75, 0.125, 0.5])
GAP = np.array([0.02, 0.05, 0.0, 0.1, 0.03, 0.25])  # the same between all tokens of a request
E2E = TTFT + GAP * (OUTPUT - 1)
ROWS = range(len(START))
GAPS = [[float(GAP[i])] * int(OUTPUT[i] - 1) for i in ROWS]
SHARES = {"p50": 50, "p90": 90, "p95": 95, "p99": 99}


def statistics(name: str, values: Any) -> dict[str, float]:
    return {f"{name}.mean": float(np.mean(values))} | {f"{name}.{k}": float(np.percentile(values, q)) for k, q in SHARES.items()}


def truth(*, itl: bool, rates: bool = True) -> dict[str, float]:
    """What was measured; ``itl``: the tool keeps gaps; ``rates``: and times, so that throughput follows."""
    more = OUTPUT > 1
    out = statistics("ttft_s", TTFT) | statistics("e2e_s", E2E) | statistics("tpot_s", GAP[more])
    if itl:
        out |= statistics("itl_s", [g for gaps in GAPS for g in gaps])
    if rates:
        span = float((START + E2E).max() - START.min())
        out |= {"requests_per_s": len(START) / span, "output_tokens_per_s": float(OUTPUT.sum()) / span}
    return out


def write(folder: Path, name: str, content: object) -> Path:
    file = folder / name
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def times(i: int) -> list[float]:
    """Of the tokens of a request, by the clock."""
    return [float(START[i] + TTFT[i] + k * GAP[i]) for k in range(OUTPUT[i])]


def vllm(failed: bool) -> object:
    raw: dict[str, Any] = {
        "num_prompts": 6, "request_rate": 2.0, "completed": 6, "input_lens": PROMPT.tolist(), "output_lens": OUTPUT.tolist(), "ttfts": TTFT.tolist(),
        "itls": list(GAPS), "errors": [""] * 6, "start_times": START.tolist(), "request_throughput": 99.0, "model_id": "m", "backend": "openai",
    }  # fmt: skip
    if failed:
        more = {"input_lens": 5, "output_lens": 0, "ttfts": 0.0, "itls": [], "errors": "HTTP 503", "start_times": 10.2}
        raw |= {k: [*raw[k], v] for k, v in more.items()}
    return raw


def aiperf(failed: bool) -> object:
    rows: list[Any] = [
        {
            "metadata": {"request_start_ns": int(START[i] * 1e9), "benchmark_phase": "profiling"},
            "metrics": {
                "time_to_first_token": {"value": TTFT[i] * 1e3, "unit": "ms"}, "request_latency": {"value": E2E[i] * 1e6, "unit": "us"},
                "input_sequence_length": {"value": int(PROMPT[i])}, "output_sequence_length": {"value": int(OUTPUT[i])},
            },
            "error": None,
        }
        for i in ROWS
    ]  # fmt: skip
    if failed:
        rows.append(
            {"metadata": {"request_start_ns": 10_200_000_000}, "metrics": {}, "error": {"message": "HTTP 503", "code": 503}}
        )
        rows.append(rows[0] | {"metadata": {"request_start_ns": 1, "benchmark_phase": "warmup"}})
    return lines(rows)


def genai_raw(failed: bool) -> object:
    def row(i: int) -> dict[str, Any]:
        usage = {"usage": {"prompt_tokens": int(PROMPT[i]), "completion_tokens": int(OUTPUT[i])}}
        out: list[dict[str, Any]] = [{"response": 'data: {"x": 1}\n\n'}] * (OUTPUT[i] - 1)
        out.append({"response": 'data: {"y": 2}\n\ndata: ' + json.dumps(usage) + "\n\ndata: [DONE]\n\n"})
        return {
            "timestamp": int(START[i] * 1e9),
            "response_timestamps": [round(t * 1e9) for t in times(i)],
            "response_outputs": out,
        }

    rows = [row(i) for i in ROWS]
    if failed:
        rows.append({"timestamp": 10_200_000_000, "response_timestamps": [], "response_outputs": []})
    return {"experiments": [{"experiment": {"mode": "request_rate", "value": 2}, "requests": rows}]}


def guidellm(failed: bool) -> object:
    done = [
        {"request_start_time": float(START[i]), "prompt_tokens": int(PROMPT[i]), "output_tokens": int(OUTPUT[i]),
         "time_to_first_token_ms": TTFT[i] * 1e3, "request_latency": float(E2E[i])}
        for i in ROWS
    ]  # fmt: skip
    groups = {"successful": done, "incomplete": [], "errored": [{"start_time": 10.2}] if failed else []}
    return {"benchmarks": [{"config": {"strategy": {"type_": "poisson", "rate": 2.0}}, "requests": groups, "metrics": {}}]}


def inference_perf(failed: bool) -> object:
    rows: list[Any] = [
        {"start_time": float(START[i]), "end_time": float(START[i] + E2E[i]), "error": None,
         "info": {"input_tokens": int(PROMPT[i]), "response_metrics": {"output_tokens": int(OUTPUT[i]), "output_token_times": times(i)}}}
        for i in ROWS
    ]  # fmt: skip
    more = {
        "start_time": 10.2,
        "end_time": 10.3,
        "error": {"error_type": "x", "error_msg": "HTTP 503"},
        "info": {"input_tokens": 4},
    }
    return rows + [more] * failed


def llmperf(failed: bool) -> object:
    rows: list[Any] = [
        {"ttft_s": TTFT[i], "end_to_end_latency_s": E2E[i], "number_input_tokens": int(PROMPT[i]), "number_output_tokens": int(OUTPUT[i]), "error_code": None}
        for i in ROWS
    ]  # fmt: skip
    more = {
        "ttft_s": 0,
        "end_to_end_latency_s": 0,
        "number_input_tokens": 3,
        "number_output_tokens": 0,
        "error_code": 503,
        "error_msg": "HTTP",
    }
    return rows + [more] * failed


def blis(failed: bool) -> object:
    head = "prefix_group,prefix_length,input_tokens,output_tokens,server_input_tokens,"
    head += "arrival_time_us,send_time_us,first_chunk_time_us,last_chunk_time_us,status"
    at = np.rint(np.array([START * 1e6 - 7, START * 1e6, (START + TTFT) * 1e6, (START + E2E) * 1e6])).astype(int)
    rows = [f",0,{PROMPT[i] + 1},{OUTPUT[i]},{PROMPT[i]},{','.join(map(str, at[:, i]))},ok" for i in ROWS]
    return "\n".join([head, *rows, *[",0,5,0,0,10200000,0,0,0,HTTP 503"] * failed]) + "\n"


def blis_json(failed: bool) -> object:
    rows: list[Any] = [
        {
            "arrived_at": float(START[i]),
            "num_prefill_tokens": int(PROMPT[i]),
            "num_decode_tokens": int(OUTPUT[i]),
            "ttft_ms": TTFT[i] * 1e3,
            "e2e_ms": E2E[i] * 1e3,
        }
        for i in ROWS
    ]
    more = {"arrived_at": 10.2, "num_prefill_tokens": 5, "num_decode_tokens": 0, "ttft_ms": 0, "e2e_ms": 0}
    return {"ttft_mean_ms": 1, "completed_requests": 6, "requests": rows + [more] * failed}


def llmservingsim(failed: bool) -> object:
    rows: list[Any] = [
        {"input_toks": int(PROMPT[i]), "output_toks": int(OUTPUT[i]), "arrival_time": float(START[i]), "queued_ts": 500.0 + i,
         "first_token_ts": 500.0 + i + TTFT[i], "last_token_ts": 500.0 + i + E2E[i]}
        for i in ROWS
    ]  # fmt: skip
    return lines(rows + [{"input_toks": 5, "arrival_time": 10.2, "queued_ts": 3.0}] * failed)


def table(failed: bool) -> object:
    rows = [f"{START[i]},{PROMPT[i]},{OUTPUT[i]},{TTFT[i]},{E2E[i]},ok" for i in ROWS]
    return "\n".join(["start_s,input_tokens,output_len,ttft,latency,status", *rows, *["10.2,5,0,1,1,error"] * failed]) + "\n"


def sglang(failed: bool) -> object:
    raw: dict[str, Any] = {
        "backend": "sglang", "random_input_len": 1, "request_rate": 1e6, "input_lens": PROMPT.tolist(), "output_lens": OUTPUT.tolist(),
        "ttfts": TTFT.tolist(), "itls": list(GAPS), "errors": [""] * 6, "request_throughput": 1.5, "output_throughput": 15.0, "model_id": "m",
        "server_info": {"version": "0.5", "tp_size": 2, "other": 3},
    }  # fmt: skip
    more = {"input_lens": 5, "output_lens": 0, "ttfts": 0.0, "itls": [], "errors": "HTTP 503"}
    return lines([raw | ({k: [*raw[k], v] for k, v in more.items()} if failed else {})])


RECORDS: dict[str, tuple[str, Callable[[bool], object], bool, bool]] = {
    # file, its writer, whether it keeps gaps, and start times
    "vllm-bench": ("r.json", vllm, True, True),
    "sglang-bench": ("r.jsonl", sglang, True, False),
    "aiperf": ("profile_export.jsonl", aiperf, False, True),
    "genai-perf-raw": ("profile_export.json", genai_raw, True, True),
    "guidellm": ("benchmarks.json", guidellm, False, True),
    "inference-perf": ("per_request_lifecycle_metrics.json", inference_perf, True, True),
    "llmperf": ("x_individual_responses.json", llmperf, False, False),
    "blis": ("t.csv", blis, False, True),
    "blis-json": ("t.json", blis_json, False, True),
    "llmservingsim": ("r.jsonl", llmservingsim, False, True),
    "requests-csv": ("r.csv", table, False, True),
}


@pytest.mark.parametrize("failed", [False, True])
@pytest.mark.parametrize("tool", RECORDS)
def test_requests_come_back_as_they_were(tmp_path: Path, tool: str, failed: bool) -> None:
    name, made, itl, started = RECORDS[tool]
    (run,) = read(write(tmp_path, name, made(failed)))
    assert run.tool == tool.removesuffix("-json") and not run.refused
    assert run.columns["prompt_tokens"].tolist() == PROMPT.tolist() and run.columns["output_tokens"].tolist() == OUTPUT.tolist()
    want = truth(itl=itl, rates=started)
    if tool == "sglang-bench":
        want |= {"requests_per_s": 1.5, "output_tokens_per_s": 15.0}
        assert run.said == {"engine": "sglang", "model": "m", "version": "0.5", "tp_size": 2}
    assert run.measured == pytest.approx(want, rel=1e-6)
    if started:
        assert run.columns["arrival_s"] == pytest.approx(START - START[0], abs=1e-6) and run.traffic == {"kind": "trace"}
    counts = {k: run.columns[k].tolist() for k in ("counts", "counts_ttft", "counts_tpot", "counts_e2e")}
    assert counts == {
        "counts": [True] * 6,
        "counts_ttft": [True] * 6,
        "counts_tpot": (OUTPUT > 1).tolist(),
        "counts_e2e": [True] * 6,
    }
    assert np.isnan(run.columns["ttft_told"]).all()
    told = [n for n in run.notes if "of 7 requests failed" in n]
    assert len(told) == failed and all(n.startswith("1 of 7 ") for n in told)
    assert run.inside is (tool == "llmservingsim")


MEANS = {"ttft_s": 0.1, "tpot_s": 0.02, "itl_s": 0.019, "e2e_s": 2.08}
FIGURES = {
    f"{k}.{s}": v * f
    for k, v in MEANS.items()
    for s, f in (("mean", 1.0), ("p50", 0.9), ("p90", 1.5), ("p95", 1.75), ("p99", 2.5))
}
FIGURES |= {"requests_per_s": 3.0, "output_tokens_per_s": 300.0}
N, LOST, MEAN_PROMPT, MEAN_OUTPUT, CLIENTS = 50, 2, 250.0, 100.0, 6


def figure(name: str, unit: float = 1.0) -> float:
    return FIGURES[name] / unit


def named(pattern: str, names: dict[str, str], stats: dict[str, str], unit: float = 1e-3) -> dict[str, float]:
    """``{stat}_{name}_ms`` of every figure."""
    return {
        pattern.format(stat=s, name=n): figure(f"{ours}.{mine}", unit) for n, ours in names.items() for s, mine in stats.items()
    }


STATS = {"mean": "mean", "median": "p50", "p90": "p90", "p95": "p95", "p99": "p99"}
SHORT = {"avg": "mean", "p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99"}


def vllm_sums() -> Any:
    return {
        "num_prompts": N + LOST, "completed": N, "max_concurrency": CLIENTS, "request_rate": "inf", "total_input_tokens": N * MEAN_PROMPT,
        "total_output_tokens": N * MEAN_OUTPUT, "request_throughput": 3.0, "output_throughput": 300.0,
    } | named("{stat}_{name}_ms", {"ttft": "ttft_s", "tpot": "tpot_s", "itl": "itl_s", "e2el": "e2e_s"}, STATS)  # fmt: skip


def sglang_sums() -> Any:
    return {
        "backend": "sglang", "sharegpt_output_len": None, "total_output_tokens_retokenized": 1, "completed": N, "max_concurrency": CLIENTS,
        "total_input_tokens": N * MEAN_PROMPT, "total_output_tokens": N * MEAN_OUTPUT, "request_throughput": 3.0, "output_throughput": 300.0,
    } | named("{stat}_{name}_ms", {"ttft": "ttft_s", "tpot": "tpot_s", "itl": "itl_s", "e2e_latency": "e2e_s"}, STATS)  # fmt: skip


def nvidia_sums() -> Any:
    names = {
        "time_to_first_token": "ttft_s",
        "inter_token_latency": "tpot_s",
        "inter_chunk_latency": "itl_s",
        "request_latency": "e2e_s",
    }
    made: dict[str, Any] = {
        k: {"unit": "ms"} | {s: figure(f"{ours}.{mine}", 1e-3) for s, mine in SHORT.items()} for k, ours in names.items()
    }
    averages = {
        "request_throughput": 3.0,
        "output_token_throughput": 300.0,
        "request_count": N,
        "input_sequence_length": MEAN_PROMPT,
    }
    averages |= {"output_sequence_length": MEAN_OUTPUT, "error_request_count": LOST}
    made |= {k: {"unit": "", "avg": v} for k, v in averages.items()}
    return made | {"input_config": {"a": [{"b": {"concurrency": CLIENTS, "c": True}}]}}


def inference_perf_sums() -> Any:
    names = {
        "time_to_first_token": "ttft_s",
        "time_per_output_token": "tpot_s",
        "inter_token_latency": "itl_s",
        "request_latency": "e2e_s",
    }
    latency = {k: {s: figure(f"{ours}.{mine}") for s, mine in STATS.items()} for k, ours in names.items()}
    done = {"count": N, "latency": latency, "throughput": {"requests_per_sec": 3.0, "output_tokens_per_sec": 300.0}}
    done |= {"prompt_len": {"mean": MEAN_PROMPT}, "output_len": {"mean": MEAN_OUTPUT}}
    return {"successes": done, "failures": {"count": LOST}, "load_summary": {"concurrency": CLIENTS}}


def guidellm_sums() -> Any:
    names = {
        "time_to_first_token_ms": ("ttft_s", 1e-3),
        "inter_token_latency_ms": ("tpot_s", 1e-3),
        "request_latency": ("e2e_s", 1.0),
    }
    metrics: dict[str, Any] = {}
    for k, (ours, unit) in names.items():
        shares = {p: figure(f"{ours}.{p}", unit) for p in ("p90", "p95", "p99")}
        metrics[k] = {
            "successful": {"mean": figure(f"{ours}.mean", unit), "median": figure(f"{ours}.p50", unit), "percentiles": shares}
        }
    means = {
        "requests_per_second": 3.0,
        "output_tokens_per_second": 300.0,
        "prompt_token_count": MEAN_PROMPT,
        "output_token_count": MEAN_OUTPUT,
    }
    metrics |= {k: {"successful": {"mean": v}} for k, v in means.items()} | {"request_totals": {"successful": N, "errored": LOST}}
    return {"benchmarks": [{"args": {"strategy": {"type": "concurrent", "streams": CLIENTS}}, "metrics": metrics}]}


def llmperf_sums() -> Any:
    stats = {"mean": "mean", "quantiles_p50": "p50", "quantiles_p90": "p90", "quantiles_p95": "p95", "quantiles_p99": "p99"}
    made = named("results_{name}_{stat}", {"ttft_s": "ttft_s", "end_to_end_latency_s": "e2e_s"}, stats, 1.0)
    made |= {"results_mean_output_throughput_token_per_s": 300.0, "results_num_completed_requests_per_min": 180.0, "model": "m"}
    made |= {
        "results_num_completed_requests": N,
        "results_number_input_tokens_mean": MEAN_PROMPT,
        "results_number_output_tokens_mean": MEAN_OUTPUT,
    }
    return made | {"num_concurrent_requests": CLIENTS}


def inferencex_sums() -> Any:
    names = {"ttft": "ttft_s", "tpot": "tpot_s", "itl": "itl_s", "e2el": "e2e_s"}
    metrics = named("{stat}_{name}", names, STATS, 1.0) | {"tput_per_gpu": 1.0, "output_tput_per_gpu": 75.0}
    return {
        "hw": "h100",
        "framework": "vllm-x",
        "model": "m",
        "tp": 4,
        "conc": 5,
        "isl": 250,
        "osl": 100,
        "spec_decoding": "none",
        "metrics": metrics,
    }


def benchmarker_sums() -> Any:
    names = {"time_to_first_token_ms": "ttft_s", "inter_token_latency_ms": "itl_s", "e2e_latency_ms": "e2e_s"}
    entry = named("{name}_{stat}", names, SHORT) | {"id": "x", "executor_type": "ConstantVUs", "config": {"max_vus": CLIENTS}}
    entry |= {
        "successful_requests": N,
        "failed_requests": LOST,
        "total_tokens_sent": N * MEAN_PROMPT,
        "total_tokens": N * MEAN_OUTPUT,
    }
    entry |= {"request_rate": 3.0, "token_throughput_secs": 300.0}
    return {"config": {"tokenizer": "m"}, "results": [{"id": "warmup", "executor_type": "x"}, entry]}


def evalscope_sums() -> Any:
    means = {
        "Average time to first token (s)": "ttft_s",
        "Average time per output token (s)": "tpot_s",
        "Average inter-token latency (s)": "itl_s",
    }
    means |= {"Average latency (s)": "e2e_s"}
    made = {k: figure(f"{ours}.mean") for k, ours in means.items()} | {
        "Request throughput (req/s)": 3.0,
        "Output token throughput (tok/s)": 300.0,
    }
    made |= {"Succeed requests": N, "Failed requests": LOST, "Number of concurrency": CLIENTS, "Request rate (req/s)": -1}
    return made | {"Average input tokens per request": MEAN_PROMPT, "Average output tokens per request": MEAN_OUTPUT}


def aisbench_sums() -> str:
    rows = ["Performance Parameters,Stage,Average,Min,Median,P75,P90,P95,P99,N"]
    for name, ours in (("E2EL", "e2e_s"), ("TTFT", "ttft_s"), ("TPOT", "tpot_s"), ("ITL", "itl_s")):
        mean, p50, p90, p95, p99 = (f"{figure(f'{ours}.{s}', 1e-3)} ms" for s in ("mean", "p50", "p90", "p95", "p99"))
        rows.append(f"{name},total,{mean},1 ms,{p50},1 ms,{p90},{p95},{p99},{N}")
    rows += [f"{k},total,{v},1,1,1,1,1,1,{N}" for k, v in (("InputTokens", MEAN_PROMPT), ("OutputTokens", MEAN_OUTPUT))]
    return "\n".join(rows) + "\n"


def trtllm_sums() -> Any:
    def shares(ours: str) -> dict[str, float]:
        return {p: figure(f"{ours}.{p}", 1e-3) for p in ("p50", "p90", "p95", "p99")}

    speed = {
        "request_throughput_req_s": 3.0,
        "system_output_throughput_tok_s": 300.0,
        "avg_request_latency_ms": figure("e2e_s.mean", 1e-3),
    }
    stream = {"avg_ttft_ms": figure("ttft_s.mean", 1e-3), "avg_tpot_ms": figure("tpot_s.mean", 1e-3)}
    stream |= {"ttft_percentiles": shares("ttft_s"), "tpot_percentiles": shares("tpot_s")}  # type: ignore[dict-item]
    info = {
        "num_requests": N,
        "avg_input_length": MEAN_PROMPT,
        "avg_output_length": MEAN_OUTPUT,
        "avg_num_concurrent_requests": 6.2,
    }
    return {
        "request_info": info,
        "performance": speed | {"request_latency_percentiles_ms": shares("e2e_s")},
        "streaming_metrics": stream,
    }


def offline_sums() -> Any:
    made = {"backend": "engine", "successful_requests": N, "total_latency": 5.0, "total_input_tokens": N * MEAN_PROMPT}
    return made | {"total_output_tokens": N * MEAN_OUTPUT, "request_throughput": 3.0, "output_throughput": 300.0}


ALL = ("ttft_s", "tpot_s", "itl_s", "e2e_s", "requests_per_s", "output_tokens_per_s")
SUMS: dict[str, tuple[str, Callable[[], Any], tuple[str, ...], int]] = {
    # file, its writer, the figures it has, and how many failed as it says
    "vllm-bench": ("a.json", vllm_sums, ALL, LOST),
    "sglang-bench": ("a.jsonl", lambda: lines([sglang_sums()]), ALL, 0),
    "genai-perf": ("profile_export_genai_perf.json", nvidia_sums, ALL, LOST),
    "aiperf": ("profile_export_aiperf.json", nvidia_sums, ALL, LOST),
    "inference-perf": ("stage_0_lifecycle_metrics.json", inference_perf_sums, ALL, LOST),
    "guidellm": ("benchmarks.json", guidellm_sums, tuple(k for k in ALL if k != "itl_s"), LOST),
    "llmperf": ("x_summary.json", llmperf_sums, ("ttft_s", "e2e_s", *ALL[4:]), 0),
    "inferencex": ("agg.json", inferencex_sums, ALL[:4] + ALL[5:], 0),
    "inference-benchmarker": ("r.json", benchmarker_sums, ("ttft_s", "itl_s", *ALL[3:]), LOST),
    "evalscope": ("benchmark_summary.json", evalscope_sums, ALL, LOST),
    "aisbench": ("g.csv", aisbench_sums, ALL, LOST),
    "trtllm-bench": ("r.json", trtllm_sums, ("ttft_s", "tpot_s", *ALL[3:]), 0),
    "sglang-offline": ("o.json", offline_sums, ALL[4:], 0),
}


@pytest.mark.parametrize("tool", SUMS)
def test_aggregates_come_back_as_they_were(tmp_path: Path, tool: str) -> None:
    name, made, has, failed = SUMS[tool]
    if tool == "aisbench":
        totals = {
            "Failed Requests": {"total": LOST},
            "Max Concurrency": {"total": CLIENTS},
            "Request Throughput": {"total": "3.0 req/s"},
        }
        write(tmp_path, "g.json", totals | {"Output Token Throughput": {"total": "300.0 token/s"}})
    if tool == "evalscope":
        titles = {"TTFT (s)": "ttft_s", "TPOT (s)": "tpot_s", "ITL (s)": "itl_s", "Latency (s)": "e2e_s"}
        rows = [{"Percentiles": f"{p}%"} | {t: figure(f"{k}.p{p}") for t, k in titles.items()} for p in (50, 90, 95, 99)]
        write(tmp_path, "benchmark_percentile.json", [*rows, {"Percentiles": "75%", "TTFT (s)": 9.0}])
    (run,) = read(write(tmp_path, name, made()))
    assert run.tool == tool and not run.refused and not run.lacks
    assert run.measured == pytest.approx({k: v for k, v in FIGURES.items() if k.partition(".")[0] in has})
    prompt, output = run.columns["prompt_tokens"], run.columns["output_tokens"]
    if tool == "inferencex":  # ten prompts a client, uniform between 80 and 100 %
        assert (len(prompt), run.traffic) == (50, {"kind": "closed_loop", "concurrency": 5})
        assert run.said == {"model": "m", "accelerator": "h100", "engine": "vllm", "tp": 4, "ep": None}
        assert prompt.min() >= 200 and prompt.max() <= 250 and output.min() >= 80 and output.max() <= 100 and np.ptp(prompt) > 30
    else:
        assert (len(prompt), prompt.sum(), output.sum()) == (N, N * MEAN_PROMPT, N * MEAN_OUTPUT)
        kind = {"kind": "trace"} if tool == "sglang-offline" else {"kind": "closed_loop", "concurrency": CLIENTS}
        assert run.traffic == kind and (run.columns["arrival_s"] == 0.0).all()
    assert [n for n in run.notes if "requests failed" in n] == [f"{LOST} of {N + LOST} requests failed: they are not sent"] * (
        failed > 0
    )


@pytest.mark.parametrize("tool", [t for t in SUMS if t not in ("aisbench", "inferencex")])
def test_aggregates_without_lengths_are_no_traffic(tmp_path: Path, tool: str) -> None:
    """What prompts or answers were is left out: either the run is refused, or it says what it lacks; never taken as something else."""
    name, made, _, _ = SUMS[tool]

    def without(value: Any, words: tuple[str, ...]) -> Any:
        if isinstance(value, dict):
            return {k: without(v, words) for k, v in value.items() if not any(w in k for w in words)}
        return [without(v, words) for v in value] if isinstance(value, list) else value

    raw = made()
    content = json.loads(raw) if isinstance(raw, str) else raw
    for words in (
        (
            "total_input_tokens",
            "input_sequence",
            "prompt_len",
            "prompt_token",
            "input_tokens",
            "input_length",
            "sent",
            "Average input",
        ),
        (
            "total_output_tokens",
            "output_sequence",
            "output_len",
            "output_token_count",
            "number_output",
            "output_length",
            "total_tokens",
            "Average output",
        ),
    ):
        keep = without(content, words)
        if tool == "sglang-bench":
            keep["total_output_tokens_retokenized"] = 1
        if tool == "sglang-offline":
            keep.setdefault("total_input_tokens", 0)
        found = read(write(tmp_path, name, keep))[-1]
        assert found.refused or any("long" in lack for lack in found.lacks), words


def test_the_genai_table(tmp_path: Path) -> None:
    rows = ["Metric,avg,min,p99,p90,p50"]
    for title, ours in (("Time To First Token", "ttft_s"), ("Inter Token Latency", "tpot_s"), ("Request Latency", "e2e_s")):
        rows.append(
            f'{title} (ms),"{figure(f"{ours}.mean", 1e-3):,}",1,{figure(f"{ours}.p99", 1e-3)},{figure(f"{ours}.p90", 1e-3)},{figure(f"{ours}.p50", 1e-3)}'
        )
    rows += [
        "Output Sequence Length (tokens),100,1,1,1,1",
        "Whatever (ms),1,1,1,1,1",
        "",
        "Metric,Value",
        "Request Throughput (per sec),3.0",
        "Request Count (count),50",
    ]
    (run,) = read(write(tmp_path, "g.csv", "\n".join(rows) + "\n"))
    kept = {f"{k}.{s}" for k in ("ttft_s", "tpot_s", "e2e_s") for s in ("mean", "p50", "p90", "p99")} | {"requests_per_s"}
    assert run.measured == pytest.approx({k: FIGURES[k] for k in kept})
    assert run.lacks == ("how long prompts were", "how requests were sent")
