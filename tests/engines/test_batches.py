"""What engines say of their batches: the sums that steps are costed by, and that unchanged steps are taken in one stroke. In plain Python, where one
can look."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sim.cost import features as f
from sim.engine import loop
from sim.jit import _METHODS, JIT
from sim.workload.table import RequestBlock
from tests.engines.test_withdraw import ENGINES, HISTOGRAM, pool

in_python = pytest.mark.skipif(JIT, reason="run in plain Python below")
ONCE_MORE = {"vllm 0.6"}
"""A request takes part in one more step before its engine knows that it has ended (asynchronous processing of outputs)."""


def served(name: str, arrival: Any, prompt: Any, output: Any, one_stroke: bool) -> Any:
    """One engine with memory enough, which has served these requests."""
    p = pool(name, np.random.default_rng(1))
    budget = p.budget and replace(p.budget, kv_blocks=20 * p.budget.kv_blocks)
    group = replace(p, budget=budget, replicas=1).build(0, 1.0, HISTOGRAM)
    group.set_front(0.0)
    group.set_multi_step(one_stroke)
    block = RequestBlock.of(arrival, prompt, output).validate()
    group.submit_routed(np.zeros(len(block), np.int32), block.columns, block.spans, 0)
    group.advance(np.inf, False)
    assert (group.drain()["status"] == 0).all()
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


@pytest.mark.skipif(not JIT, reason="is what is run here")
def test_the_same_in_plain_python() -> None:
    env = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
