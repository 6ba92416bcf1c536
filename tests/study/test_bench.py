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
