"""The compiled step cost against its plain twin, and the laws a step time obeys."""

from __future__ import annotations

import numpy as np
import pytest

from sim import ledger
from sim.cost import features as f
from sim.cost.build import build_step_cost, build_tables
from sim.cost.layout import Layout
from sim.cost.plain import plain_step_time
from sim.cost.profile import load_engine_profile
from sim.cost.step import new_linear_cost, new_table_cost
from sim.hardware import load_accelerator
from sim.model import load_model
from tests.cost.common import batch, seconds, seconds_and_parts

CASES = [
    ("llama-3.1-8b", "bf16", "h100-sxm", Layout(), "vllm"),
    ("llama-3.1-70b", "fp8", "h100-sxm", Layout(tp=4), "vllm"),
    ("mixtral-8x7b", "bf16", "a100-sxm-80g", Layout(tp=2), "sglang"),
    ("deepseek-v3", "fp8", "h200-sxm", Layout(tp=1, dp=8, ep=8), "sglang"),
    ("gpt-oss-20b", "mxfp4", "h100-sxm", Layout(), "vllm"),
    ("gemma-3-27b", "bf16", "h100-sxm", Layout(tp=2, pp=2), "vllm"),
    ("qwen3-32b", "w8a8", "ascend-910b4", Layout(tp=2), "vllm-ascend"),
    ("llama-3-8b", "q4_k_m", "rtx-4090", Layout(), "llama.cpp"),
    ("qwen2.5-7b", "awq-int4", "a10", Layout(), "tgi"),
    ("deepseek-v3.2", "fp8", "h200-sxm", Layout(tp=8), "vllm"),
    ("qwen3-next-80b-a3b", "bf16", "h20", Layout(tp=4), "vllm"),
]


def made(model, weights, accelerator, layout, engine, tokens=4096):
    return build_tables(
        load_model(model, weights=weights), load_accelerator(accelerator), layout, load_engine_profile(engine), tokens
    )


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0]}-{c[1]}-{c[2]}-{c[4]}")
def test_compiled_equals_plain_on_random_batches(case):
    tables, _ = made(*case)
    cost = new_table_cost(*tables.packed())
    rng = np.random.default_rng(7)
    for _ in range(150):
        rows, prompts = int(rng.integers(0, 3000)) * (rng.random() < 0.8), int(rng.integers(0, 20)) * (rng.random() < 0.6)
        feat = batch(rows, np.exp(rng.uniform(0, 14.5)), prompts, int(np.exp(rng.uniform(0, 8))), int(rng.integers(0, 50000)))
        feat[f.DECODE_TOKENS] += rng.integers(0, 3) * rows
        expected, expected_parts = plain_step_time(tables, feat)

        got, parts = seconds_and_parts(cost, feat)

        assert got == pytest.approx(expected, rel=1e-9)
        assert parts == pytest.approx(expected_parts, rel=1e-6, abs=1e-12)
        assert parts.sum() == pytest.approx(got, rel=1e-9)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0]}-{c[2]}")
def test_step_time_is_finite_positive_and_grows_with_the_batch(case):
    tables, evidence = made(*case)
    cost = new_table_cost(*tables.packed())
    one, many, long = batch(1, 100), batch(256, 100), batch(256, 30000)

    assert seconds(cost, np.zeros(f.N_FEATURES)) == 0.0
    assert 0.0 < seconds(cost, one) < seconds(cost, many) <= seconds(cost, long) < 60.0
    assert seconds(cost, batch(0, 0, 1, 256)) < seconds(cost, batch(0, 0, 1, 4096)) < seconds(cost, batch(0, 0, 1, 4096, 60000))
    assert seconds(cost, batch(0, 0, 4, 8192)) > 1.5 * seconds(cost, batch(0, 0, 1, 8192))
    assert {o.part for o in evidence.operators} <= set(ledger.PARTS)


def test_sliding_window_bounds_what_long_contexts_cost():
    tables, _ = made("mistral-7b-v0.1", "bf16", "h100-sxm", Layout(), "vllm")
    cost = new_table_cost(*tables.packed())

    assert seconds(cost, batch(64, 100_000)) == pytest.approx(seconds(cost, batch(64, 4096)), rel=1e-6)


def test_more_tensor_parallelism_is_faster_and_costs_communication():
    times, comms = [], []
    for tp in (1, 2, 4, 8):
        tables, _ = made("llama-3.1-70b", "bf16", "h100-sxm", Layout(tp=tp), "vllm")
        t, parts = seconds_and_parts(new_table_cost(*tables.packed()), batch(32, 1000))
        times.append(t)
        comms.append(parts[ledger.PART_COMMUNICATION])

    assert times == sorted(times, reverse=True)
    assert comms == sorted(comms)
    assert comms[0] == 0.0


def test_stages_share_the_layers():
    tables, _ = made("llama-3.1-8b", "bf16", "h100-sxm", Layout(pp=3), "vllm")

    assert tables.stage_share == pytest.approx([11 / 32, 11 / 32, 10 / 32])


def test_decode_batches_are_padded_to_captured_graphs():
    cost, _ = build_step_cost(
        load_model("llama-3.1-8b"), load_accelerator("h100-sxm"), Layout(), load_engine_profile("vllm", "0.10"), 2048
    )

    def linear(rows):
        return seconds_and_parts(cost, batch(rows, 100))[1][: ledger.PART_ATTENTION_PREFILL].sum()

    assert linear(17) - linear(24) == pytest.approx(0.0, abs=2e-5)  # differs by the output head alone


def test_linear_cost_is_what_the_recordings_use():
    cost = new_linear_cost(np.array([1.0, 2.0]), np.array([f.TOKENS]), np.array([[0.5], [0.25]]))

    assert seconds(cost, batch(4, 10)) == 3.0
    assert seconds(cost, batch(4, 10, 1, 4)) == 4.0
    assert seconds(cost, np.zeros(f.N_FEATURES)) == 0.0


def test_sparse_attention_is_cheaper_than_dense_at_long_contexts():
    sparse = new_table_cost(*made("deepseek-v3.2", "fp8", "h200-sxm", Layout(tp=8), "vllm")[0].packed())
    dense = new_table_cost(*made("deepseek-v3", "fp8", "h200-sxm", Layout(tp=8), "vllm")[0].packed())

    assert seconds(sparse, batch(32, 100_000)) < 0.8 * seconds(dense, batch(32, 100_000))


def _prompts_of_2023(tp: int, sizes: tuple[int, ...], **figures: float) -> list[list[float]]:
    """Parts of prompt steps of Llama 2 70B under vLLM of 2023 on A100s: a step of each number of tokens."""
    profile = load_engine_profile("vllm", "0.1", "a100-sxm-80g").changed(figures)
    layout = Layout(tp=tp, pp=1, dp=1, ep=1)
    model, card = load_model("meta-llama/Llama-2-70b-hf"), load_accelerator("a100-sxm-80g")
    tables, _ = build_tables(model, card, layout, profile, max(sizes))
    return [[t, *parts] for t, parts in (plain_step_time(tables, batch(prompts=1, chunk=n)) for n in sizes)]


@pytest.mark.parametrize(("tp", "longer"), [(2, False), (4, True), (8, True)])
def test_all_reduces_of_64_mib_are_slower_where_ranks_pass_bytes_on_for_others(tp: int, longer: bool) -> None:
    at = 1 + ledger.PART_COMMUNICATION
    below, above = _prompts_of_2023(tp, (4033, 4096))  # 64 MiB are 4,096 tokens of 8,192 elements
    smaller, usual = _prompts_of_2023(tp, (4033, 4096), large_reduce=0.0)

    assert below[at] == smaller[at]
    assert above[at] > 1.5 * usual[at] if longer else above[at] == usual[at]


def test_short_prompts_wait_for_launches_that_decode_steps_do_not_have() -> None:
    (short,) = _prompts_of_2023(8, (8,))
    (without,) = _prompts_of_2023(8, (8,), eager_prompt_layer=0.0)

    assert short[0] - without[0] == pytest.approx(80 * 0.29e-3, rel=0.1)
