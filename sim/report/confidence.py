"""How much one run is worth, in words; and the figures of many runs in a table."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from rich.text import Text

from sim.metrics.definitions import LATENCIES, definition
from sim.report import words
from sim.report.templating import Table

if TYPE_CHECKING:
    from sim.metrics.summary import Summary
    from sim.study.statistics.interval import Interval
    from sim.study.statistics.worth import Worth

Show = Callable[[float], str]
SHOWN: Final[dict[str, tuple[str, Show]]] = {
    "latency.ttft_s.p99": ("TTFT p99", words.seconds),
    "latency.tpot_s.p99": ("TPOT p99", words.seconds),
    "latency.e2e_s.p99": ("E2E p99", words.seconds),
    "slo.attainment.joint": ("SLO met", lambda v: words.percent(v, 2)),
    "throughput.requests_per_s": ("requests/s", words.number),
}


TITLES: Final = {
    "slo.attainment.joint": "SLO attainment",
    "throughput.requests_per_s": "Requests/s between the first and the last arrival",
    "throughput.output_tokens_per_s": "Output tokens/s between the first and the last arrival",
}


def one_run(found: Worth, summary: Summary) -> list[Text]:
    """One line: the intervals of the figures that decide; times in the units of the table of ``summary``."""
    if unsure := none(found):
        return [Text(unsure, style="yellow")]
    parts = []
    for path, (title, show) in SHOWN.items():
        interval = found.intervals.get(path)
        if interval is not None and math.isfinite(interval.high):  # others are in the footnote
            row = path.split(".")[1]
            if row in LATENCIES:
                unit = words.unit_of(summary.latency[row])
                show = partial(words.in_row, unit=unit)
            parts.append(f"{title} {span(interval, show)}")
    known = f"One run, {found.level:.0%} intervals: {', '.join(parts)}. Other seeds: --replications 5."
    lines = [Text(known, style="dim")] if parts else []
    return lines + [Text(f"{words.STAR} {sentence}", style="yellow") for sentence in few(found, summary)]


def none(found: Worth) -> str:
    """Why nothing is said of how sure one run is; empty where something is."""
    if not found.intervals:
        return "Too few requests to say how sure these figures are: at least 100 are needed."
    if found.stationary:
        return "How sure these figures are, a run that is not stationary cannot tell by itself. Other seeds do: --replications 5."
    return ""


def few(found: Worth, summary: Summary) -> list[str]:
    """Percentiles that nothing bounds from above, with what is known of them, in the units of the table of ``summary``."""
    out = []
    for key in ("ttft_s", "tpot_s", "e2e_s"):
        for name, title in (("p99", "p99"), ("p999", "p99.9")):
            interval = found.shown().get(f"latency.{key}.{name}")
            if interval is not None and not math.isfinite(interval.high):
                out.append(
                    f"{title} of {definition(key).title} at least {words.in_row(interval.low, words.unit_of(summary.latency[key]))}"
                )
                break
    return [f"Too few independent requests to bound from above: {'; '.join(out)}."] if out else []


def table(found: Worth) -> Table:
    """Every interval of one run."""
    rows = []
    for path, interval in found.intervals.items():
        kind, *rest = path.split(".")
        name = words.PERCENTILE_TITLES.get(rest[-1], rest[-1])
        title = f"{definition(rest[0]).title}, {name}" if kind == "latency" else TITLES[path]
        show: Show = words.seconds if kind == "latency" else SHOWN[path][1] if path in SHOWN else words.number
        high = show(interval.high) if math.isfinite(interval.high) else "open"
        rows.append([title, show(interval.value), show(interval.low), high, f"{round(interval.n, 1):,.0f}"])
    return Table(["figure", "this run", "from", "to", "worth, independent observations"], rows)


def span(interval: Interval, show: Show) -> str:
    """``203 to 251 ms``."""
    first, second = show(interval.low), show(interval.high)
    unit = first.rpartition(" ")[2]
    if " " in first and second.endswith(f" {unit}"):
        first = first.rpartition(" ")[0]
    return f"{first} to {second}"


def caution(stationary: str) -> list[Text]:
    """What must stand on the first line; empty for a run that settles."""
    return [Text(stationary, style="bold yellow")] if stationary else []
