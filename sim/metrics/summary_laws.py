"""What holds of every result as its reader sees it: times of the clients, and the figures of the summary. Cheap; checked after every run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from math import isfinite
from typing import Any, Final

import numpy as np

from sim.errors import LawViolation
from sim.ledger import Values as Array
from sim.metrics.latency import LATENCIES

_ROUNDING: Final = 1e-9
_SHARES: Final = (
    "attainment",
    "unserved",
    "busy",
    "compute",
    "kv_mean",
    "kv_peak",
    "kv_blocked",
    "cached_share",
    "evidence_shares",
)
_RISING: Final = ("min", "p50", "p90", "p95", "p99", "p999", "max")
_NEVER_NEGATIVE: Final = (
    *("requests", "duration_s", "simulated_s", "latency", "throughput", "steady", "slo", "utilisation", "tokens"),
    *("preemptions", "steps", "classes", "replicas", "load"),
)


def check_result(columns: Mapping[str, Array], summary: Mapping[str, Any]) -> None:
    """Raise LawViolation naming the law and the values. ``columns``: requests with their latencies; ``summary``: as plain data."""
    _clients(columns)
    for where, value in _numbers(summary):
        if not isfinite(value):
            raise LawViolation(f"figures are finite: {where} is {value}")
        if value < -_ROUNDING and where.partition(".")[0] in _NEVER_NEGATIVE:
            raise LawViolation(f"nothing is negative: {where} is {value:.6g}")
        if value > 1 + _ROUNDING and any(part in _SHARES for part in where.split(".")):
            raise LawViolation(f"no share exceeds one: {where} is {value:.6g}")
    _counts(summary, columns["id"].size)
    for name, found in summary["latency"].items():
        known = [(k, found[k]) for k in _RISING if found.get(k) is not None]
        for (a, low), (b, high) in pairwise(known):
            if low > high * (1 + _ROUNDING) + _ROUNDING:
                raise LawViolation(f"percentiles rise: {name} {a} is {low:.6g}, {b} is {high:.6g}")
        mean, least = found.get("mean"), found.get("min")
        if mean is not None and least is not None and mean < least * (1 - _ROUNDING) - _ROUNDING:
            raise LawViolation(f"a mean lies between the extremes: {name} is {mean:.6g}, the least {least:.6g}")
    rate, duration = summary["throughput"]["requests_per_s"], summary["duration_s"]
    finished = summary["requests"]["finished"]
    if rate is not None and abs(rate * duration - finished) > _ROUNDING * max(finished, 1):
        raise LawViolation(f"throughput × duration = finished requests: {rate:.9g} × {duration:.9g}, {finished}")


def _clients(columns: Mapping[str, Array]) -> None:
    """No client waits less than no time."""
    least = -_ROUNDING * max(1.0, float(np.nanmax(columns["arrival_s"], initial=0.0)))
    done = columns["status"] == 0
    for name in LATENCIES:
        bad = columns[name] < least  # NaN compares false: there is none
        if bad.any():
            _fail(columns, f"{name} is never negative", bad)
    bad = done & (columns["ttft_s"] > columns["e2e_s"] - least)
    if bad.any():
        _fail(columns, "TTFT ≤ E2E", bad)


def _fail(columns: Mapping[str, Array], law: str, bad: Array) -> None:
    i = int(np.argmax(bad))
    row = {k: v[i].item() for k, v in columns.items()}
    raise LawViolation(f"{law}: broken by {int(np.count_nonzero(bad)):,} requests, first {row}")


def _counts(summary: Mapping[str, Any], rows: int) -> None:
    counts = summary["requests"]
    parts = {k: counts[k] for k in ("finished", "rejected", "failed", "in_flight", "warmup")}
    if counts["injected"] != rows or sum(parts.values()) != rows:
        raise LawViolation(f"every request is counted once: {parts} of {counts['injected']}, {rows} rows")
    total = sum(int(row.get("requests", 0)) for row in summary["classes"])
    if total > rows:
        raise LawViolation(f"classes have no more requests than there are: {total} of {rows}")


def _numbers(value: object, where: str = "") -> Iterator[tuple[str, float]]:
    """Every number in a summary with its dotted place."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _numbers(inner, where)
    elif isinstance(value, int | float):
        yield where, value
