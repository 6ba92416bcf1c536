"""vLLM's KV groups: differential steps against an independent model, planning."""

from __future__ import annotations

import gzip
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import sim
from sim.engine.contract import Site
from sim.engine.schedulers.vllm.kv_layers import kv_layout
from sim.engine.schedulers.vllm.making import per_request
from sim.engine.schedulers.vllm.params import VllmParams, resolve
from sim.errors import ConfigError
from sim.model import load_model
from sim.study.conformance._vllm_groups import plan_of
from sim.study.conformance.vllm import compare, read, settings
from sim.study.single import Prepared
from tests.engines.vllm_hybrid_cases import scenario
from tests.fuzz import enough
from tests.within import Endless, within

RECORDINGS = sorted((Path(__file__).parents[1] / "golden" / "vllm_hybrid").glob("*.jsonl.gz"))


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda p: p.name.split("_")[0])
def test_capacity_of_a_plan(path):
    """What the start-up log of the recorded planning says."""
    recorded, _ = read(path)
    params, _, _ = settings(recorded)
    said = recorded["kv_plan"]
    plan = plan_of(said, recorded["engine"]["kv"])
    length = params.max_model_len or 0
    drafts = recorded["engine"].get("num_speculative_tokens", 0)
    each = plan.per_request(length, said["max_in_flight_tokens"], params.enable_prefix_caching, drafts)

    assert each == [g["max_blocks_per_req"] for g in said["groups"]]
    assert int(said["num_blocks"] / sum(each) * length) == said["kv_cache_size_tokens"]
    assert said["num_blocks"] / sum(each) == pytest.approx(said["max_concurrency"], abs=1e-6)
    assert (plan.grid, plan.hash_block_size) == (said["scheduler_block_size"], said["hash_block_size"])


def reference(shared: Path) -> Any:
    folder = shared / "reference" / "hybrid"
    if not folder.exists():
        pytest.skip("the reference model is not at hand")
    sys.path.insert(0, str(folder))
    try:
        import hrefsim
    finally:
        sys.path.remove(str(folder))
    return hrefsim


def rows_of(model: Any, made: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The model's rows; None where it asks for ever whether a request fits that never does."""
    try:
        with within(20):
            return list(json.loads(json.dumps(model.HSim(made).run())))
    except Endless:
        return None


def differential(model: Any, seeds: range, steps: int) -> int:
    """Steps compared, until there are enough; every other case sends prompts of its own without content, so that their blocks are only counted."""
    done, told = 0, time.monotonic()
    for seed in seeds:
        made = scenario(seed)
        rows = rows_of(model, made)
        if rows is None:
            print(f"vLLM groups: the model does not end on seed {seed}", flush=True)
            continue
        for lone in (False, True) if seed % 2 else (False,):
            case = compare(made, rows, str(seed), lone)
            assert case.difference is None, (seed, lone, made["engine"], case.difference)
            done += case.matched
        if time.monotonic() > told + 30:
            told = time.monotonic()
            print(f"vLLM groups: {done:,} of {steps:,} steps, seed {seed}", flush=True)
        if done >= steps:
            break
    return done


def test_twenty_thousand_steps_like_the_independent_model(shared):
    assert differential(reference(shared), range(2_000), enough(20_000)) >= enough(20_000)


@pytest.mark.slow
def test_a_million_steps_like_the_independent_model(shared):
    assert differential(reference(shared), range(10_000, 1_000_000), 1_000_000) >= 1_000_000


def layout(name: str, length: int = 32768, **given: Any) -> Any:
    site = Site(load_model(name), None)
    params = resolve(VllmParams(max_model_len=length, **given), site)
    return kv_layout(params, site), params, site


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("gpt-oss-120b", [("sliding", 18, 16), ("full", 18, 16)]),
        ("gemma-3-12b", [("sliding", 8, 16)] * 5 + [("full", 8, 16)]),
        ("gemma-3-27b", [("sliding", 9, 16)] * 4 + [("sliding", 8, 16)] * 2 + [("full", 10, 16)]),
        ("gemma-2-9b", [("sliding", 21, 16), ("full", 21, 16)]),
        ("qwen3-next-80b-a3b", [("linear", 12, 544)] * 3 + [("full", 12, 544)]),
        ("qwen3.5-27b", [("linear", 16, 784)] * 3 + [("full", 16, 784)]),
        ("mistral-7b-v0.1", [("sliding", 32, 16)]),
    ],
)
def test_groups_of_models(name, groups):
    found, _, _ = layout(name, 8192 if "gemma-2" in name else 32768)

    assert [(g.kind, g.layers, g.block_size) for g in found.plan.groups] == groups
    assert len({g.page for g in found.plan.groups}) == 1
    assert found.bytes_per_block == max(g.layers for g in found.plan.groups) * found.plan.groups[0].page


@pytest.mark.parametrize(
    ("name", "dtype", "size"),
    [("qwen3-next-80b-a3b", "float32", 1056), ("qwen3.5-27b", "bfloat16", 400), ("qwen3.5-27b", "auto", 784)],
)
def test_block_size_of_recurrent_models(name, dtype, size):
    assert layout(name, mamba_ssm_cache_dtype=dtype)[0].block_size == size


def test_figures_of_a_public_log():
    """vLLM issue 40691: Qwen3.5-27B, max_model_len 32,768, 0.19: 290,864 tokens, 33.04x, with some 1,487 blocks."""
    found, params, site = layout("qwen3.5-27b", version="0.19")

    assert params.enable_prefix_caching is False
    assert [g.block_size for g in found.plan.groups] == [32768] * 3 + [784]
    assert per_request(found.plan, params, site) == 45
    assert 1487 // len(found.plan.groups) * found.plan.least == 290_864
    assert round(1487 / 45, 2) == 33.04


def test_what_is_cached_as_full_attention():
    """Llama 4 by default, and whatever the manager is switched off for: one table, every token in every layer."""
    for name, given in (
        ("llama-4-scout", {}),
        ("gpt-oss-20b", {"disable_hybrid_kv_cache_manager": True}),
        ("gemma-3-4b", {"version": "0.9"}),
    ):
        found, _, _ = layout(name, **given)
        model = load_model(name)
        assert found.plan is None and found.notes == ()
        assert found.bytes_per_block == 16 * model.kv_bytes_per_token()
    chunked, _, _ = layout("llama-4-scout", VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE=True)
    assert [g.kind for g in chunked.plan.groups] == ["chunked"] * 3 + ["full"]
    assert layout("llama-3.1-8b")[0] is None


@pytest.mark.parametrize(
    ("name", "given", "field"),
    [
        ("qwen3.5-27b", {"disable_hybrid_kv_cache_manager": True}, "disable_hybrid_kv_cache_manager"),
        ("qwen3.5-27b", {"prefix_cache_retention_interval": 500}, "prefix_cache_retention_interval"),
        ("qwen3.5-27b", {"prefix_match_unit": 48}, "prefix_match_unit"),
        ("gpt-oss-20b", {"prefix_match_unit": 8}, "prefix_match_unit"),
    ],
)
def test_settings_that_do_not_go_with_the_groups(name, given, field):
    with pytest.raises(ConfigError, match=field):
        layout(name, **given)


def test_first_difference_shows_the_groups(tmp_path):
    path = RECORDINGS[0]
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    row = json.loads(lines[3])
    row["held"][0] += 1
    changed = [json.loads(lines[i]) if i != 3 else row for i in range(len(lines))]

    case = compare(changed[0], changed[1:], path.name)

    assert case.matched == 2 and case.difference is not None
    assert case.difference.recorded["held"][0] == case.difference.ours["held"][0] + 1


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("gpt-oss-20b", {"deployment.kv_blocks": 700}),
        ("gpt-oss-20b", {"deployment.engine.enable_prefix_caching": "false", "deployment.engine.async_scheduling": "false"}),
        ("gemma-3-4b", {"deployment.kv_blocks": 2600, "traffic.synthetic.prefixes": "{groups: 2, shared_tokens: 300}"}),
        ("qwen3.5-9b", {"deployment.kv_blocks": 60}),
    ],
)
def test_one_stroke_is_step_by_step(name, given):
    """Unchanged decode steps in one stroke: the same bytes, also where blocks are few and windows slide."""
    overrides = [
        f"model={name}",
        "traffic.synthetic.requests=150",
        "traffic.synthetic.arrival.rate=12/s",
        "traffic.too_long=skip",
        "deployment.engine.max_model_len=4096",
        *(f"{key}={value}" for key, value in given.items()),
    ]
    made = Prepared(sim.load("quickstart", overrides))

    one, other = made.run(), made.run(multi_step=False)

    for column in ("first_scheduled_s", "first_token_s", "finish_s", "cached_tokens", "preemptions"):
        assert (one.requests[column].to_numpy() == other.requests[column].to_numpy()).all(), column
    assert {p["shared"] for p in one.summary["kv_pools"]["pools"]} == {True}


@pytest.mark.parametrize(("blocks", "said"), [(200, 0), (300, 1)])
def test_what_is_not_remembered_is_said(blocks, said):
    """A preempted request whose window has just left its prompt may find the end of the prompt again; others do not."""
    lengths = "prompt_tokens: {mean: 300, cv: 0.5, min: 20, max: 500}, output_tokens: {mean: 200, cv: 0.5, min: 20, max: 400}"
    overrides = [
        "model=gpt-oss-20b",
        f"deployment.kv_blocks={blocks}",
        "deployment.engine.max_model_len=1024",
        "traffic.synthetic.requests=40",
        "traffic.synthetic.arrival={process: burst}",
        f"traffic.synthetic.lengths={{kind: lognormal, {lengths}}}",
    ]
    result = Prepared(sim.load("quickstart", overrides)).run()

    assert result.requests["preemptions"].sum() > 0
    assert sum("might have found" in w for w in result.warnings) == said


@pytest.mark.parametrize("model", [pytest.param("gpt-oss-20b", marks=pytest.mark.slow), "gemma-3-4b"])
def test_ranks_say_what_each_kind_of_layer_holds(model):
    """Data-parallel ranks that step together, and those that do not."""
    overrides = [f"model={model}", "deployment.dp=2", "traffic.synthetic.requests=50", "traffic.too_long=skip"]

    summary = Prepared(sim.load("quickstart", overrides)).run().summary

    assert len(summary["kv_pools"]["pools"]) == 2
    assert all(p["peak"] > 0 for p in summary["kv_pools"]["pools"])


def test_one_sequence_that_does_not_fit_says_what_would():
    with pytest.raises(ConfigError, match=r"takes 655,360 blocks, and there are .*allowed: 1\.\.\d+"):
        sim.memory(sim.load("quickstart", ["model=llama-4-scout", "deployment.tp=8"]))
