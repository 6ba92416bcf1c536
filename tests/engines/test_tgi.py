"""TGI: recordings of the real router, laws, the one-stroke advance, settings."""

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

from sim.cost.memory import memory_budget
from sim.engine.contract import Site
from sim.engine.schedulers.tgi import Tgi, TgiParams
from sim.errors import ConfigError, DataError, NotModelledError
from sim.hardware import load_accelerator
from sim.ledger import FINISHED, REJECTED
from sim.model import load_model
from sim.study.conformance.tgi import check
from sim.workload.table import RequestBlock
from tests.engines.tgi_bench import random_block, run, server

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "tgi"
FILES = ("radix_ops.jsonl.gz", "steps_v3.jsonl.gz", "steps_v2.jsonl.gz", "steps_fuzz.jsonl.gz", "default_prefill_tokens.json")


@pytest.mark.parametrize(("file", "cases"), list(zip(FILES, (24, 28, 9, 60, 30), strict=True)))
def test_recordings_are_matched_decision_by_decision(file: str, cases: int) -> None:
    found = list(check(GOLDEN / file))
    assert [c.difference for c in found if c.difference] == []
    assert all(c.matched == c.steps for c in found)
    assert len(found) == cases


def test_a_changed_recording_is_noticed(tmp_path: Path) -> None:
    row = json.loads(gzip.decompress((GOLDEN / "steps_v3.jsonl.gz").read_bytes()).splitlines()[0])
    row["trace"][2]["tokens"] += 1
    (tmp_path / "changed.jsonl").write_text(json.dumps(row) + "\n")
    (case,) = check(tmp_path / "changed.jsonl")
    assert case.matched == 2
    assert case.difference is not None
    assert case.difference.step == 2


@pytest.mark.parametrize("text", ["", "nonsense", '{"scenario": "x", "trace": [{}]}', '{"a": 1}', "[1, 2]"])
def test_a_file_that_is_no_recording_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.jsonl").write_text(text)
    with pytest.raises(DataError, match="bad.jsonl"):
        list(check(tmp_path / "bad.jsonl"))


SETTINGS: tuple[dict[str, Any], ...] = (
    {"max_batch_prefill_tokens": 300, "attention": "flashinfer"},
    {"max_batch_prefill_tokens": 700, "attention": "flashdecoding"},
    {"max_batch_prefill_tokens": 900, "attention": "paged", "max_total_tokens": 3000},
    {
        "max_batch_prefill_tokens": 900,
        "prefill_chunking": False,
        "waiting_served_ratio": 0.5,
        "max_batch_size": 6,
        "max_total_tokens": 3000,
    },
    {"max_batch_prefill_tokens": 900, "prefill_chunking": False, "phantom_prefix": False, "max_total_tokens": 3000},
    {"max_batch_prefill_tokens": 900, "backend": "v2", "attention": "paged", "max_waiting_tokens": 5, "max_total_tokens": 3000},
    {"max_batch_prefill_tokens": 900, "flash": False, "max_total_tokens": 3000},
)


def test_one_stroke_equals_step_by_step() -> None:
    rng = np.random.default_rng(7)
    for i in range(280):
        settings = SETTINGS[i % len(SETTINGS)] | {"max_concurrent_requests": int(rng.choice([4, 16, 200]))}
        tokens = int(rng.choice([3200, 6000, 20000]))
        blocks = tokens // TgiParams(**{k: v for k, v in settings.items() if k == "attention"}).block_size
        requests = random_block(rng, 40, float(rng.choice([0.002, 0.05, 0.4])), 300, 90 if i % 5 else 1500)
        first, second = server(blocks, settings), server(blocks, settings)
        a, b = run(first, requests, True), run(second, requests, False)
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=f"{i} {name}")
        assert first.totals()["steps"] == second.totals()["steps"]
        assert first.totals()["itl_count"] == second.totals()["itl_count"]


@pytest.mark.parametrize("settings", SETTINGS)
def test_requests_and_blocks_are_conserved(settings: dict[str, Any]) -> None:
    rng = np.random.default_rng(3)
    requests = random_block(rng, 300, 0.05, 300, 120)
    params = Tgi.resolve(TgiParams(**settings), Site())
    group = server(20_000 // params.block_size, settings)
    rows = run(group, requests)
    assert len(rows["id"]) + len(group.in_flight()["id"]) == 300
    done = rows["status"] == FINISHED
    assert np.all(rows["output_tokens"][done] == requests.output_tokens[rows["id"][done]])
    assert np.all(rows["first_token_s"][done] > rows["first_scheduled_s"][done])
    assert np.all(rows["finish_s"][done] >= rows["first_token_s"][done])
    assert np.all(rows["first_scheduled_s"][done] >= rows["arrival_s"][done])
    assert np.all(rows["cached_tokens"][done] < rows["prompt_tokens"][done])
    state = group._states[0]
    assert int(state.held) == 0
    assert int(state.in_use) == 0
    kv = state.kv
    live = [i for i in range(2, int(kv.n_top)) if kv.chain[i] >= 0]
    assert int(kv.free) + sum(int(kv.tokens[i]) // int(kv.block) for i in live) == int(kv.total)
    assert len(live) == sum(int(kv.refs[i]) for i in live) + sum(int(kv.parent[i]) == 0 for i in live)


def test_the_129th_request_is_answered_429() -> None:
    requests = RequestBlock.of(np.zeros(200), np.full(200, 10), np.full(200, 10))
    rows = run(server(100_000, {}), requests)
    assert np.count_nonzero(rows["status"] == FINISHED) == 128
    assert np.all(rows["finish_s"][rows["status"] == REJECTED] == 0.0)


def test_a_permit_comes_back_when_the_stream_ends_not_before() -> None:
    # one permit; the first request ends at 0.01 + 10 · 2e-5 …: an arrival within its step is still turned away
    settings = {"max_concurrent_requests": 1}
    alone = run(server(1000, settings), RequestBlock.of([0.0], [10], [1]))
    end = float(alone["finish_s"][0])
    rows = run(server(1000, settings), RequestBlock.of([0.0, 0.9 * end, end], [10, 10, 10], [1, 1, 1]))
    assert rows["status"].tolist() == [FINISHED, REJECTED, FINISHED]


def test_requests_that_are_too_long_are_answered_422() -> None:
    group = server(1000, {"max_input_tokens": 100, "max_total_tokens": 200})
    rows = run(group, RequestBlock.of([0.0, 0.0, 0.0, 0.0], [100, 101, 60, 100], [100, 5, 141, 101]))
    assert rows["status"].tolist() == [FINISHED, REJECTED, REJECTED, REJECTED]


def test_long_outputs_go_round_in_legs_and_compute_their_output_again() -> None:
    group = server(20_000, {"max_batch_prefill_tokens": 5000})
    rows = run(group, RequestBlock.of([0.0], [100], [2500]))
    assert rows["output_tokens"].tolist() == [2500]
    prefilled = group.series()[0]["prefill_tokens"].sum()
    # the prompt of a leg is cached when it ends, not its output: 100, then 1,024 more in each leg
    assert prefilled == 100 + 1024 + 1024


def test_a_leg_that_no_longer_fits_ends_the_stream() -> None:
    group = server(20_000, {"max_total_tokens": 2000})
    rows = run(group, RequestBlock.of([0.0], [100], [2500]))
    assert rows["status"].tolist() == [FINISHED]
    assert rows["output_tokens"].tolist() == [1024]


def test_phantom_prefixes_can_be_switched_off() -> None:
    # the second prompt exactly finds the budget used up: its blocks are given back, and its prompt with them
    requests = RequestBlock.of([0.0, 0.0, 0.0], [256, 256, 400], [20, 20, 20])
    settings = {"max_batch_prefill_tokens": 512}
    real = run(server(8192, settings), requests)
    clean = run(server(8192, settings | {"phantom_prefix": False}), requests)
    assert real["cached_tokens"].tolist() == [0, 0, 399]
    assert clean["cached_tokens"].tolist() == [0, 0, 0]


def test_speculation_needs_fewer_steps_and_is_repeatable() -> None:
    requests = RequestBlock.of(np.zeros(20), np.full(20, 50), np.full(20, 400))
    plain = server(50_000, {})
    guessing = [server(50_000, {"speculate": 3, "acceptance": 0.7, "max_total_tokens": 1000}) for _ in range(2)]
    run(plain, requests)
    a, b = (run(g, requests) for g in guessing)
    np.testing.assert_array_equal(a["finish_s"], b["finish_s"])
    assert np.all(a["output_tokens"] == 400)
    # 1 + 0.7 + 0.49 + 0.343 tokens a step
    assert guessing[0].totals()["steps"] == pytest.approx(400 / 2.533, rel=0.15)


def test_defaults_follow_the_launcher() -> None:
    site = Site(model=load_model("llama-3.1-8b"), accelerator=load_accelerator("l4"))
    params = Tgi.resolve(TgiParams(), site)
    assert (params.attention, params.block_size, params.prefix_caching, params.chunking) == ("flashinfer", 1, True, True)
    assert params.max_batch_prefill_tokens == 8049
    turing = Tgi.resolve(TgiParams(), Site(model=load_model("phi-2"), accelerator=load_accelerator("t4")))
    assert (turing.attention, turing.block_size, turing.prefix_caching, turing.chunking) == ("paged", 16, False, False)
    sees = Site(model=load_model("gemma-3-4b"), accelerator=load_accelerator("l4"))
    assert Tgi.resolve(TgiParams(), sees).chunking is False
    assert Tgi.resolve(TgiParams(), sees).prefix_caching is False  # images are no part of the keys
    assert Tgi.resolve(TgiParams(prefix_caching=True), sees).prefix_caching is True


@pytest.mark.parametrize(
    ("settings", "site", "error", "words"),
    [
        ({"max_input_tokens": 10, "max_total_tokens": 10}, Site(), ConfigError, "max_input_tokens"),
        ({"acceptance": 0.5}, Site(), ConfigError, "acceptance"),
        ({"speculator": "medusa"}, Site(), ConfigError, "speculator"),
        ({"prefix_caching": True, "attention": "paged"}, Site(), ConfigError, "prefix_caching"),
        ({"prefix_caching": True, "backend": "v2"}, Site(), ConfigError, "prefix_caching"),
        ({}, Site(pp=2), NotModelledError, "deployment.pp"),
        ({}, Site(accelerator=load_accelerator("ascend-910b1")), NotModelledError, "accelerator"),
    ],
)
def test_settings_that_cannot_run_are_refused(settings: dict[str, Any], site: Site, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Tgi.resolve(TgiParams(**settings), site)


def test_a_total_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="not enough memory"):
        server(100, {"max_total_tokens": 200})


def test_plain_python_decides_the_same(tmp_path: Path) -> None:
    code = (
        "import numpy as np; from tests.engines.tgi_bench import *; rng = np.random.default_rng(5)\n"
        "b = random_block(rng, 40, 0.05, 300, 80)\n"
        "rows = run(server(4000, {'max_batch_prefill_tokens': 300}), b)\n"
        "np.savez(r'%s', **rows)"
    )
    subprocess.run(
        [sys.executable, "-W", "error", "-c", code % (tmp_path / "plain.npz")],
        check=True,
        cwd=ROOT,
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
    )
    plain = np.load(tmp_path / "plain.npz")
    compiled = run(server(4000, {"max_batch_prefill_tokens": 300}), random_block(np.random.default_rng(5), 40, 0.05, 300, 80))
    for name, column in compiled.items():
        np.testing.assert_array_equal(plain[name], column, err_msg=name)


def test_every_layer_keeps_every_token_and_recurrent_layers_are_refused():
    site = Site(model=load_model("gemma-3-4b"), accelerator=load_accelerator("h100-sxm"))
    rule = Tgi.memory_rule(Tgi.resolve(TgiParams(), site), site)
    budget = memory_budget(site.model, site.accelerator, rule)
    assert budget.bytes_per_block == rule.block_size * site.model.kv_bytes_per_token()
    with pytest.raises(NotModelledError, match="recurrent"):
        Tgi.resolve(TgiParams(), Site(model=load_model("qwen3.5-9b"), accelerator=load_accelerator("h100-sxm")))
