"""Rates of a run without its start and its drain: what a planner compares with the load that comes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from sim.ledger import Values as Array
from sim.metrics.section import Section

_CUT: Final = 0.1  # of the finishes at either end
_FEWEST: Final = 20
_RESIDENCES: Final = 3.0
_PER_PART: Final = 100  # requests, on average
_PARTS: Final = 60


@dataclass(frozen=True)
class Steady(Section):
    """Rates between the first and the last tenth of the finishes.

    All None with fewer than 20 of them, or where they span less than three times what a request takes once it runs: such a run fills and
    drains, and has no steady part.

    ``offered_requests_per_s``: arrivals, from the first to the last; ``…_peak…`` the most in any of up to 60 equal parts of that time.
    ``window_s``: seconds that the other rates are taken over.
    """

    offered_requests_per_s: float | None = None
    offered_peak_requests_per_s: float | None = None
    window_s: float | None = None
    requests_per_s: float | None = None
    output_tokens_per_s: float | None = None
    total_tokens_per_s: float | None = None
    goodput_requests_per_s: float | None = None
    goodput_output_tokens_per_s: float | None = None


def steady(columns: Mapping[str, Array], finished: Array, ok: Array, counted: Array, with_slo: bool) -> Steady:
    """``steady`` of a summary; b1[n]: ``finished``, ``ok`` within its targets, ``counted`` at all."""
    out: dict[str, float] = {}
    arrival = columns["arrival_s"][counted]
    if arrival.size > 1 and arrival.max() > arrival.min():
        out["offered_requests_per_s"] = (arrival.size - 1) / float(arrival.max() - arrival.min())
        out["offered_peak_requests_per_s"] = _peak(arrival)
    end = columns["finish_s"][finished]
    if end.size < _FEWEST:
        return Steady(**out)
    a, b = np.quantile(end, [_CUT, 1.0 - _CUT])
    window = float(b - a)
    runs = float((end - columns["first_scheduled_s"][finished]).mean())
    if window <= 0 or window < _RESIDENCES * runs:
        return Steady(**out)
    inside = (end > a) & (end <= b)
    output = columns["output_tokens"][finished][inside].astype(float)
    good = ok[finished][inside]
    out |= {
        "window_s": window,
        "requests_per_s": float(np.count_nonzero(inside)) / window,
        "output_tokens_per_s": float(output.sum()) / window,
        "total_tokens_per_s": float(output.sum() + columns["prompt_tokens"][finished][inside].sum()) / window,
    }
    if with_slo:
        out["goodput_requests_per_s"] = float(np.count_nonzero(good)) / window
        out["goodput_output_tokens_per_s"] = float(output[good].sum()) / window
    return Steady(**out)


def _peak(arrival: Array) -> float:
    parts = int(np.clip(arrival.size // _PER_PART, 1, _PARTS))
    count, edges = np.histogram(arrival, parts)
    return float(count.max() / (edges[1] - edges[0]))
