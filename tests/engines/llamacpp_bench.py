"""Random small servers and loads for the llama.cpp and Ollama tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.cost.features import DECODE_CTX, DECODE_ROWS, PREFILL_TOKENS, PREFILL_WORK
from sim.cost.step import new_linear_cost
from sim.engine.contract import Scheduler, Site
from sim.engine.group import EngineGroup
from sim.engine.state import new_recorder
from sim.workload.table import RequestBlock


def random_block(rng: np.random.Generator, n: int, gap: float, prompt: int, output: int) -> RequestBlock:
    """Conversations: prompts that begin alike, some that continue an earlier answer; some requests with an adapter."""
    arrival = np.cumsum(rng.exponential(gap, n) * (rng.random(n) < 0.7))
    off, ids, start, length = [0], [], [], []
    tokens = np.zeros(n, np.int64)
    said: list[list[tuple[int, int]]] = []
    made = rng.integers(1, output, n)
    lora = (rng.random(n) < 0.1).astype(np.int32)
    for i in range(n):
        own = (10_000 + i, int(rng.integers(1, prompt)))
        pieces = [(int(rng.integers(1, 4)), int(rng.choice([16, 64, 100]))), own]
        if said and rng.random() < 0.4:
            pieces = [*said[int(rng.integers(len(said)))], own]
        if rng.random() < 0.1:
            pieces = []
        elif sum(c for _, c in pieces) < 4 * prompt:
            said.append([*pieces, (1_000_000 + i, int(made[i]))])
        for content, count in pieces:
            ids.append(content)
            start.append(0)
            length.append(count)
        tokens[i] = sum(c for _, c in pieces) or rng.integers(1, prompt)
        off.append(len(ids))
    return RequestBlock.of(
        arrival, tokens, made, lora=lora, out_content=1_000_000 + np.arange(n), spans=(off, ids, start, length)
    )


def server(
    engine: type[Scheduler], settings: dict[str, Any], rows: int = 4096, site: Site | None = None
) -> tuple[EngineGroup, Any]:
    """One server with a linear step cost in seconds, and its state."""
    site = site or Site()
    recorder = new_recorder(1, 64, 1.0, rows, 64, 1e-4, 4.0)
    terms = np.array([DECODE_ROWS, DECODE_CTX, PREFILL_TOKENS, PREFILL_WORK])
    cost = new_linear_cost(np.array([8e-3, 1e-2]), terms, np.array([[3e-5, 1e-8, 0.0, 0.0], [3e-5, 1e-8, 2e-5, 1e-9]]))
    params = engine.resolve(engine.Params(**settings), site)
    state = engine.new_state(params, site, 0, 0, recorder, cost)
    return EngineGroup([state], recorder), state


def run(group: EngineGroup, block: RequestBlock, multi_step: bool = True) -> dict[str, Any]:
    """The finished requests in order of their ids."""
    group.set_multi_step(multi_step)
    group.submit(0, block.columns, block.spans, 0, len(block), 0)
    group.advance(np.inf, False)
    rows = group.drain()
    order = np.argsort(rows["id"], kind="stable")
    return {name: column[order] for name, column in rows.items()}
