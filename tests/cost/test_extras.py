"""Drafts, adapters, encoder tokens, pipeline stages."""

from __future__ import annotations

import pytest

from sim.cost import features as f
from sim.cost.build import build_step_cost
from sim.cost.extras import Extras
from sim.cost.layout import Layout
from sim.cost.profile import load_engine_profile
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


def test_adapters_cost_a_little():
    feat = batch(16, 1000)
    feat[f.LORA_ROWS] = 16
    c = cost(Extras(lora_rank=16))

    assert seconds(c, batch(16, 1000)) < seconds(c, feat) < 1.3 * seconds(c, batch(16, 1000))


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
