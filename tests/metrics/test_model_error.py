"""Intervals of model error: they hold what they promise, and say what they rest on."""

import numpy as np
import pytest

from sim.metrics.model_error import FEWEST, LEVEL, as_yaml, coverage, family, look_up, record, spread


def rows(deployments=40, points=6, engine="vllm", accelerator="h100_sxm", sd=0.1, seed=1):
    rng = np.random.default_rng(seed)
    return [
        (engine, accelerator, f"{engine}-{accelerator}-{d}", "tpot_s.mean", float(np.exp(shift + 0.3 * sd * rng.normal())))
        for d, shift in enumerate(sd * rng.normal(size=deployments))
        for _ in range(points)
    ]


def test_the_interval_holds_what_it_promises_for_deployments_that_were_left_out():
    inside, width, n = coverage(rows(200))["tpot_s.mean"]

    assert n == 200
    assert LEVEL <= inside <= 0.93  # deployments are alike here: more than where each has a fault of its own
    assert width == pytest.approx(1.555 * 0.1 * 1.044, rel=0.15)


def test_a_deployment_with_many_points_counts_once():
    even = spread(rows(40, 6))
    uneven = spread([*rows(40, 6), *(rows(40, 6)[:6] * 50)])

    assert uneven["vllm", "h100", "tpot_s.mean"] == pytest.approx(even["vllm", "h100", "tpot_s.mean"], rel=0.05)


def test_the_narrowest_class_with_enough_deployments_is_taken():
    table = spread([*rows(20), *rows(FEWEST - 1, accelerator="l40s", sd=0.01), *rows(20, engine="tgi", sd=0.5)])

    assert look_up(table, "vllm", "h100-nvl", "tpot_s.mean")[3] == "vllm on h100"
    assert look_up(table, "vllm", "l40s", "tpot_s.mean")[3] == "vllm"
    assert look_up(table, "mindie", "ascend-910b4", "tpot_s.mean")[3] == "all engines"
    assert look_up(table, "vllm", "h100", "never_measured") is None
    wide, narrow = look_up(table, "mindie", "x", "tpot_s.mean"), look_up(table, "vllm", "h100", "tpot_s.mean")
    assert wide[1] / wide[0] > narrow[1] / narrow[0]


def test_families():
    assert [family(a) for a in ("h100_sxm", "H100-NVL", "ascend-910b4", "rtx-4090")] == [
        "h100",
        "h100",
        "ascend-910b",
        "rtx-4090",
    ]


def test_the_file_reads_back(tmp_path, monkeypatch):
    import sim.metrics.model_error as m

    (tmp_path / "accuracy.yaml").write_text(as_yaml(spread(rows()), "made up"))
    monkeypatch.setattr(m, "path", lambda *parts: tmp_path / parts[-1])
    record.cache_clear()
    try:
        assert record()["vllm", "h100", "tpot_s.mean"][2] == 40
    finally:
        record.cache_clear()


def test_a_run_says_how_far_it_may_be_off(monkeypatch):
    import sim
    import sim.metrics.model_error as m
    from sim.report import terminal

    monkeypatch.setattr(
        m, "record", lambda: {("vllm", "h100", "tpot_s.mean"): (0.9, 1.2, 17), ("", "", "ttft_s.mean"): (0.5, 2.0, 90)}
    )

    result = sim.run(sim.load("quickstart", ["traffic.synthetic.requests=1000"]))

    found, stats = result.summary["model_error"], result.summary["latency"]
    assert found["tpot_s.p50"] == {
        "low": pytest.approx(0.9 * stats["tpot_s"]["p50"]), "high": pytest.approx(1.2 * stats["tpot_s"]["p50"]), "class": "vllm on h100",
        "deployments": 17,
    }  # fmt: skip
    assert found["ttft_s.p50"]["class"] == "all engines"
    assert "ttft_s.p99" not in found  # never measured
    assert "Model error" in terminal.text(result)


def test_a_record_is_written_from_points(tmp_path):
    from sim.report.accuracy import write_record
    from sim.study.accuracy import AccuracyReport, Outcome
    from tests.study.test_accuracy import point

    points = [point(id=f"d{i}/0", measured={"tpot_s.mean": 0.01 * (1 + 0.01 * i)}) for i in range(9)]
    report = AccuracyReport(tuple(Outcome(p, {"tpot_s.mean": 0.01}) for p in points))

    write_record(report, tmp_path / "accuracy.yaml")

    text = (tmp_path / "accuracy.yaml").read_text()
    assert "9 deployments, 9 operating points" in text
    assert "engine: vllm, accelerator: h100, metric: tpot_s.mean" in text
    assert report.coverage()["tpot_s.mean"][2] == 9
