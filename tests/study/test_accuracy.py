"""Operating points read, simulated and compared."""

import json

import numpy as np
import pytest

import sim
from sim.errors import ConfigError, DataError, NotModelledError
from sim.report import accuracy as view
from sim.streams import stream
from sim.study.accuracy import AccuracyReport, Outcome, Point, accuracy, read_points
from sim.study.accuracy.deploy import planned, profile_of
from sim.study.accuracy.errors import rows
from sim.study.accuracy.launchers import as_measured
from sim.study.accuracy.lengths import draw, longest
from sim.study.accuracy.predict import predict
from sim.study.accuracy.traffic import traffic_of
from sim.study.accuracy.versions import release

LOOP = {"kind": "closed_loop", "concurrency": 4, "num_requests": 16, "prompt_tokens": 512, "output_tokens": 64}
BATCH = {"kind": "static_batch", "batch": 8, "prompt_tokens": 512, "output_tokens": 128}
RAW = {
    "id": "d/0",
    "model": "meta-llama/Llama-3.1-8B-Instruct",
    "weights": "bf16",
    "kv_cache": "bf16",
    "engine": {"name": "vllm", "version": "0.15.1", "settings": {"max_num_seqs": 64}},
    "accelerator": "h100_sxm",
    "parallelism": {"tp": 1},
    "traffic": LOOP,
    "window": {},
    "measured": {"ttft_s": {"mean": 0.05}, "tpot_s": {"mean": 0.008}, "output_tokens_per_s": 450.0},
    "quality": "good",
}


def folder(tmp_path, *raw):
    (tmp_path / "points.jsonl").write_text("\n".join(map(json.dumps, raw)))
    return tmp_path


def point(**changes):
    given = {
        "id": "d/0",
        "model": "llama-3.1-8b",
        "engine": "vllm",
        "version": "0.15.1",
        "accelerator": "h100_sxm",
        "traffic": BATCH,
    }
    return Point(**(given | {"measured": {"step_s.decode": 0.008, "step_s.prefill": 0.1}} | changes))


def test_points_are_read_with_every_figure(tmp_path):
    (read,) = read_points([folder(tmp_path, RAW)])

    assert (read.engine, read.version, read.tp, read.quality, read.deployment) == ("vllm", "0.15.1", 1, "good", "d")
    assert read.measured == {"ttft_s.mean": 0.05, "tpot_s.mean": 0.008, "output_tokens_per_s": 450.0}


@pytest.mark.parametrize("broken", ["{", '{"id": "x"}', json.dumps(RAW | {"quality": "superb"})])
def test_a_broken_point_names_its_line(tmp_path, broken):
    (tmp_path / "points.jsonl").write_text(json.dumps(RAW) + "\n" + broken)

    with pytest.raises(DataError, match=r"points\.jsonl:2"):
        list(read_points([tmp_path]))


def test_a_folder_without_points(tmp_path):
    with pytest.raises(DataError, match="holds no"):
        list(read_points([tmp_path]))


@pytest.mark.parametrize(
    ("engine", "text", "assumed", "expected"),
    [
        ("vllm", "0.15.1", (), "0.15.1"),
        ("vllm", "0.2-0.3 (early 2024)", (), "0.2"),
        ("sglang", "2025-05", (), "0.4"),
        ("vllm-ascend", "main 182b75ea (2026)", (), "0.24"),
        ("vllm-ascend", None, ("engine version of early 2026 documentation",), "0.13"),
        ("vllm", None, ("vLLM of the second half of 2023, version not recorded",), "0.2"),
        ("vllm", None, (), None),
    ],
)
def test_versions_as_people_write_them(engine, text, assumed, expected):
    assert expected == release(engine, text, assumed)


def test_lengths_have_the_mean_that_was_reported():
    lengths = draw({"trace": "sharegpt", "mean": 215.3}, 4000, stream(0, "t"), "prompt")

    assert lengths.min() >= 4
    assert abs(lengths.mean() - 215.3) < 2
    with pytest.raises(NotModelledError, match="only the name"):
        draw({"trace": "secret", "mean": 3}, 5, stream(0, "t"), "prompt")


def test_answers_that_end_by_themselves_are_unlike_within_their_limit():
    for mean, most in ((62, 128), (648, 2048), (12_137, 16_384), (147, 150)):
        lengths = draw({"mean": mean, "most": most}, 500, stream(0, "t"), "output")

        assert lengths.mean() == pytest.approx(mean, rel=0.01)
        assert lengths.min() >= 1
        assert most * 0.9 < lengths.max() <= most
        assert longest({"mean": mean, "most": most}) == most

    alike = draw({"mean": 50, "most": 150, "spread": 0.1}, 500, stream(0, "t"), "output")
    assert 50 < alike.max() < 80
    assert draw({"mean": 60, "most": 150}, 1, stream(0, "t"), "output").tolist() == [60]


def test_what_is_known_of_answers_that_nobody_forced_to_a_length():
    burst = {"kind": "burst", "num_requests": 8, "prompt_tokens": 80, "output_tokens": 52}
    told = as_measured(point(traffic=burst, assumed=("answers end naturally (up to 150 tokens): mean length used for all",)))
    assert told.traffic["output_tokens"] == {"mean": 52.0, "most": 150, "spread": 0.13}

    below = ("answers end naturally below --random-output-len: mean length used for all",)
    pools = as_measured(point(traffic=LOOP | {"output_tokens": 648}, assumed=below, launcher="dstackai/benchmarks"))
    assert pools.traffic["output_tokens"] == {"mean": 648.0, "most": 2048}
    assert as_measured(point(traffic=burst, assumed=below)).traffic["output_tokens"] == 52  # nobody says where they were cut
    assert as_measured(point(traffic=burst)).traffic["output_tokens"] == 52


def test_the_first_of_a_burst_is_computed_alone_where_it_wakes_the_server():
    burst = {"kind": "burst", "num_requests": 4, "prompt_tokens": 200, "output_tokens": 4}
    measured = {"ttft_s.p50": 1.0, "ttft_s.p99": 1.0, "ttft_s.mean": 1.0}
    own = predict(point(engine="tgi", version="2.3", traffic=burst, measured=measured))
    assert own["ttft_s.mean"] < own["ttft_s.p50"] - 1e-3

    one_round = predict(point(traffic=burst, measured=measured))
    assert one_round["ttft_s.mean"] == pytest.approx(one_round["ttft_s.p99"])


def test_replayed_prompts_are_the_same_content():
    traffic = {"kind": "stages", "arrival": "constant", "stages": [{"rate": 2, "duration": 10}, {"rate": 4, "duration": 10}]}
    traffic |= {"prompt_tokens": 100, "output_tokens": 5, "unique_prompts": 7, "prefix_tokens": 20}
    (block,) = traffic_of(point(traffic=traffic)).blocks()

    assert len(block) == 60
    block.validate()
    assert (block.span_id[0:2] == block.span_id[14:16]).all()
    assert block.span_id[1] != block.span_id[3]


def test_a_static_batch_needs_no_scheduler():
    old = point(version=None, assumed=("eager kernels of 2023",))

    assert profile_of(old).line == "0.1"
    assert set(predict(old)) == {"step_s.decode", "step_s.prefill"}


def test_a_deployment_of_2023_runs_on_v0():
    made = planned(point(version=None, assumed=("eager kernels of 2023",)))

    assert (made.scheduler.name, made.params.version) == ("vllm-v0", "0.2")


def test_what_is_not_modelled_has_a_reason(tmp_path):
    other = RAW | {"id": "d/1", "engine": {"name": "trtllm", "version": "1.0"}}
    report = accuracy([folder(tmp_path, other)])

    assert report.simulated == []
    assert report.reasons()[0][0] == "trtllm"
    assert "not modelled" in report.reasons()[0][1]


def test_an_unknown_setting_is_refused():
    with pytest.raises(NotModelledError, match="warp_drive"):
        predict(point(traffic=LOOP, settings={"warp_drive": True}))


def test_settings_that_points_name_alike_reach_the_engine_in_its_own_spelling():
    given = {"enable_prefix_caching": True, "max_batch_size": 400, "max_prefill_batch_size": 200}
    mindie = {"engine": "mindie", "version": "2.1RC1", "accelerator": "ascend_910b3", "model": "qwen3-8b"}
    params = planned(point(**mindie, traffic=LOOP, settings=given)).params

    assert (params.enablePrefixCache, params.maxBatchSize, params.maxPrefillBatchSize) == (True, 400, 200)


def test_errors_are_what_they_are_called():
    outcomes = [
        Outcome(point(id=f"d/{i}", measured={"tpot_s.mean": 1.0}), {"tpot_s.mean": v}) for i, v in enumerate((0.9, 1.0, 1.3))
    ]
    (row,) = rows(outcomes)

    assert (row.points, row.metric) == (3, "tpot_s.mean")
    assert row.median == pytest.approx(0.1)
    assert row.bias == pytest.approx(0.0)
    assert row.p90 == pytest.approx(np.percentile([0.0, 0.1, 0.3], 90))


def test_the_report_on_screen_in_a_table_and_as_a_page(tmp_path):
    good = Outcome(point(measured={"tpot_s.mean": 1.0}), {"tpot_s.mean": 1.1})
    report = AccuracyReport((good, Outcome(point(id="d/1"), {}, "engine x: is not modelled")))
    view.files(report, tmp_path)

    assert {f.name for f in tmp_path.iterdir()} == {"report.html", "accuracy.csv", "summary.json"}
    assert "10.0 %" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "not_simulated" in (tmp_path / "accuracy.csv").read_text().splitlines()[0]
    assert json.loads((tmp_path / "summary.json").read_text())["simulated"] == 1
    assert report.verdict is False
    assert report.sentence() == "1 of 2 operating points simulated: the median prediction is off by TPOT mean 10.0 %."


def bench(tmp_path, **changes):
    raw = {
        "input_lens": [100, 200], "output_lens": [3, 1], "ttfts": [0.1, 0.2], "itls": [[0.01, 0.01], []], "errors": ["", ""],
        "start_times": [5.0, 6.0], "request_rate": 1.0, "max_concurrency": None, "output_throughput": 3.0, "request_throughput": 1.6,
    }  # fmt: skip
    file = tmp_path / "bench.json"
    file.write_text(json.dumps(raw | changes))
    return file


def test_a_benchmark_result_is_a_point(tmp_path):
    (read,) = read_points([bench(tmp_path)], sim.load("quickstart"))

    assert read.measured["ttft_s.mean"] == pytest.approx(0.15)
    assert read.measured["tpot_s.mean"] == pytest.approx(0.01)
    assert read.measured["itl_s.mean"] == pytest.approx(0.01)
    assert read.measured["output_tokens_per_s"] == pytest.approx(4 / 1.2)  # from the first request sent to the last answer
    assert list(read.columns["arrival_s"]) == [0.0, 1.0]
    with pytest.raises(ConfigError, match="--scenario"):
        list(read_points([bench(tmp_path)]))
    with pytest.raises(DataError, match="differ in length"):
        list(read_points([bench(tmp_path, ttfts=[0.1])], sim.load("quickstart")))


def test_a_table_of_requests_is_a_point(tmp_path):
    file = tmp_path / "requests.csv"
    file.write_text("arrival_s,prompt_tokens,output_tokens,ttft_s,e2e_s\n0,100,11,0.1,0.2\n1,100,11,,\n")
    (read,) = read_points([file], sim.load("quickstart"))

    assert read.measured["tpot_s.mean"] == pytest.approx(0.01)
    assert read.measured["requests_per_s"] == pytest.approx(5.0)


def test_a_closed_loop_is_simulated(tmp_path):
    report = accuracy([folder(tmp_path, RAW)])

    assert report.refused == []
    (done,) = report.simulated
    assert set(done.predicted) == set(done.point.measured)
    assert all(abs(e) < 0.5 for e in done.errors().values())


def test_a_deployment_can_be_tried_on_another_accelerator(tmp_path):
    raw = RAW | {"traffic": BATCH, "measured": {"step_s": {"decode": 0.008}}}
    there = folder(tmp_path, raw)

    here = accuracy([there]).outcomes[0].predicted["step_s.decode"]
    moved = accuracy([there], on={"d": "h100-pcie"}).outcomes[0]

    assert moved.point.accelerator == "h100-pcie"
    assert moved.predicted["step_s.decode"] > 1.3 * here


@pytest.mark.parametrize("on", [{"elsewhere": "h100-pcie"}, {"d": "h100-pci"}])
def test_another_accelerator_must_exist_and_so_must_the_deployment(tmp_path, on):
    with pytest.raises(ConfigError, match="--on"):
        accuracy([folder(tmp_path, RAW)], on=on)
