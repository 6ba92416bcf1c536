"""Random settings and loads against a plain Python twin of V0's scheduler, step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sim.cost.features import COPIED_BLOCKS, DECODE_CTX, TOKENS
from sim.cost.step import new_linear_cost
from sim.engine.contract import Site
from sim.engine.group import EngineGroup
from sim.engine.schedulers.vllm_v0 import VllmV0, VllmV0Params
from sim.engine.schedulers.vllm_v0.state import FINISH, IGNORED, RECOMPUTE, ROW, STEP, SWAP_IN, SWAP_OUT
from sim.engine.state import new_recorder
from sim.jit import kernel
from sim.workload.table import RequestBlock
from tests.engines.vllm_v0_twin import Seq, Twin, random_case
from tests.fuzz import enough

EVENTS = {
    int(RECOMPUTE): "recompute",
    int(SWAP_OUT): "swap out",
    int(SWAP_IN): "swap in",
    int(IGNORED): "ignored",
    int(FINISH): "finish",
}


@kernel
def _log(s):  # type: ignore[no-untyped-def]
    s.log_on = True
    return s.log[: s.log_n].copy()


def compiled(case: dict[str, Any], seqs: list[Seq]) -> tuple[list[Any], list[Any]]:
    """Steps [(time, rows, free)] and events of the compiled engine."""
    a, b, c, d = case["time"]
    terms = np.array([TOKENS, DECODE_CTX, COPIED_BLOCKS])
    row = [float(b), float(c), d * 16.0 / case["size"]]
    cost = new_linear_cost(np.array([float(a), float(a)]), terms, np.array([row, row]))
    site = Site(extra={"host_blocks": case["host"], "recording": True})
    params = VllmV0.resolve(VllmV0Params(**case["params"]), site)
    recorder = new_recorder(1, 0, 1.0, 64, 8, 1.0, 1.0)
    state = VllmV0.new_state(params, site, case["blocks"], 0, recorder, cost)
    _log(state)  # on
    block = RequestBlock.of(
        np.array([float(q.arrival) for q in seqs]),
        np.array([q.prompt for q in seqs]),
        np.array([q.stop - q.prompt for q in seqs]),
        priority=np.array([q.priority for q in seqs]),
        lora=np.array([q.lora for q in seqs]),
    )
    group = EngineGroup([state], recorder)
    group.set_multi_step(False)
    group.submit(0, block.columns, block.spans, 0, len(seqs), 0)
    group.advance(np.inf, False)
    steps: list[Any] = []
    events = []
    for kind, x, y in _log(state).tolist():
        if kind == STEP:
            steps.append((x, [], y))
        elif kind == ROW:
            steps[-1][1].append((x, y))
        else:
            events.append((EVENTS[kind], x))
    return steps, events


def difference(case: dict[str, Any], seqs: list[Seq]) -> tuple[int, str | None]:
    """Steps compared, and the first difference."""
    twin = Twin(case, [Seq(**{k: getattr(q, k) for k in ("id", "arrival", "prompt", "stop", "priority", "lora")}) for q in seqs])
    twin.run()
    steps, events = compiled(case, seqs)
    for i, (a, b) in enumerate(zip(twin.steps, steps, strict=False)):
        if (a[0], sorted(a[1]), a[2]) != (b[0], sorted(b[1]), b[2]):
            return i, f"step {i}\n twin     {a}\n compiled {b}"
    if len(twin.steps) != len(steps):
        return len(steps), f"{len(twin.steps)} steps in the twin, {len(steps)} compiled"
    if twin.events != events:
        first = next(i for i, (a, b) in enumerate(zip([*twin.events, None], [*events, None], strict=False)) if a != b)
        return len(steps), f"event {first}: twin {twin.events[first : first + 3]}, compiled {events[first : first + 3]}"
    return len(steps), None


def shrink(case: dict[str, Any], seqs: list[Seq]) -> str:
    """The smallest load, by leaving requests out, that still differs."""
    i = 0
    while i < len(seqs):
        fewer = [Seq(k, q.arrival, q.prompt, q.stop, q.priority, q.lora) for k, q in enumerate(seqs[:i] + seqs[i + 1 :])]
        if fewer and difference(case, fewer)[1]:
            seqs = fewer
        else:
            i += 1
    requests = [(q.id, q.arrival, q.prompt, q.stop, q.priority, q.lora) for q in seqs]
    return f"{case}\n{requests}\n{difference(case, seqs)[1]}"


def fuzz(seed: int, steps: int) -> int:
    done = cases = 0
    while done < steps:
        case, seqs = random_case(np.random.default_rng([seed, cases]))
        count, differs = difference(case, seqs)
        if differs:
            pytest.fail(f"seed {seed}, case {cases}\n{shrink(case, seqs)}")
        done += count
        cases += 1
    return done


def test_random_loads_match_the_twin() -> None:
    assert fuzz(1, enough(20_000)) >= enough(20_000)


@pytest.mark.slow
def test_two_million_steps_match_the_twin() -> None:
    assert fuzz(2, 2_000_000) >= 2_000_000
