"""What engines say of their batches: the sums that steps are costed by, and that unchanged steps are taken in one stroke. In plain Python, where one
can look."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sim.cost import features as f
from sim.engine import loop
from sim.engine.kv import radix, radix_host
from sim.engine.kv.radix_evict import pop_candidate
from sim.engine.kv.radix_nodes import candidate
from sim.engine.outline import addresses
from sim.jit import _METHODS, JIT
from sim.workload.table import RequestBlock
from tests.engines import plain
from tests.engines.test_withdraw import ENGINES, HISTOGRAM, pool

in_python = pytest.mark.skipif(JIT, reason="run in plain Python below")
COUNTED = ("n_run", "n_prompt", "n_generating", "n_swap", "n_wait", "n_send", "w_len", "q_len", "df_len")
"""Fields of states that count requests here and there."""
ONCE_MORE = {"vllm 0.6"}
"""A request takes part in one more step before its engine knows that it has ended (asynchronous processing of outputs)."""


def served(name: str, arrival: Any, prompt: Any, output: Any, one_stroke: bool, bins: int = 0) -> Any:
    """One engine with memory enough, which has served these requests."""
    p = pool(name, np.random.default_rng(1))
    budget = p.budget and replace(p.budget, kv_blocks=20 * p.budget.kv_blocks)
    group = replace(p, budget=budget, replicas=1).build(bins, 0.25, HISTOGRAM)
    group.set_front(0.0)
    group.set_multi_step(one_stroke)
    block = RequestBlock.of(arrival, prompt, output).validate()
    group.submit_routed(np.zeros(len(block), np.int32), block.columns, block.spans, 0)
    group.advance(np.inf, False)
    assert (group.drain()["status"] == 0).all()
    for state in group._states:
        assert {field: int(getattr(state, field)) for field in COUNTED if getattr(state, field, 0) != 0} == {}
    return group


@in_python
@pytest.mark.parametrize(
    "name", [name for name in ENGINES if name != "static"]
)  # (whose batches are padded to the longest answer)
def test_all_batches_together_are_the_requests(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However prompts are cut and batches made: each token is computed once, attends to those before it, and each answer is sampled once a token."""
    steps: list[Any] = []
    real = loop.step_time

    def seen(cost: Any, feat: Any, parts: Any) -> float:
        steps.append(np.array(feat))
        return float(real(cost, feat, parts))

    monkeypatch.setattr(loop, "step_time", seen)
    rng = np.random.default_rng(5)
    prompt, output = rng.integers(100, 700, 8), rng.integers(2, 60, 8)
    served(name, np.cumsum(rng.exponential(0.2, 8)).round(3), prompt, output, False)
    total = np.sum(steps, 0)
    more = int(name in ONCE_MORE)
    decodes = output - 1 + more
    attended = sum(int((p + np.arange(1, n + 1)).sum()) for p, n in zip(prompt, decodes, strict=True))
    assert total[f.TOKENS] == prompt.sum() + decodes.sum()
    assert total[f.DECODE_ROWS] == total[f.DECODE_TOKENS] == decodes.sum()
    assert total[f.DECODE_CTX] == attended
    assert total[f.PREFILL_TOKENS] == prompt.sum()
    assert total[f.PREFILL_WORK] == (prompt**2 / 2).sum()
    assert total[f.SAMPLED] == output.sum() + more * len(prompt)
    assert total[f.ROWS] == total[f.DECODE_ROWS] + total[f.PREFILL_ROWS]
    assert total[f.PREFILL_ROWS] >= len(prompt)
    assert total[f.PREFILL_CTX] >= prompt.sum()
    whole = total[f.PREFILL_ROWS] == len(prompt)
    assert whole == (total[f.PREFILL_CTX] == prompt.sum())


@in_python
@pytest.mark.parametrize("name", [name for name in ENGINES if name != "plain"])
def test_steps_in_which_nothing_changes_are_taken_in_one_stroke(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three long answers that nobody joins: most steps need no decision of the scheduler."""
    asked = 0
    plans = dict(_METHODS["plan"])

    def counting(plan: Any) -> Any:
        def counted(*args: Any) -> Any:
            nonlocal asked
            asked += 1
            return plan(*args)

        return counted

    for state, plan in plans.items():
        monkeypatch.setitem(_METHODS["plan"], state, counting(plan))
    group = served(name, np.zeros(3), np.array([30, 40, 50]), np.array([300, 310, 330]), True)
    assert asked < 0.5 * group.totals()["steps"]


@in_python
@pytest.mark.parametrize("bins", [64, 6, 4])
@pytest.mark.parametrize("name", ["vllm, groups", "sglang, windows", "sglang, states"])
def test_pools_over_time_are_pools_over_all(name: str, bins: int) -> None:
    """Also where a run has outgrown its bins, which then cover twice the time as often as that takes."""
    group = served(name, np.arange(6) / 4.0, np.full(6, 400), np.full(6, 50), True, bins=bins)
    use, series, (width,) = group.pool_use()
    last = group.totals()["last_s"]
    assert width * bins > last
    assert width == 0.25 or width * bins / 2 <= last
    assert (use[:, :, 0] > 0).any()
    np.testing.assert_allclose(series.sum(axis=1), use[:, :, 0], rtol=1e-9)


@in_python
def test_the_host_forgets_who_was_used_least_recently() -> None:
    rng = np.random.default_rng(2)
    n = 60
    t = SimpleNamespace(
        fn=addresses(radix.Radix),
        last=rng.integers(0, 40, n),
        g_n=0,
        g_node=np.zeros(n, int),
        g_a=np.zeros(n, int),
        in_g=np.zeros(n, int),
    )
    for x in [*rng.permutation(n).tolist()] * 2:  # once each
        radix_host._host_candidate(t, x)
    out = [int(radix_host._pop_host(t)) for _ in range(n)]
    assert sorted(out) == list(range(n))
    assert t.last[out].tolist() == sorted(t.last.tolist())
    assert t.g_n == 0 and not t.in_g.any()


@in_python
@pytest.mark.parametrize(
    ("policy", "first"),
    [
        ("lru", lambda t, x: t.last[x]), ("lfu", lambda t, x: t.hits[x]), ("slru", lambda t, x: t.hits[x] >= 2),
        ("fifo", lambda t, x: t.born[x]), ("mru", lambda t, x: -t.last[x]), ("filo", lambda t, x: -t.born[x]),
    ],
)  # fmt: skip
def test_the_device_evicts_in_the_order_of_its_strategy(policy: str, first: Any) -> None:
    """Of equal ones who was used least recently."""
    rng = np.random.default_rng(3)
    n = 61
    t = SimpleNamespace(
        fn=addresses(radix.Radix), policy=radix.POLICIES.index(policy), last=rng.integers(0, 40, n), hits=rng.integers(0, 4, n), born=rng.integers(0, 9, n),
        h_n=0, **{name: np.zeros(n, int) for name in ("lock", "kids", "in_heap", "h_node", "h_a", "h_b")},
    )  # fmt: skip
    for x in range(1, n):
        candidate(t, x)
    t.lock[5] = 1
    out = [int(pop_candidate(t)) for _ in range(n - 1)]
    assert -5 in out
    keys = [(first(t, x), t.last[x]) for x in map(abs, out)]
    assert keys == sorted(keys)
    assert t.h_n == 0 and not t.in_heap.any()


@pytest.mark.skipif(not JIT, reason="is what is run here")
def test_the_same_in_plain_python() -> None:
    plain.passes(__file__)
