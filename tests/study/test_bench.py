"""Results of benchmark tools: every figure as the tool counts it, or a reason."""

import json

import numpy as np
import pytest

import sim
from sim.errors import DataError
from sim.report.exports import write_vllm_bench
from sim.study.accuracy import accuracy, read_points
from sim.study.accuracy.predict import predict
from sim.study.bench import read


def write(folder, name, content):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def vllm(n=4, output=10, **changes):
    """A detailed result of ``n`` requests of 100 tokens."""
    raw = {
        "backend": "vllm", "model_id": "m", "num_prompts": n, "request_rate": "inf", "max_concurrency": None, "duration": 1.0, "completed": n,
        "request_throughput": 4.0, "output_throughput": 20.0, "input_lens": [100] * n, "output_lens": [output] * n, "ttfts": [0.1] * n,
        "itls": [[0.02] * (output - 1)] * n, "errors": [""] * n,
    }  # fmt: skip
    return raw | changes


NOTHING = {
    "completed": 1,
    "output_lens": [0] * 4,
    "ttfts": [20.0, 20.0, 20.0, 0.0],
    "itls": [[]] * 4,
    "errors": ["timeout"] * 3 + [""],
}
ENDED = {"output_lens": [10, 10, 0, 0], "ttfts": [0.1, 0.1, 0.0, 0.0], "itls": [[0.02] * 9] * 2 + [[], []]}
AGGREGATE = {
    "num_prompts": 500, "request_rate": "inf", "max_concurrency": 128, "duration": 39.2, "completed": 500, "total_input_tokens": 63996,
    "total_output_tokens": 340981, "request_throughput": 12.8, "output_throughput": 8706.4, "mean_ttft_ms": 386.1, "p99_tpot_ms": 13.6,
}  # fmt: skip


def test_a_run_in_which_nothing_was_served_is_no_operating_point(tmp_path):
    file = write(tmp_path, "a.json", vllm(**NOTHING))

    with pytest.raises(DataError, match=r"no request was served: 3 of 4 failed \('timeout'\), 1 ended without a token"):
        list(read_points([file], sim.load("quickstart")))
    write(tmp_path, "b.json", vllm())
    points = list(read_points([tmp_path], sim.load("quickstart")))
    assert [bool(p.refused) for p in points] == [True, False]
    write(tmp_path, "other.json", {"hello": 1})
    points = list(read_points([tmp_path], sim.load("quickstart")))
    assert "not read, as no benchmark result that is known: other.json" in points[0].notes


def test_requests_without_a_token_count_as_the_tool_counts_them(tmp_path):
    (point,) = read_points([write(tmp_path, "a.json", vllm(**ENDED))], sim.load("quickstart"))

    assert point.measured["ttft_s.mean"] == pytest.approx(0.05)  # two of the four with 0, as in mean_ttft_ms
    assert point.measured["e2e_s.mean"] == pytest.approx(0.28)
    assert "2 of 4 requests ended without a token" in point.notes[0]
    predicted = predict(point)
    (all_served,) = read_points([write(tmp_path, "b.json", vllm())], sim.load("quickstart"))
    assert predicted["ttft_s.p50"] == pytest.approx(predict(all_served)["ttft_s.p50"] / 2, rel=0.3)
    assert predicted["output_tokens_per_s"] / predicted["requests_per_s"] == pytest.approx(5.0)  # 20 tokens of 4 requests


def test_aggregates_alone_are_enough(tmp_path):
    (run,) = read(write(tmp_path, "a.json", AGGREGATE))

    assert run.traffic == {"kind": "closed_loop", "concurrency": 128}
    assert run.measured["ttft_s.mean"] == pytest.approx(0.3861)
    assert run.measured["tpot_s.p99"] == pytest.approx(0.0136)
    assert (run.columns["prompt_tokens"].sum(), run.columns["output_tokens"].sum()) == (63996, 340981)
    assert any("every output taken as long as the mean, 682 tokens" in note for note in run.notes)


def test_a_rate_without_start_times_is_drawn_and_said(tmp_path):
    (run,) = read(write(tmp_path, "a.json", vllm(8, request_rate=2.0)))

    assert run.columns["arrival_s"][-1] - run.columns["arrival_s"][0] < 4.0
    assert "Poisson arrivals drawn at 2/s" in run.notes[0]


def test_a_ramp_rises(tmp_path):
    ramp = {"ramp_up_strategy": "linear", "ramp_up_start_rps": 1, "ramp_up_end_rps": 9}
    (run,) = read(write(tmp_path, "a.json", vllm(400, request_rate="inf", **ramp)))

    gaps = np.diff(run.columns["arrival_s"])
    assert gaps[:200].mean() > 1.8 * gaps[200:].mean()


def test_a_folder_of_results(tmp_path):
    write(tmp_path, "one/a.json", vllm())
    write(tmp_path, "two/b.json", vllm(max_concurrency=2))
    write(tmp_path, "README.json", {"hello": 1})

    points = list(read_points([tmp_path], sim.load("quickstart")))

    assert [p.id for p in points] == ["one/a.json", "two/b.json"]
    with pytest.raises(
        DataError, match=r"holds no points.jsonl and no benchmark result; not known are README.json.*vllm bench serve"
    ):
        write(tmp_path, "three/README.json", {"hello": 1})
        list(read_points([tmp_path / "three"], sim.load("quickstart")))


def test_a_sweep_is_read_once(tmp_path):
    write(tmp_path, "sweep/SERVE--BENCH-1/run=0.json", vllm() | {"run_number": 0})
    write(tmp_path, "sweep/SERVE--BENCH-2/run=0.json", vllm(max_concurrency=2) | {"run_number": 0})
    write(tmp_path, "sweep/SERVE--BENCH-2/summary.json", [vllm(max_concurrency=2)])
    write(tmp_path, "sweep/summary.json", [vllm(), vllm(max_concurrency=2)])
    write(tmp_path, "sweep/summary.csv", "run_number,mean_ttft_ms\n0,100\n")
    write(
        tmp_path,
        "x.iterations.csv",
        "time,iteration,prompt_requests,prompt_tokens,decode_requests,decode_tokens,elapsed_ms\n1,2,0,0,1,1,30.5\n",
    )

    points = list(read_points([tmp_path], sim.load("quickstart")))

    assert [p.id for p in points if p.traffic["kind"] != "steps"] == [
        "sweep/SERVE--BENCH-1/run=0.json",
        "sweep/SERVE--BENCH-2/run=0.json",
    ]


def test_an_own_export_reads_back(tmp_path):
    scenario = sim.load("quickstart", ["traffic.synthetic.requests=400"])
    result = sim.run(scenario)
    file = write_vllm_bench(result, tmp_path / "own.json", detailed=True)
    latency = result.summary["latency"]

    (outcome,) = accuracy([file], scenario=scenario).outcomes

    measured = outcome.point.measured
    for key in ("ttft_s", "tpot_s", "e2e_s", "itl_s"):
        assert measured[f"{key}.mean"] == pytest.approx(latency[key]["mean"], rel=1e-6)
        assert measured[f"{key}.p99"] == pytest.approx(latency[key]["p99"], rel=0.05 if key == "itl_s" else 1e-9)
    errors = outcome.errors()
    assert {"itl_s.mean", "itl_s.p99", "ttft_s.p99"} <= set(errors)
    assert max(abs(e) for m, e in errors.items() if m.endswith(".mean")) < 1e-6


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"ttfts": [0.1, "x", 0.1, 0.1]}, r"key 'ttfts\[1\]': must be a finite number"),
        ({"ttfts": [0.1, -1, 0.1, 0.1]}, r"key 'ttfts\[1\]': must be at least 0"),
        ({"ttfts": [0.1] * 3}, "differ in length"),
        ({"itls": [[0.1], None, [], []]}, r"key 'itls\[1\]': must be a list"),
        ({"itls": [[float("nan")], [], [], []]}, r"key 'itls\[0\]\[0\]': must be a finite number"),
        ({"request_rate": -3}, "key 'request_rate': must be at least 0"),
        ({"request_rate": "fast"}, "key 'request_rate': must be a number"),
        ({"max_concurrency": 1.5}, "key 'max_concurrency': must be a whole number"),
        ({"output_lens": None}, "key 'output_lens'"),
    ],
)
def test_a_key_that_cannot_be_used_is_named(tmp_path, changes, key):
    with pytest.raises(DataError, match=key):
        read(write(tmp_path, "a.json", vllm(**changes)))


def stage(**changes):
    """A stage of inference-perf."""
    latency = {"request_latency": {"mean": 0.48}, "time_to_first_token": {"mean": 0.03, "median": 0.029, "p99": 0.04},
               "time_per_output_token": {"mean": 0.0073, "p99": 0.008}, "inter_token_latency": {"mean": 0.0073}}  # fmt: skip
    done = {"count": 60, "latency": latency, "throughput": {"requests_per_sec": 0.997, "output_tokens_per_sec": 62.2},
            "prompt_len": {"mean": 200.5}, "output_len": {"mean": 62.5}}  # fmt: skip
    return {"load_summary": {"requested_rate": 1.0}, "successes": done, "failures": {"count": 3}} | changes


def records(n=3, **changes):
    metrics = {"time_to_first_token": {"value": 50.0, "unit": "ms"}, "request_latency": {"value": 0.5, "unit": "s"},
               "input_sequence_length": {"value": 100, "unit": "tokens"}, "output_sequence_length": {"value": 10, "unit": "tokens"}}  # fmt: skip
    about = {
        "request_start_ns": 10**18,
        "request_end_ns": 10**18 + 5 * 10**8,
        "was_cancelled": False,
        "benchmark_phase": "profiling",
    }
    return [
        {"metadata": about | {"request_start_ns": 10**18 + i * 10**9}, "metrics": metrics, "error": None} | changes
        for i in range(n)
    ]


def guidellm(strategy, **groups):
    request = {
        "start_time": 5.0,
        "prompt_tokens": 100,
        "output_tokens": 11,
        "time_to_first_token_ms": 50.0,
        "request_latency": 0.55,
    }
    members = {"successful": [request, {**request, "start_time": 6.0}], "incomplete": [], "errored": []} | groups
    return {"benchmarks": [{"args": {"strategy": strategy}, "metrics": {}, "requests": members}]}


LLMPERF = {
    "ttft_s": 0.43,
    "end_to_end_latency_s": 2.93,
    "number_output_tokens": 151,
    "number_input_tokens": 550,
    "error_code": None,
}
INFX = {"hw": "h100", "framework": "vllm", "precision": "fp8", "tp": 2, "ep": 1, "conc": 4, "isl": 1000, "osl": 100, "model": "m",
        "metrics": {"tput_per_gpu": 500.0, "output_tput_per_gpu": 50.0, "mean_ttft": 0.2, "p99_tpot": 0.02}}  # fmt: skip
TGI = {
    "config": {"tokenizer": "m"},
    "results": [
        {"id": "warmup", "executor_type": "ConstantVUs", "successful_requests": 1},
        {"id": "throughput", "executor_type": "ConstantVUs", "config": {"max_vus": 8}, "successful_requests": 40, "failed_requests": 2,
         "total_tokens": 8000, "total_tokens_sent": 4000, "time_to_first_token_ms_avg": 80.0, "inter_token_latency_ms_p90": 12.0},
        {"id": "constant@2", "executor_type": "ConstantArrivalRate", "config": {"rate": 2.0, "max_vus": 8}, "successful_requests": 40,
         "total_tokens": 8000, "total_tokens_sent": 4000, "e2e_latency_ms_avg": 900},
    ],
}  # fmt: skip


def test_inference_perf(tmp_path):
    (run,) = read(write(tmp_path, "stage_0_lifecycle_metrics.json", stage()))

    assert run.measured["ttft_s.p50"] == 0.029
    assert run.measured["tpot_s.p99"] == 0.008
    assert len(run.columns["arrival_s"]) == 60
    assert run.columns["prompt_tokens"].mean() == pytest.approx(200.5)
    assert any("3 of 63 requests failed" in n for n in run.notes)
    write(tmp_path, "config.yaml", "load: {type: constant}")
    (run,) = read(tmp_path / "stage_0_lifecycle_metrics.json")
    assert np.diff(run.columns["arrival_s"]) == pytest.approx(1.0)


def test_tokens_that_are_chunks_are_found_out(tmp_path):
    odd = stage()
    odd["successes"]["latency"]["time_per_output_token"] = {"mean": 0.0035, "p99": 0.0036}
    (run,) = read(write(tmp_path, "stage_0_lifecycle_metrics.json", odd))

    assert run.measured["tpot_s.mean"] == pytest.approx(0.45 / 61.5)
    assert "tpot_s.p99" not in run.measured
    assert "itl_s.mean" not in run.measured
    assert any("counts chunks" in n for n in run.notes)


def test_aiperf_records(tmp_path):
    rows = [*records(), *records(1, error={"message": "HTTP 503"})]
    cut = records(1)[0]
    cut["metadata"]["was_cancelled"] = True
    warm = records(1)[0]
    warm["metadata"]["benchmark_phase"] = "warmup"
    file = write(tmp_path, "profile_export.jsonl", "\n".join(map(json.dumps, [*rows, cut, warm])))
    (run,) = read(file)

    assert run.measured["ttft_s.mean"] == pytest.approx(0.05)
    assert run.measured["tpot_s.mean"] == pytest.approx(0.05)
    assert run.measured["requests_per_s"] == pytest.approx(3 / 2.5)
    assert run.columns["counts"].tolist() == [True, True, True, False]
    assert any("1 of 5 requests failed ('HTTP 503')" in n for n in run.notes)
    assert any("1 of 5 requests were cut off" in n for n in run.notes)
    aggregate = {"input_config": {"loadgen": {"concurrency": 3}}, "request_latency": {"unit": "ms", "avg": 500}}
    write(tmp_path, "profile_export_aiperf.json", aggregate)
    assert read(file)[0].traffic == {"kind": "closed_loop", "concurrency": 3}
    assert len(list(read_points([tmp_path], sim.load("quickstart")))) == 1


def test_lengths_without_times_are_those_of_the_requests(tmp_path):
    lists = {"num_prompts": 3, "completed": 3, "total_input_tokens": 600, "total_output_tokens": 60, "max_concurrency": 2}
    lists |= {"input_lens": [100, 200, 300], "output_lens": [10, 20, 30]}
    (run,) = read(write(tmp_path, "a.json", AGGREGATE | lists))
    assert run.columns["prompt_tokens"].tolist() == [100, 200, 300]
    assert run.columns["output_tokens"].tolist() == [10, 20, 30]
    assert run.measured["ttft_s.mean"] == pytest.approx(0.3861)
    assert run.notes == ()
    (run,) = read(write(tmp_path, "b.json", AGGREGATE | lists | {"total_input_tokens": 900}))
    assert set(run.columns["prompt_tokens"].tolist()) == {300}
    assert any("every prompt taken as long as the mean" in n for n in run.notes)
    with pytest.raises(DataError, match="'itls'"):
        read(write(tmp_path, "c.json", AGGREGATE | lists | {"ttfts": [0.1] * 3}))


def test_a_client_that_fell_behind_sent_what_it_sent(tmp_path):
    def rate(**load):
        (run,) = read(write(tmp_path, "stage_0_lifecycle_metrics.json", stage() | {"load_summary": load}))
        return (len(run.columns["arrival_s"]) - 1) / run.columns["arrival_s"].max(), run.notes

    asked, notes = rate(requested_rate=20.0, achieved_rate=19.2)
    assert not any("where 20/s were asked for" in n for n in notes)
    fell, notes = rate(requested_rate=20.0, achieved_rate=5.0)
    assert any("the client sent 5 requests/s where 20/s were asked for" in n for n in notes)
    assert fell == pytest.approx(asked / 4)
    server = {"load_summary": {}, "successes": {"count": 9, "time_to_first_token": {"mean": 0.1}}, "failures": {}}
    (run,) = read(write(tmp_path, "x_prometheus_metrics.json", server))
    assert run.refused.startswith("is of the server's own metrics")


def test_aiperf_in_its_first_form(tmp_path):
    rows = json.loads(json.dumps(records(3)))
    for row in rows:
        about, metrics = row["metadata"], row["metrics"]
        about["timestamp_ns"] = about.pop("request_start_ns")
        about["credit_phase"] = about.pop("benchmark_phase", "profiling")
        metrics["ttft"] = metrics.pop("time_to_first_token")
    unsent = json.loads(json.dumps(rows[0])) | {"error": {"code": 499, "message": "cancelled after 0 s"}}
    unsent["metrics"] = {"error_request_count": {"value": 1, "unit": "requests"}}
    file = write(tmp_path, "profile_export.jsonl", "\n".join(map(json.dumps, [*rows, unsent])))
    (run,) = read(file)
    assert run.measured["ttft_s.mean"] == pytest.approx(0.05)
    assert len(run.columns["arrival_s"]) == 3
    assert any("1 of 4 requests failed ('cancelled after 0 s')" in n for n in run.notes)
    figures = {"ttft": {"unit": "ms", "avg": 50}, "request_latency": {"unit": "ms", "avg": 500}, "request_count": {"avg": 3}}
    figures |= {"input_sequence_length": {"avg": 100}, "output_sequence_length": {"avg": 10}}
    told = {"records": figures, "input_config": {"loadgen": {"concurrency": 2}}}
    (run,) = read(write(tmp_path, "profile_export_aiperf.json", told))
    assert run.measured == {"ttft_s.mean": pytest.approx(0.05), "e2e_s.mean": pytest.approx(0.5)}
    assert run.traffic == {"kind": "closed_loop", "concurrency": 2}


def test_genai_perf_says_what_it_lacks(tmp_path):
    text = "Metric,avg,min,max,p99\nTime To First Token (ms),16.26,12.39,17.25,17.09\n\nMetric,Value\nRequest Throughput (per sec),3.5\n"
    (run,) = read(write(tmp_path, "genai.csv", text))

    assert run.measured == {"ttft_s.mean": pytest.approx(0.01626), "ttft_s.p99": pytest.approx(0.01709), "requests_per_s": 3.5}
    assert "how requests were sent" in run.lacks
    (point,) = read_points([tmp_path / "genai.csv"], sim.load("quickstart", ["traffic.synthetic.requests=20"]))
    assert len(point.columns["arrival_s"]) == 20
    assert any("requests are those of the scenario's traffic" in n for n in point.notes)
    with pytest.raises(DataError, match="unit 'fortnights'"):
        read(write(tmp_path, "genai.csv", text.replace("(ms)", "(fortnights)")))
    figures = {"time_to_first_token": {"unit": "ms", "avg": 20.0}, "request_latency": {"unit": "ms", "avg": 900.0},
               "input_sequence_length": {"unit": "tokens", "avg": 100.0}, "output_sequence_length": {"unit": "tokens", "avg": 20.0},
               "request_count": {"unit": "requests", "avg": 50}, "input_config": {"perf_analyzer": {"stimulus": {"concurrency": 5}}}}  # fmt: skip
    (run,) = read(write(tmp_path, "profile_export_genai_perf.json", figures))
    assert run.traffic["concurrency"] == 5
    assert run.measured["e2e_s.mean"] == pytest.approx(0.9)


def test_guidellm_requests(tmp_path):
    one = {"start_time": 7.0, "prompt_tokens": 50, "output_tokens": 3}
    raw = guidellm({"type_": "constant", "rate": 1.0}, incomplete=[one], errored=[{"start_time": 7.5}])
    (run,) = read(write(tmp_path, "benchmarks.json", raw))

    assert run.measured["tpot_s.mean"] == pytest.approx(0.05)
    assert run.columns["arrival_s"].tolist() == [0, 1, 2]
    assert run.columns["counts"].tolist() == [True, True, False]
    (run,) = read(write(tmp_path, "b.json", guidellm({"type_": "concurrent", "streams": 2})))
    assert run.traffic == {"kind": "closed_loop", "concurrency": 2}
    (run,) = read(write(tmp_path, "c.json", guidellm({"type_": "constant", "rate": 1}, successful=[], errored=[one])))
    assert "no request was served" in run.refused


def test_llmperf(tmp_path):
    file = write(
        tmp_path, "x_individual_responses.json", [LLMPERF, {**LLMPERF, "error_code": 429, "error_msg": "slow down"}, LLMPERF]
    )
    (run,) = read(file)

    assert run.measured["tpot_s.mean"] == pytest.approx(2.5 / 150)
    assert run.lacks
    write(tmp_path, "x_summary.json", {"num_concurrent_requests": 2, "results": {"ttft_s": {"mean": 0.43}}})
    (run,) = read(file)
    assert (run.lacks, run.traffic["concurrency"]) == ((), 2)


def test_inferencex_says_what_was_deployed(tmp_path):
    (point,) = read_points([write(tmp_path, "agg.json", [INFX])], sim.load("quickstart"))

    assert point.measured["output_tokens_per_s"] == 100.0
    assert point.measured["tpot_s.p99"] == 0.02
    assert (len(point.columns["arrival_s"]), point.traffic["concurrency"]) == (40, 4)
    assert 800 <= point.columns["prompt_tokens"].min() <= point.columns["prompt_tokens"].max() <= 1000
    assert "the file says tp 2, the scenario has 1" in point.notes
    assert not any("accelerator" in n for n in point.notes)
    (run,) = read(write(tmp_path, "d.json", {**INFX, "disagg": True}))
    assert "prefill and decode apart" in run.refused


def test_tgi_benchmarker(tmp_path):
    closed, open_ = read(write(tmp_path, "results.json", TGI))

    assert closed.traffic["concurrency"] == 8
    assert closed.measured == {"ttft_s.mean": 0.08, "itl_s.p90": 0.012}
    assert np.diff(open_.columns["arrival_s"]) == pytest.approx(0.5)
    assert open_.columns["output_tokens"].mean() == 200


def test_llama_bench_is_a_step(tmp_path):
    rows = [
        {"n_prompt": 512, "n_gen": 0, "avg_ts": 2400.0},
        {"n_prompt": 0, "n_gen": 128, "avg_ts": 125.0},
        {"n_prompt": 5, "n_gen": 5, "avg_ts": 9.0},
    ]
    prompt, answer, both = read(write(tmp_path, "l.json", rows))

    assert prompt.measured == {"input_tokens_per_s": 2400.0}
    assert answer.measured == {"step_s.decode": 0.008}
    assert "together" in both.refused
    report = accuracy([tmp_path / "l.json"], scenario=sim.load("quickstart"))
    assert len(report.simulated) == 2


def test_blis_and_llmservingsim(tmp_path):
    head = "request_id,prefix_group,prefix_length,input_tokens,output_tokens,server_input_tokens,arrival_time_us,send_time_us,first_chunk_time_us,"
    text = (
        head
        + "last_chunk_time_us,status\n0,g,256,512,64,0,0,10,50010,900010,ok\n1,,0,100,5,0,5,20,0,0,timeout\n2,,0,100,5,120,9,30,80030,90030,ok\n"
    )
    (run,) = read(write(tmp_path, "t.csv", text))

    assert run.columns["prompt_tokens"].tolist() == [768, 120]
    assert run.measured["ttft_s.mean"] == pytest.approx(0.065)
    row = {
        "input_toks": 100,
        "output_toks": 11,
        "arrival_time": 1e9,
        "queued_ts": 5.0,
        "first_token_ts": 5.25,
        "last_token_ts": 6.25,
    }
    (run,) = read(write(tmp_path, "r.jsonl", json.dumps(row) + "\n" + json.dumps(row | {"arrival_time": 1e9 + 1})))
    assert run.inside
    assert run.measured["tpot_s.mean"] == pytest.approx(0.1)


def test_sglang(tmp_path):
    row = {"backend": "sglang", "dataset_name": "random", "request_rate": 1.0, "max_concurrency": None, "total_input_tokens": 153_000, "completed": 300,
           "total_output_tokens": 160_000, "total_output_tokens_retokenized": 1, "mean_e2e_latency_ms": 7840.6, "median_ttft_ms": 85.7, "duration": 298.4,
           "random_input_len": 1024, "random_output_len": 1024, "random_range_ratio": 0.0, "output_throughput": 537.4}  # fmt: skip
    one, two = read(write(tmp_path, "s.jsonl", json.dumps(row) + "\n" + json.dumps(row | {"request_rate": 4.0})))

    assert one.measured == {"ttft_s.p50": pytest.approx(0.0857), "e2e_s.mean": pytest.approx(7.8406), "output_tokens_per_s": 537.4,
                            "requests_per_s": pytest.approx(300 / 298.4)}  # fmt: skip
    assert one.columns["prompt_tokens"].max() > 900
    old = {k.removesuffix("_ms"): v for k, v in row.items()}  # names of 2024, in ms without saying so
    assert read(write(tmp_path, "old.jsonl", json.dumps(old)))[0].measured == one.measured
    assert two.columns["arrival_s"][-1] < 76


@pytest.mark.parametrize(
    ("name", "content", "key"),
    [
        ("a.json", stage(successes={"count": "many"}), r"key 'successes.count': must be a number"),
        (
            "a.jsonl",
            "\n".join(map(json.dumps, records(2, metrics={"time_to_first_token": {"value": 1, "unit": "eons"}}))),
            "time_to_first_token.unit",
        ),
        ("a.json", guidellm({}, successful=[{"start_time": 1}]), r"requests.successful\[0\].prompt_tokens': is missing"),
        ("a.json", [LLMPERF | {"ttft_s": -1}], r"key '\[1\].ttft_s': must be at least 0"),
        ("a.json", [INFX | {"tp": 1.5}], "key 'tp': must be a whole number"),
        ("a.json", "{", "is no readable JSON"),
        ("a.json", {"hello": 1}, "is no benchmark result that is known; it has: hello"),
        ("a.csv", "arrival_s,prompt_tokens\n1,2\n", "column 'output_tokens' is missing"),
        ("a.csv", "arrival_s,prompt_tokens,output_tokens,ttft_s\n1,2,x,3\n", "line 2, column 'output_tokens': must be a number"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, name, content, key):
    with pytest.raises(DataError, match=key):
        read(write(tmp_path, name, content))


def test_versions_that_write_it_another_way(tmp_path):
    bare = [{"metadata": {"request_start_ns": 10**18 + i * 10**9}, "metrics": {"time_to_first_token": 50.0, "request_latency": {"value": 500.0},
             "input_sequence_length": {"value": 10}, "output_sequence_length": 10}} for i in range(2)]  # fmt: skip
    (run,) = read(write(tmp_path, "profile_export.jsonl", "\n".join(map(json.dumps, bare))))
    assert run.measured["tpot_s.mean"] == pytest.approx(0.05)

    times = [100.2 + 0.01 * k for k in range(6)]
    row = {
        "start_time": 100.0,
        "end_time": 100.3,
        "info": {"input_tokens": 64, "output_tokens": 6, "output_token_times": times},
        "error": None,
    }
    (run,) = read(write(tmp_path, "per_request_lifecycle_metrics.json", [row, row]))
    assert run.measured["ttft_s.mean"] == pytest.approx(0.2)
    assert run.measured["itl_s.mean"] == pytest.approx(0.01)
    inside = {"start_time": 100.0, "end_time": 100.3, "info": {"request_metrics": {"input_tokens": 64},
              "response_metrics": {"output_tokens": 3, "output_token_times": times}}}  # fmt: skip
    (run,) = read(write(tmp_path, "per_request_lifecycle_metrics.json", [inside]))
    assert "itl_s.mean" not in run.measured
    assert "counts chunks" in run.notes[0]

    request = {"info": {"timings": {"request_start": 5.0}}, "prompt_tokens": 100, "output_tokens": 11, "time_to_first_token_ms": 50.0,
               "request_latency": 0.55}  # fmt: skip
    (run,) = read(write(tmp_path, "b.json", guidellm({"type_": "poisson", "rate": 1.0}, successful=[request, request])))
    assert run.columns["arrival_s"].tolist() == [0, 0]
