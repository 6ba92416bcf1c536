"""Agents: who waits for whom, and contexts that hold all that was said."""

import numpy as np
import pytest

from sim.errors import ConfigError
from tests.workload.conftest import FIXED, as_bytes, tokens_of, whole

MANY = {"steps": [2, 5], "fan_out": [2, 3], "fan_out_share": 0.6, "tool_time": "2s"}
UNEVEN = {"kind": "uniform", "prompt_tokens": [5, 40], "output_tokens": [3, 20]}


def runs_of(block):
    for session in np.unique(block.session):
        yield np.flatnonzero(block.session == session)


def parents(block, row):
    w = block.waits
    keys = w.key[w.off[row] : w.off[row + 1]]
    return [int(np.flatnonzero(block.out_content == k)[0]) for k in keys]


@pytest.mark.parametrize("prefixes", [None, {"shared_tokens": 7}])
def test_every_call_has_the_context_of_those_it_waits_for(synthetic, prefixes):
    block = whole(synthetic(requests=400, lengths=UNEVEN, agents=MANY, prefixes=prefixes))
    shared = 7 if prefixes else 0
    for rows in list(runs_of(block))[:20]:
        first = rows[0]
        assert np.isnan(block.waits.wait_s[first])
        assert parents(block, first) == []
        for row in rows[1:]:
            before = parents(block, row)
            assert before
            assert max(before) < row
            assert block.waits.wait_s[row] > 0
            said = tokens_of(block, row)
            assert len(said) == block.prompt_tokens[row]
            for p in before:
                assert said[: shared + 5] == tokens_of(block, p)[: shared + 5]
                answer = [(int(block.out_content[p]), i) for i in range(int(block.output_tokens[p]))]
                where = said.index(answer[0])
                assert said[where : where + len(answer)] == answer
            if len(before) > 1:  # a join: all of one step, side by side
                assert len({tuple(parents(block, p)) for p in before}) == 1
    counts = np.zeros(len(block), int)
    for row in range(len(block)):
        for p in parents(block, row):
            counts[p] += 1
    last = block.session[-1]  # its run may be cut at the number of requests
    assert (counts == block.waits.awaited)[block.session != last].all()


def test_a_plain_chain(synthetic):
    block = whole(synthetic(requests=300, agents={"steps": 3, "tool_time": 0, "tool_cv": 0}))
    assert block.prompt_tokens[:3].tolist() == [100, 220, 340]
    assert [parents(block, r) for r in range(4)] == [[], [0], [1], []]
    assert (np.bincount(block.session) == 3).all()
    assert (block.arrival_s[:3] == block.arrival_s[0]).all()


def test_the_rate_is_that_of_calls(synthetic):
    for agents in (MANY, {"steps": 4}):
        block = whole(synthetic(requests=20_000, agents=agents))
        assert 20_000 / block.arrival_s[-1] == pytest.approx(8, rel=0.06)


def test_contexts_end_where_they_must(synthetic):
    block = whole(synthetic(requests=2000, lengths=UNEVEN, agents=MANY | {"steps": [5, 9], "max_context": 300}))
    assert (block.prompt_tokens + block.output_tokens).max() <= 300
    counts = np.zeros(len(block), int)
    for row in range(1000):
        for p in parents(block, row):
            counts[p] += 1
    inner = block.session < block.session[999]
    assert (counts == block.waits.awaited)[inner].all()
    short = synthetic(requests=500, lengths=UNEVEN, agents=MANY).up_to(150)
    assert short.waits
    assert (whole(short).prompt_tokens + whole(short).output_tokens).max() <= 150


def test_block_size_changes_nothing(synthetic):
    traffic = synthetic(requests=3000, lengths=UNEVEN, agents=MANY)
    block = whole(traffic)
    assert len(block.waits.key)
    assert as_bytes(block) == as_bytes(whole(traffic, 77))


def test_settings_that_make_no_sense(synthetic):
    for agents, wrong in (
        ({"steps": 0}, "steps"),
        ({"steps": [3, 2]}, "steps"),
        ({"steps": 3, "fan_out": 0}, "fan_out"),
        ({"steps": 2, "max_context": 5}, "hardly ever|leaves no room"),
    ):
        with pytest.raises(ConfigError, match=wrong):
            whole(synthetic(agents=agents, lengths=FIXED))
    with pytest.raises(ConfigError, match="agents or sessions"):
        synthetic(agents={"steps": 2}, sessions={"turns": 2})
