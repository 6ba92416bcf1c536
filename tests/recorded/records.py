"""Made-up records of runs: one request, none finished, all turned away, ties, several classes, models and replicas, with targets or without."""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.metrics.histogram import ITL_BINS, bin_of
from sim.metrics.record import RunRecord
from sim.metrics.result import summarise
from sim.metrics.slo import Slo
from tests.metrics.records import four_requests, record_of
from tests.recorded.trace import Trace, flat, table, told, without_words

NAN = float("nan")
SEEDS = 60
SERIES = ("running", "waiting", "kv_used", "kv_full", "busy_s", "steps", "decode_tokens", "prefill_tokens")
SLOS: tuple[dict[str, Any], ...] = (
    {}, {"ttft": 0.5}, {"tpot": 0.03}, {"ttft": {"p95": 0.8, "p50": 0.3}}, {"e2e": 2.0, "attainment": 0.5},
    {"ttft": 0.6, "tpot": {"p90": 0.05}, "e2e": {"p99": 4.0, "each": 6.0}, "attainment": 0.9},
)  # fmt: skip


def columns(r: np.random.Generator, n: int, replicas: int, kind: str) -> dict[str, Any]:
    """The request table."""
    coarse = r.random() < 0.4  # many come at once
    arrival = np.sort(r.exponential(3.0, n).round(0 if coarse else 4))
    scheduled = arrival + r.choice([0.0, 0.1, 1.0], n) * r.random(n).round(2)
    token = scheduled + r.exponential(0.3, n).round(3)
    output = r.integers(1, 60, n)
    finish = token + (output - 1) * r.choice([0.01, 0.04], n)
    states = {"all": [0], "none": [3], "refused": [1], "failed": [2], "mixed": [0, 0, 0, 1, 2, 3]}
    status = r.choice(states[kind], n)
    cut, refused = status == 3, status == 1
    prompt = r.integers(1, 900, n)
    out: dict[str, Any] = {
        "id": r.permutation(n),
        "klass": r.integers(0, int(r.integers(1, 4)), n).astype(np.int32),
        "replica": r.integers(0, replicas, n).astype(np.int32),
        "arrival_s": arrival,
        "taken_s": arrival + 0.25 * (scheduled - arrival),
        "first_scheduled_s": np.where(refused, NAN, scheduled),
        "first_token_s": np.where(refused, NAN, token),
        "finish_s": np.where(cut, NAN, np.where(refused, arrival, finish)),
        "prompt_tokens": prompt,
        "output_tokens": np.where(refused, 0, output),
        "cached_tokens": (prompt * r.choice([0.0, 0.4], n)).astype(int),
        "preemptions": r.choice([0, 0, 1, 3], n),
        "status": status,
    }
    if r.random() < 0.5:
        out |= {"session": r.integers(-1, 5, n), "tenant": r.integers(0, 4, n)}
    if r.random() < 0.4:
        parts = np.sort(r.random((4, n)), axis=0) * (token - scheduled)
        names = ("prefill_end_s", "kv_allocated_s", "kv_arrived_s", "decode_start_s")
        out |= {k: np.where(refused, NAN, scheduled + p) for k, p in zip(names, parts, strict=True)}
        out["prefill_replica"] = r.integers(0, replicas, n).astype(np.int32)
        ended = r.random(n) < 0.25  # with their first token, some where nothing is handed over
        for name in names[1:]:
            out[name][ended] = NAN
        out["prefill_replica"][ended & (r.random(n) < 0.5)] = -1
    return out


def series(r: np.random.Generator, replicas: int, bins: int, end: float) -> dict[str, Any]:
    """Time series with an end within a bin, and replicas that are idle."""
    width = end / (bins - 0.5)
    time = np.full((replicas, bins), width)
    time[:, -1] = width / 2
    level = r.choice([0.0, 0.3, 1.0], (replicas, bins), p=[0.2, 0.4, 0.4])
    scale = {
        "running": 8,
        "waiting": 20,
        "kv_used": 100,
        "kv_full": 0.3,
        "busy_s": 1,
        "steps": 40,
        "decode_tokens": 300,
        "prefill_tokens": 900,
    }
    return {"width_s": width, "time_s": time} | {k: scale[k] * level * time * r.random((replicas, bins)) for k in SERIES}


def odd(seed: int) -> RunRecord:
    """One of many."""
    r = np.random.default_rng([seed, 11])
    n, replicas = int(r.choice([1, 2, 7, 40])), int(r.integers(1, 4))
    kind = str(r.choice(["all", "mixed", "mixed", "none", "refused", "failed"], p=[0.4, 0.2, 0.2, 0.07, 0.07, 0.06]))
    c = columns(r, n, replicas, kind)
    end = float(np.nanmax([*c["finish_s"], c["arrival_s"].max() + 1.0]))
    hist = np.zeros(ITL_BINS)
    gaps = r.lognormal(-4, 0.8, int(r.choice([0, 3, 200])))
    for gap in gaps:
        hist[bin_of(float(gap))] += 1
    totals = {
        "steps": 40,
        "last_s": end,
        "itl_sum_s": float(gaps.sum()),
        "itl_count": gaps.size,
        "itl_max_s": float(gaps.max(initial=0.0)),
    }
    if r.random() < 0.5:
        totals |= {"preemptions": int(c["preemptions"].sum()), "fleet_polls": 4.0, "injected": n}
    slo = [Slo.of(SLOS[int(r.integers(len(SLOS)))]) for _ in range(3)]
    return RunRecord(
        c,
        totals,
        hist,
        r.random((replicas, 7)) * r.choice([0.0, 1.0, 3.0], (replicas, 1)),
        series=series(r, replicas, int(r.choice([4, 30])), end) if r.random() < 0.7 else {},
        kv_total=None if r.random() < 0.3 else np.full(replicas, 120.0),
        kv_peak=None if r.random() < 0.5 else np.full(replicas, 90.0),
        name=f"odd {seed}",
        slo=slo[0],
        class_slo={1: slo[1], 2: slo[2]} if r.random() < 0.4 else {},
        class_names=("chat", "code", "batch")[: int(c["klass"].max()) + 1] if r.random() < 0.7 else (),
        tenant_names=("a", "b", "c", "d") if "tenant" in c and r.random() < 0.5 else (),
        replicas=replicas,
        accelerators=replicas * int(r.choice([1, 4])),
        complete=bool(r.random() < 0.9),
    )  # fmt: skip


def shown(record: RunRecord, warmup_s: float = 0.0) -> Trace:
    """Every figure, the table of requests with what follows from it, and the time series."""
    result = summarise(record, warmup_s, renderer=None)
    lines = list(flat("", told(result.summary) | {"notes": without_words(result.notes)}))
    return {"summary": lines, "requests": table(result.columns), "over time": list(flat("", result.series))}


def known() -> dict[str, Any]:
    """Records by name, each made when it is asked for."""
    made: dict[str, Any] = {f"odd {seed}": lambda seed=seed: shown(odd(seed)) for seed in range(SEEDS)}
    made |= {f"odd {seed}, warm": lambda seed=seed: shown(odd(seed), 1.0) for seed in range(0, SEEDS, 4)}
    for i, slo in enumerate(SLOS):
        made[f"four {i}"] = lambda slo=slo: shown(four_requests(slo=Slo.of(slo), class_slo={1: Slo(ttft=0.4)}))
        made[f"ties {i}"] = lambda slo=slo: shown(record_of([0.5, 0.5, 0.5, 1.0], [0.0, 0.0, 1.0, 1.0], slo=Slo.of(slo)))
    return made
