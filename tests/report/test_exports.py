"""Formats of other tools."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import sim
from sim import registry
from sim.errors import UnknownNameError
from sim.metrics.result import Result, summarise
from sim.report.exports import vllm_bench, write_exports, write_requests_csv, write_vllm_bench
from sim.report.exports.perfetto import events
from sim.study.bench import read
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


def test_every_export_by_its_name(wave: Result, tmp_path: Path) -> None:
    files = write_exports(wave, registry.names("export"), tmp_path)

    assert len({f.name for f in files}) == len(files) == len(registry.names("export"))
    assert all(f.stat().st_size > 100 for f in files)
    for file, name in zip(files, registry.names("export"), strict=True):  # as a result's folder is filled
        registry.lookup("export", name)().fill(wave, tmp_path / "filled")
        assert (tmp_path / "filled").read_bytes() == file.read_bytes()
    with pytest.raises(UnknownNameError, match="did you mean 'perfetto'"):
        write_exports(wave, ["perfeto"], tmp_path)


@pytest.mark.parametrize("name", ["aiperf", "guidellm", "vllm-bench-detailed", "requests-csv"])
def test_what_is_written_reads_back_as_measured(wave: Result, tmp_path: Path, name: str) -> None:
    (file,) = write_exports(wave, [name], tmp_path)
    (run,) = read(file)
    c = wave.columns
    done = c["status"] == 0

    assert not run.refused
    for key in ("ttft_s", "tpot_s", "e2e_s"):
        values = c[key][done]
        values = values[np.isfinite(values)]
        assert run.measured[f"{key}.mean"] == pytest.approx(values.mean(), rel=1e-6)
        assert run.measured[f"{key}.p99"] == pytest.approx(np.percentile(values, 99), rel=1e-6)
    assert run.columns["prompt_tokens"].tolist() == c["prompt_tokens"][c["status"] != 1].tolist()


def test_a_request_can_be_followed(wave: Result) -> None:
    c = wave.columns
    mine = [e for e in events(wave) if e.get("id") == 7]
    stages = [e["name"] for e in mine if e["ph"] == "b" and e["pid"] == 1]

    assert stages[0] == "request 7"
    assert stages[-2:] == ["prefill", "decode"]
    (first,) = [e for e in mine if e["ph"] == "n"]
    row = int(np.flatnonzero(c["id"] == 7)[0])
    assert first["ts"] == pytest.approx(c["first_token_s"][row] * 1e6, abs=1e-2)
    assert [e["ph"] for e in mine if e["ph"] in "sf"] == ["s", "f"]
    opened: dict[tuple[int, str], float] = {}
    for e in mine:
        if e["ph"] == "b":
            opened[e["pid"], e["name"]] = e["ts"]
        elif e["ph"] == "e":
            assert e["ts"] >= opened.pop((e["pid"], e["name"]))
    assert opened == {}


def test_prefill_and_decode_apart_show_the_transfer() -> None:
    record = four_requests()
    n = len(record.requests["id"])
    ends = record.requests["first_token_s"]
    apart = {"prefill_replica": np.zeros(n, np.int32), "prefill_end_s": ends - 0.3, "kv_allocated_s": ends - 0.2, "kv_arrived_s": ends - 0.1,
             "decode_start_s": ends - 0.05}  # fmt: skip
    record.requests = {**record.requests, **apart}
    names = [e["name"] for e in events(summarise(record)) if e.get("id") == 1 and e["ph"] == "b" and e["pid"] == 1]

    assert names[-5:] == ["prefill", "wait for KV memory", "KV transfer", "decode queue", "decode"]


def test_prometheus_text(wave: Result, tmp_path: Path) -> None:
    prom, over_time = write_exports(wave, ["prometheus", "openmetrics"], tmp_path)
    lines = prom.read_text().splitlines()
    samples = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}

    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(families) == len(set(families))
    for family in (f for f in families if f"{f}_count" in {k.split("{")[0] for k in samples}):
        mine = [(k, v) for k, v in samples.items() if k.startswith(f"{family}_bucket")]
        assert all(a <= b for (ka, a), (kb, b) in pairwise(mine) if 'le="+Inf"' not in ka)
    assert over_time.read_text().endswith("# EOF\n")


def test_conversations_are_written_for_aiperf_and_read_as_such(tmp_path: Path) -> None:
    synthetic = (
        "{arrival: {process: poisson, rate: 2/s}, lengths: {kind: fixed, prompt_tokens: 300, output_tokens: 20}, requests: 40"
    )
    sessions = f"traffic={{synthetic: {synthetic}, sessions: {{turns: 4, think_time: 1s}}}}}}"
    result = sim.run(sim.load("quickstart", [sessions]))
    (run,) = read(write_exports(result, ["aiperf"], tmp_path)[0])

    assert any("requests continue a conversation" in note for note in run.notes)
    assert run.columns["prompt_tokens"].tolist() == result.columns["prompt_tokens"].tolist()
    assert run.columns["turn"].max() == 3
    assert len(set(run.columns["talk"].tolist())) == len(set(result.columns["session"].tolist()))


def test_a_rate_with_a_limit_is_written_as_both_and_read_as_both(tmp_path: Path) -> None:
    synthetic = (
        "{arrival: {process: poisson, rate: 40/s}, lengths: {kind: fixed, prompt_tokens: 300, output_tokens: 50}, requests: 200}"
    )
    result = sim.run(
        sim.load("quickstart", [f"traffic={{synthetic: {synthetic}, closed_loop: {{concurrency: 4, paced: true}}}}"])
    )
    detailed, plain = write_exports(result, ["vllm-bench-detailed", "vllm-bench"], tmp_path)
    told = json.loads(detailed.read_text())

    assert (told["request_rate"], told["max_concurrency"]) == (40.0, 4)
    assert "queue_times" not in told
    assert read(detailed)[0].traffic["kind"] == "trace"  # it has start times
    assert read(plain)[0].traffic == {"kind": "closed_loop", "concurrency": 4, "paced": True}
