"""Formats of other tools."""

import json
from pathlib import Path

import pytest

from sim.metrics.result import Result, summarise
from sim.report.exports import vllm_bench, write_requests_csv, write_vllm_bench
from tests.metrics.records import four_requests


def test_vllm_bench_by_hand() -> None:
    out = vllm_bench(summarise(four_requests()), detailed=True)

    assert (out["completed"], out["failed"], out["num_prompts"]) == (3, 1, 4)
    assert out["duration"] == pytest.approx(10.0)
    assert out["mean_ttft_ms"] == pytest.approx(900.0)
    assert out["median_e2el_ms"] == pytest.approx(2500.0)
    assert out["request_goodput"] is None
    assert out["max_concurrent_requests"] == 3  # in its second 2: 0 to 2.5 s, 1 to 3 s, 2 to 10 s
    assert out["ttfts"] == pytest.approx([0.5, 2.0, 0.2, 0.0])
    assert out["errors"] == ["", "", "", "rejected"]
    assert [len(g) for g in out["itls"]] == [4, 0, 39, 0]
    assert [sum(g) for g in out["itls"]] == pytest.approx([2.0, 0.0, 7.8, 0.0])
    assert out["queue_times"] == [0.0] * 4


def test_files(wave: Result, tmp_path: Path) -> None:
    data = json.loads(write_vllm_bench(wave, tmp_path / "bench.json", detailed=True).read_text())

    assert len(data["latencies"]) == data["completed"] == 4000
    assert data["p99.9_tpot_ms"] >= data["p99_tpot_ms"]
    lines = write_requests_csv(wave, tmp_path / "requests.csv").read_text().splitlines()
    assert len(lines) == 4001
