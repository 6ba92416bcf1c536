"""Results of further tools: what carries enough facts is read to the figure, the rest refused with what is missing."""

import json
import os

import numpy as np
import pytest

from sim.errors import DataError
from sim.study.bench import read
from sim.study.bench._run import Requests, of_requests
from sim.study.bench._sent import Sent


def write(folder, name, content):
    file = folder / name
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


EVALSCOPE = {
    "Time taken for tests (s)": 55.6, "Number of concurrency": 8, "Request rate (req/s)": -1.0, "Total requests": 100, "Succeed requests": 99,
    "Failed requests": 1, "Output token throughput (tok/s)": 364.0, "Total token throughput (tok/s)": 412.1, "Request throughput (req/s)": 1.78,
    "Average latency (s)": 4.3, "Average time to first token (s)": 0.12, "Average time per output token (s)": 0.0205,
    "Average inter-token latency (s)": 0.0204, "Average input tokens per request": 27.0, "Average output tokens per request": 204.5,
}  # fmt: skip


def test_evalscope(tmp_path):
    write(
        tmp_path,
        "benchmark_percentile.json",
        [{"Percentiles": "50%", "TTFT (s)": 0.11, "Latency (s)": 4.2}, {"Percentiles": "75%", "TTFT (s)": 9}],
    )
    (run,) = read(write(tmp_path, "benchmark_summary.json", EVALSCOPE))
    assert run.tool == "evalscope"
    assert run.traffic == {"kind": "closed_loop", "concurrency": 8}
    assert run.columns["prompt_tokens"].tolist() == [27] * 99
    assert run.columns["output_tokens"].mean() == pytest.approx(204.5, rel=1e-2)
    assert run.measured == pytest.approx(
        {"ttft_s.mean": 0.12, "ttft_s.p50": 0.11, "e2e_s.p50": 4.2, "tpot_s.mean": 0.0205, "itl_s.mean": 0.0204, "e2e_s.mean": 4.3,
         "requests_per_s": 1.78, "output_tokens_per_s": 364.0}
    )  # fmt: skip
    assert any("1 of 100 requests failed" in n for n in run.notes)
    (rated,) = read(write(tmp_path, "benchmark_summary.json", EVALSCOPE | {"Request rate (req/s)": 2.0}))
    assert rated.traffic == {"kind": "closed_loop", "concurrency": 8, "paced": True}
    (none,) = read(write(tmp_path, "benchmark_summary.json", EVALSCOPE | {"Succeed requests": 0}))
    assert "no request was served" in none.refused


def test_what_lies_beside_and_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "benchmark_percentile.json")
    (run,) = read(write(tmp_path, "benchmark_summary.json", EVALSCOPE))
    assert not run.refused
    assert "ttft_s.p50" not in run.measured


AISBENCH = """Performance Parameters,Stage,Average,Min,Max,Median,P75,P90,P99,N
E2EL,total,2048.2945 ms,1729.7498 ms,3450.96 ms,2491.8789 ms,2750.85 ms,3184.9186 ms,3424.4354 ms,8
TTFT,total,50.332 ms,50.6244 ms,52.0585 ms,50.3237 ms,50.5872 ms,50.7566 ms,50.1 ms,8
TPOT,total,10.6965 ms,10.061 ms,10.8805 ms,10.7495 ms,10.7818 ms,10.808 ms,10.8582 ms,8
ITL,total,10.6965 ms,7.3583 ms,13.7707 ms,10.7513 ms,10.8009 ms,10.8358 ms,10.9322 ms,8
InputTokens,total,1512.5,1481.0,1566.0,1511.5,1520.25,1536.6,1563.06,8
OutputTokens,total,287.375,200.0,407.0,280.0,322.75,374.8,403.78,8
OutputTokenThroughput,total,115.9216 token/s,107.6555 token/s,116.5352 token/s,117.6448 token/s,118.2426 token/s,118.3765 token/s,118.6388 token/s,8
"""
TOTALS = {
    "Benchmark Duration": {"total": "2391.5461 ms"}, "Total Requests": {"total": 9}, "Failed Requests": {"total": 1}, "Max Concurrency": {"total": 4},
    "Request Throughput": {"total": "3.3451 req/s"}, "Output Token Throughput": {"total": "961.3 token/s"},
}  # fmt: skip


def test_aisbench(tmp_path):
    file = write(tmp_path, "gsm8k.csv", AISBENCH)
    (alone,) = read(file)
    assert alone.lacks == ("how requests were sent (Max Concurrency, in the JSON beside it)",)
    assert alone.measured["ttft_s.mean"] == pytest.approx(0.050332)
    totals = write(tmp_path, "gsm8k.json", TOTALS)
    (run,) = read(file)
    assert run.traffic == {"kind": "closed_loop", "concurrency": 4}
    assert run.columns["prompt_tokens"].sum() == 8 * 1512.5
    assert (run.measured["e2e_s.p50"], run.measured["tpot_s.p99"]) == (pytest.approx(2.4918789), pytest.approx(0.0108582))
    assert run.measured["requests_per_s"] == pytest.approx(3.3451)
    (only,) = read(totals)
    assert only.lacks


def test_trtllm_bench(tmp_path):
    report = {
        "engine": {"model": "meta-llama/Llama-3.1-8B", "version": "1.0"}, "world_info": {"tp_size": 1},
        "request_info": {"num_requests": 300, "avg_num_concurrent_requests": 31.7, "avg_input_length": 128.0, "avg_output_length": 64.0},
        "performance": {"request_throughput_req_s": 40.2, "system_output_throughput_tok_s": 2572.8, "avg_request_latency_ms": 790.0,
                        "request_latency_percentiles_ms": {"p50": 780.0, "p99": 900.0, "minimum": 3.0}},
        "streaming_metrics": {"avg_ttft_ms": 51.0, "avg_tpot_ms": 11.7, "ttft_percentiles": {"p90": 80.0}},
    }  # fmt: skip
    (run,) = read(write(tmp_path, "report.json", report))
    assert run.tool == "trtllm-bench"
    assert run.traffic == {"kind": "closed_loop", "concurrency": 32}
    assert any("does not say --concurrency" in n for n in run.notes)
    assert run.measured["e2e_s.p50"] == pytest.approx(0.78)
    assert run.measured["ttft_s.p90"] == pytest.approx(0.08)
    report["request_info"]["avg_num_concurrent_requests"] = 290.0
    (run,) = read(write(tmp_path, "report.json", report))
    assert run.columns["arrival_s"].tolist() == [0.0] * 300


def test_locust(tmp_path):
    table = "Type,Name,Request Count,Failure Count,Median Response Time,Average Response Time,Requests/s,Failures/s,50%,95%,99%\n"
    table += "POST,/v1/chat,100,2,1200,1300.5,10,0.2,1200,2000,2500\n,Aggregated,100,2,1200,1300.5,10,0.2,1200,2000,2500\n"
    (run,) = read(write(tmp_path, "x_stats.csv", table))
    assert run.measured == pytest.approx(
        {"e2e_s.mean": 1.3005, "e2e_s.p50": 1.2, "e2e_s.p95": 2.0, "e2e_s.p99": 2.5, "requests_per_s": 9.8}
    )
    assert run.lacks[0] == "how long prompts and answers were"


def test_sglang_offline_and_one_batch(tmp_path):
    offline = {"backend": "engine", "successful_requests": 10, "total_latency": 5.0, "total_input_tokens": 3000, "total_output_tokens": 1000,
               "request_throughput": 2.0, "input_throughput": 600.0, "output_throughput": 200.0, "total_throughput": 800.0}  # fmt: skip
    batch = {"run_name": "d", "batch_size": 16, "input_len": 1024, "output_len": 8, "prefill_latency": 0.2, "total_latency": 0.4}
    file = write(tmp_path, "r.jsonl", json.dumps(offline) + "\n" + json.dumps(batch) + "\n")
    run, refused = read(file)
    assert run.columns["prompt_tokens"].tolist() == [300] * 10
    assert run.measured == {"requests_per_s": 2.0, "output_tokens_per_s": 200.0}
    assert "needs `sglang.bench_serving`" in refused.refused


def test_guidellm_in_its_first_form(tmp_path):
    rows = [
        {
            "prompt": "a",
            "prompt_token_count": 20,
            "output_token_count": 5,
            "start_time": 100.0 + k,
            "end_time": 100.9 + k,
            "first_token_time": 0.1,
        }
        for k in range(4)
    ]
    report = {"benchmarks": [{"mode": "asynchronous", "rate": 1.0, "results": rows, "errors": [{}], "concurrencies": []}]}
    (run,) = read(write(tmp_path, "report.json", report))
    assert run.columns["arrival_s"].tolist() == [0, 1, 2, 3]
    assert run.measured["ttft_s.mean"] == pytest.approx(0.1)
    assert run.measured["tpot_s.mean"] == pytest.approx(0.2)
    assert any("1 of 5 requests failed" in n for n in run.notes)
    report["benchmarks"][0]["results"] = []
    (none,) = read(write(tmp_path, "report.json", report))
    assert "no request was served" in none.refused
    del rows[1]["prompt_token_count"]
    report["benchmarks"][0]["results"] = rows
    with pytest.raises(DataError, match=r"results\[1\].prompt_token_count'"):
        read(write(tmp_path, "report.json", report))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", AISBENCH.replace("50.332 ms", "-3 ms")),
        ("a.csv", AISBENCH.replace("1512.5", "inf")),
        ("b_stats.csv", "Type,Request Count,Median Response Time,Average Response Time\nx,nan,1,1\n"),
        ("e.json", EVALSCOPE | {"Average latency (s)": "x"}),
    ],
)
def test_figures_that_cannot_be_are_named(tmp_path, name, content):
    with pytest.raises(DataError, match=r"must (be|have) (a )?(finite )?number"):
        read(write(tmp_path, name, content))


def raw(usage):
    last = 'data: {"choices":[],"usage":{"prompt_tokens":50,"completion_tokens":4,"total_tokens":54}}\n\n' if usage else ""
    times = [[1_000_000_000 * k, [1_000_000_000 * k + ms * 1_000_000 for ms in (100, 120, 150, 200)]] for k in range(3)]
    outputs = [{"response": 'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'}] * 3 + [{"response": last}]
    rows = [{"timestamp": at, "request_inputs": {}, "response_timestamps": got, "response_outputs": outputs} for at, got in times]
    return {"experiments": [{"experiment": {"mode": "concurrency", "value": 1}, "requests": rows}]}


def test_genai_perf_raw(tmp_path):
    (run,) = read(write(tmp_path, "profile_export.json", raw(True)))
    assert run.tool == "genai-perf-raw"
    assert (run.columns["prompt_tokens"].tolist(), run.columns["output_tokens"].tolist()) == ([50] * 3, [4] * 3)
    assert run.measured["ttft_s.mean"] == pytest.approx(0.1)
    assert run.measured["tpot_s.mean"] == pytest.approx(0.1 / 3)
    assert run.measured["itl_s.p50"] == pytest.approx(0.03)
    (short,) = read(write(tmp_path, "profile_export.json", raw(False)))
    assert short.lacks[0].startswith("how long prompts and answers were")
    assert short.measured["e2e_s.mean"] == pytest.approx(0.2)


def requests_of(outcomes, output=10):
    """As many requests, one a second, of which each is served or not."""
    n = len(outcomes)
    ok = np.array(outcomes)
    return Requests(
        np.full(n, 100.0),
        np.where(ok, output, 0.0),
        np.full(n, 0.5),
        np.full(n, 1.4),
        ok,
        errors=["" if x else "503" for x in ok],
    )


@pytest.mark.parametrize(
    ("outcomes", "refused"),
    [([True], False), ([False], True), ([True, False], False), ([True, False, False], True), ([True] * 3 + [False] * 3, False)],
)
def test_a_run_of_which_less_than_half_was_served_is_no_operating_point(outcomes, refused):
    run = of_requests("tool", "x", requests_of(outcomes), Sent(start=np.arange(float(len(outcomes)))))
    assert bool(run.refused) is refused
    if not refused:
        served = sum(outcomes)
        assert len(run.columns["arrival_s"]) == served
        assert run.measured["ttft_s.mean"] == pytest.approx(0.5)
        assert run.measured["tpot_s.p99"] == pytest.approx(0.1)
        assert any("failed" in note for note in run.notes) is (served < len(outcomes))


def test_a_request_of_one_token_has_no_time_per_token():
    run = of_requests("tool", "x", requests_of([True] * 4, output=1), Sent(start=np.arange(4.0)))
    assert "tpot_s.mean" not in run.measured
    assert not run.columns["counts_tpot"].any()
    assert run.columns["counts_ttft"].all() and run.columns["counts_e2e"].all()
