"""Drafts, adapters, encoder tokens, pipeline stages."""

from __future__ import annotations

import numpy as np
import pytest

from sim.cost import features as f
from sim.cost.build import build_step_cost
from sim.cost.extras import Extras, adapter_bytes
from sim.cost.layout import Layout
from sim.cost.profile import load_engine_profile
from sim.cost.sampling import VOCABULARY, Sampling, add_sampling, row_seconds
from sim.cost.step import stage_time
from sim.errors import ConfigError
from sim.hardware import load_accelerator
from sim.jit import kernel
from sim.model import load_model
from tests.cost.common import batch, seconds


def cost(extras=None, model="llama-3.1-8b", layout=None):
    arguments = (load_model(model), load_accelerator("h100-sxm"), layout or Layout(), load_engine_profile("vllm"), 2048)
    return build_step_cost(*arguments, *([extras] if extras else []))[0]


def drafting(rows, drafts):
    feat = batch(rows, 1000)
    feat[f.DRAFT_TOKENS] = rows * drafts
    return feat


def test_drafts_cost_more_the_larger_the_draft_model():
    plain = seconds(cost(), batch(16, 1000))
    ngram = seconds(cost(Extras("ngram", 3)), drafting(16, 3))
    eagle = seconds(cost(Extras("eagle", 3)), drafting(16, 3))
    model = seconds(cost(Extras("draft_model", 3, load_model("llama-3.2-1b"))), drafting(16, 3))

    assert plain < ngram < eagle < model < 2.5 * plain


def test_verified_tokens_read_the_keys_once():
    feat = batch(16, 4000)
    feat[f.DECODE_TOKENS] = feat[f.TOKENS] = feat[f.SAMPLED] = 16 * 4

    assert seconds(cost(), batch(16, 4000)) < seconds(cost(), feat) < 1.4 * seconds(cost(), batch(16, 4000))


def adapted(adapters, rank=16, loads=0, reads=0, rows=16):
    feat = batch(rows, 1000)
    feat[f.LORA_TOKENS], feat[f.ADAPTERS], feat[f.LORA_LOADS], feat[f.LORA_READS] = rows, adapters, loads, reads
    return seconds(cost(Extras(lora_rank=rank)), feat)


def test_adapters_cost_a_little_and_the_more_the_larger_and_the_more_of_them():
    plain = seconds(cost(), batch(16, 1000))

    assert plain == seconds(cost(Extras(lora_rank=16)), batch(16, 1000))
    assert plain < adapted(1) < adapted(8) < 1.3 * plain
    assert adapted(8) < adapted(8, rank=64) < adapted(8, rank=256)
    assert adapted(8, rank=64) - adapted(8) == pytest.approx(3 * (adapted(8, rank=32) - adapted(8)), rel=0.2)


def test_an_adapter_that_is_not_there_is_copied_or_read():
    here, copied, read = adapted(1), adapted(1, loads=1), adapted(1, loads=1, reads=1)
    size = adapter_bytes(load_model("llama-3.1-8b"), 16)

    assert size == pytest.approx(
        84e6, rel=0.01
    )  # published adapters of rank 16 on all linear layers of Llama 3 8B: 42 million weights
    assert copied - here > size / load_accelerator("h100-sxm").host_bandwidth
    assert read - copied == pytest.approx(size / 2e9)


def test_draft_heads_cost_by_method():
    eagle, eagle3 = (seconds(cost(Extras(method, 3)), drafting(16, 3)) for method in ("eagle", "eagle3"))
    medusa = seconds(cost(Extras("medusa", 3)), drafting(16, 3))
    shallow = seconds(cost(Extras("eagle", 8, draft_passes=2)), drafting(16, 8))
    deep = seconds(cost(Extras("eagle", 8)), drafting(16, 8))

    assert seconds(cost(), drafting(16, 3)) < eagle3 < eagle  # its head has a vocabulary of its own
    assert medusa < eagle
    assert shallow < deep


def test_weights_of_32_bits_are_read_and_multiplied_as_such():
    def step(weights, rows, prompt=0):
        model = load_model("llama-3.1-8b", weights=weights)
        c = build_step_cost(model, load_accelerator("h100-sxm"), Layout(), load_engine_profile("vllm"), 4096)[0]
        feat = batch(rows, 100)
        if prompt:
            feat[:] = 0.0
            feat[f.TOKENS] = feat[f.PREFILL_TOKENS] = prompt
            feat[f.PREFILL_ROWS] = feat[f.SAMPLED] = feat[f.ROWS] = 1
            feat[f.PREFILL_WORK] = prompt * prompt / 2
        return seconds(c, feat)

    assert 1.7 < step("fp32", 1) / step("bf16", 1) < 2.3
    assert step("fp16", 1) == step("bf16", 1)
    assert step("fp32", 0, 2048) > 5 * step("bf16", 0, 2048)  # no tensor cores: 67 against 989 TFLOP/s


def test_drafts_need_a_count_and_a_model():
    with pytest.raises(ConfigError, match="at least 1"):
        cost(Extras("eagle", 0))
    with pytest.raises(ConfigError, match="needs a draft model"):
        cost(Extras("draft_model", 3))


@kernel
def _stage(c, feat, total, stage):
    return stage_time(c, feat, total, stage)


def test_stages_add_up_and_the_last_has_the_head():
    c = cost(layout=Layout(pp=4))
    feat = batch(32, 1000)
    total = seconds(c, feat)

    times = [_stage(c, feat, total, k) for k in range(4)]

    assert sum(times) == pytest.approx(total)
    assert times[3] > times[0] == pytest.approx(times[1])


def test_grammars_cost_their_masks():
    share, rows = 0.5, 32
    more = seconds(cost(Extras(structured=share)), batch(rows, 1000)) - seconds(cost(), batch(rows, 1000))

    assert more == pytest.approx(share * rows * load_engine_profile("vllm").structured_row, rel=1e-6)


def test_the_busiest_rank_of_experts_sets_the_pace():
    def step(imbalance, tokens):
        layout = Layout(tp=2, dp=4, ep=8, expert_imbalance=imbalance)
        return seconds(cost(model="deepseek-v2", layout=layout), batch(tokens, 1000))

    assert step(1.0, 4) == pytest.approx(step(1.5, 4), rel=0.25)  # weights of the experts dominate
    assert 1.1 < step(1.5, 1024) / step(1.0, 1024) < 1.5


@pytest.mark.parametrize("rows", [1, 64])
def test_what_is_asked_of_sampling_is_paid_by_the_row(rows):
    host, vocabulary = load_engine_profile("vllm"), load_model("llama-3.1-8b").vocab
    plain = seconds(cost(), batch(rows, 1000))

    greedy = seconds(cost(Extras(sampling=Sampling(greedy=True))), batch(rows, 1000))
    logprobs = seconds(cost(Extras(sampling=Sampling(logprobs=0.5))), batch(rows, 1000))

    assert plain - greedy == pytest.approx(rows * host.filter_row * vocabulary / VOCABULARY, rel=1e-6)
    assert logprobs - plain == pytest.approx(0.5 * rows * host.logprob_row, rel=1e-6)


def test_penalties_of_llama_cpp_are_applied_on_the_host_whatever_the_batch():
    host = load_engine_profile("llama.cpp")
    small = np.zeros(9)
    notes = add_sampling(Sampling(penalties=1.0), host, 2 * VOCABULARY, small)

    assert small.tolist() == pytest.approx([2.0 * host.penalty_row * n for n in range(9)])
    assert any("penalties" in n for n in notes)


def test_no_row_takes_less_than_nothing_to_sample():
    host = load_engine_profile("vllm", "0.15")
    step, row = row_seconds(Sampling(greedy=True), host, 100 * VOCABULARY)
    assert (step, row) == (0.0, -host.sampler_row)
