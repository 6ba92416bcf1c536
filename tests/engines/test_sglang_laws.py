"""What must hold for any settings and traffic: nothing is lost, memory comes back, and the shortcuts change nothing."""

import os
import subprocess
import sys

import numpy as np
import pytest

from sim.engine.state import FAILED, FINISHED, REJECTED
from sim.jit import JIT
from tests.engines.sglang_bench import random_params, random_traffic, simulate

SCENARIOS = 200 if JIT else 10


def scenario(seed):
    r = np.random.default_rng(seed)
    tokens = int(r.choice([1024, 4096, 32768]))
    return (*random_traffic(r, int(r.choice([3, 40, 120])), tokens), random_params(r), tokens)


@pytest.mark.parametrize("block", range(4))
def test_one_stroke_and_step_by_step_are_the_same_bytes(block):
    strokes = 0
    for seed in range(block * SCENARIOS // 4, (block + 1) * SCENARIOS // 4):
        columns, spans, params, tokens = scenario(seed)
        fast, totals, _ = simulate(columns, spans, params, tokens)
        slow, slow_totals, _ = simulate(columns, spans, params, tokens, multi_step=False)

        for name, values in slow.items():
            assert values.tobytes() == fast[name].tobytes(), (seed, name, params)
        assert slow_totals["steps"] == totals["steps"]
        strokes += totals["steps"]
    assert strokes > 0


def test_every_request_leaves_and_all_memory_comes_back():
    for seed in range(SCENARIOS // 2):
        columns, spans, params, tokens = scenario(seed)
        rows, _, s = simulate(columns, spans, params, tokens)
        n = columns[0].size

        assert list(range(n)) == rows["id"].tolist(), (seed, params)
        assert set(rows["status"].tolist()) <= {FINISHED, REJECTED, FAILED}
        tree = s.tree
        assert tokens == tree.free + tree.evictable, (seed, params)
        assert 0 == tree.protected == s.n_run
        assert s.max_running == s.rows_free
        assert s.w_lo == s.w_hi


def test_times_are_in_order_and_outputs_complete():
    for seed in range(SCENARIOS // 4):
        columns, spans, params, tokens = scenario(seed)
        rows, _, _ = simulate(columns, spans, params, tokens)
        done = rows["status"] == FINISHED

        assert np.all(rows["arrival_s"][done] <= rows["first_scheduled_s"][done])
        assert np.all(rows["first_scheduled_s"][done] < rows["first_token_s"][done])
        assert np.all(rows["first_token_s"][done] <= rows["finish_s"][done])
        assert np.all(rows["output_tokens"][done] >= 1)
        assert np.all(rows["output_tokens"][done] <= columns[2][rows["id"][done]])
        assert np.all(rows["cached_tokens"][done] < rows["prompt_tokens"][done])


def test_without_pressure_every_output_is_whole():
    r = np.random.default_rng(5)
    columns, spans = random_traffic(r, 60, 4096)
    rows, totals, _ = simulate(columns, spans, {}, 1 << 20)

    assert columns[2].tolist() == rows["output_tokens"].tolist()
    assert totals["preemptions"] == 0


def test_a_repeated_prompt_recomputes_one_token():
    columns = (
        np.array([0.0, 10.0]),
        np.full(2, 500, np.int32),
        np.full(2, 4, np.int32),
        np.full(2, 4, np.int32),
        np.zeros(2, np.int32),
        np.zeros(2, np.int32),
        np.array([7, 8]),
    )
    spans = (np.array([0, 1, 2]), np.array([3, 3]), np.array([0, 0]), np.array([500, 500]))
    rows, _, _ = simulate(columns, spans, {}, 10_000)

    assert rows["cached_tokens"].tolist() == [0, 499]


def test_adapters_do_not_share_a_prefix():
    columns = (
        np.array([0.0, 10.0, 20.0]),
        np.full(3, 500, np.int32),
        np.full(3, 4, np.int32),
        np.full(3, 4, np.int32),
        np.zeros(3, np.int32),
        np.array([0, 1, 1], np.int32),
        np.array([7, 8, 9]),
    )
    spans = (np.arange(4), np.full(3, 3), np.zeros(3, np.int64), np.full(3, 500))
    rows, _, _ = simulate(columns, spans, {}, 10_000)

    assert rows["cached_tokens"].tolist() == [0, 0, 499]


def test_too_long_a_prompt_is_turned_away():
    columns = (np.array([0.0]), np.array([9_999], np.int32), *(np.ones(1, np.int32),) * 4, np.array([7]))
    empty = np.zeros(0, np.int64)
    rows, _, _ = simulate(columns, (np.zeros(2, np.int64), empty, empty, empty), {}, 10_000)

    assert rows["status"].tolist() == [REJECTED]


def test_drafts_that_are_always_accepted_save_steps():
    r = np.random.default_rng(6)
    columns, spans = random_traffic(r, 20, 4096)
    draft = {"speculative_algorithm": "EAGLE", "speculative_num_steps": 3}
    plain, plain_totals, _ = simulate(columns, spans, {}, 1 << 20)
    fast, totals, _ = simulate(columns, spans, draft | {"speculative_accept_rate": 1.0}, 1 << 20)

    assert plain["output_tokens"].tolist() == fast["output_tokens"].tolist()
    assert totals["steps"] < plain_totals["steps"]


@pytest.mark.skipif(not JIT, reason="compares with the compiled run")
def test_plain_python_gives_the_same_bytes():
    code = (
        "import numpy as np, sys\n"
        "from tests.engines.sglang_bench import simulate\nfrom tests.engines.test_sglang_laws import scenario\n"
        "for seed in (1, 2, 3, 4):\n"
        "    rows = simulate(*scenario(seed))[0]\n"
        "    sys.stdout.write(rows['finish_s'].tobytes().hex() + '\\n')\n"
    )
    env = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    plain = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout.split()

    assert [simulate(*scenario(seed))[0]["finish_s"].tobytes().hex() for seed in (1, 2, 3, 4)] == plain
