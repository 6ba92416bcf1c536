"""What one run is worth: intervals of its own figures, from its parts, and whether it was stationary at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sim.ledger import FINISHED, IN_FLIGHT
from sim.study.statistics.attainment import attainment_interval
from sim.study.statistics.batches import mean_interval
from sim.study.statistics.interval import Interval
from sim.study.statistics.percentile import percentile_interval
from sim.study.statistics.stationary import judge
from sim.study.statistics.throughput import throughput_interval
from sim.study.statistics.truncation import mser5

if TYPE_CHECKING:
    from sim.document import Json
    from sim.metrics.result import Result

METRICS = ("ttft_s", "tpot_s", "e2e_s")
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}


@dataclass(frozen=True)
class Worth:
    """``stationary``: why it is not, or empty; ``warmup_s``: found by MSER-5, or None; ``intervals``: by path in the summary."""

    level: float
    stationary: str
    warmup_s: float | None
    intervals: dict[str, Interval]

    def shown(self) -> dict[str, Interval]:
        """The intervals of a run that settles; none of another, whose parts are not alike and so do not tell how sure the whole is."""
        return {} if self.stationary else self.intervals


def worth(result: Result, level: float = 0.95) -> Worth:
    """Of one run. Requests of the scenario's warm-up are left out, as they are from the figures."""
    columns, summary = result.columns, result.summary
    status, arrival = columns["status"], columns["arrival_s"]
    counted = status != IN_FLIGHT
    if summary.warmup_s > 0 and len(arrival):
        counted &= arrival >= float(arrival.min()) + summary.warmup_s
    finished = counted & (status == FINISHED)
    found: dict[str, Interval | None] = {}
    for key in METRICS:
        values = columns[key][finished]
        values = values[~np.isnan(values)]
        found[f"latency.{key}.mean"] = mean_interval(values, level)
        for name, p in PERCENTILES.items():
            found[f"latency.{key}.{name}"] = percentile_interval(values, p, level)
    if summary.slo.required is not None:
        found["slo.attainment.joint"] = attainment_interval(columns["slo_met"][counted], level)
    finish = np.where(status == FINISHED, columns["finish_s"], np.nan)
    found["throughput.requests_per_s"] = throughput_interval(arrival, finish, None, level)
    found["throughput.output_tokens_per_s"] = throughput_interval(arrival, finish, columns["output_tokens"], level)
    start = mser5(columns["e2e_s"][finished])
    return Worth(
        level,
        settled(result),
        float(arrival[finished][start] - arrival[finished][0]) if start is not None else None,
        {k: v for k, v in found.items() if v is not None},
    )


def confidence(result: Result, level: float = 0.95) -> dict[str, Json]:
    """`worth`, ready for JSON."""
    found = worth(result, level)
    return vars(found) | {"intervals": {k: i.as_dict() for k, i in found.intervals.items()}}


def settled(result: Result) -> str:
    """Why a run is not stationary, in one sentence; empty when nothing speaks against it."""
    columns = result.columns
    left = np.where(columns["status"] == IN_FLIGHT, np.nan, np.fmax(columns["finish_s"], columns["arrival_s"]))
    return judge(columns["arrival_s"], left, closed_loop="closed_loop:" in result.scenario)
