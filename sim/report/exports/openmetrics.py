"""Gauges over the time of the run as OpenMetrics text, with the engine's own names: what ``promtool tsdb create-blocks-from openmetrics`` loads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from sim.registry import register
from sim.report.exports._base import Export
from sim.report.exports._names import escaped, names_of

if TYPE_CHECKING:
    from sim.metrics.result import Result


@register("export")
class OpenMetrics(Export):
    """One sample a replica and bin, with the end of the bin as its time, in s of the simulation; averages over the bin."""

    name = "openmetrics"
    file = "timeseries.openmetrics"

    def text(self, result: Result) -> Iterator[str]:
        """Families of gauges, then ``# EOF``."""
        names, series = names_of(result), result.series
        model = escaped(result.summary["context"].get("model", ""))
        for ours, (name, told) in names.gauges.items():
            key = "decode_tokens_per_s" if ours == "gen_throughput" else ours
            if key not in series or not len(series["time_s"]):
                continue
            yield f"# TYPE {name} gauge\n# HELP {name} {told}\n"
            order = np.lexsort((series["time_s"], series["replica"]))
            end = series["time_s"] + series["width_s"]
            for at, replica, value in zip(
                end[order].tolist(), series["replica"][order].tolist(), series[key][order].tolist(), strict=True
            ):
                if np.isfinite(value):
                    yield f'{name}{{engine="{int(replica)}",{names.label}="{model}"}} {value:.9g} {at:.6f}\n'
        yield "# EOF\n"
