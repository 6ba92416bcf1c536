"""MindIE in roles P and D, handed over by hand: memory on both sides, order, recomputation, settings."""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
import pytest

from sim.engine.contract import Site
from sim.engine.hand_over import Sides
from sim.engine.schedulers.mindie import Mindie, MindieParams
from sim.errors import ConfigError, NotModelledError
from sim.ledger import ALLOCATED, ENDED, FAILED, FINISHED, HAND_OVER, REJECTED, REMOTE_KV, RETURNED, WATCH_FINISH
from sim.workload.table import RequestBlock
from tests.engines.mindie_bench import server

SMALL: dict[str, Any] = {
    "cacheBlockSize": 16,
    "maxSeqLen": 1000,
    "maxInputTokenLen": 600,
    "maxIterTimes": 500,
    "maxPrefillTokens": 1000,
}
PULL = 0.02  # seconds


class Pair:
    """One P and one D; what a fleet does, one event at a time."""

    def __init__(self, p_blocks: int, d_blocks: int, settings: dict[str, Any] | None = None, **d_settings: Any) -> None:
        shared = SMALL | (settings or {})
        self.p = server(p_blocks, shared | {"inferMode": "dmi", "role": "P"})
        self.d = server(d_blocks, shared | {"inferMode": "dmi", "role": "D"} | d_settings, extra={"cpu_blocks": 40})
        self.sides = {"p": Sides(self.p), "d": Sides(self.d)}
        self.first: dict[int, float] = {}
        self.end: dict[int, tuple[float, int]] = {}
        self.returned = 0
        self.kept: dict[int, int] = {}
        self.allocated: list[tuple[float, int]] = []

    def run(self, block: RequestBlock, multi_step: bool = True) -> None:
        for g in (self.p, self.d):
            g.set_multi_step(multi_step)
        todo: list[tuple[float, int, int, int]] = [
            (float(t), i, int(block.prompt_tokens[i]), 0) for i, t in enumerate(block.arrival_s)
        ]
        heapq.heapify(todo)  # (time, request, prompt, delivered before)
        self.asked = {
            i: [int(p), int(o), 0] for i, (p, o) in enumerate(zip(block.prompt_tokens, block.output_tokens, strict=True))
        }
        while True:
            until = todo[0][0] if todo else np.inf
            keys = {"p": self.p.next_event(), "d": self.d.next_event()}
            name = min(keys, key=lambda k: keys[k])
            if keys[name] < until:
                group = self.p if name == "p" else self.d
                other = keys["d" if name == "p" else "p"]
                if group.advance(min(until, max(other, float(np.nextafter(keys[name], np.inf)))), True):
                    self._outcomes(name, group)
                continue
            if not todo:
                return
            t, i, prompt, before = heapq.heappop(todo)
            self._send(self.p, t, i, prompt, 1, HAND_OVER)
            self.asked[i][0], self.asked[i][2] = prompt, before
            self._todo = todo

    def _send(self, group: Any, t: float, i: int, prompt: int, output: int, flags: int) -> None:
        one = RequestBlock.of([t], [prompt], [output])
        group.submit(0, one.columns, one.spans, 0, 1, i, flags)

    def _outcomes(self, name: str, group: Any) -> None:
        for t, (i, _, kind, slot, value) in zip(*group.take_outcomes(), strict=True):
            if name == "p" and kind == ENDED and value == FINISHED:
                self.first.setdefault(i, t)
                self.kept[i] = slot
                prompt, output, before = self.asked[i]
                if output - before == 1:
                    self.sides["p"].release_kept(0, slot, t)
                    self.end[i] = (t, FINISHED)
                else:
                    self._send(self.d, t, i, prompt, output - before, REMOTE_KV | WATCH_FINISH)
            elif name == "d" and kind == ALLOCATED:
                assert value == self.asked[i][0]
                self.allocated.append((t, i))
                self.sides["d"].kv_arrived(0, slot, t + PULL, 1, t)
                self.sides["p"].release_kept(0, self.kept.pop(i), t + PULL)
            elif kind == ENDED and value == RETURNED:
                self.returned += 1
                done = int(self.d.drain()["output_tokens"][-1])
                heapq.heappush(self._todo, (t, i, self.asked[i][0] + done, self.asked[i][2] + done))
            elif kind == ENDED:
                self.end[i] = (t, value)

    def check_empty(self, p_blocks: int, d_blocks: int) -> None:
        for group, blocks in ((self.p, p_blocks), (self.d, d_blocks)):
            s = group._states[0]
            assert (int(s.free_blocks), int(s.live), int(s.n_pull), int(s.w_len), int(s.n_run)) == (blocks, 0, 0, 0, 0)


def load(n: int, gap: float, seed: int = 3, output: int = 80) -> RequestBlock:
    rng = np.random.default_rng(seed)
    arrival = np.cumsum(rng.exponential(gap, n))
    return RequestBlock.of(arrival, rng.integers(1, 300, n), rng.integers(1, output, n))


def test_p_answers_first_and_keeps_the_blocks_until_d_has_pulled() -> None:
    pair = Pair(100, 100)
    pair.run(RequestBlock.of([0.0], [100], [5]))
    assert pair.first[0] == pytest.approx(0.01 + 3e-5 * 0 + 2e-5 * 100 + 1e-9 * 5000)  # at once: no queue delay on P
    assert pair.allocated[0][0] == pytest.approx(pair.first[0], abs=1e-3)
    assert pair.end[0][0] > pair.allocated[0][0] + PULL + 4 * 8e-3
    pair.check_empty(100, 100)


@pytest.mark.parametrize(
    ("settings", "d_settings"),
    [
        ({}, {}),
        ({"maxPrefillBatchSize": 2, "maxBatchSize": 9}, {}),
        ({}, {"maxPreemptCount": 2, "cpuMemSize": 1.0}),
        ({"plugin_params": {"plugin_type": "mtp", "num_speculative_tokens": 2, "acceptance_rate": 0.5}}, {}),
    ],
)
def test_everybody_is_served_and_nothing_is_left(settings: dict[str, Any], d_settings: dict[str, Any]) -> None:
    block = load(120, 0.01, output=300)
    pairs = [Pair(70, 70, settings, **d_settings) for _ in range(2)]
    pairs[0].run(block, True)
    pairs[1].run(block, False)
    assert pairs[0].end == pairs[1].end
    assert pairs[0].returned == pairs[1].returned
    assert pairs[0].returned > 0 or d_settings  # one at a time goes to the host of D, others come back
    assert len(pairs[0].end) == 120
    assert {status for _, status in pairs[0].end.values()} == {FINISHED}
    for i, (t, _) in pairs[0].end.items():
        assert t >= pairs[0].first[i] > block.arrival_s[i]
    pairs[0].check_empty(70, 70)


def test_d_leaves_five_percent_and_a_token_per_row_free() -> None:
    # 64 blocks of 16: 1,024 tokens less 70 for the rows; prompts of 240 + 1 tokens take 16 blocks each
    pair = Pair(200, 64, {"maxBatchSize": 70, "maxPrefillBatchSize": 50})
    pair.run(RequestBlock.of([0.0] * 5, [240] * 5, [20] * 5))
    times = [t for t, _ in pair.allocated]
    assert times[2] == times[0]
    assert times[3] > times[0] + PULL  # 16 blocks are free, but 256 tokens less 70 do not hold 241
    assert [i for _, i in pair.allocated] == [0, 1, 2, 3, 4]


def test_p_is_full_of_what_d_has_not_pulled() -> None:
    pair = Pair(64, 64, {"maxBatchSize": 4, "maxPrefillBatchSize": 4})
    pair.run(RequestBlock.of([0.0] * 12, [250] * 12, [60] * 12))
    firsts = sorted(pair.first.values())
    assert firsts[3] < 0.2
    assert firsts[11] > pair.allocated[4][0]  # P went on only as D took over
    pair.check_empty(64, 64)


def test_requests_meant_for_others_are_refused() -> None:
    group = server(100, SMALL | {"inferMode": "dmi", "role": "D"})
    block = RequestBlock.of([0.0], [10], [5])
    group.submit(0, block.columns, block.spans, 0, 1, 0)
    group.advance(np.inf, False)
    assert group.drain()["status"].tolist() == [REJECTED]


def test_a_request_that_d_never_takes_times_out() -> None:
    group = server(70, SMALL | {"inferMode": "dmi", "role": "D", "tokenTimeout": 3})
    block = RequestBlock.of([0.0, 0.0], [600, 600], [5, 5])
    group.submit(0, block.columns, block.spans, 0, 2, 0, REMOTE_KV)
    group.advance(10.0, False)
    rows = group.drain()
    assert rows["id"].tolist() == [1]
    assert rows["status"].tolist() == [FAILED]
    assert 3.0 <= rows["finish_s"][0] < 3.01


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"inferMode": "dmi"}, ConfigError, "give the pools their roles"),
        ({"role": "P", "templateType": "Mix"}, NotModelledError, "chunked prefill"),
        ({"role": "D", "enablePrefixCache": True}, NotModelledError, "prefix cache"),
        ({"role": "P", "dynamicBatchSizeEnable": True}, ConfigError, "dynamicBatchSizeEnable"),
    ],
)
def test_roles_that_cannot_be_played_are_refused(settings: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Mindie.resolve(MindieParams(**settings), Site())


def test_a_pool_gives_its_servers_their_role() -> None:
    assert Mindie.as_side(MindieParams(), "prefill").role == "P"
    assert Mindie.as_side(MindieParams(inferMode="dmi"), "decode").role == "D"
    with pytest.raises(ConfigError, match="inferMode"):
        Mindie.as_side(MindieParams(inferMode="standard"), "decode")
    with pytest.raises(ConfigError, match="contradicts"):
        Mindie.as_side(MindieParams(role="P"), "decode")
