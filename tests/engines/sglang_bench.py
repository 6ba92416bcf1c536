"""Small runs of the SGLang scheduler on random traffic, shared by its tests."""

import numpy as np

from sim.cost.features import DECODE_CTX, PREFILL_WORK, TOKENS
from sim.cost.step import new_linear_cost
from sim.engine.contract import Site
from sim.engine.group import EngineGroup
from sim.engine.schedulers.sglang import Sglang
from sim.engine.schedulers.sglang.params import SglangParams
from sim.engine.state import new_recorder


def random_params(r):
    """A mapping of server arguments."""
    page = int(r.choice([1, 1, 16]))
    priority = bool(r.random() < 0.25)
    policies = ["fcfs", "lof"] if priority else ["fcfs", "lpm", "dfs-weight", "lof", "random", "hrrn"]
    chunk = int(r.choice([-1, 64, 512, 8192]))
    params = {
        "schedule_policy": str(r.choice(policies)),
        "schedule_conservativeness": float(r.choice([0.1, 0.3, 1.0])),
        "chunked_prefill_size": chunk,
        "max_prefill_tokens": int(r.choice([256, 16384])),
        "max_running_requests": int(r.choice([2, 8, 64])),
        "page_size": page,
        "disable_radix_cache": bool(r.random() < 0.2),
        "radix_eviction_policy": str(r.choice(["lru", "lfu", "slru", "fifo", "mru", "filo", "priority"])),
        "disable_overlap_schedule": bool(r.random() < 0.4),
        "enable_mixed_chunk": bool(chunk > 0 and r.random() < 0.3),
        "enable_priority_scheduling": priority,
        "disable_priority_preemption": bool(r.random() < 0.5),
        "prefill_decode_interval": int(r.choice([0, 0, 0, 3])),
    }
    if r.random() < 0.2:
        params["min_free_slots_delay"] = 4
    if r.random() < 0.15 and not params["enable_mixed_chunk"]:
        params["speculative_algorithm"] = "EAGLE"
    if r.random() < 0.1:
        params["max_queued_requests"] = 5
    if r.random() < 0.2:
        params |= {"enable_lora": True, "max_loras_per_batch": int(r.integers(1, 4))}
    if r.random() < 0.1:
        params["scheduler_recv_interval"] = int(r.choice([3, 20, 1500]))
    if r.random() < 0.25 and not params["enable_mixed_chunk"] and "speculative_algorithm" not in params:
        params |= {"pp": int(r.choice([2, 4])), "pp_async_batch_depth": int(r.choice([0, 1]))}
    return params


def random_traffic(r, n, tokens):
    """Columns and spans of ``n`` requests: shared prefixes, follow-ups, early stops."""
    arrival = np.cumsum(r.exponential(float(r.choice([1e-4, 0.01, 0.3])), n))
    longest = max(4, int(tokens * float(r.choice([0.05, 0.3]))))
    output = r.integers(1, int(r.choice([3, 60, 200])), n).astype(np.int32)
    limit = (output + np.where(r.random(n) < 0.5, r.integers(0, 50, n), 0)).astype(np.int32)
    spans, offsets, prompts = [], [0], []
    for i in range(n):
        kind = r.random()
        own = int(r.integers(1, longest))
        if kind < 0.4:
            pieces = [(int(r.integers(1, 4)), 0, min(200, longest)), (1000 + i, 0, own)]
        elif kind < 0.6 and i > 0:
            j = int(r.integers(0, i))
            pieces = [*spans[offsets[j] : offsets[j + 1]], (10**6 + j, 0, int(output[j])), (1000 + i, 0, own)]
            if sum(p[2] for p in pieces) > tokens // 2:
                pieces = [(1000 + i, 0, own)]
        else:
            pieces = [(1000 + i, 0, own)]
        spans += pieces
        offsets.append(len(spans))
        prompts.append(sum(p[2] for p in pieces))
    adapters = np.where(r.random(n) < 0.5, r.integers(0, 6, n), 0).astype(np.int32)
    columns = (
        arrival,
        np.array(prompts, np.int32),
        output,
        limit,
        r.integers(0, 20, n).astype(np.int32),
        adapters,
        np.arange(n) + 10**6,
    )
    flat = np.array(spans, np.int64).reshape(-1, 3)
    return columns, (np.array(offsets, np.int64), *(np.ascontiguousarray(flat[:, k]) for k in range(3)))


def simulate(columns, spans, params, tokens, multi_step=True, until=1e12, unit=1.0, pools=None):
    """Run one engine to the end; (finished rows sorted by id, totals, state). ``params`` may name pipeline stages (``pp``).

    ``unit``: what a second is; stages share the linear cost in whole units. ``pools``: those beside full KV, as recordings name them.
    """
    params = dict(params)
    site = Site(pp=params.pop("pp", 1), extra=pools or {})
    params = Sglang.resolve(SglangParams(**params), site)
    cost = new_linear_cost(
        unit * np.array([0.004, 0.009]),
        np.array([TOKENS, DECODE_CTX, PREFILL_WORK], np.int64),
        unit * np.array([[3e-5, 1e-7, 0.0], [4e-5, 1e-7, 1e-8]]),
    )
    recorder = new_recorder(1, 64, 1.0, 16, 64, 1e-4, 10.0)
    state = Sglang.new_state(params, site, tokens // params.page_size, 0, recorder, cost)
    group = EngineGroup([state], recorder)
    group.set_multi_step(multi_step)
    n = columns[0].size
    step = max(1, n // 3)
    for lo in range(0, n, step):
        hi = min(n, lo + step)
        group.submit(0, columns, spans, lo, hi, 0)
        if hi < n:
            group.advance(float(columns[0][hi]), False)
    group.advance(until, False)
    rows = group.drain()
    order = np.argsort(rows["id"], kind="stable")
    return {name: values[order] for name, values in rows.items()}, group.totals(), state
