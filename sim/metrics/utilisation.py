"""How much of the machines a run used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np

from sim.metrics import bottleneck
from sim.metrics.facts import Facts
from sim.metrics.section import Section


@dataclass(frozen=True)
class Utilisation(Section):
    """Shares of the time and of the KV memory; ``running_mean`` and ``waiting_mean`` in requests, over all replicas."""

    busy: float | None
    compute: float | None
    kv_mean: float | None
    kv_peak: float | None
    kv_blocked: float | None
    running_mean: float | None
    waiting_mean: float | None
    step_time_mean_s: float | None
    batch_tokens_mean: float | None


def utilisation(facts: Facts) -> Utilisation:
    """Means over the time in which each replica existed."""
    record, load = facts.record, facts.load
    existed = record.alive_s is None or facts.horizon <= 0
    weights = np.ones(len(load)) if existed else np.asarray(record.alive_s) / facts.horizon

    def over(key: str, how: str) -> float | None:
        found = [
            (i, value) for i, row in enumerate(load) if (value := cast("Mapping[str, float | None]", row).get(key)) is not None
        ]
        rows = [i for i, _ in found]
        values, w = np.array([value for _, value in found]), weights[rows]
        if not rows or (how == "mean" and w.sum() <= 0):
            return None
        if how == "max":
            return float(values.max())
        total = float((values * w).sum())
        return total if how == "sum" else total / float(w.sum())

    busy = over("busy", "mean")
    series = record.series
    total = float(series["time_s"].sum()) if series else 0.0
    steps = float(record.totals.get("steps", 0))
    tokens = float(series["decode_tokens"].sum() + series["prefill_tokens"].sum()) if series else 0.0
    return Utilisation(
        busy=busy,
        compute=bottleneck.time_shares(record.parts, record.part_names, busy or 0.0)["compute"],
        kv_mean=over("kv_mean", "mean"),
        kv_peak=over("kv_peak", "max"),
        kv_blocked=float(series["kv_full"].sum()) / total if total > 0 else None,
        running_mean=over("running_mean", "sum"),
        waiting_mean=over("waiting_mean", "sum"),
        step_time_mean_s=float(record.parts.sum()) / steps if steps else None,
        batch_tokens_mean=tokens / steps if series and steps else None,
    )
