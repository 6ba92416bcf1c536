"""Small records whose every number can be worked out by hand."""

from typing import Any

import numpy as np

from sim.metrics.histogram import ITL_BINS, bin_of
from sim.metrics.record import RunRecord

NAN = float("nan")


def four_requests(**changes: Any) -> RunRecord:
    """Two replicas, 10 s: three requests finish, the last is rejected. Rows in order of finish, not of id.

    ==  =======  =========  =====  ======  ======
    id  arrival  scheduled  first  finish  tokens
    ==  =======  =========  =====  ======  ======
    0   0        0          0.5    2.5     5
    1   1        2          3      3       1
    2   2        2          2.2    10      40
    3   4        –          –      4       rejected
    ==  =======  =========  =====  ======  ======
    """
    requests = {
        "id": np.array([0, 1, 3, 2]),
        "klass": np.array([0, 1, 1, 0], np.int32),
        "replica": np.array([0, 0, 1, 1], np.int32),
        "arrival_s": np.array([0.0, 1.0, 4.0, 2.0]),
        "first_scheduled_s": np.array([0.0, 2.0, NAN, 2.0]),
        "first_token_s": np.array([0.5, 3.0, NAN, 2.2]),
        "finish_s": np.array([2.5, 3.0, 4.0, 10.0]),
        "prompt_tokens": np.array([100, 50, 10, 250], np.int32),
        "output_tokens": np.array([5, 1, 0, 40], np.int32),
        "cached_tokens": np.array([0, 0, 0, 80], np.int32),
        "preemptions": np.array([0, 0, 0, 1], np.int32),
        "status": np.array([0, 0, 1, 0], np.int8),
    }
    hist = np.zeros(ITL_BINS)
    hist[bin_of(0.5)] += 4
    hist[bin_of(0.2)] += 39
    series = {
        "width_s": 5.0,
        "time_s": np.array([[5.0, 0.0], [5.0, 5.0]]),
        "running": np.array([[3.0, 0.0], [3.0, 5.0]]),
        "waiting": np.array([[1.0, 0.0], [0.0, 0.0]]),
        "kv_used": np.array([[50.0, 0.0], [100.0, 200.0]]),
        "kv_full": np.array([[0.5, 0.0], [0.0, 0.0]]),
        "busy_s": np.array([[3.0, 0.0], [3.0, 5.0]]),
        "steps": np.array([[6.0, 0.0], [10.0, 25.0]]),
        "decode_tokens": np.array([[4.0, 0.0], [14.0, 25.0]]),
        "prefill_tokens": np.array([[150.0, 0.0], [170.0, 0.0]]),
    }
    fields: dict[str, Any] = {
        "requests": requests,
        "totals": {
            "steps": 41,
            "preemptions": 1,
            "last_s": 10.0,
            "itl_sum_s": 9.8,
            "itl_count": 43.0,
            "itl_max_s": 0.5,
            "injected": 4,
        },
        "itl_hist": hist,
        "parts": np.array([[0.5, 2.0, 0.1, 0.3, 0.0, 0.1, 0.0], [0.5, 5.0, 0.5, 1.0, 0.0, 0.5, 0.5]]),
        "series": series,
        "kv_total": np.array([100.0, 100.0]),
        "name": "four",
        "class_names": ("chat", "batch"),
    }
    return RunRecord(**(fields | changes))


def many_requests(n: int, replicas: int = 4, seed: int = 0) -> RunRecord:
    """``n`` random requests that keep all laws, finishing in random order."""
    rng = np.random.default_rng(seed)
    arrival = np.cumsum(rng.exponential(0.05, n))
    scheduled = arrival + rng.exponential(0.1, n)
    token = scheduled + rng.lognormal(-2, 0.5, n)
    output = rng.integers(1, 400, n).astype(np.int32)
    finish = token + (output - 1) * rng.lognormal(-4, 0.2, n)
    order = np.argsort(finish)
    requests = {
        "id": np.arange(n),
        "klass": np.zeros(n, np.int32),
        "replica": rng.integers(0, replicas, n).astype(np.int32),
        "arrival_s": arrival,
        "first_scheduled_s": scheduled,
        "first_token_s": token,
        "finish_s": finish,
        "prompt_tokens": rng.integers(1, 2000, n).astype(np.int32),
        "output_tokens": output,
        "cached_tokens": np.zeros(n, np.int32),
        "preemptions": np.zeros(n, np.int32),
        "status": np.zeros(n, np.int8),
    }
    totals = {"steps": n, "preemptions": 0, "last_s": float(finish.max()), "itl_sum_s": 1.0, "itl_count": 50.0, "itl_max_s": 0.02}
    hist = np.zeros(ITL_BINS)
    hist[bin_of(0.02)] = 50
    return RunRecord({k: v[order] for k, v in requests.items()}, totals, hist, np.ones((replicas, 7)))


def record_of(ttft: Any, arrival: Any = None, e2e: Any = None, klass: Any = None, **more: Any) -> RunRecord:
    """Requests of eleven tokens that all finish, on one replica; ``session`` and ``tenant`` as columns, anything else as a field of the record."""
    ttft = np.asarray(ttft, float)
    n = ttft.size
    arrival = np.zeros(n) if arrival is None else np.asarray(arrival, float)
    columns: dict[str, Any] = {
        "id": np.arange(n),
        "klass": np.zeros(n, np.int32) if klass is None else np.asarray(klass, np.int32),
        "replica": np.zeros(n, np.int32),
        "arrival_s": arrival,
        "first_scheduled_s": arrival,
        "first_token_s": arrival + ttft,
        "finish_s": arrival + (ttft + 1.0 if e2e is None else np.asarray(e2e, float)),
        "prompt_tokens": np.full(n, 10),
        "output_tokens": np.full(n, 11),
        "cached_tokens": np.zeros(n, int),
        "preemptions": np.zeros(n, int),
        "status": np.zeros(n, int),
    }
    columns |= {k: np.asarray(more.pop(k)) for k in ("session", "tenant") if k in more}
    totals = {"last_s": float(columns["finish_s"].max()), "itl_sum_s": 0.0, "itl_count": 0, "itl_max_s": 0.0}
    return RunRecord(columns, totals, np.zeros(ITL_BINS, np.int64), np.ones((1, 7)), **more)
