"""A made-up run that looks like a real one: a day's wave of load over some replicas."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sim.metrics.histogram import ITL_BINS, bin_of
from sim.metrics.record import RunRecord
from sim.metrics.result import Result, summarise
from sim.metrics.slo import Slo


def made_up(n: int = 4000, replicas: int = 1, bins: int = 300, seed: int = 3, load: float = 1.0, **changes: Any) -> Result:
    """A result with everything in it. ``load`` stretches latencies and use."""
    rng = np.random.default_rng(seed)
    gap = rng.exponential(0.05, n) * (1 + 0.5 * np.sin(np.arange(n) / n * 6))
    arrival = np.cumsum(gap)
    wave = load * (1.2 - np.cos(arrival / arrival[-1] * 6.28))
    queue = rng.exponential(0.02, n) * wave**3
    scheduled = arrival + queue
    prompt = np.minimum(rng.lognormal(6.9, 1.0, n).astype(np.int32) + 1, 16000)
    token = scheduled + 0.02 + prompt * 2.2e-5 + rng.exponential(0.015, n) * wave
    output = np.minimum(rng.lognormal(5.1, 0.8, n).astype(np.int32) + 1, 2000)
    tpot = 0.011 + 0.006 * wave + rng.normal(0, 0.0006, n)
    finish = token + (output - 1) * tpot
    end = float(finish.max())
    requests = {
        "id": np.arange(n),
        "klass": rng.integers(0, 2, n).astype(np.int32),
        "replica": rng.integers(0, replicas, n).astype(np.int32),
        "arrival_s": arrival,
        "first_scheduled_s": scheduled,
        "first_token_s": token,
        "finish_s": finish,
        "prompt_tokens": prompt,
        "output_tokens": output,
        "cached_tokens": (prompt * rng.random(n) * 0.3).astype(np.int32),
        "preemptions": np.zeros(n, np.int32),
        "status": np.zeros(n, np.int8),
    }
    width = end / bins
    t = (np.arange(bins) + 0.5) * width
    level = load * (1.2 - np.cos(t / end * 6.28)) * (1 + 0.1 * rng.normal(size=(replicas, bins)))
    busy = np.clip(level * 0.42, 0, 1)
    series = {
        "width_s": width,
        "time_s": np.full((replicas, bins), width),
        "running": 22 * level * width,
        "waiting": np.maximum(level - 1.6, 0) * 14 * width,
        "kv_used": np.clip(3200 * level, 0, 9900) * width,
        "kv_full": np.maximum(level - 2.0, 0) * 0.3 * width,
        "busy_s": busy * width,
        "steps": busy * width / 0.014,
        "decode_tokens": busy * width / 0.014 * 22 * level,
        "prefill_tokens": level * 9000 * width / 10,
    }
    mix = np.array([0.22, 0.41, 0.08, 0.14, 0.02, 0.1, 0.03])
    hist = np.zeros(ITL_BINS)
    gaps = rng.choice(tpot, 20_000) * rng.lognormal(0, 0.12, 20_000)
    for g in gaps:
        hist[bin_of(float(g))] += 1
    fields: dict[str, Any] = {
        "totals": {
            "steps": int(series["steps"].sum()),
            "preemptions": 3,
            "last_s": end,
            "itl_sum_s": float(gaps.sum()),
            "itl_count": 20_000.0,
            "itl_max_s": float(gaps.max()),
        },
        "itl_hist": hist,
        "parts": np.outer(series["busy_s"].sum(axis=1), mix),
        "series": series,
        "kv_total": np.full(replicas, 10_000.0),
        "name": "evening-wave",
        "slo": Slo(ttft=1.0, tpot=0.05, e2e=30.0),
        "class_names": ("chat", "summaries"),
        "replica_names": tuple(f"pool/{i}" for i in range(replicas)),
        "accelerators": replicas,
        "context": {
            "model": "llama-3.1-8b",
            "accelerator": "h100-sxm",
            "engine": "vllm 0.33",
            "traffic": "azure-2023-conv at 20/s",
        },
        "scenario": "name: evening-wave\nseed: 3\nslo: {ttft: 1s}\n",
        "evidence": [
            {"what": "GEMM", "grade": "measured", "source": "operator grid, 4,096 points"},
            {"what": "host overhead per step", "grade": "estimated", "source": "no measurement <of this> version"},
        ],
        "warnings": ["KV blocks are an estimate: pin kv_blocks to what the server's log says."],
    }
    return summarise(RunRecord(requests, **(fields | changes)))


@pytest.fixture(scope="session")
def make_result() -> Callable[..., Result]:
    """The maker of made-up runs."""
    return made_up


@pytest.fixture(scope="session")
def wave() -> Result:
    """One replica, 4,000 requests."""
    return made_up()
