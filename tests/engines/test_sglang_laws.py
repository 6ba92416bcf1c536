"""What must hold for any settings and traffic: nothing is lost, memory comes back, and the shortcuts change nothing."""

import os
import subprocess
import sys

import numpy as np
import pytest

from sim.jit import JIT
from sim.ledger import FAILED, FINISHED, REJECTED
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
        assert 0 == tree.protected == s.n_run == s.n_elsewhere == s.n_mail
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


def together(adapters, params, prompt=100, output=40, unit=1.0):
    """First scheduled times of requests that arrive at once, and the whole result."""
    n = len(adapters)
    columns = (
        np.zeros(n),
        np.full(n, prompt, np.int32),
        np.full(n, output, np.int32),
        np.full(n, output, np.int32),
        np.zeros(n, np.int32),
        np.array(adapters, np.int32),
        np.arange(n) + 10,
    )
    empty = np.zeros(0, np.int64)
    rows, totals, s = simulate(columns, (np.zeros(n + 1, np.int64), empty, empty, empty), params, 1 << 16, unit=unit)
    return rows["first_scheduled_s"].tolist(), rows, totals, s


def test_an_adapter_too_many_is_passed_over_and_others_go_on():
    limit = {"enable_lora": True, "max_loras_per_batch": 2}
    times, rows, _, _ = together([1, 0, 2, 1, 0, 3], limit)

    assert [times[0], times[1], times[3], times[4]] == [0.0] * 2 + [0.0] * 2
    done = rows["finish_s"]
    assert max(done[[0, 1, 3, 4]]) <= times[2] and times[2] == times[5]
    assert together([1, 0, 2, 1, 0, 3], {"enable_lora": True, "max_loras_per_batch": 4})[0] == [0.0] * 6


def test_a_poll_every_so_many_decode_passes_delays_an_arrival():
    columns = (
        np.array([0.0, 0.5]),
        np.full(2, 100, np.int32),
        np.array([400, 4], np.int32),
        np.array([400, 4], np.int32),
        np.zeros(2, np.int32),
        np.zeros(2, np.int32),
        np.array([7, 8]),
    )
    empty = np.zeros(0, np.int64)
    spans = (np.zeros(3, np.int64), empty, empty, empty)
    waits = [
        simulate(columns, spans, {"scheduler_recv_interval": k}, 1 << 16)[0]["first_scheduled_s"][1] - 0.5 for k in (1, 10, 200)
    ]

    assert waits[0] < 0.01 < waits[1] <= 0.05 < waits[2] < 1.0


def test_a_pipeline_keeps_a_batch_in_every_stage():
    n = 32
    params = {"max_running_requests": n, "chunked_prefill_size": 1024}
    whole = together([0] * n, params, output=200, unit=1e6)
    _, rows, totals, s = together([0] * n, params | {"pp": 4}, output=200, unit=1e6)

    assert s.micro == n // 4 and rows["output_tokens"].tolist() == [200] * n
    # four batches of a quarter of the requests are under way at once: four times the steps, less time than one after the other
    assert 3.5 < totals["steps"] / whole[2]["steps"] < 4.5
    assert totals["last_s"] < 1.6 * whole[2]["last_s"]


def test_a_slot_holds_no_more_than_pp_max_micro_batch_size():
    n = 12
    times = together([0] * n, {"pp": 2, "pp_max_micro_batch_size": 3, "chunked_prefill_size": 8192}, output=50)[0]

    assert times.count(0.0) >= 3 and len(set(times)) >= 2


def test_a_long_prompt_passes_the_stages_chunk_after_chunk():
    """The next chunk enters the first stage while the one before is in a later one."""
    params = {"chunked_prefill_size": 512, "max_running_requests": 8}
    one, two = (together([0], params | extra, prompt=8192, output=2, unit=1e6)[1] for extra in ({}, {"pp": 4}))

    assert 0.3 < two["first_token_s"][0] / one["first_token_s"][0] < 0.5


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
