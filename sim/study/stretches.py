"""One run seen closer: its distributions as curves, and the figures of stretches of its requests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sim.ledger import IN_FLIGHT

if TYPE_CHECKING:
    from sim.metrics.result import Result

GRID = 200


def curve_grid() -> NDArray[np.float64]:
    """Shares at which the curves of a deployment are kept, closer together in the upper tail."""
    tail = 1.0 - np.logspace(-1, -4, GRID // 3)
    return np.concatenate([np.linspace(0.0, 0.9, GRID - tail.size - 1, endpoint=False), tail, [1.0]])


def stretches(result: Result, paths: Iterable[str], parts: int) -> dict[str, list[float]]:
    """Figures of so many stretches of requests by number, which are the same requests in every deployment under the same traffic."""
    columns, counted = result.columns, result.columns["status"] != IN_FLIGHT
    if result.summary["warmup_s"] > 0:
        counted = counted & (columns["arrival_s"] >= columns["arrival_s"].min() + result.summary["warmup_s"])
    out: dict[str, list[float]] = {}
    blocks = np.array_split(np.flatnonzero(counted), parts)
    if min(map(len, blocks)) < 5:
        return out
    for path in paths:
        kind, key, *rest = path.split(".")
        values = []
        for rows in blocks:
            if path == "slo.attainment.joint" and result.summary["slo"]["required"] is not None:
                values.append(float(columns["slo_met"][rows].mean()))
            elif kind == "latency":
                x = columns[key][rows]
                x = x[~np.isnan(x)]
                if x.size:
                    values.append(float(x.mean() if rest == ["mean"] else np.quantile(x, float(rest[0][1:]) / 100.0)))
        if len(values) == parts:
            out[path] = values
    return out
