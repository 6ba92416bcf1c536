"""One operating point simulated: the same figures that were measured, over the same requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from sim.config.base import Router
from sim.errors import NotModelledError
from sim.fleet.build import Plan
from sim.fleet.run import Raw, execute, fitting
from sim.ledger import FINISHED, Values
from sim.metrics.histogram import ITL_BINS, ITL_LO, ITL_SCALE
from sim.metrics.latency import derive, describe_itl
from sim.study.accuracy import batch, passes
from sim.study.accuracy.deploy import Overrides, check, fleet, planned, profile_of
from sim.study.accuracy.earlier import alone, begins
from sim.study.accuracy.point import Point
from sim.study.accuracy.population import counted, counted_requests
from sim.study.accuracy.step_log import kinds, step_seconds, summary
from sim.study.accuracy.traffic import stage_starts, traffic_of

if TYPE_CHECKING:
    from sim.config.deployment import Transfer

_STATISTICS = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0}


def predict(point: Point, overrides: Overrides | None = None, seed: int = 0) -> dict[str, float]:
    """Predicted values of everything that was measured. Raises `ConfigError` and its kin for a point that cannot be simulated."""
    if point.refused:
        raise NotModelledError("", None, point.refused)
    check(point)
    if point.traffic["kind"] == "static_batch":
        values = batch.static_batch(point, profile_of(point, overrides))
    elif point.traffic["kind"] == "steps":
        found = kinds(point.logs)
        values = summary(found, step_seconds(planned(point, overrides), found))
    elif point.traffic["kind"] == "passes":
        values = dict.fromkeys(point.measured, passes.mean_seconds(planned(point, overrides), point.logs))
    else:
        values = _simulated(point, fleet(point, overrides), seed)
        if (
            "kv_blocks" in point.measured and point.scenario is None
        ):  # the run is pinned to what the server logged; the budget is not
            values["kv_blocks"] = float(planned(replace(point, kv_blocks=None), overrides).kv_blocks)
    return {k: values[k] for k in point.measured if k in values and np.isfinite(values[k])}


def _simulated(point: Point, plans: list[Plan], seed: int) -> dict[str, float]:
    raw = _run(point, plans, seed)
    requests = {k: v[_window(point, raw.requests)] for k, v in raw.requests.items()}
    if not (requests["status"] == FINISHED).any():
        raise NotModelledError("traffic", point.id, "no request of the measured window finishes")
    values: dict[str, float] = {}
    for key, sample in counted(point, requests, derive({k: v.copy() for k, v in requests.items()})).items():
        sample = sample[~np.isnan(sample)]
        if sample.size:
            values[f"{key}.mean"] = float(sample.mean())
            values |= {f"{key}.{s}": float(np.percentile(sample, q)) for s, q in _STATISTICS.items()}
    if not point.window:
        before = alone(point) if any(k.startswith("itl_s") for k in point.measured) else None
        hist, totals = raw.itl_hist, dict(raw.totals)
        if before is not None:
            first = _run(before, plans, seed)
            hist = hist - first.itl_hist
            totals |= {k: totals[k] - first.totals[k] for k in ("itl_count", "itl_sum_s")}
        gaps = vars(describe_itl(hist, totals))
        values |= {f"itl_s.{k}": float(v) for k, v in gaps.items() if v is not None}
    return values | _throughput(counted_requests(point, requests))


def _run(point: Point, plans: list[Plan], seed: int) -> Raw:
    traffic = fitting(plans, traffic_of(point, seed), "error")
    router = Router(name="round_robin")
    transfer = _transfer(point, plans) if point.disaggregated else None
    return execute(plans, traffic, router, seed, bins=0, histogram=(ITL_BINS, ITL_LO, ITL_SCALE), until=inf, transfer=transfer)


def _transfer(point: Point, plans: list[Plan]) -> Transfer:
    """Between pools on one node KV travels over its links, else over the network of such servers."""
    from sim.config.deployment import Transfer

    a = plans[0].accelerator
    inside = point.nodes == 1 and sum(p.accelerators for p in plans) <= a.node_size and a.link.bandwidth > 0
    return Transfer(bandwidth=a.link.bandwidth, latency=a.link.latency) if inside else Transfer()


def _throughput(requests: dict[str, Values]) -> dict[str, float]:
    done = requests["status"] == FINISHED
    span = float(requests["finish_s"][done].max() - requests["arrival_s"].min())
    return {
        "requests_per_s": float(done.sum()) / span,
        "output_tokens_per_s": float(requests["output_tokens"][done].sum()) / span,
        "input_tokens_per_s": float(requests["prompt_tokens"][done].sum()) / span,
        "makespan_s": span,
    }


def _window(point: Point, requests: Mapping[str, Values]) -> Values:
    """Which requests the figures cover."""
    arrival = requests["arrival_s"]
    keep = arrival >= begins(point)
    w = point.window
    if "stage" in w:
        starts = stage_starts(point.traffic)
        keep &= (arrival >= starts[w["stage"]]) & (arrival < starts[w["stage"] + 1])
    keep &= (arrival >= w.get("after_s", 0.0)) & (arrival <= w.get("before_s", inf))
    if "skip_first" in w:
        keep[np.argsort(arrival, kind="stable")[: int(w["skip_first"])]] = False
    return keep
