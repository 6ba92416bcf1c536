"""Every number of the summary against one worked out by hand, and percentiles against numpy."""

import json
import time
import tracemalloc

import numpy as np
import pytest

from sim.metrics.result import summarise
from sim.metrics.slo import Slo
from tests.metrics.records import four_requests, many_requests


def test_latencies_by_hand() -> None:
    r = summarise(four_requests())

    assert r.columns["id"].tolist() == [0, 1, 2, 3]
    assert r.columns["ttft_s"][:3].tolist() == pytest.approx([0.5, 2.0, 0.2])
    assert r.columns["tpot_s"][[0, 2]].tolist() == pytest.approx([0.5, 0.2])
    assert np.isnan(r.columns["tpot_s"][[1, 3]]).all()
    assert r.columns["e2e_s"][:3].tolist() == pytest.approx([2.5, 2.0, 8.0])
    latency = r.summary["latency"]
    assert latency["ttft_s"]["mean"] == pytest.approx(0.9)
    assert latency["ttft_s"]["p50"] == pytest.approx(0.5)
    assert latency["tpot_s"]["count"] == 2
    assert latency["queue_s"]["max"] == pytest.approx(1.0)
    assert latency["itl_s"]["mean"] == pytest.approx(9.8 / 43)
    assert latency["itl_s"]["p50"] == pytest.approx(0.2, rel=0.006)


def test_throughput_and_counts_by_hand() -> None:
    s = summarise(four_requests(accelerators=2)).summary

    assert s["duration_s"] == pytest.approx(10.0)
    assert s["requests"] == {"injected": 4, "finished": 3, "rejected": 1, "failed": 0, "in_flight": 0, "warmup": 0}
    assert s["throughput"]["requests_per_s"] == pytest.approx(0.3)
    assert s["throughput"]["output_tokens_per_s"] == pytest.approx(4.6)
    assert s["throughput"]["total_tokens_per_s"] == pytest.approx(44.6)
    assert s["throughput"]["output_tokens_per_s_per_accelerator"] == pytest.approx(2.3)
    assert s["tokens"]["cached_share"] == pytest.approx(80 / 400)
    assert s["preemptions"] == 1


def test_slo_by_hand() -> None:
    s = summarise(four_requests(slo=Slo(ttft=1.0, tpot=0.3, attainment=0.5))).summary["slo"]

    # TTFT: 0 and 2 meet it; TPOT: 1 (one token) and 2; jointly only 2. The rejected one is a miss.
    assert s["attainment"] == {"ttft_s": 0.5, "tpot_s": 0.5, "joint": 0.25}
    assert s["goodput_requests_per_s"] == pytest.approx(0.1)
    assert s["goodput_output_tokens_per_s"] == pytest.approx(4.0)
    assert s["unserved"] == 0.25
    assert s["met"] is False


def test_no_targets_no_verdict() -> None:
    s = summarise(four_requests()).summary["slo"]

    assert s["met"] is None
    assert s["attainment"] == {}
    assert s["goodput_requests_per_s"] is None


def test_a_class_with_targets_of_its_own() -> None:
    record = four_requests(slo=Slo(ttft=1.0), class_slo={1: Slo(ttft=3.0)})

    assert summarise(record).columns["slo_met"].tolist() == [True, True, True, False]


def test_utilisation_and_shares_by_hand() -> None:
    s = summarise(four_requests()).summary
    use, b = s["utilisation"], s["bottleneck"]

    assert use["busy"] == pytest.approx((0.3 + 0.8) / 2)
    assert use["kv_mean"] == pytest.approx((50 + 300) / 20 / 100)
    assert use["kv_peak"] == pytest.approx(0.4)
    assert use["kv_blocked"] == pytest.approx(0.5 / 15)
    assert use["running_mean"] == pytest.approx(1.1)
    assert sum(b["shares"].values()) == pytest.approx(1.0)
    assert b["shares"]["memory_bandwidth"] == pytest.approx(0.55 * 8.3 / 11.0)
    assert sum(b["request_time"].values()) == pytest.approx(1.0)
    assert b["limit"] == "kv_capacity"


def test_switched_off_series_are_no_series() -> None:
    record = four_requests()
    record.series = {k: np.zeros((2, 1)) for k in record.series} | {"width_s": 1.0}

    use = summarise(record).summary["utilisation"]

    assert use["busy"] == pytest.approx((0.3 + 0.8) / 2)
    assert use["kv_mean"] is None


def test_groups_by_hand() -> None:
    s = summarise(four_requests(slo=Slo(ttft=1.0))).summary

    chat, batch = s["classes"]
    assert (chat["name"], chat["finished"], chat["attainment"], chat["ttft_p50_s"]) == ("chat", 2, 1.0, pytest.approx(0.35))
    assert (batch["requests"], batch["finished"], batch["tpot_p99_s"]) == (2, 1, None)
    assert [row["output_tokens"] for row in s["replicas"]] == [6, 40]
    assert s["replicas"][1]["kv_mean"] == pytest.approx(0.3)


def test_warmup_is_cut() -> None:
    s = summarise(four_requests(), warmup_s=1.5).summary

    assert s["requests"]["warmup"] == 2
    assert s["latency"]["ttft_s"]["mean"] == pytest.approx(0.2)
    assert s["duration_s"] == pytest.approx(8.5)


def test_percentiles_equal_numpy() -> None:
    record = many_requests(5000)
    ttft = record.requests["first_token_s"] - record.requests["arrival_s"]

    found = summarise(record).summary["latency"]["ttft_s"]

    assert [found[k] for k in ("p50", "p90", "p95", "p99", "p999")] == pytest.approx(np.percentile(ttft, [50, 90, 95, 99, 99.9]))
    assert found["std"] == pytest.approx(ttft.std())


def test_json_has_no_nan_even_without_any_request() -> None:
    empty = four_requests()
    empty.requests = {k: v[:0] for k, v in empty.requests.items()}
    empty.totals = {"last_s": 0.0}
    empty.itl_hist = np.zeros(10)

    for record in (empty, four_requests(series={}), four_requests(kv_total=None)):
        json.dumps(summarise(record).summary.as_dict(), allow_nan=False)


def test_frames() -> None:
    r = summarise(four_requests())

    assert len(r.requests) == 4
    assert r.timeseries["kv_use"].tolist() == pytest.approx([0.1, 0.2, 0.4])
    assert r.timeseries["batch_tokens"].tolist() == pytest.approx([154 / 6, 18.4, 1.0])


def test_interrupted_run_says_so() -> None:
    assert "interrupted" in summarise(four_requests(complete=False)).warnings[0]


def test_growing_queue_is_named() -> None:
    record = many_requests(2000)
    r = record.requests
    order = np.argsort(r["arrival_s"])
    wait = np.empty(2000)
    wait[order] = np.linspace(0, 60, 2000)
    for k in ("first_scheduled_s", "first_token_s", "finish_s"):
        r[k] += wait

    idle = summarise(record).summary["bottleneck"]
    record.parts = record.parts * 20
    busy = summarise(record).summary["bottleneck"]

    assert idle["limit"] == busy["limit"] == "queueing"
    assert "although the replicas idle" in idle["sentence"] and "above what the deployment serves" not in idle["sentence"]
    assert "above what the deployment serves" in busy["sentence"]


@pytest.mark.speed
@pytest.mark.parametrize("replicas", [1, 1000])
def test_a_million_requests_are_quick(replicas: int) -> None:
    record = many_requests(1_000_000, replicas)
    tracemalloc.start()

    started = time.process_time()
    summarise(record)
    seconds = time.process_time() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    print(f"{seconds:.2f} s, {peak / 2**20:.0f} MiB")
    assert seconds < 3.0  # 1.5 s on an idle core
    assert peak < 350 * 2**20
