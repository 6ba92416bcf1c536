"""Intervals of model error: they hold what they promise, and say what they rest on."""

import numpy as np
import pytest
import yaml

from sim.metrics.model_error import FEWEST, LEVEL, UNMEASURED, Kind, as_yaml, coverage, family, interval, record, spread

H100 = Kind("vllm", "h100_sxm", "0.14")


def rows(deployments=40, points=6, kind=H100, sd=0.1, seed=1):
    rng = np.random.default_rng(seed)
    return [
        (kind, f"{'-'.join(map(str, kind))}-{d}", "tpot_s.mean", float(np.exp(shift + 0.3 * sd * rng.normal())))
        for d, shift in enumerate(sd * rng.normal(size=deployments))
        for _ in range(points)
    ]


def width(found):
    return found.high / found.low


def test_the_interval_holds_what_it_promises_for_deployments_that_were_left_out():
    inside, half, n = coverage(rows(100))["tpot_s.mean"]

    assert n == 100
    assert inside == pytest.approx(LEVEL, abs=0.05)
    assert half == pytest.approx(1.2816 * 0.1 * 1.044, rel=0.25)  # what the law of the made-up errors needs


def test_a_deployment_with_many_points_counts_once():
    even = interval(spread(rows(40, 6)), H100, "tpot_s.mean")
    uneven = interval(spread([*rows(40, 6), *(rows(40, 6)[:6] * 50)]), H100, "tpot_s.mean")

    assert uneven[:2] == pytest.approx(even[:2], rel=0.05)


@pytest.mark.parametrize(
    "other",
    [
        {"engine": "tgi"}, {"accelerator": "l40s"}, {"line": "0.6"}, {"kind": "experts"}, {"precision": 4}, {"kernels": "other"},
        {"load": "burst"},
    ],
)  # fmt: skip
def test_what_is_like_it_counts_most(other):
    wild = H100._replace(**other)
    known = spread([*rows(20), *rows(20, kind=wild, sd=0.5, seed=2)])

    assert width(interval(known, H100, "tpot_s.mean")) < width(interval(known, wild, "tpot_s.mean"))


def test_it_says_which_class_it_rests_on_and_is_wide_where_nothing_is_like_it():
    known = spread(
        [*rows(20), *rows(FEWEST - 1, kind=H100._replace(accelerator="l40s")), *rows(20, kind=Kind("tgi", "a10g"), sd=0.5)]
    )

    assert interval(known, H100._replace(accelerator="h100-nvl"), "tpot_s.mean")[2:] == (20, "vllm on h100")
    assert interval(known, H100._replace(accelerator="l40s"), "tpot_s.mean")[2:] == (20 + FEWEST - 1, "vllm")
    strange = interval(known, Kind("mindie", "ascend-910b4", "1.0", "experts", 8, "other"), "tpot_s.mean")
    assert strange.words == "all engines"
    assert width(strange) > width(interval(known, H100, "tpot_s.mean"))
    assert interval(known, H100, "never_measured") is None
    assert interval([], H100, "tpot_s.mean") is None


def test_families():
    assert [family(a) for a in ("h100_sxm", "H100-NVL", "ascend-910b4", "rtx-4090")] == [
        "h100",
        "h100",
        "ascend-910b",
        "rtx-4090",
    ]


def test_the_file_reads_back(tmp_path, monkeypatch):
    import sim.metrics.model_error as m

    written = spread([*rows(3), *((k, d, "ttft_s.mean", r) for k, d, _, r in rows(3))])
    (tmp_path / "accuracy.yaml").write_text(as_yaml(written, "made up"))
    monkeypatch.setattr(m, "path", lambda *parts: tmp_path / parts[-1])
    record.cache_clear()
    try:
        read = record()
    finally:
        record.cache_clear()

    assert sorted(read) == sorted(e._replace(kind=e.kind._replace(accelerator="h100")) for e in written)
    assert interval(read, H100, "ttft_s.mean") == interval(written, H100, "ttft_s.mean")


def test_a_run_says_how_far_it_may_be_off(monkeypatch):
    import sim
    import sim.metrics.model_error as m
    from sim.report import terminal

    known = spread([*rows(9), *((k, d, "ttft_s.mean", 2 * r) for k, d, _, r in rows(3, kind=Kind("tgi", "a10g")))])
    monkeypatch.setattr(m, "record", lambda: known)

    result = sim.run(sim.load("quickstart", ["traffic.synthetic.requests=1000"]))

    found, stats = result.summary["model_error"], result.summary["latency"]
    tpot = found["tpot_s.p50"]
    assert tpot["low"] < stats["tpot_s"]["p50"] < tpot["high"]
    assert (tpot["class"], tpot["deployments"]) == ("vllm on h100", 9)
    assert found["ttft_s.p50"]["class"] == "all engines"
    assert "ttft_s.p99" not in found  # never measured
    assert "Model error" in terminal.text(result)


@pytest.mark.parametrize("closed", [False, True])
def test_throughput_has_a_band_on_screen_where_the_server_decides_it(monkeypatch, closed):
    import sim
    import sim.metrics.model_error as m
    from sim.report import words

    known = spread([(k, d, metric, r) for metric in ("e2e_s.mean", "output_tokens_per_s") for k, d, _, r in rows(9)])
    monkeypatch.setattr(m, "record", lambda: known)
    loop = ["traffic.closed_loop={concurrency: 8}"] if closed else []

    said = words.model_error(sim.run(sim.load("quickstart", ["traffic.synthetic.requests=300", *loop])).summary)

    assert "E2E p50" in said
    assert ("output tokens/s" in said) == closed


def test_a_record_is_written_from_points(tmp_path):
    from sim.report.accuracy import write_record
    from sim.study.accuracy import AccuracyReport, Outcome
    from tests.study.test_accuracy import point

    points = [point(id=f"d{i}/0", measured={"tpot_s.mean": 0.01 * (1 + 0.01 * i)}) for i in range(9)]
    report = AccuracyReport(tuple(Outcome(p, {"tpot_s.mean": 0.01}) for p in points))

    write_record(report, tmp_path / "accuracy.yaml")

    text = (tmp_path / "accuracy.yaml").read_text()
    assert "9 deployments, 9 operating points" in text
    assert text.count("engine: vllm, accelerator: h100") == 9
    assert yaml.safe_load(text)["errors"]["all points"] == {"tpot_s.mean": [0.03846, 0.06715, 9]}  # of 1 / 1.00 … 1 / 1.08
    assert report.coverage()["tpot_s.mean"][2] == 9


def test_the_record_that_ships_tells_kinds_apart():
    known = record()

    assert len({e.kind for e in known}) > 40
    tpot = interval(known, H100, "tpot_s.mean")
    assert tpot is not None
    assert tpot.low < 1.0 < tpot.high < 1.3


def test_a_source_does_not_vouch_for_itself():
    """Deployments of one source are off alike: for another source the interval is as wide as sources differ, not as those of one do."""
    rng = np.random.default_rng(3)
    sources, known = {}, []
    for s, shift in enumerate(0.2 * rng.standard_normal(16)):
        for d in range(4):
            known += [(H100, f"{s}-{d}", "tpot_s.mean", float(np.exp(shift + 0.01 * rng.normal()))) for _ in range(3)]
            sources[f"{s}-{d}"] = f"source {s}"

    inside, half, n = coverage(known, sources, whole=True)["tpot_s.mean"]

    assert n == 64
    assert inside == pytest.approx(LEVEL, abs=0.1)
    assert half > 1.2816 * 0.2


def test_an_accelerator_without_a_record_takes_the_errors_of_those_left_out():
    unmeasured = H100._replace(accelerator=UNMEASURED, kernels="other")
    known = spread([*rows(20), *rows(20, kind=unmeasured, sd=0.4, seed=4)])

    new = interval(known, H100._replace(accelerator="b900"), "tpot_s.mean")
    old = interval(known, H100, "tpot_s.mean")

    assert width(new) > 1.5 * width(old)
    assert new.words == "vllm, as if their accelerators had not been measured"
    assert old[2:] == (20, "vllm on h100")
    assert old == interval(spread(rows(20)), H100, "tpot_s.mean")  # what was left out says nothing of what was not


def test_the_record_holds_points_without_what_was_measured_of_their_accelerators():
    from sim.study.accuracy import AccuracyReport, Outcome
    from tests.study.test_accuracy import point

    p = point(id="d/0", measured={"tpot_s.mean": 0.01})
    report = AccuracyReport((Outcome(p, {"tpot_s.mean": 0.01}),), unmeasured=(Outcome(p, {"tpot_s.mean": 0.02}),))

    own, left_out = report.entries()

    assert (own.kind.accelerator, own.logs[2], own.source) == ("h100-sxm", 0.0, "d")
    assert (left_out.kind.accelerator, left_out.kind.kernels, left_out.source) == (UNMEASURED, "other", "d")
    assert left_out.logs[2] == pytest.approx(np.log(0.5), abs=1e-4)
