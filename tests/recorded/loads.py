"""Random servers under random loads: what tests of one engine each compare with itself, here compared with what was recorded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import pytest

from sim.engine.schedulers.llamacpp import LlamaCpp
from sim.engine.schedulers.ollama import Ollama
from sim.engine.schedulers.tgi import TgiParams
from sim.study.conformance import mindie, tgi, vllm
from tests.engines import (
    llamacpp_bench,
    mindie_bench,
    sglang_bench,
    test_llamacpp,
    test_mindie,
    test_sglang_pools,
    test_tgi,
    tgi_bench,
    vllm_hybrid_cases,
    vllm_runs,
)
from tests.fuzz.vllm_scenarios import random_scenario
from tests.recorded.trace import Trace, Watched, flat, step_lines, table

OWN: tuple[dict[str, Any], ...] = (
    {"runner": "ollamarunner", "OLLAMA_NUM_PARALLEL": 4, "num_batch": 64},
    {"runner": "ollamarunner", "OLLAMA_NUM_PARALLEL": 2, "OLLAMA_MULTIUSER_CACHE": True, "num_ctx": 512},
    {"OLLAMA_NUM_PARALLEL": 2, "num_ctx": 1024, "num_batch": 128},
)


def seen(run: Callable[[], tuple[Any, Any]]) -> Trace:
    """Requests, sums of all engines and steps of a run."""
    watched = Watched()
    with pytest.MonkeyPatch.context() as patch:
        watched.into(patch)
        rows, totals = run()
    return {"requests": table(rows), "totals": list(flat("", totals)), "steps": step_lines(watched.seen)}


def rows_of(rows: Iterable[Any]) -> Trace:
    """Rows as recordings have them; of each ten a digest."""
    lines = [json.dumps(row, sort_keys=True, default=str) for row in rows]
    tens = ["\n".join(lines[i : i + 10]) for i in range(0, len(lines), 10)]
    return {"rows": [f"{len(lines)} rows", *(hashlib.sha256(ten.encode()).hexdigest()[:12] for ten in tens)]}


def of_vllm(seed: int) -> Trace:
    def run() -> tuple[Any, Any]:
        rows, blocks, totals = vllm_runs.run(vllm_runs.random_load(seed), True)
        return rows, totals | {"blocks": blocks}

    return seen(run)


def of_sglang(seed: int, pools: bool) -> Trace:
    r = np.random.default_rng(seed if pools else [seed, 0])  # pools: seeds of `test_sglang_pools`, whose settings are possible
    tokens = int(r.choice([1024, 4096]))
    params = sglang_bench.random_params(r)
    beside = test_sglang_pools.random_pool(r, params, tokens) if pools else None
    columns, spans = sglang_bench.random_traffic(r, 40, tokens)
    return seen(lambda: sglang_bench.simulate(columns, spans, params, tokens, pools=beside)[:2])


def of_tgi(seed: int) -> Trace:
    r = np.random.default_rng(seed)
    settings = test_tgi.SETTINGS[seed % len(test_tgi.SETTINGS)] | {"max_concurrent_requests": int(r.choice([4, 16, 200]))}
    block = TgiParams(**{k: v for k, v in settings.items() if k == "attention"}).block_size
    group = tgi_bench.server(int(r.choice([3200, 6000])) // block, settings)
    load = tgi_bench.random_block(r, 30, float(r.choice([0.002, 0.05, 0.4])), 300, 90)
    return seen(lambda: (tgi_bench.run(group, load), group.totals()))


def of_mindie(seed: int) -> Trace:
    r = np.random.default_rng(seed)
    settings = test_mindie.SMALL | test_mindie.SETTINGS[seed % len(test_mindie.SETTINGS)]
    group = mindie_bench.server(int(r.choice([126, 160])), settings, extra=test_mindie.HOST)
    load = mindie_bench.random_block(r, 30, float(r.choice([0.002, 0.05, 0.4])), 300, 90)
    return seen(lambda: (mindie_bench.run(group, load), group.totals()))


def of_slots(seed: int, engine: Any, settings: tuple[dict[str, Any], ...]) -> Trace:
    r = np.random.default_rng([seed, 7])
    group, _ = llamacpp_bench.server(engine, settings[seed % len(settings)])
    load = llamacpp_bench.random_block(r, 30, float(r.choice([0.01, 0.2, 2.0])), 120, 80)
    return seen(lambda: (llamacpp_bench.run(group, load), group.totals()))


def replayed_mindie(seed: int, kind: str) -> Trace:
    settings, requests = mindie_bench.random_recording(np.random.default_rng(seed), 25, kind)
    return rows_of(mindie.replay(mindie.DEFAULTS | settings, requests))


def replayed_tgi(seed: int) -> Trace:
    return rows_of(tgi.Replay(*tgi_bench.random_scenario(np.random.default_rng(seed), 25)).rows())


def loads() -> dict[str, Callable[[], Trace]]:
    """Makers by name."""
    out: dict[str, Callable[[], Trace]] = {f"vllm {seed}": partial(of_vllm, seed) for seed in range(24)}
    out |= {f"sglang {seed}": partial(of_sglang, seed, False) for seed in range(20)}
    out |= {f"sglang pools {seed}": partial(of_sglang, seed, True) for seed in range(12)}
    out |= {f"tgi {seed}": partial(of_tgi, seed) for seed in range(14)}
    out |= {f"mindie {seed}": partial(of_mindie, seed) for seed in range(2 * len(test_mindie.SETTINGS))}
    out |= {f"llamacpp {seed}": partial(of_slots, seed, LlamaCpp, test_llamacpp.SETTINGS) for seed in range(14)}
    out |= {f"ollama {seed}": partial(of_slots, seed, Ollama, OWN) for seed in range(9)}
    kinds = (*mindie_bench.KINDS, *mindie_bench.LAWFUL)
    out |= {f"rounds of mindie {k} {seed}": partial(replayed_mindie, seed, k) for k in kinds for seed in (1, 2)}
    out |= {f"rounds of tgi {seed}": partial(replayed_tgi, seed) for seed in range(16)}
    out |= {f"steps of vllm {s}": lambda s=s: rows_of(vllm.replay(random_scenario(s))) for s in range(24)}
    return out | {f"steps of vllm groups {s}": lambda s=s: rows_of(vllm.replay(vllm_hybrid_cases.scenario(s))) for s in range(24)}
