"""Files of others through the command line: results of benchmark tools, traffic files, exports."""

import json

import yaml

SMALL = {
    "model": "llama-3.1-8b",
    "traffic": {"synthetic": {"arrival": {"process": "poisson", "rate": "1/s"}, "lengths": {"kind": "fixed", "prompt_tokens": 100, "output_tokens": 10},
                              "requests": 20}},
    "deployment": {"accelerator": "h100-sxm", "tp": 1, "engine": "vllm"},
}  # fmt: skip
BENCH = {
    "num_prompts": 4, "request_rate": "inf", "max_concurrency": 2, "completed": 4, "request_throughput": 4.0, "output_throughput": 40.0,
    "input_lens": [100] * 4, "output_lens": [10] * 4, "ttfts": [0.1] * 4, "itls": [[0.02] * 9] * 4, "errors": [""] * 4,
}  # fmt: skip


def test_a_folder_of_results_goes_into_accuracy(servesim, tmp_path):
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(SMALL))
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a.json").write_text(json.dumps(BENCH))
    (tmp_path / "results" / "b.json").write_text(json.dumps(BENCH | {"max_concurrency": 4}))

    done = servesim("accuracy", "results/", "--scenario", "my.yaml")
    assert done.code == 0, done.err
    assert "2 of 2 operating points simulated" in done.out
    assert "ITL mean" in done.out

    (tmp_path / "results" / "a.json").write_text(json.dumps(BENCH | {"errors": ["refused"] * 4}))
    (tmp_path / "results" / "b.json").unlink()
    failed = servesim("accuracy", "results", "--scenario", "my.yaml")
    assert failed.code == 2
    assert "no request was served: 4 of 4 failed ('refused')" in failed.err


def test_traffic_is_described_and_converted(servesim, tmp_path):
    rows = [{"timestamp": 500 * i, "input_length": 1000, "output_length": 5, "hash_ids": [1, i + 2]} for i in range(6)]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))

    described = servesim("traffic", "describe", "m.jsonl", "--json")
    assert described.code == 0, described.err
    (found,) = json.loads(described.out)
    assert (found["format"], found["requests"]) == ("mooncake", 6)
    assert found["sharing"]["best_hit_rate"] == 5 * 512 / 6000
    assert "rate" in servesim("traffic", "describe", "m.jsonl").out

    converted = servesim("traffic", "convert", "m.jsonl", "-o", "m.csv.gz")
    assert converted.code == 0, converted.err
    assert "m.csv.gz: 6 requests" in converted.out
    assert "did you mean 'block_tokens'" in servesim("traffic", "describe", "m.jsonl", "--setting", "block_token=3").err


def test_exports_are_written_beside_the_result(servesim, tmp_path):
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(SMALL))

    done = servesim("run", "my.yaml", "-q", "-o", "out", "--export", "vllm-bench,perfetto")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "out" / "vllm_bench.json").read_text())["completed"] == 20
    assert (tmp_path / "out" / "perfetto.json").is_file()
    wrong = servesim("run", "my.yaml", "-q", "--export", "vlm-bench")
    assert (wrong.code, "did you mean 'vllm-bench'" in wrong.err) == (2, True)
