"""Small random loads for vLLM, run through the engine group."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from sim.cost.features import DECODE_CTX, DECODE_ROWS, TOKENS
from sim.cost.step import new_linear_cost
from sim.engine.contract import Site
from sim.engine.group import EngineGroup
from sim.engine.schedulers.vllm import Vllm, VllmParams
from sim.engine.state import new_recorder
from sim.jit import kernel


@kernel
def free_blocks(s):
    return s.kv.free, s.kv.total, s.n_free, s.n_slots, s.n_rows, s.rows.size


def random_load(seed: int) -> tuple[VllmParams, Site, int, Any, Any]:
    """Settings, KV blocks, columns and spans; outputs that end early (EOS), priorities, shared prefixes, further turns."""
    r = random.Random(seed)
    size = r.choice([4, 16])
    length = r.choice([64, 256])
    blocks = -(-length // size) + 2 + r.choice([r.randint(0, 40), 400])
    budget = r.choice([16, 64, 256])
    chunked = r.random() < 0.8
    pp = r.choice([1, 1, 1, 2])
    params = VllmParams(
        max_num_batched_tokens=budget if chunked else length + 64,
        max_num_seqs=r.choice([2, 8, 16]),
        max_model_len=length,
        block_size=size,
        enable_prefix_caching=r.random() < 0.6,
        enable_chunked_prefill=chunked,
        async_scheduling=r.random() < 0.5,
        scheduling_policy=r.choice(["fcfs", "fcfs", "priority"]),
        long_prefill_token_threshold=r.choice([0, 0, 20]),
        prefill_schedule_interval=r.choice([1, 1, 1, 3]),
        watermark=r.choice([0.0, 0.0, 0.05]),
        version="0.33",
        max_loras=r.choice([None, None, 2]),
        speculative_config=r.choice([None, None, None, {"method": "eagle", "num_speculative_tokens": 2}]),
    )
    n = r.randint(5, 60)
    gap = r.choice([0.0, 0.01, 0.05, 0.3])
    arrival = np.cumsum([r.choice([0.0, r.expovariate(1.0) * gap]) for _ in range(n)])
    prompt = np.array([r.randint(1, length - 2) for _ in range(n)], np.int32)
    limit = np.array([r.choice([1, 5, r.randint(1, length)]) for _ in range(n)], np.int32)
    output = np.array([m if r.random() < 0.6 else r.randint(1, m) for m in limit], np.int32)
    priority = np.array([r.randint(0, 2) for _ in range(n)], np.int32)
    lora = np.array([r.randint(0, 3) if params.max_loras else 0 for _ in range(n)], np.int32)
    out_content = np.arange(5000, 5000 + n, dtype=np.int64)
    offsets, ids, starts, lengths = [0], [], [], []
    for i in range(n):
        left = int(prompt[i])
        pieces = []
        kind = r.random()
        if kind < 0.3:
            pieces = [(r.randint(1, 3), 0, min(left, r.randint(1, length)))]
        elif kind < 0.5 and i > 0:  # what an earlier one said
            j = r.randrange(i)
            pieces = [(int(out_content[j]), 0, min(left, int(output[j])))]
        if pieces and pieces[0][2] < left:
            pieces.append((100 + i, 0, left - pieces[0][2]))
        for piece in pieces:
            ids.append(piece[0]), starts.append(piece[1]), lengths.append(piece[2])
        offsets.append(len(ids))
    columns = (arrival, prompt, output, limit, priority, lora, out_content)
    return params, Site(pp=pp), blocks, columns, tuple(np.array(a, np.int64) for a in (offsets, ids, starts, lengths))


def run(load: tuple[VllmParams, Site, int, Any, Any], multi_step: bool) -> tuple[dict[str, Any], tuple[int, ...], dict[str, Any]]:
    """Table of requests in the order of their ids, block and slot counts at the end, totals."""
    params, site, blocks, columns, spans = load
    recorder = new_recorder(1, 64, 1.0, 4, 64, 1e-4, 6.0)
    index = np.array([TOKENS, DECODE_ROWS, DECODE_CTX], np.int64)
    cost = new_linear_cost(np.array([0.005, 0.007]), index, np.array([[2e-5, 3e-5, 1e-7]] * 2))
    state = Vllm.new_state(Vllm.resolve(params, site), site, blocks, 0, recorder, cost)
    group = EngineGroup([state], recorder)
    group.set_multi_step(multi_step)
    group.submit(0, columns, spans, 0, columns[0].size, 0)
    for t in (columns[0][-1] * 0.37, columns[0][-1], np.inf):
        group.advance(t, False)
    table = group.drain()
    order = np.argsort(table["id"])
    return {name: values[order] for name, values in table.items()}, tuple(int(v) for v in free_blocks(state)), group.totals()
