"""How bad a spike is, for how long, and whether the fleet comes back by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from sim.ledger import Values as Array

_WINDOWS_IN_SPIKE = 12
_FEWEST = 20  # requests of a window, on average
_QUIET = 6  # good windows in a row that count as recovered


@dataclass(frozen=True)
class Windows:
    """Requests by time of arrival: ``start_s[i]``, the share that met the SLO (NaN: nobody came), TTFT p99, and how many."""

    width_s: float
    start_s: list[float]
    attainment: list[float | None]
    ttft_p99_s: list[float | None]
    requests: list[int]


@dataclass(frozen=True)
class Recovery:
    """``recovered_s``: from the end of the spike until the windows are good again and stay so for a while; 0: none was bad; None: not within
    the run.

    ``expected_s``: time to work off the queue that the spike leaves, at the capacity that was measured; None: unknown.
    ``stuck``: it did not come back within three times that, though the load is below the capacity: a metastable state.
    ``before``: the SLO was missed before the spike too, so that there is nothing to come back to.
    """

    load: float
    factor: float
    duration_s: float
    recovered_s: float | None
    expected_s: float | None
    worst_ttft_s: float | None
    missed: int
    stuck: bool
    before: bool = False


def windows(columns: Mapping[str, Array], width: float) -> Windows:
    """The request table by windows of ``width`` seconds."""
    arrival = columns["arrival_s"]
    ok = columns["slo_met"]
    at = np.floor(arrival / width).astype(np.int64)
    n = int(at.max()) + 1 if at.size else 0
    count = np.bincount(at, minlength=n)
    good = np.bincount(at, weights=ok, minlength=n)
    p99: list[float | None] = []
    order = np.argsort(at, kind="stable")
    edges = np.concatenate([[0], np.cumsum(count)])
    for i in range(n):
        ttft = columns["ttft_s"][order[edges[i] : edges[i + 1]]]
        ttft = ttft[~np.isnan(ttft)]
        p99.append(float(np.percentile(ttft, 99)) if ttft.size else None)
    share = [float(g / c) if c else None for g, c in zip(good, count, strict=True)]
    return Windows(width, [i * width for i in range(n)], share, p99, [int(c) for c in count])


def bad_windows(seen: Windows, required: float) -> list[bool]:
    """Windows that miss the SLO by more than chance: more misses than all but one in a thousand windows that just hold it would have."""
    out = []
    for share, n in zip(seen.attainment, seen.requests, strict=True):
        allowed = float(stats.binom.ppf(0.999, n, 1.0 - required)) if n else 0.0
        out.append(share is not None and round((1.0 - share) * n) > allowed)
    return out


def _settled(seen: Windows, bad: list[bool], end: float) -> float | None:
    """Seconds from ``end`` until the first of `_QUIET` good windows in a row (or of all that are left, if half as many); None: never."""
    n = len(bad)
    for i in range(n):
        if seen.start_s[i] + seen.width_s <= end:
            continue
        left = bad[i : i + _QUIET]
        if not any(left) and (len(left) == _QUIET or (i > 0 and len(left) >= _QUIET // 2)):
            return max(seen.start_s[i] - end, 0.0)
    return None


def width_for(rate: float, duration: float) -> float:
    """Seconds of a window: a part of the spike, but with enough requests to judge."""
    return max(duration / _WINDOWS_IN_SPIKE, _FEWEST / rate)


def judge(
    columns: Mapping[str, Array], required: float, rate: float, spike: tuple[float, float, float], capacity: float | None
) -> tuple[Windows, Recovery]:
    """What a run with a spike shows, of which a share ``required`` must meet the SLO. ``rate`` of the plain traffic and ``capacity`` in requests per second."""
    factor, start, duration = spike
    seen = windows(columns, width_for(rate, duration))
    end = start + duration
    bad = bad_windows(seen, required)
    hit = [i for i in range(len(bad)) if bad[i] and seen.start_s[i] + seen.width_s > start]
    first = [bad[i] for i in range(len(bad)) if seen.start_s[i] + seen.width_s <= start and seen.requests[i]]
    before = 2 * sum(first) > len(first)
    recovered: float | None = 0.0
    if hit:
        recovered = _settled(seen, bad, end)
    expected = None
    if capacity is not None and capacity > rate:
        expected = max(factor * rate - capacity, 0.0) * duration / (capacity - rate)
    ok = columns["slo_met"]
    hurt = columns["arrival_s"] >= start
    ttft = columns["ttft_s"][hurt]
    worst = float(np.nanmax(ttft)) if ttft.size and not np.isnan(ttft).all() else None
    horizon = float(columns["arrival_s"].max()) - end if columns["arrival_s"].size else 0.0
    limit = math.inf if expected is None else 3.0 * expected + 2.0 * seen.width_s
    stuck = (recovered is None and horizon > limit) or (recovered is not None and recovered > limit)
    return seen, Recovery(
        rate, factor, duration, recovered, expected, worst, int((hurt & ~ok).sum()), stuck and not before, before
    )
