"""Laws that hold whatever the recordings say: nothing is lost, one stroke equals step by step."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engines.vllm_runs import random_load, run

SEEDS = 300


@pytest.mark.parametrize("first", range(0, SEEDS, 50))
def test_multi_step_equals_step_by_step(first):
    for seed in range(first, first + 50):
        load = random_load(seed)
        many, left_many, totals_many = run(load, True)
        single, left_single, totals_single = run(load, False)

        for name in many:
            assert np.array_equal(many[name], single[name], equal_nan=many[name].dtype.kind == "f"), (seed, name)
        assert left_many == left_single, seed
        for name in ("steps", "preemptions", "last_s", "itl_count", "itl_max_s"):
            assert totals_many[name] == totals_single[name], (seed, name)


@pytest.mark.parametrize("first", range(0, SEEDS, 100))
def test_requests_and_blocks_are_conserved(first):
    for seed in range(first, first + 100):
        load = random_load(seed)
        params, _, _, columns, _ = load
        table, (free, total, slots_free, slots, rows_free, rows), _ = run(load, True)

        assert table["id"].tolist() == list(range(columns[0].size)), seed
        assert (table["status"] == 0).all(), seed
        expected = np.minimum(columns[2], params.max_model_len - columns[1])
        assert table["output_tokens"].tolist() == expected.tolist(), seed
        assert (free, slots_free, rows_free) == (total, slots, rows), seed
        assert (table["arrival_s"] <= table["first_scheduled_s"]).all(), seed
        assert (table["first_scheduled_s"] < table["first_token_s"]).all(), seed
        assert (table["first_token_s"] <= table["finish_s"]).all(), seed
        assert (table["cached_tokens"] < table["prompt_tokens"]).all(), seed


def test_a_prompt_beyond_the_context_is_rejected():
    params, site, blocks, columns, spans = random_load(1)
    prompt = columns[1].copy()
    prompt[0] = params.max_model_len
    spans = (np.zeros_like(spans[0]), *(a[:0] for a in spans[1:]))

    table, _, _ = run((params, site, blocks, (columns[0], prompt, *columns[2:]), spans), True)

    assert table["status"][0] == 1
    assert (table["status"][1:] == 0).all()


def test_a_shared_prefix_is_hit_exactly_to_the_block():
    n = 3
    params = random_load(0)[0].model_copy(
        update={"enable_prefix_caching": True, "block_size": 16, "max_model_len": 256, "max_num_batched_tokens": 256,
                "speculative_config": None, "max_loras": None, "scheduling_policy": "fcfs", "enable_chunked_prefill": True,
                "long_prefill_token_threshold": 0, "max_num_seqs": 8, "max_num_active_seqs": None}
    )  # fmt: skip
    site = random_load(0)[1].__class__()
    two, one = np.full(n, 2, np.int32), np.zeros(n, np.int32)
    columns = (
        np.array([0.0, 10.0, 20.0]),
        np.array([100, 100, 64], np.int32),
        two,
        two,
        one,
        one,
        np.arange(n, dtype=np.int64) + 50,
    )
    # 90 common tokens, then others; the third is a prefix of the first that ends with a block
    spans = tuple(np.array(a, np.int64) for a in ([0, 2, 4, 5], [7, 8, 7, 9, 7], [0, 0, 0, 0, 0], [90, 10, 90, 10, 64]))

    table, _, _ = run((params, site, 100, columns, spans), True)

    assert table["cached_tokens"].tolist() == [0, 80, 48]
