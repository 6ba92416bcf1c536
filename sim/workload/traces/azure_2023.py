"""Azure LLM inference traces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim.registry import register
from sim.workload.table import RequestBlock
from sim.workload.traces._base import Trace
from sim.workload.traces._columns import ARRIVAL, Column, arrivals, read_csv, since_first, tokens
from sim.workload.traces._source import Source


@register("trace")
class Azure2023(Trace):
    """``TIMESTAMP,ContextTokens,GeneratedTokens`` with stamps such as ``2023-11-16 18:17:03.9799600`` (no zone, or an offset).

    Also reads copies whose columns were renamed to ``arrival_s,input_tokens,output_tokens``.

    *Source*: github.com/Azure/AzurePublicDataset, AzureLLMInferenceTrace 2023 and 2024.
    """

    name = "azure-2023"
    aliases = ("azure-2024",)

    def read(self, path: Path) -> RequestBlock:
        """All requests of a file."""
        source = Source(path)
        wanted = {
            "arrival": ("TIMESTAMP", *ARRIVAL),
            "prompt": ("ContextTokens", "input_tokens"),
            "output": ("GeneratedTokens", "output_tokens"),
        }
        table = read_csv(source, wanted)
        stamped = table["arrival"].name == "TIMESTAMP"
        arrival = _seconds(source, table["arrival"]) if stamped else arrivals(source, table["arrival"], 1.0)
        return RequestBlock.of(arrival, tokens(source, table["prompt"]), tokens(source, table["output"]))


def _seconds(source: Source, column: Column) -> NDArray[np.float64]:
    import pandas as pd

    rule = "must be a time such as '2023-11-16 18:17:03.9799600'"
    if column.values.dtype.kind in "iufb":
        source.fail_at(0, column.name, column.values.iloc[0], rule)
    stamps = pd.to_datetime(column.values, format="ISO8601", utc=True, errors="coerce")
    bad = stamps.isna().to_numpy()
    if not bad.all():
        bad = bad | ((stamps.dt.year < 1970) | (stamps.dt.year > 2261)).to_numpy()  # what nanoseconds in 64 bits can hold
    if bad.any():
        row = int(np.argmax(bad))
        value = column.values.iloc[row]
        source.fail_at(row, column.name, "" if value != value else value, rule)
    nanoseconds = stamps.dt.tz_convert(None).to_numpy().astype("datetime64[ns]").astype(np.int64)
    return since_first(source, column, nanoseconds) * 1e-9
