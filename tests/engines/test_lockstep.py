"""Data-parallel ranks that step together: one clock, dummy batches, waves, what ranks tell each other; the cost of a common step."""

from __future__ import annotations

import numpy as np
import pytest

import sim
from sim.cost.features import DECODE_CTX, DECODE_ROWS, TOKENS
from sim.cost.shared import nothing_shared
from sim.cost.step import new_linear_cost
from sim.engine.contract import Site
from sim.engine.group import EngineGroup
from sim.engine.lockstep import LockstepGroup
from sim.engine.schedulers.mindie import Mindie
from sim.engine.schedulers.sglang import Sglang
from sim.engine.schedulers.vllm import Vllm
from sim.engine.schedulers.vllm_ascend import VllmAscend
from sim.engine.state import new_recorder
from sim.model import load_model
from sim.study.single import Prepared
from tests.engines.vllm_runs import free_blocks, random_load

BASE, TOKEN = 0.01, 1e-4  # seconds of a step and of each token in it


def cost():
    index = np.array([TOKENS, DECODE_ROWS, DECODE_CTX], np.int64)
    return new_linear_cost(np.array([BASE, BASE]), index, np.array([[TOKEN, 0.0, 0.0]] * 2))


def uneven_cost():
    index = np.array([TOKENS, DECODE_ROWS, DECODE_CTX], np.int64)
    return new_linear_cost(np.array([0.005, 0.007]), index, np.array([[2e-5, 3e-5, 1e-7]] * 2))


DEFAULTS = {
    "vllm": {"max_model_len": 4096, "max_num_seqs": 16, "max_num_batched_tokens": 2048, "async_scheduling": False},
    "mindie": {"maxSeqLen": 4096, "maxInputTokenLen": 2048, "maxPrefillTokens": 4096, "maxIterTimes": 2000},
    "sglang": {"enable_dp_attention": True, "context_length": 4096, "disable_overlap_schedule": True},
}


class Ranks:
    """A replica of ranks with the linear cost, and its requests."""

    def __init__(self, n=2, interval=16, blocks=1000, made=cost, cls=Vllm, **settings):
        settings = (DEFAULTS.get(cls.name) or DEFAULTS["vllm"]) | settings
        site = Site(model=load_model("deepseek-v2-lite"), dp=n)
        params = cls.resolve(cls.Params(**settings), site)
        recorder = new_recorder(n, 64, 1.0, 4, 64, 1e-4, 6.0)
        self.states = [cls.new_state(params, site, blocks, k, recorder, made()) for k in range(n)]
        self.group = LockstepGroup(self.states, recorder, n, nothing_shared(), interval)
        self.sent = 0

    def send(self, rank, arrival, prompt, output):
        columns = [np.array([v], np.int32) for v in (prompt, output, output, 0, 0)]
        columns = (np.array([float(arrival)]), *columns, np.array([10**6 + self.sent]))
        spans = (np.zeros(2, np.int64), *(np.zeros(0, np.int64) for _ in range(3)))
        self.group.submit(rank, columns, spans, 0, 1, self.sent)
        self.sent += 1

    def run(self, until=np.inf):
        self.group.advance(until, False)
        return by_id(self.group.drain())


def by_id(table):
    order = np.argsort(table["id"])
    return {name: values[order] for name, values in table.items()}


def load_of(seed, ranks):
    """A random load with settings that ranks can have, and a rank for each of its requests."""
    params, _, blocks, columns, spans = random_load(seed)
    rank = np.random.default_rng(seed).integers(0, ranks, columns[0].size).astype(np.int32)
    return params.model_copy(update={"max_num_active_seqs": None}), blocks, columns, spans, rank


def run_load(seed, ranks=3, multi_step=True, interval=16, plain=False):
    params, blocks, columns, spans, rank = load_of(seed, ranks)
    recorder = new_recorder(ranks, 64, 1.0, 4, 64, 1e-4, 6.0)
    site = Site()
    settings = Vllm.resolve(params, site)
    states = [Vllm.new_state(settings, site, blocks, k, recorder, uneven_cost()) for k in range(ranks)]
    group = EngineGroup(states, recorder) if plain else LockstepGroup(states, recorder, ranks, nothing_shared(), interval)
    group.set_multi_step(multi_step)
    group.submit_routed(rank, columns, spans, 0)
    for t in (columns[0][-1] * 0.37, columns[0][-1], np.inf):
        group.advance(t, False)
    return by_id(group.drain()), group, states


SEEDS = range(60)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_stroke_is_step_by_step(seed):
    table, group, states = run_load(seed)
    other, slowly, _ = run_load(seed, multi_step=False)

    assert all(np.array_equal(table[k], other[k], equal_nan=True) for k in table)
    assert group.totals() == slowly.totals()
    ours, theirs = group.series(), slowly.series()
    assert all(np.array_equal(ours[0][k], theirs[0][k]) for k in ("busy_s", "steps", "decode_tokens", "prefill_tokens"))
    assert np.array_equal(ours[1], theirs[1])
    assert np.array_equal(ours[2], theirs[2])
    # conservation: every request leaves once, everything is given back
    assert np.array_equal(table["id"], np.arange(load_of(seed, 3)[2][0].size))
    for s in states:
        free, total, n_free, n_slots, rows, all_rows = free_blocks(s)
        assert (free, n_free, rows) == (total, n_slots, all_rows)


@pytest.mark.parametrize("seed", range(0, 60, 4))
def test_a_single_rank_that_asks_at_every_step_is_the_engine_itself(seed):
    table, group, _ = run_load(seed, ranks=1, interval=0)
    plain, engine, _ = run_load(seed, ranks=1, plain=True)

    assert all(np.array_equal(table[k], plain[k], equal_nan=True) for k in table)
    assert {k: v for k, v in group.totals().items() if k != "dummy_steps"} == engine.totals()


ENGINES = {
    "sglang": "h100-sxm {name: sglang, max_running_requests: 12, context_length: 8192}",
    "sglang-normal": "h100-sxm {name: sglang, disable_overlap_schedule: true, enable_mixed_chunk: true, context_length: 8192}",
    "mindie": "ascend-910b4 {name: mindie, maxSeqLen: 8192, maxInputTokenLen: 8000, maxBatchSize: 20}",
    "mindie-select": "ascend-910b4 {name: mindie, maxSeqLen: 8192, maxInputTokenLen: 8000, supportSelectBatch: true}",
    "vllm-ascend": "ascend-910b4 {name: vllm-ascend, max_num_seqs: 20, max_model_len: 8192}",
}


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("rate", [2, 12])
def test_a_single_rank_of_any_engine_is_the_engine_itself(name, rate):
    accelerator, _, engine = ENGINES[name].partition(" ")
    overrides = (
        f"deployment={{accelerator: {accelerator}, engine: {engine}}}",
        "traffic.synthetic.requests=250",
        "traffic.too_long=skip",
    )
    study = Prepared(
        sim.load("quickstart", overrides=(*overrides, f"traffic.synthetic.arrival.rate={rate}/s", "slo={}", "expect={}"))
    )
    (p,) = study.plans
    tables = []
    for together in (False, True):
        recorder = new_recorder(1, 64, 1.0, 4, 64, 1e-4, 6.0)
        states = [p.scheduler.new_state(p.params, p.site, p.kv_blocks, 0, recorder, p.cost)]
        group = LockstepGroup(states, recorder, 1, nothing_shared(), 0) if together else EngineGroup(states, recorder)
        sent = 0
        for block in study.traffic.blocks():
            group.submit(0, block.columns, block.spans, 0, len(block), sent)
            sent += len(block)
        for t in (3.0, 20.0, np.inf):
            group.advance(t, False)
        tables.append(by_id(group.drain()))

    assert tables[0]["id"].size == sent > 200
    assert all(np.array_equal(tables[0][k], tables[1][k], equal_nan=True) for k in tables[0])


@pytest.mark.parametrize("seed", range(6))
def test_the_ranks_have_one_clock(seed):
    params, blocks, columns, spans, rank = load_of(seed, 3)
    ranks = Ranks(3, blocks=blocks, made=uneven_cost, **params.model_dump(exclude={"speculative_config"}, exclude_none=True))
    ranks.group.submit_routed(rank, columns, spans, 0)
    seen = set()
    for t in np.linspace(0.0, float(columns[0][-1]) + 1.0, 150):
        ranks.group.advance(t, False)
        clocks = [(s.now, s.q_len, s.q_head, *s.q_start, *s.q_end) for s in ranks.states]
        assert clocks[0] == clocks[1] == clocks[2]
        seen.add(clocks[0])
    assert len(seen) > 20


def test_a_lone_prompt_stalls_the_other_rank_by_exactly_its_step():
    alone, beside = Ranks(), Ranks()
    for ranks in (alone, beside):
        ranks.send(0, 0.0, 100, 50)
    beside.send(1, 0.2, 1500, 1)

    before, after = alone.run(), beside.run()

    stall = (BASE + 1500 * TOKEN) - (BASE + TOKEN)
    assert after["finish_s"][0] - before["finish_s"][0] == pytest.approx(stall, abs=1e-12)
    assert beside.group.totals()["itl_max_s"] == pytest.approx(BASE + 1500 * TOKEN, abs=1e-12)


@pytest.mark.parametrize("is_async", [False, True])
def test_dummy_steps_end_with_the_next_finish_detection(is_async):
    dummies = []
    for output in range(1, 40):
        ranks = Ranks(3, async_scheduling=is_async)
        ranks.send(1, 0.0, 10, output)
        ranks.run()
        dummies.append(ranks.group.totals()["dummy_steps"])
        # all ranks take each step, and nothing goes on after the last dummy
        assert ranks.group.totals()["steps"] == 3 * (output + dummies[-1])

    if is_async:  # the end is known one step later
        assert dummies == [16 * ((n + 1 + 15) // 16) - n for n in range(1, 40)]
    else:
        assert dummies == [0, *(-n % 16 for n in range(2, 40))]
    assert max(dummies) <= 16


def test_a_request_that_comes_during_dummy_steps_waits_for_the_step_to_end():
    ranks = Ranks()
    ranks.send(0, 0.0, 10, 3)
    first = BASE + 10 * TOKEN
    dummy = BASE + TOKEN
    ranks.send(1, first + 2 * dummy + 2.5 * dummy, 10, 1)

    table = ranks.run()

    assert table["first_scheduled_s"][1] == pytest.approx(first + 5 * dummy, abs=1e-12)


def test_ranks_at_rest_wake_together_at_once():
    ranks = Ranks()
    ranks.send(0, 0.0, 10, 1)
    ranks.send(1, 5.0, 10, 2)

    table = ranks.run()

    assert table["first_scheduled_s"].tolist() == [0.0, 5.0]
    assert ranks.group.totals()["steps"] == 2 * (1 + 16)


def test_prompts_wait_for_the_common_step_counter():
    def made():
        ranks = Ranks(prefill_schedule_interval=4)
        for rank in (0, 1):
            ranks.send(rank, 0.0, 10, 100)
        for k in range(12):
            ranks.send(k % 2, 0.05 + 0.03 * k, 10, 3)
        return ranks

    starts = np.unique(made().run()["first_scheduled_s"])
    again, steps = made(), []
    for t in starts:
        again.group.advance(t, False)  # up to, not including, the decision at t
        steps.append(again.group._replicas[0].counter)

    assert len(steps) > 5
    assert [k % 4 for k in steps] == [0] * len(steps)


def test_a_rank_that_finds_no_memory_waits_and_goes_on():
    ranks = Ranks(2, blocks=20, max_model_len=256, max_num_batched_tokens=256)
    for k in range(12):
        ranks.send(0, 0.001 * k, 100, 60)

    table = ranks.run()

    assert table["status"].tolist() == [0] * 12
    assert ranks.group.totals()["preemptions"] > 0


def test_time_is_accounted_for_on_every_rank():
    _, group, _ = run_load(3)
    _, _, parts = group.series()
    busy = group.series()[0]["busy_s"].sum(axis=1)

    assert parts.sum(axis=1) == pytest.approx(busy, rel=1e-9)
    assert busy[0] == busy[1] == busy[2]


# -- vllm-ascend: balance scheduling


def test_no_rank_admits_while_another_is_full():
    def scheduled(balance):
        config = {"scheduler_config": {"enable_balance_scheduling": balance}}
        ranks = Ranks(cls=VllmAscend, additional_config=config, max_num_seqs=2)
        ranks.send(0, 0.0, 10, 20)
        ranks.send(0, 0.0, 10, 40)
        ranks.send(1, 0.1, 10, 5)
        table = ranks.run()
        assert table["status"].tolist() == [0, 0, 0]
        return table["first_scheduled_s"][2], table["finish_s"][0]

    alone, _ = scheduled(False)
    together, place = scheduled(True)
    assert alone < 0.1 + BASE + 2 * TOKEN
    assert together == place > alone


# -- MindIE: the vote


def test_ranks_that_decode_lose_the_vote_against_as_many_that_want_prompts():
    ranks = Ranks(cls=Mindie, interval=0)
    ranks.send(0, 0.0, 100, 50)
    ranks.send(1, 0.2, 1500, 2)

    table = ranks.run()

    # the rank that decodes runs a dummy batch during the prompt, then its own step
    assert ranks.group.totals()["itl_max_s"] == pytest.approx((BASE + 1500 * TOKEN) + (BASE + TOKEN), abs=1e-9)
    assert table["first_scheduled_s"][1] - 0.2 < 0.005 + 2 * (BASE + TOKEN)


def test_a_single_prompt_loses_against_two_ranks_that_decode():
    ranks = Ranks(3, cls=Mindie, interval=0)
    for rank in (0, 1):
        ranks.send(rank, 0.0, 100, 30 + 10 * rank)
    ranks.send(2, 0.1, 100, 2)

    table = ranks.run()

    assert table["first_scheduled_s"][2] >= table["finish_s"][0] > 0.2


# -- SGLang: idle batches


def test_ranks_of_sglang_decode_beside_a_prompt_and_nothing_goes_on_after_the_last_batch():
    ranks = Ranks(cls=Sglang, interval=0, blocks=20000)
    ranks.send(0, 0.0, 100, 50)
    ranks.send(1, 0.2, 1500, 1)

    table = ranks.run()

    assert ranks.group.totals()["itl_max_s"] == pytest.approx(BASE + 1500 * TOKEN, abs=1e-9)
    assert ranks.group.totals()["dummy_steps"] == 0
    assert table["finish_s"][0] == pytest.approx(50 * BASE + (100 + 48 + 1500) * TOKEN, abs=1e-9)
