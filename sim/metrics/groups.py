"""Tables per request class and per replica: the same few numbers for each group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.metrics.definitions import SLO_METRICS
from sim.metrics.latency import number

Array = npt.NDArray[Any]


def group_rows(columns: Mapping[str, Array], label: Array, ok: Array, counted: Array, groups: int) -> list[dict[str, Any]]:
    """One row per group 0…groups−1: requests, finished, tokens, joint attainment, p50 and p99 of TTFT, TPOT and E2E.

    ``label``: group of every request; ``ok``: it met its targets; ``counted``: it takes part (finished, rejected or failed).
    """
    finished = counted & (columns["status"] == 0)
    count = np.bincount(label, minlength=groups)
    n_counted = np.bincount(label[counted], minlength=groups)
    n_ok = np.bincount(label[ok & counted], minlength=groups)
    n_finished = np.bincount(label[finished], minlength=groups)
    tokens = np.bincount(label[finished], columns["output_tokens"][finished], groups)
    rows: list[dict[str, Any]] = [
        {
            "requests": int(count[g]),
            "finished": int(n_finished[g]),
            "output_tokens": int(tokens[g]),
            "attainment": n_ok[g] / n_counted[g] if n_counted[g] else None,
        }
        for g in range(groups)
    ]
    members = np.flatnonzero(finished)
    if groups > 1:
        members = members[np.argsort(label[members], kind="stable")]
    cuts = np.cumsum(n_finished)[:-1]
    for key in SLO_METRICS:
        for row, values in zip(rows, np.split(columns[key][members], cuts), strict=True):
            values = values[~np.isnan(values)]
            found = np.percentile(values, (50.0, 99.0), overwrite_input=True) if values.size else (np.nan, np.nan)
            name = key.removesuffix("_s")
            row |= {f"{name}_p50_s": number(found[0]), f"{name}_p99_s": number(found[1])}
    return rows


def replica_load(
    series: Mapping[str, Any],
    kv_total: Array | None,
    parts: Array,
    horizon: float,
    alive: Array | None = None,
    kv_peak: Array | None = None,
) -> list[dict[str, Any]]:
    """One row per replica: busy share, KV use (mean, peak), running, waiting; averages over ``horizon`` seconds.

    ``kv_peak``: most blocks in use at once; None: the peak of the bins' averages. ``alive``: seconds in which each replica existed, where that is
    not the horizon.
    """
    replicas = parts.shape[0]
    span: Any = horizon if horizon > 0 else 1.0
    if alive is not None:
        span = np.where(alive > 0, alive, 1.0)
    if not series:
        busy = np.minimum(parts.sum(axis=1) / span, 1.0)
        rows: list[dict[str, Any]] = [{"busy": float(busy[i])} for i in range(replicas)]
        if kv_total is not None and kv_peak is not None:
            for row, peak in zip(rows, kv_peak / kv_total, strict=True):
                row["kv_peak"] = number(peak)
        return rows
    busy = np.minimum(series["busy_s"].sum(axis=1) / span, 1.0)
    running, waiting = series["running"].sum(axis=1) / span, series["waiting"].sum(axis=1) / span
    rows = [
        {"busy": float(busy[i]), "running_mean": float(running[i]), "waiting_mean": float(waiting[i])} for i in range(replicas)
    ]
    if kv_total is not None:
        mean = series["kv_used"].sum(axis=1) / span / kv_total
        time = series["time_s"]
        level = np.divide(series["kv_used"], time, out=np.zeros_like(time), where=time > 0)
        peak = (level.max(axis=1) if kv_peak is None else kv_peak) / kv_total
        for i, row in enumerate(rows):
            row["kv_mean"], row["kv_peak"] = number(mean[i]), number(peak[i])
    return rows


def named(rows: Sequence[dict[str, Any]], key: str, names: Sequence[str]) -> list[dict[str, Any]]:
    """Put number and name of the group in front of each row."""
    return [{key: g, "name": names[g] if g < len(names) else str(g)} | row for g, row in enumerate(rows)]
