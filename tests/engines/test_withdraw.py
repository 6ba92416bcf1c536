"""A client goes while its request waits or runs: whatever the engine does about it, nothing is lost, all memory comes back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sim
from sim.engine.crash import crash
from sim.engine.withdraw import ABSENT, LEFT, STAYS, Exits
from sim.fleet.build import plan
from sim.jit import JIT
from sim.workload.table import RequestBlock
from tests.engines import plain

PLAIN = Path(__file__).parents[1] / "plugins" / "plain_schedulers.py"
HISTOGRAM = (3800, 1e-5, 200.0)
SMALL = "max_model_len: 1500, max_num_seqs: 8, max_num_batched_tokens"
ENGINES = {
    "vllm": (f"{{name: vllm, {SMALL}: 256, async_scheduling: false}}", (120, 260)),
    "vllm, asynchronous": (f"{{name: vllm, {SMALL}: 256, async_scheduling: true}}", (120, 260)),
    "vllm, long prompts": (f"{{name: vllm, {SMALL}: 256, long_prefill_token_threshold: 64}}", (120, 260)),
    "vllm, groups": (f"{{name: vllm, {SMALL}: 256}}", (250, 500)),
    "vllm 0.6": (f"{{name: vllm, version: '0.6', {SMALL}: 2048}}", (120, 260)),
    "vllm-ascend": (f"{{name: vllm-ascend, {SMALL}: 2048}}", (20, 40)),
    "sglang": ("{name: sglang, max_running_requests: 8, chunked_prefill_size: 256, context_length: 4096}", (4200, 6000)),
    "sglang, windows": ("{name: sglang, max_running_requests: 8, chunked_prefill_size: 256, context_length: 4096}", (4200, 6000)),
    "sglang, states": ("{name: sglang, max_mamba_cache_size: 42, chunked_prefill_size: 256, context_length: 4096}", (4200, 6000)),
    "tgi": ("{name: tgi, max_concurrent_requests: 100}", (5000, 9000)),
    "llamacpp": ("{name: llamacpp, n_parallel: 4}", None),
    "ollama": ("{name: ollama, OLLAMA_NUM_PARALLEL: 4, runner: ollamarunner}", None),
    "static": ("{name: static, max_batch_size: 4}", None),
    "mindie": ("{name: mindie, maxBatchSize: 8, maxPrefillBatchSize: 4}", (120, 260)),
    "plain": (f"{{name: '{PLAIN}:PlainVllm'}}", (120, 260)),
}
MODELS = {"vllm, groups": "gpt-oss-20b", "sglang, windows": "gpt-oss-20b", "sglang, states": "qwen3.5-9b"}
KEEPS = {"sglang", "sglang, windows", "sglang, states", "tgi", "llamacpp", "ollama"}
ON_NPUS = {"mindie", "vllm-ascend"}
each = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n == "vllm" or not JIT else pytest.mark.slow) for n in ENGINES]
)
"""All engines in a second each where nothing is compiled."""


def pool(name: str, rng: np.random.Generator) -> Any:
    engine, blocks = ENGINES[name]
    on = "ascend-910b4" if name in ON_NPUS else "h100-sxm"
    model = MODELS.get(name, "llama-3.1-8b")
    p = plan(sim.load("quickstart", [f"model={model}", f"deployment.engine={engine}", f"deployment.accelerator={on}"]))[0]
    budget = p.budget
    if budget is not None and blocks is not None:
        budget = replace(budget, kv_blocks=int(rng.integers(*blocks)))
    return replace(p, budget=budget, replicas=2)


def traffic(rng: np.random.Generator) -> RequestBlock:
    n = int(rng.integers(20, 50))
    arrival = np.cumsum(rng.exponential(0.03, n)).round(3)
    return RequestBlock.of(arrival, rng.integers(1, 700, n), rng.integers(1, 60, n)).validate()


def play(p: Any, block: RequestBlock, exits: list[tuple[float, int]], one_stroke: bool) -> tuple[dict[str, Any], list[int], Any]:
    """Rows by id, what became of each withdrawal, the group."""
    group = p.build(0, 1.0, HISTOGRAM)
    group.set_front(0.0)
    group.set_multi_step(one_stroke)
    group.submit_routed((np.arange(len(block)) % 2).astype(np.int32), block.columns, block.spans, 0)
    doors = Exits(group)
    assert doors.known
    codes = []
    for time, number in exits:
        group.advance(time, False)
        codes.append(doors.withdraw(number % 2, number, time))
        used, total = group.gauges()[2:4]
        assert (used >= 0).all() and (used <= total).all()
    group.advance(np.inf, False)
    rows = group.drain()
    assert not len(group.in_flight()["id"]), "requests never leave"
    order = np.argsort(rows["id"])
    return {name: column[order] for name, column in rows.items()}, codes, group


def check(name: str, case: int) -> set[int]:
    rng = np.random.default_rng([case, 5])
    p, block = pool(name, rng), traffic(rng)
    numbers = rng.permutation(len(block))[: len(block) // 2]
    exits = sorted((float(block.arrival_s[k] + rng.exponential(0.15)), int(k)) for k in numbers)
    rows, codes, group = play(p, block, exits, True)
    again, same, _ = play(p, block, exits, False)
    assert codes == same
    for column in rows:
        np.testing.assert_array_equal(rows[column], again[column], err_msg=column)
    assert rows["id"].tolist() == list(range(len(block)))
    kept = np.ones(len(block), bool)
    for (time, number), code in zip(exits, codes, strict=True):
        kept[number] = code == ABSENT
        if code == LEFT:
            assert rows["status"][number] == 2
            assert rows["finish_s"][number] == pytest.approx(time, abs=1e-9)
        elif code == STAYS:
            assert rows["finish_s"][number] >= time - 1e-9
    finished = kept & (rows["status"] == 0)
    assert (rows["output_tokens"][finished] == block.output_tokens[finished]).all()
    assert (rows["status"][kept] == 0).all()
    assert (rows["output_tokens"] <= block.output_tokens).all()
    gauges = group.gauges()
    assert not gauges[:2].any(), gauges[:2]
    if name not in KEEPS:
        assert not gauges[2].any(), "memory does not come back"
    if name in ("sglang, windows", "sglang, states"):
        for s in group._states:
            assert s.tree.w_protected == 0
            assert s.tree.w_free + s.tree.w_evictable == s.tree.w_size
    assert not group.outstanding.any()
    return set(codes)


@each
def test_whoever_leaves_is_gone_and_nobody_else(name: str) -> None:
    seen: set[int] = set()
    for case in range(12):
        seen |= check(name, case)
    assert seen - {ABSENT}


@each
def test_a_process_that_dies_takes_all_it_had_with_it(name: str) -> None:
    """Requests before and after are served, those in it fail at that moment, and what comes then starts as on the first day."""
    rng = np.random.default_rng(3)
    p, block = pool(name, rng), traffic(rng)
    group = p.build(0, 1.0, HISTOGRAM)
    group.set_front(0.0)
    time = float(block.arrival_s[len(block) // 2])
    before = int(np.searchsorted(block.arrival_s, time))
    to = np.arange(len(block)) % 2
    group.submit_routed(np.where(np.arange(len(block)) < before, to, -1).astype(np.int32), block.columns, block.spans, 0)
    group.advance(time, False)
    lost = crash(group, 0, [p.engine(0, group.recorder)], time)
    assert group.outstanding[0] == 0
    group.submit_routed(np.where(np.arange(len(block)) >= before, to, -1).astype(np.int32), block.columns, block.spans, 0)
    group.advance(np.inf, False)
    rows = group.drain()
    failed = rows["status"] == 2
    assert lost == failed.sum() > 0
    assert (rows["finish_s"][failed] == time).all()
    assert (rows["replica"][failed] == 0).all()
    assert sorted(rows["id"].tolist()) == list(range(len(block)))
    fresh = p.build(0, 1.0, HISTOGRAM)
    fresh.set_front(0.0)
    fresh.submit_routed(
        np.where((np.arange(len(block)) >= before) & (to == 0), 0, -1).astype(np.int32), block.columns, block.spans, 0
    )
    fresh.advance(np.inf, False)
    alone = fresh.drain()
    order, mine = np.argsort(alone["id"]), np.flatnonzero((rows["id"] >= before) & (rows["replica"] == 0))
    mine = mine[np.argsort(rows["id"][mine])]
    for column in alone:
        np.testing.assert_allclose(alone[column][order], rows[column][mine], atol=1e-9, err_msg=column)


@pytest.mark.skipif(not JIT, reason="is what is run here")
def test_every_engine_in_plain_python() -> None:
    plain.passes(__file__)


def test_whoever_leaves_from_among_those_who_wait_leaves_them_as_they_were() -> None:
    """In V0, whose queue had the last one twice then."""
    p, block = (
        pool("vllm 0.6", np.random.default_rng(1)),
        RequestBlock.of(np.zeros(40), np.full(40, 500), np.full(40, 20)).validate(),
    )
    rows, codes, group = play(p, block, [(0.01, 22), (0.01, 23), (0.01, 24)], True)

    assert codes == [LEFT] * 3
    assert rows["id"].tolist() == list(range(40))
    assert (rows["status"] != 0).nonzero()[0].tolist() == [22, 23, 24]
    assert not group.gauges()[:3].any()


AT_ONCE, THIS_STEP, PROMPT, NEXT_BATCH, NEVER = range(5)
WHEN = {  # who waits, whose prompt is computed, who decodes (routers.md, section 9; "assumed" where nothing is published)
    **dict.fromkeys(
        ("vllm", "vllm, asynchronous", "vllm, long prompts", "vllm, groups", "vllm-ascend"), (AT_ONCE, AT_ONCE, AT_ONCE)
    ),
    **dict.fromkeys(("vllm 0.6", "sglang", "sglang, windows", "sglang, states", "ollama", "plain"), (AT_ONCE, PROMPT, THIS_STEP)),
    "tgi": (NEXT_BATCH, PROMPT, THIS_STEP),
    "mindie": (NEXT_BATCH, PROMPT, THIS_STEP),  # assumed
    "llamacpp": (AT_ONCE, AT_ONCE, AT_ONCE),  # a second later: `notices_after`
    "static": (AT_ONCE, NEVER, NEVER),
}


@each
def test_slot_and_memory_are_free_when_the_engine_frees_them(name: str) -> None:
    p = replace(pool(name, np.random.default_rng(1)), replicas=1)
    if p.budget is not None and ENGINES[name][1] is not None:
        p = replace(p, budget=replace(p.budget, kv_blocks=ENGINES[name][1][1]))
    for phase, when in enumerate(WHEN[name]):
        n = 12 if phase == 0 else 1
        block = RequestBlock.of(np.zeros(n), np.full(n, 700), np.full(n, 100)).validate()
        rows, _, _ = played(p, block)
        begun, first, end = (rows[c] for c in ("first_scheduled_s", "first_token_s", "finish_s"))
        who, time = [(n - 1, begun[0] + 1e-3), (0, begun[0] + 0.4 * (first[0] - begun[0])), (0, (first[0] + end[0]) / 2)][phase]
        step = (end[0] - first[0]) / 99
        free_by = (
            first[0] if when == PROMPT or (when == AT_ONCE and phase == 1) else time
        )  # the chunk under way is computed to its end
        rows, code, gauges = played(p, block, who, time, free_by + 2.5 * step)
        assert code == (LEFT if when == AT_ONCE else STAYS)
        if phase and when != NEVER:
            assert gauges[0] == 0
            assert name in KEEPS or gauges[2] == 0
        later = rows["finish_s"][who] - time
        if when == AT_ONCE:
            assert later == 0
        elif when == THIS_STEP:
            assert 0 < later <= 1.05 * step
        elif when == PROMPT:
            assert later == pytest.approx(first[0] - time, abs=1e-3)
        elif when == NEXT_BATCH:
            assert later > 0 and rows["output_tokens"][who] == 0
        else:
            assert rows["output_tokens"][who] == 100
        assert rows["output_tokens"][who] <= (100 if when == NEVER else 52)


def played(p: Any, block: RequestBlock, who: int = -1, time: float = 0.0, look: float = 0.0) -> tuple[dict[str, Any], int, Any]:
    """Rows by id of one replica that ``who`` leaves at ``time``, what became of that, and what the replica has at ``look``."""
    group = p.build(0, 1.0, HISTOGRAM)
    group.set_front(0.0)
    group.submit_routed(np.zeros(len(block), np.int32), block.columns, block.spans, 0)
    code, gauges = ABSENT, None
    if who >= 0:
        group.advance(time, False)
        code = Exits(group).withdraw(0, who, time)
        group.advance(look, False)
        gauges = group.gauges()[:, 0].copy()
    group.advance(np.inf, False)
    rows = group.drain()
    order = np.argsort(rows["id"])
    return {name: column[order] for name, column in rows.items()}, code, gauges
