"""MindIE: recordings of the real scheduler, laws, the one-stroke advance, settings."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.engine.contract import Site
from sim.engine.schedulers.mindie import Mindie, MindieParams
from sim.errors import ConfigError, DataError, NotModelledError
from sim.hardware import load_accelerator
from sim.ledger import FAILED, FINISHED, REJECTED
from sim.model import load_model
from sim.study.conformance.mindie import check, recordings
from sim.workload.table import RequestBlock
from tests.engines.mindie_bench import random_block, run, server

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "mindie"


@pytest.mark.parametrize(("file", "cases"), [("steps.jsonl.gz", 17), ("random.json.gz", 30)])
def test_recordings_are_matched_round_by_round(file: str, cases: int) -> None:
    found = list(check(GOLDEN / file))
    assert [c.difference for c in found if c.difference] == []
    assert all(c.matched == c.steps for c in found)
    assert len(found) == cases


def test_all_recordings_are_matched(shared: Path) -> None:
    files = recordings(shared / "golden" / "mindie")
    assert len(files) >= 2
    assert [c.difference for f in files for c in check(f) if c.difference] == []


def test_a_changed_recording_is_noticed(tmp_path: Path) -> None:
    document = json.loads(gzip.decompress((GOLDEN / "random.json.gz").read_bytes()))
    name, scenario = next(iter(document["scenarios"].items()))
    scenario["rows"][3][7] += 1
    (tmp_path / "changed.json").write_text(json.dumps({"scenarios": {name: scenario}}))
    (case,) = check(tmp_path / "changed.json")
    assert case.matched == 3
    assert case.difference is not None
    assert case.difference.step == 3


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("bad.json", ""),
        ("bad.json", "nonsense"),
        ("bad.json", '{"scenarios": {"a": {}}}'),
        ("bad.json", '{"scenarios": {"a": {"config_overrides": {"maxBatchSize": -1}, "requests": [], "rows": []}}}'),
        ("bad.jsonl", '{"scenario": "a"}'),
        ("bad.jsonl", ""),
    ],
)
def test_a_file_that_is_no_recording_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match="bad.json"):
        list(check(tmp_path / name))


SMALL: dict[str, Any] = {
    "cacheBlockSize": 16,
    "maxSeqLen": 2000,
    "maxInputTokenLen": 1000,
    "maxIterTimes": 1500,
    "maxPrefillTokens": 1000,
}
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"maxBatchSize": 6, "maxPrefillBatchSize": 3, "maxQueueDelayMicroseconds": 20_000},
    {"supportSelectBatch": True, "maxBatchSize": 20, "maxPrefillBatchSize": 4},
    {"maxFirstTokenWaitTime": 100, "maxBatchSize": 40},
    {"templateType": "Mix", "maxPrefillTokens": 256, "prefillChunkSize": 100, "maxFirstTokenWaitTime": 60_000},
    {
        "templateType": "Mix",
        "maxPrefillTokens": 64,
        "longPrefillTokenThreshold": 50,
        "maxLongPartialPrefills": 1,
        "maxBatchSize": 9,
    },
    {"enablePrefixCache": True},
    {"enablePrefixCache": True, "templateType": "Mix", "maxPrefillTokens": 128, "maxFirstTokenWaitTime": 60_000},
    {"plugin_params": {"plugin_type": "mtp,prefix_cache", "num_speculative_tokens": 2, "acceptance_rate": 0.6}},
    {"stageSelectPolicy": 2, "prefillExpectedTime": 300},
    {"dynamicBatchSizeEnable": True, "stageSelectPolicy": 2, "decodeExpectedTime": 12},
    {"maxPreemptCount": 3, "cpuMemSize": 1.0},
)
HOST = {"cpu_blocks": 60}


def test_one_stroke_equals_step_by_step() -> None:
    rng = np.random.default_rng(7)
    for i in range(240):
        settings = SMALL | SETTINGS[i % len(SETTINGS)]
        blocks = int(rng.choice([126, 160, 1000]))
        requests = random_block(rng, 40, float(rng.choice([0.002, 0.05, 0.4])), 300, 90 if i % 5 else 600)
        first, second = (server(blocks, settings, extra=HOST) for _ in range(2))
        a, b = run(first, requests, True), run(second, requests, False)
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=f"{i} {name}")
        assert first.totals()["steps"] == second.totals()["steps"]
        assert first.totals()["itl_count"] == second.totals()["itl_count"]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("blocks", [126, 400])
def test_requests_and_blocks_are_conserved(settings: dict[str, Any], blocks: int) -> None:
    rng = np.random.default_rng(3)
    requests = random_block(rng, 300, 0.05, 300, 120)
    group = server(blocks, SMALL | settings, extra=HOST)
    rows = run(group, requests)
    assert len(rows["id"]) == 300
    assert len(group.in_flight()["id"]) == 0
    done = rows["status"] == FINISHED
    assert done.all()
    np.testing.assert_array_equal(rows["output_tokens"], requests.output_tokens)
    assert np.all(rows["first_token_s"] > rows["first_scheduled_s"])
    assert np.all(rows["finish_s"] >= rows["first_token_s"])
    assert np.all(rows["first_scheduled_s"] >= rows["arrival_s"])
    assert np.all(rows["cached_tokens"] < rows["prompt_tokens"])
    state = group._states[0]
    assert int(state.free_blocks) == blocks
    assert int(state.host_free) == HOST["cpu_blocks"]
    assert (int(state.n_run), int(state.n_swap), int(state.w_len), int(state.n_again)) == (0, 0, 0, 0)
    if state.caching:
        kv = state.kv
        assert int(kv.free) == int(kv.f_len) + int(kv.n_out) == blocks
        assert not kv.b_ref.any()
        assert np.count_nonzero(kv.t_block) == int(kv.n_out) == np.count_nonzero(kv.b_key)
        assert rows["cached_tokens"].sum() > 0


LATE = {"tokenTimeout": 2, "e2eTimeout": 5}


@pytest.mark.parametrize("settings", SETTINGS)
def test_requests_that_take_too_long_fail_and_leave_nothing_behind(settings: dict[str, Any]) -> None:
    requests = random_block(np.random.default_rng(11), 250, 0.01, 300, 200)
    groups = [server(150, SMALL | settings | LATE, extra=HOST) for _ in range(2)]
    a, b = run(groups[0], requests, True), run(groups[1], requests, False)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    late = a["status"] == FAILED
    assert 0 < late.sum() < 250
    age = a["finish_s"] - a["arrival_s"]
    assert np.all(age[late] >= 2.0)
    assert np.all(age[late] < 5.2)  # at the first decision from then on
    assert np.all(age < 5.2)
    np.testing.assert_array_equal(a["output_tokens"][~late], requests.output_tokens[~late])
    state = groups[0]._states[0]
    assert (int(state.free_blocks), int(state.host_free)) == (150, HOST["cpu_blocks"])
    assert (int(state.n_run), int(state.n_swap), int(state.w_len), int(state.n_again)) == (0, 0, 0, 0)


def test_a_request_without_a_place_times_out() -> None:
    settings = SMALL | {"maxFirstTokenWaitTime": 3_600_000, "tokenTimeout": 3}
    rows = run(server(126, settings), RequestBlock.of([0.0, 0.5], [1000, 1000], [1000, 5]))
    assert rows["status"].tolist() == [FINISHED, FAILED]
    assert 3.5 <= rows["finish_s"][1] < 3.52


def test_two_starving_prompts_take_turns_until_they_time_out() -> None:
    # each finds no room, is given the other's blocks after maxFirstTokenWaitTime, and computes one chunk before it loses them again
    settings = SMALL | {"templateType": "Mix", "maxPrefillTokens": 100, "maxFirstTokenWaitTime": 0, "e2eTimeout": 20}
    settings |= {"maxSeqLen": 1100, "maxIterTimes": 500}
    requests = RequestBlock.of([0.0, 0.0], [900, 1000], [50, 50])
    rows = run(server(70, settings), requests)
    assert rows["status"].tolist() == [FAILED, FAILED]
    assert np.all(np.isnan(rows["first_token_s"]))
    assert rows["preemptions"].min() > 100
    assert 20.0 <= rows["finish_s"].max() < 20.1
    # with patience the second waits for the first
    calm = run(server(70, settings | {"maxFirstTokenWaitTime": 60_000}), requests)
    assert calm["status"].tolist() == [FINISHED, FINISHED]
    assert calm["preemptions"].sum() == 0


def test_short_pauses_between_calls_change_nothing() -> None:
    requests = random_block(np.random.default_rng(5), 60, 0.05, 300, 120)
    whole = run(server(200, SMALL), requests)
    group = server(200, SMALL)
    group.submit(0, requests.columns, requests.spans, 0, len(requests), 0)
    for until in np.arange(0.0, 30.0, 0.0037):
        group.advance(float(until), False)
    group.advance(np.inf, False)
    rows = group.drain()
    order = np.argsort(rows["id"], kind="stable")
    for name, column in whole.items():
        np.testing.assert_array_equal(rows[name][order], column, err_msg=name)


def test_a_lone_request_waits_for_the_queue_delay_on_a_grid_of_milliseconds() -> None:
    rows = run(server(1000, SMALL), RequestBlock.of([0.0, 1.0004], [100, 100], [1, 1]))
    assert rows["first_scheduled_s"][0] == pytest.approx(0.005)
    # the server last looked at 0.017 (its first answer, then an empty round) and every millisecond since
    wait = rows["first_scheduled_s"][1] - 1.0004
    assert 0.005 <= wait < 0.006
    slow = run(server(1000, SMALL | {"maxQueueDelayMicroseconds": 50_000}), RequestBlock.of([0.0], [100], [1]))
    assert slow["first_scheduled_s"][0] == pytest.approx(0.05)


def test_a_raised_delay_lets_a_full_batch_go_at_once() -> None:
    settings = SMALL | {"maxQueueDelayMicroseconds": 50_000, "maxPrefillBatchSize": 3}
    rows = run(server(1000, settings), RequestBlock.of([0.0, 0.01, 0.02], [100] * 3, [2] * 3))
    np.testing.assert_allclose(rows["first_scheduled_s"], 0.02)


def test_output_is_cut_and_long_prompts_are_refused() -> None:
    settings = {"maxSeqLen": 1000, "maxInputTokenLen": 900, "maxIterTimes": 150}
    rows = run(server(100, settings), RequestBlock.of([0.0] * 4, [900, 901, 100, 100], [500, 5, 500, 50]))
    assert rows["status"].tolist() == [FINISHED, REJECTED, FINISHED, FINISHED]
    assert rows["output_tokens"].tolist() == [100, 0, 150, 50]


def test_swapping_keeps_what_recomputing_loses() -> None:
    requests = RequestBlock.of([0.0] * 8, [250] * 8, [300] * 8)
    settings = {"maxPrefillBatchSize": 8, "maxBatchSize": 8, "maxSeqLen": 1024, "maxInputTokenLen": 1000}
    again = server(20, settings)
    swapping = server(20, settings | {"maxPreemptCount": 2, "cpuMemSize": 1.0}, extra={"cpu_blocks": 16})
    run(again, requests)
    run(swapping, requests)
    assert again.totals()["preemptions"] > 0
    assert swapping.totals()["preemptions"] > 0
    prefilled = [g.series()[0]["prefill_tokens"].sum() for g in (again, swapping)]
    assert prefilled[0] > 2000 == prefilled[1]


def test_a_shared_prefix_is_computed_once() -> None:
    spans = ([0, 2, 4, 6], [1, 10, 1, 11, 1, 12], [0] * 6, [512, 88, 512, 188, 300, 300])
    requests = RequestBlock.of([0.0, 1.0, 2.0], [600, 700, 600], [5, 5, 5], spans=spans)
    rows = run(server(100, {"plugin_params": '{"plugin_type": "prefix_cache"}'}), requests)
    assert rows["cached_tokens"].tolist() == [0, 512, 256]


def test_more_running_than_the_batch_take_turns() -> None:
    group = server(1000, SMALL | {"maxBatchSize": 4, "maxPrefillBatchSize": 4})
    rows = run(group, RequestBlock.of([0.0] * 5, [16] * 5, [40] * 5))
    assert rows["status"].tolist() == [FINISHED] * 5
    assert rows["finish_s"][0] < rows["finish_s"][4]


def test_speculation_needs_fewer_steps_and_is_repeatable() -> None:
    requests = RequestBlock.of(np.zeros(20), np.full(20, 50), np.full(20, 400))
    plugin = {"plugin_params": {"plugin_type": "mtp", "num_speculative_tokens": 3, "acceptance_rate": 0.7}}
    plain = server(5000, SMALL)
    guessing = [server(5000, SMALL | plugin) for _ in range(2)]
    run(plain, requests)
    a, b = (run(g, requests) for g in guessing)
    np.testing.assert_array_equal(a["finish_s"], b["finish_s"])
    assert np.all(a["output_tokens"] == 400)
    assert guessing[0].totals()["steps"] == pytest.approx(plain.totals()["steps"] / 2.533, rel=0.15)


def test_defaults_are_those_of_the_configuration_file() -> None:
    p = Mindie.resolve(MindieParams(), Site(model=load_model("llama-3.1-8b"), accelerator=load_accelerator("ascend-910b1")))
    assert (p.maxBatchSize, p.maxPrefillBatchSize, p.maxPrefillTokens, p.maxSeqLen, p.cacheBlockSize) == (
        200,
        50,
        8192,
        2560,
        128,
    )
    assert (p.enableChunkedPrefill, p.enablePrefixCache, p.stageSelectPolicy, p.gamma) == (False, False, 0, 0)
    assert Mindie.memory_rule(p, Site()).block_size == 128
    assert Mindie.resolve(MindieParams(supportSelectBatch=True, maxPrefillBatchSize=0), Site()).maxPrefillBatchSize == 200


@pytest.mark.parametrize(
    ("settings", "site", "error", "words"),
    [
        ({"maxInputTokenLen": 3000}, Site(), ConfigError, "maxInputTokenLen"),
        ({"maxIterTimes": 2560}, Site(), ConfigError, "maxIterTimes"),
        ({"maxPrefillTokens": 100}, Site(), ConfigError, "maxPrefillTokens"),
        ({"maxPrefillBatchSize": 300}, Site(), ConfigError, "maxPrefillBatchSize"),
        ({"maxPreemptCount": 2}, Site(), ConfigError, "cpuMemSize"),
        ({"maxPreemptCount": 2, "cpuMemSize": 5, "enablePrefixCache": True}, Site(), NotModelledError, "prefix cache"),
        ({"decodePolicyType": 2}, Site(), ConfigError, "decodePolicyType"),
        ({"stageSelectPolicy": 3}, Site(), NotModelledError, "edge-cloud"),
        ({"bufferResponseEnabled": True}, Site(), NotModelledError, "bufferResponseEnabled"),
        ({"plugin_params": {"plugin_type": "mpt"}}, Site(), ConfigError, "plugin_type"),
        ({"plugin_params": {"plugin_type": "mtp,la", "acceptance_rate": 0.5}}, Site(), ConfigError, "one way"),
        ({}, Site(pp=2), NotModelledError, "deployment.pp"),
        ({}, Site(accelerator=load_accelerator("h100-sxm")), NotModelledError, "Ascend"),
    ],
)
def test_settings_that_cannot_run_are_refused(settings: dict[str, Any], site: Site, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Mindie.resolve(MindieParams(**settings), site)


def test_blocks_that_do_not_hold_one_request_are_refused() -> None:
    with pytest.raises(ConfigError, match="does not fit"):
        server(10, {})


def test_plain_python_decides_the_same(tmp_path: Path) -> None:
    code = (
        "import numpy as np; from tests.engines.mindie_bench import *; from tests.engines.test_mindie import *\n"
        "for i, settings in enumerate(SETTINGS):\n"
        "    b = random_block(np.random.default_rng(5), 30, 0.05, 300, 80)\n"
        "    np.savez(r'%s' + f'/{i}.npz', **run(server(126, SMALL | settings, extra=HOST), b))"
    )
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    subprocess.run([sys.executable, "-W", "error", "-c", code % tmp_path], check=True, cwd=ROOT, env=environment)
    for i, settings in enumerate(SETTINGS):
        plain = np.load(tmp_path / f"{i}.npz")
        compiled = run(server(126, SMALL | settings, extra=HOST), random_block(np.random.default_rng(5), 30, 0.05, 300, 80))
        for name, column in compiled.items():
            np.testing.assert_array_equal(plain[name], column, err_msg=f"{i} {name}")


@pytest.mark.parametrize("name", ["gemma-3-4b", "qwen3.5-9b"])
def test_models_whose_layers_forget_are_refused(name):
    with pytest.raises(NotModelledError, match="nothing is published"):
        Mindie.resolve(MindieParams(), Site(model=load_model(name)))
