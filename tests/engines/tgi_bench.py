"""Random small servers and loads for the TGI tests: plain dictionaries, as the recordings write them."""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.cost.features import DECODE_CTX, DECODE_ROWS, PREFILL_TOKENS, PREFILL_WORK
from sim.cost.step import new_linear_cost
from sim.engine.contract import Site
from sim.engine.group import EngineGroup
from sim.engine.schedulers.tgi import Tgi, TgiParams
from sim.engine.state import new_recorder
from sim.workload.table import RequestBlock


def random_scenario(rng: np.random.Generator, requests: int) -> tuple[dict[str, Any], list[dict[str, Any]], int]:
    """Settings, requests and version (3 or 2): short prompts with shared beginnings, tight budgets."""
    version = 3 if rng.random() < 0.75 else 2
    padded = rng.random() < 0.12
    block = int(rng.choice([1, 16, 64, 256] if version == 3 else [1, 16, 256]))
    speculate = int(rng.choice([0, 0, 0, 2]))
    cfg: dict[str, Any] = {
        "block_size": block,
        "max_batch_prefill_tokens": int(rng.choice([64, 256, 512, 1024, 2048])),
        "max_batch_total_tokens": int(rng.choice([1500, 4000, 12000])),
        "waiting_served_ratio": float(rng.choice([0.0, 0.3, 0.5, 1.2])),
        "max_waiting_tokens": int(rng.choice([1, 5, 20])),
        "speculate": speculate,
    }
    if version == 3:
        cfg["chunking"] = int(rng.random() < 0.6 and not padded and speculate == 0)
        cfg["prefix_caching"] = int(rng.random() < 0.7 and not padded)
    if padded:
        cfg["requires_padding"] = 1
    if rng.random() < 0.4:
        cfg["max_batch_size"] = int(rng.integers(1, 9))
    if rng.random() < 0.15 and version == 2:
        cfg["window"] = int(rng.choice([64, 128]))
    mean_gap = float(rng.choice([300, 3000, 20000]))
    leavers = rng.random() < 0.3
    t, out = 0, []
    for i in range(requests):
        t += int(rng.exponential(mean_gap)) if rng.random() < 0.7 else 0
        parts = []
        if rng.random() < 0.6:
            parts.append(f"{rng.integers(1, 4)}:{rng.choice([16, 64, 128, 200, 256])}")
        if rng.random() < 0.3:
            parts.append(f"{rng.integers(4, 8)}:{rng.integers(1, 200)}")
        if not parts or rng.random() < 0.7:
            parts.append(f"{1000 + i}:{rng.integers(1, 300)}")
        new = int(rng.integers(1, 80))
        request: dict[str, Any] = {"t": t, "p": ",".join(parts), "max_new": new, "gen": int(rng.integers(1, 2 * new + 1))}
        if leavers and rng.random() < 0.2:
            request["drop"] = t + int(rng.exponential(30000))
        if version == 3 and rng.random() < 0.05:
            request["logp"] = 1
        out.append(request)
    return cfg, out, version


def random_block(rng: np.random.Generator, n: int, gap: float, prompt: int, output: int) -> RequestBlock:
    """Requests with shared beginnings; some outputs longer than a leg."""
    arrival = np.cumsum(rng.exponential(gap, n) * (rng.random(n) < 0.7))
    off, ids, start, length = [0], [], [], []
    tokens = np.zeros(n, np.int64)
    for i in range(n):
        pieces = [(int(rng.integers(1, 5)), int(rng.choice([16, 64, 200]))), (10_000 + i, int(rng.integers(1, prompt)))]
        pieces = pieces[int(rng.random() < 0.4) :] if rng.random() < 0.8 else []
        for content, count in pieces:
            ids.append(content)
            start.append(0)
            length.append(count)
        tokens[i] = sum(c for _, c in pieces) or rng.integers(1, prompt)
        off.append(len(ids))
    made = rng.integers(1, output, n)
    limit = made + rng.integers(0, 3, n) * rng.integers(0, output, n)
    return RequestBlock.of(arrival, tokens, made, max_tokens=limit, spans=(off, ids, start, length))


def server(blocks: int, settings: dict[str, Any], rows: int = 4096) -> EngineGroup:
    """One TGI with a linear step cost in seconds."""
    recorder = new_recorder(1, 64, 1.0, rows, 64, 1e-4, 4.0)
    terms = np.array([DECODE_ROWS, DECODE_CTX, PREFILL_TOKENS, PREFILL_WORK])
    cost = new_linear_cost(np.array([8e-3, 1e-2]), terms, np.array([[3e-5, 1e-8, 0.0, 0.0], [3e-5, 1e-8, 2e-5, 1e-9]]))
    params = Tgi.resolve(TgiParams(**settings), Site())
    return EngineGroup([Tgi.new_state(params, Site(), blocks, 0, recorder, cost)], recorder)


def run(group: EngineGroup, block: RequestBlock, multi_step: bool = True) -> dict[str, Any]:
    """The finished requests in order of their ids."""
    group.set_multi_step(multi_step)
    group.submit(0, block.columns, block.spans, 0, len(block), 0)
    group.advance(np.inf, False)
    rows = group.drain()
    order = np.argsort(rows["id"], kind="stable")
    return {name: column[order] for name, column in rows.items()}
