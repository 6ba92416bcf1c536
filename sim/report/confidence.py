"""How much one run is worth, in words; and the figures of many runs in a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rich.text import Text

from sim.report import words

SHOWN: Final[dict[str, tuple[str, Any]]] = {
    "latency.ttft_s.p99": ("TTFT p99", words.seconds),
    "latency.tpot_s.p99": ("TPOT p99", words.seconds),
    "latency.e2e_s.p99": ("E2E p99", words.seconds),
    "slo.attainment.joint": ("SLO met", lambda v: words.percent(v, 2)),
    "throughput.requests_per_s": ("requests/s", words.number),
}


def one_run(found: Mapping[str, Any]) -> list[Text]:
    """One line: the intervals of the figures that decide. ``found``: the ``confidence`` of a summary."""
    parts = []
    for path, (title, show) in SHOWN.items():
        interval = found["intervals"].get(path)
        if interval is not None:
            parts.append(f"{title} {span(interval, show)}")
    if not parts:
        return [Text("Too few requests to say how sure these figures are: at least 100 are needed.", style="yellow")]
    return [Text(f"One run, {found['level']:.0%} intervals: {', '.join(parts)}. Other seeds: --replications 5.", style="dim")]


def span(interval: Mapping[str, Any], show: Any) -> str:
    """``203 to 251 ms``; open above where nothing bounds it."""
    low, high = interval["low"], interval["high"]
    if high is None:
        return f"at least {show(low)} (too few requests for more)"
    first, second = show(low), show(high)
    unit = first.rpartition(" ")[2]
    if " " in first and second.endswith(f" {unit}"):
        first = first.rpartition(" ")[0]
    return f"{first} to {second}"


def caution(found: Mapping[str, Any]) -> list[Text]:
    """What must stand on the first line; empty for a run that settles."""
    return [Text(found["stationary"], style="bold yellow")] if found["stationary"] else []
