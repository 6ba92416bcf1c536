"""How far the model may be off: an interval for a predicted figure, learned from the accuracy record of deployments like this one.

The record (`profiles/accuracy.yaml`, rebuilt by ``servesim accuracy PATH… --record FILE``) holds, for every class of deployments, the spread of
measured / predicted, each deployment counted once. An interval comes from the narrowest class with enough deployments; where there is none
it is that of all, and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import yaml

from sim.metrics.section import Section, keyed
from sim.resources import path

Array = npt.NDArray[Any]

LEVEL: Final = 0.8
"""Share of measured values that lie in the interval."""
FEWEST: Final = 5
"""Deployments that a class needs."""
_TAIL: Final = 0.06
"""Share of a class beyond either end. A deployment that was left out lies outside more often than those that were not: with 6 % at either end
78 to 84 % of the figures of left-out deployments lie inside (89 deployments, five metrics); with 10 %, 70 to 79 %."""
METRICS: Final = {
    "ttft_s.mean": "ttft_s.mean",
    "ttft_s.p50": "ttft_s.mean",
    "ttft_s.p99": "ttft_s.p99",
    "tpot_s.mean": "tpot_s.mean",
    "tpot_s.p50": "tpot_s.mean",
    "tpot_s.p99": "tpot_s.mean",
    "e2e_s.mean": "e2e_s.mean",
    "e2e_s.p50": "e2e_s.mean",
    "output_tokens_per_s": "output_tokens_per_s",
}
"""Figure of a run → figure of the record whose errors it takes: statistics in the middle are as good as the mean."""

Row = tuple[str, str, str, str, float]
"""Engine, accelerator, deployment, metric, measured / predicted."""


def family(accelerator: str) -> str:
    """``h100_sxm`` and ``h100-nvl`` → ``h100``, ``ascend-910b4`` → ``ascend-910b``: the class of an accelerator."""
    parts = accelerator.lower().replace("_", "-").split("-")
    if parts[0] in ("rtx", "apple", "ascend") and len(parts) > 1:
        return f"{parts[0]}-{parts[1].rstrip('0123456789') if parts[0] == 'ascend' else parts[1]}"
    return parts[0]


def classes(engine: str, accelerator: str) -> list[tuple[str, str]]:
    """Classes of a deployment, narrowest first: engine and accelerator, engine alone, everything (empty: any)."""
    return [(engine, family(accelerator)), (engine, ""), ("", "")]


def spread(rows: Iterable[Row]) -> dict[tuple[str, str, str], tuple[float, float, int]]:
    """(engine, accelerator, metric) → (low, high, deployments): quantiles of measured / predicted that hold `LEVEL` of the deployments' points."""
    found: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for engine, accelerator, deployment, metric, ratio in rows:
        for where in classes(engine, accelerator):
            found.setdefault((*where, metric), {}).setdefault(deployment, []).append(ratio)
    out = {}
    for key, deployments in found.items():
        if len(deployments) >= FEWEST or key[:2] == ("", ""):
            values = np.concatenate([np.log(v) for v in deployments.values()])
            weights = np.concatenate([np.full(len(v), 1.0 / len(v)) for v in deployments.values()])
            # few deployments tell less of the tails than their own quantiles say: as of one more of either kind
            tail = _TAIL * len(deployments) / (len(deployments) + 1.0)
            low, high = (float(np.exp(_quantile(values, weights, q))) for q in (tail, 1.0 - tail))
            out[key] = (low, high, len(deployments))
    return out


def _quantile(values: Array, weights: Array, q: float) -> float:
    order = np.argsort(values)
    at = np.cumsum(weights[order]) - 0.5 * weights[order]
    return float(np.interp(q * weights.sum(), at, values[order]))


def look_up(
    table: Mapping[tuple[str, str, str], tuple[float, float, int]], engine: str, accelerator: str, metric: str
) -> tuple[float, float, int, str] | None:
    """(low, high, deployments, class in words) of measured / predicted; None where the record has no such metric at all."""
    for own, card in classes(engine, accelerator):
        found = table.get((own, card, metric))
        if found is not None:
            return *found, " on ".join(x for x in (own, card) if x) or "all engines"
    return None


def coverage(rows: Iterable[Row]) -> dict[str, tuple[float, float, int]]:
    """Metric → (share of deployments' points inside the interval that all other deployments give, median half width, deployments)."""
    rows = list(rows)
    inside: dict[str, dict[str, list[bool]]] = {}
    widths: dict[str, list[float]] = {}
    for out in sorted({r[2] for r in rows}):
        table = spread(r for r in rows if r[2] != out)
        for engine, accelerator, _, metric, ratio in (r for r in rows if r[2] == out):
            found = look_up(table, engine, accelerator, metric)
            if found is not None:
                inside.setdefault(metric, {}).setdefault(out, []).append(found[0] <= ratio <= found[1])
                widths.setdefault(metric, []).append((found[1] - found[0]) / 2.0)
    return {
        metric: (float(np.mean([np.mean(v) for v in by.values()])), float(np.median(widths[metric])), len(by))
        for metric, by in inside.items()
    }


@cache
def record() -> dict[tuple[str, str, str], tuple[float, float, int]]:
    """The record that ships with the package; empty where there is none."""
    file = path("profiles", "accuracy.yaml")
    if not file.is_file():
        return {}
    rows = yaml.safe_load(file.read_text(encoding="utf-8"))["classes"]
    return {(r["engine"], r["accelerator"], r["metric"]): (r["low"], r["high"], r["deployments"]) for r in rows}


def as_yaml(table: Mapping[tuple[str, str, str], tuple[float, float, int]], source: str) -> str:
    """The file of a record."""
    rows = [
        {"engine": e, "accelerator": a, "metric": m, "low": round(low, 3), "high": round(high, 3), "deployments": n}
        for (e, a, m), (low, high, n) in sorted(table.items())
    ]
    head = (
        "# Spread of measured / predicted by class of deployments (empty: any): 80 % of the measured values lie between low and high.\n"
        f"# {source}\n"
    )
    return head + yaml.safe_dump({"classes": rows}, sort_keys=False, width=200, default_flow_style=None)


@dataclass(frozen=True)
class Spread(Section):
    """80 % of real deployments like this one lie between ``low`` and ``high``; of what class, and how many there are on record."""

    low: float
    high: float
    deployed: str = field(metadata=keyed("class"))
    deployments: int


def section(engine: str, accelerator: str, latency: Mapping[str, Any], throughput: Mapping[str, Any]) -> dict[str, Spread]:
    """``model_error`` of a summary, by figure."""
    out: dict[str, Spread] = {}
    for figure, metric in METRICS.items():
        name, _, statistic = figure.partition(".")
        value = latency[name][statistic] if statistic else throughput.get(name)
        found = look_up(record(), engine, accelerator, metric)
        if value is not None and found is not None:
            low, high, n, words = found
            out[figure] = Spread(value * low, value * high, words, n)
    return out
