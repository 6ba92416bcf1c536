"""What a scrape of ``/metrics`` would give at the end of the run, in Prometheus text with the engine's own names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from sim.ledger import FINISHED
from sim.metrics.histogram import edges
from sim.registry import register
from sim.report.exports._base import Export
from sim.report.exports._names import Names, escaped, names_of

if TYPE_CHECKING:
    from sim.ledger import Values
    from sim.metrics.result import Result


@register("export")
class Prometheus(Export):
    """Text format 0.0.4: gauges at the end, counters and histograms of the whole run, by replica (label ``engine``).

    Times count from when the engine takes the request, as an engine's own metrics do. The inter-token histogram is of all replicas together
    (label ``engine="all"``), since gaps are recorded together.
    """

    name = "prometheus"
    file = "metrics.prom"

    def text(self, result: Result) -> Iterator[str]:
        """Families of metrics."""
        names = names_of(result)
        model = escaped(result.summary["context"].get("model", ""))
        replicas = sorted({int(r) for r in result.columns["replica"].tolist() if r >= 0}) or [0]
        labels = {r: f'engine="{r}",{names.label}="{model}"' for r in replicas}
        yield from _gauges(result, names, labels)
        yield from _counters(result, names, labels)
        yield from _histograms(result, names, labels, model)


def _head(name: str, told: str, kind: str) -> str:
    return f"# HELP {name} {told}\n# TYPE {name} {kind}\n"


def _gauges(result: Result, names: Names, labels: dict[int, str]) -> Iterator[str]:
    series = result.series
    for ours, (name, told) in names.gauges.items():
        key = "decode_tokens_per_s" if ours == "gen_throughput" else ours
        if key not in series:
            continue
        yield _head(name, told, "gauge")
        for replica, label in labels.items():
            rows = np.flatnonzero(series["replica"] == replica)
            value = float(series[key][rows[-1]]) if rows.size else 0.0
            yield f"{name}{{{label}}} {value if np.isfinite(value) else 0.0:.9g}\n"


def _counters(result: Result, names: Names, labels: dict[int, str]) -> Iterator[str]:
    c = result.columns
    done = c["status"] == FINISHED
    columns: dict[str, Values] = {
        "prompt": c["prompt_tokens"] * np.isfinite(c["first_scheduled_s"]), "output": c["output_tokens"], "preemptions": c["preemptions"],
        "cache_queries": c["prompt_tokens"] * np.isfinite(c["first_scheduled_s"]), "cache_hits": c["cached_tokens"], "finished": done.astype(np.int64),
        "requests": np.ones(done.size, np.int64),
    }  # fmt: skip
    for ours, (name, told) in names.counters.items():
        yield _head(f"{name}_total", told, "counter")
        for replica, label in labels.items():
            yield f"{name}_total{{{label}}} {int(columns[ours][c['replica'] == replica].sum())}\n"


def _histograms(result: Result, names: Names, labels: dict[int, str], model: str) -> Iterator[str]:
    c = result.columns
    taken = c["taken_s"] if "taken_s" in c else c["arrival_s"]
    done = c["status"] == FINISHED
    values = {
        "ttft_s": c["first_token_s"] - taken, "tpot_s": np.where(done, c["tpot_s"], np.nan), "e2e_s": np.where(done, c["finish_s"] - taken, np.nan),
        "queue_s": c["first_scheduled_s"] - taken, "prefill_s": np.where(done, c["first_token_s"] - c["first_scheduled_s"], np.nan),
        "decode_s": np.where(done, c["finish_s"] - c["first_token_s"], np.nan), "inference_s": np.where(done, c["finish_s"] - c["first_scheduled_s"], np.nan),
    }  # fmt: skip
    for ours, (name, told, buckets) in names.histograms.items():
        yield _head(name, told, "histogram")
        if ours == "itl_s":
            yield from _gaps(result, name, f'engine="all",{names.label}="{model}"', buckets)
            continue
        for replica, label in labels.items():
            mine = values[ours][c["replica"] == replica]
            mine = mine[np.isfinite(mine)]
            counts = np.searchsorted(np.sort(mine), buckets, side="right")
            yield from _buckets(name, label, buckets, counts.tolist(), mine.size, float(mine.sum()))


def _gaps(result: Result, name: str, label: str, buckets: tuple[float, ...]) -> Iterator[str]:
    hist = result.itl_hist
    upper = edges(hist.size)[1:]
    below = np.cumsum(hist)
    at = np.searchsorted(upper, buckets, side="right") - 1
    counts = [float(below[i]) if i >= 0 else 0.0 for i in at.tolist()]
    stats = result.summary["latency"]["itl_s"]
    total = int(stats["count"] or 0)
    yield from _buckets(name, label, buckets, [min(int(n), total) for n in counts], total, (stats["mean"] or 0.0) * total)


def _buckets(name: str, label: str, buckets: tuple[float, ...], counts: list[int], total: int, summed: float) -> Iterator[str]:
    for edge, n in zip(buckets, counts, strict=True):
        yield f'{name}_bucket{{{label},le="{edge!r}"}} {n}\n'
    yield f'{name}_bucket{{{label},le="+Inf"}} {total}\n'
    yield f"{name}_count{{{label}}} {total}\n{name}_sum{{{label}}} {summed:.9g}\n"
