"""A step that data-parallel ranks take together: the compiled cost against its plain twin, and what must hold for it."""

from __future__ import annotations

import numpy as np
import pytest

from sim import ledger
from sim.cost import features as f
from sim.cost.build import build_rank_tables, build_tables
from sim.cost.layout import Layout
from sim.cost.plain import plain_step_time, plain_together_time
from sim.cost.profile import load_engine_profile
from sim.cost.shared import together_time
from sim.cost.together import build_rank_cost
from sim.hardware import load_accelerator
from sim.jit import kernel
from sim.model import load_model
from tests.cost.common import batch

CASES = [
    ("deepseek-v3", "fp8", "h200-sxm", Layout(tp=1, dp=8, ep=8), "sglang"),
    ("deepseek-v2-lite", "bf16", "h100-sxm", Layout(tp=1, dp=4, ep=4), "vllm"),
    ("mixtral-8x7b", "bf16", "a100-sxm-80g", Layout(tp=2, dp=2), "vllm"),
]
TOKENS = 4096


def parts_of(case):
    model, weights, accelerator, layout, engine = case
    return load_model(model, weights=weights), load_accelerator(accelerator), layout, load_engine_profile(engine), TOKENS


@kernel
def _call(cost, shared, feats, device, parts):
    return together_time(cost, shared, feats, device, parts)


def step(cost, shared, feats):
    feats = np.ascontiguousarray(feats)
    parts = np.zeros((len(feats), ledger.N_PARTS))
    return float(_call(cost, shared, feats, np.zeros(len(feats)), parts)), parts


def random_batch(rng):
    kind = rng.random()
    if kind < 0.2:  # a dummy
        feat = np.zeros(f.N_FEATURES)
        feat[f.TOKENS] = 1.0
        return feat
    rows = int(rng.integers(1, 500)) if kind < 0.8 else 0
    prompts = int(rng.integers(1, 4)) if kind > 0.6 else 0
    return batch(rows, float(rng.integers(1, 8000)), prompts, int(rng.integers(1, 900)), int(rng.integers(0, 4000)))


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0]}-{c[4]}")
def test_compiled_equals_plain_on_random_batches(case):
    given = parts_of(case)
    cost, shared, _ = build_rank_cost(*given)
    tables, padded, plain, _ = build_rank_tables(*given)
    profile = given[3]
    top = max(profile.graph_sizes, default=0)
    rng = np.random.default_rng(11)
    for _ in range(200):
        feats = np.array([random_batch(rng) for _ in range(case[3].dp)])
        expected, expected_parts = plain_together_time(tables, padded, plain, (top, top if profile.graph_prefill else 0), feats)

        got, got_parts = step(cost, shared, feats)

        assert got == pytest.approx(expected, rel=1e-9)
        assert got_parts == pytest.approx(np.array(expected_parts), rel=1e-6, abs=1e-12)
        assert got_parts.sum(axis=1) == pytest.approx(got, rel=1e-9)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0]}-{c[4]}")
def test_equal_ranks_take_the_time_of_a_step_in_which_all_have_as_many_tokens(case):
    given = parts_of(case)
    cost, shared, _ = build_rank_cost(*given)
    tables, _ = build_tables(*given)
    for feat in (batch(1, 500), batch(37, 2000), batch(300, 100), batch(0, 0, 2, 700), batch(20, 900, 1, 1500, 300)):
        got, _ = step(cost, shared, [feat] * case[3].dp)

        assert got == pytest.approx(plain_step_time(tables, feat)[0], rel=1e-9)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0]}-{c[4]}")
def test_work_on_one_rank_never_makes_the_step_shorter(case):
    """But for batches beyond the captured graphs: they are not padded to the rank with most tokens."""
    cost, shared, _ = build_rank_cost(*parts_of(case))
    top = max(parts_of(case)[3].graph_sizes, default=0)
    rng = np.random.default_rng(3)
    for _ in range(100):
        feats = np.array([random_batch(rng) for _ in range(case[3].dp)])
        idle = feats.copy()
        idle[0] = 0.0
        idle[0, f.TOKENS] = 1.0
        if idle[:, f.TOKENS].max() <= top < feats[:, f.TOKENS].max():
            continue

        assert step(cost, shared, idle)[0] <= step(cost, shared, feats)[0] * (1 + 1e-12)


def test_the_order_of_the_ranks_does_not_matter():
    cost, shared, _ = build_rank_cost(*parts_of(CASES[1]))
    rng = np.random.default_rng(5)
    feats = np.array([random_batch(rng) for _ in range(4)])

    assert step(cost, shared, feats)[0] == pytest.approx(step(cost, shared, feats[::-1])[0], rel=1e-12)


def test_moving_rows_to_one_rank_lengthens_the_step():
    """Attention waits for the rank with most of it, and graphs pad the others to it."""
    cost, shared, _ = build_rank_cost(*parts_of(CASES[0]))
    even = step(cost, shared, [batch(32, 4000)] * 8)[0]
    uneven = step(cost, shared, [batch(32 + 96, 4000), *[batch(32, 4000)] * 4, *[batch(1, 4000)] * 3])[0]

    assert uneven > even
