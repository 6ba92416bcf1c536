"""Multi-turn traffic: what a turn's prompt consists of, when it arrives, how much memory it takes."""

import tracemalloc

import numpy as np
import pytest

from sim.errors import ConfigError
from tests.workload.conftest import as_bytes, tokens_of, whole

UNIFORM = {"kind": "uniform", "prompt_tokens": [1, 9], "output_tokens": [1, 9]}


@pytest.fixture
def sessions(synthetic):
    def make(requests=3000, prefixes=None, **settings):
        settings = {"turns": [1, 7], "think_time": 20, "max_context": 60} | settings
        return synthetic(requests=requests, lengths=UNIFORM, sessions=settings, prefixes=prefixes)

    return make


def rows_by_session(block):
    return [np.flatnonzero(block.session == s) for s in np.unique(block.session)]


@pytest.mark.parametrize("prefixes", [None, {"groups": 3, "shared_tokens": 4}])
def test_a_prompt_is_everything_said_before_and_something_new(sessions, prefixes):
    block = whole(sessions(prefixes=prefixes))

    longest = 0
    for rows in rows_by_session(block)[:200]:
        said = []
        for row in rows:
            prompt = tokens_of(block, row)
            assert said == prompt[: len(said)]
            assert len(prompt) == block.prompt_tokens[row] > len(said)
            said = prompt + [(int(block.out_content[row]), i) for i in range(block.output_tokens[row])]
        longest = max(longest, len(rows))
        assert len(said) <= 60
    assert longest > 4


def test_nothing_is_shared_between_sessions_but_the_prefix(sessions):
    block = whole(sessions(prefixes={"groups": 2, "shared_tokens": 4}))
    owner = {}
    shared = set()
    row = np.repeat(np.arange(len(block)), np.diff(block.span_off))
    for content, session in zip(block.span_id.tolist(), block.session[row].tolist(), strict=True):
        if owner.setdefault(content, session) != session:
            shared.add(content)

    assert len(shared) == 2
    assert len(np.unique(block.out_content)) == len(block)


def test_turns_follow_each_other_by_think_times(sessions):
    block = whole(sessions(requests=30_000))
    think = np.concatenate([np.diff(block.arrival_s[rows]) for rows in rows_by_session(block)])

    assert think.min() >= 0
    assert think.mean() == pytest.approx(20, rel=0.03)
    assert think.std() == pytest.approx(20, rel=0.05)


def test_fixed_think_time(sessions):
    block = whole(sessions(think_cv=0, think_time=3))

    for rows in rows_by_session(block)[:100]:
        np.testing.assert_allclose(np.diff(block.arrival_s[rows]), 3)


def test_the_rate_is_one_of_requests_even_where_contexts_end_sessions(sessions):
    traffic = sessions(requests=100_000, think_time=1)
    arrival = whole(traffic).arrival_s

    assert 100_000 / arrival[-1] == pytest.approx(traffic.mean_rate, rel=0.02)


def test_another_rate_keeps_the_requests(sessions):
    traffic = sessions()
    slow, fast = whole(traffic), whole(traffic.with_rate(80))
    order = [np.argsort(b.out_content) for b in (slow, fast)]

    for column in ("prompt_tokens", "output_tokens", "session"):
        np.testing.assert_array_equal(*(getattr(b, column)[o] for b, o in zip((slow, fast), order, strict=True)))
    assert fast.arrival_s[-1] < slow.arrival_s[-1]


def test_client_limit_applies_to_what_is_said(synthetic):
    block = whole(synthetic(lengths=UNIFORM, max_tokens=4, sessions={"turns": 5}))

    assert block.output_tokens.max() == 4
    assert set(block.max_tokens.tolist()) == {4}


def test_memory_follows_open_sessions(synthetic):
    def peak(requests):
        traffic = synthetic(requests=requests, lengths=UNIFORM, arrival={"process": "poisson", "rate": 500},
                            sessions={"turns": 10, "think_time": 5})  # fmt: skip
        tracemalloc.start()
        count = sum(map(len, traffic.blocks()))
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == requests
        return size

    small, large = peak(100_000), peak(1_000_000)  # 100,000 sessions

    assert large < 1.5 * small
    assert large < 200e6


def test_long_sessions_come_in_smaller_blocks(synthetic):
    traffic = synthetic(requests=20_000, lengths=UNIFORM, sessions={"turns": 1000, "think_time": 1})
    sizes = [(len(b), len(b.span_id)) for b in traffic.blocks(65_536)]

    assert sum(n for n, _ in sizes) == 20_000
    assert max(spans for _, spans in sizes) < 4e6


def test_endless_contexts_are_refused(synthetic):
    spread = {"mean": 10, "cv": 1}
    with pytest.raises(ConfigError, match="max_context"):
        synthetic(lengths={"kind": "lognormal", "prompt_tokens": spread, "output_tokens": spread}, sessions={"turns": 3})
    with pytest.raises(ConfigError, match="no room"):
        synthetic(sessions={"turns": 3, "max_context": 10}, prefixes={"shared_tokens": 9})


def test_waiting_clients_play_sessions_to_their_end(sessions, synthetic):
    traffic = sessions(requests=500, prefixes={"groups": 2, "shared_tokens": 3})
    loop = synthetic(requests=500, lengths=UNIFORM, prefixes={"groups": 2, "shared_tokens": 3}, closed_loop={"concurrency": 4},
                     sessions={"turns": [1, 7], "think_time": 20, "max_context": 60}).closed_loop  # fmt: skip
    asked = {client: [] for client in range(4)}
    open_clients = set(asked)
    while open_clients:
        for client in sorted(open_clients):
            request = loop.next(client)
            if request is None:
                open_clients.remove(client)
            else:
                block, row = request
                asked[client].append((int(block.session[row]), int(block.out_content[row])))

    everything = sorted(x for rows in asked.values() for x in rows)
    block = whole(traffic)
    assert sorted(zip(block.session.tolist(), block.out_content.tolist(), strict=True)) == everything
    assert all(rows == sorted(rows) for rows in asked.values())
    sessions_of = [{s for s, _ in rows} for rows in asked.values()]
    assert sum(map(len, sessions_of)) == len(set.union(*sessions_of))


def test_waiting_clients_share_single_requests_in_order(synthetic):
    traffic = synthetic(requests=50, closed_loop={"concurrency": 3, "think_time": "500ms"})
    loop = traffic.closed_loop
    numbers = []
    for k in range(50):
        block, row = loop.next(k % 3)
        block.arrival_s[row] = 1e6 + k
        numbers.append(int(block.out_content[row]))

    assert whole(traffic).out_content.tolist() == numbers
    assert loop.next(0) is None
    assert loop.next(1) is None
    assert (loop.concurrency, loop.think_time, loop.total) == (3, 0.5, 50)
    assert loop.fresh().next(0)[1] == 0
    with pytest.raises(ConfigError, match="closed_loop"):
        traffic.with_rate(3)


def test_sessions_are_reproducible(sessions):
    assert as_bytes(whole(sessions())) == as_bytes(whole(sessions()))
