"""Does a run settle? What has no steady state has no mean to be estimated: its figures depend on how long one looks."""

from __future__ import annotations

from math import sqrt

import numpy as np

from sim.ledger import Values

_WINDOWS = 20
_LEAST = 200
_LOAD = 1.5  # the busiest twentieth of the run against the calmest one
_SURE = 4.0  # standard deviations of a queue that only fluctuates
_RISE = 3.0  # backlog at the end against the middle
_LONGER = 1.2  # time in the system of the last quarter of the requests against the second quarter


def judge(arrival_s: Values, finish_s: Values, *, closed_loop: bool = False) -> str:
    """Why the run is not stationary, in one sentence; empty when nothing speaks against it.

    ``finish_s``: when each request left, NaN while it had not. A closed loop cannot be overloaded: who waits does not send.
    """
    n = len(arrival_s)
    if n < _LEAST or closed_loop:
        return ""
    arrivals = np.sort(arrival_s)
    start, end = float(arrivals[0]), float(arrivals[-1])
    if not end > start:
        return ""
    gone = np.sort(np.where(np.isnan(finish_s), np.inf, finish_s))
    times = np.linspace(start, end, _WINDOWS + 1)[1:]
    inside = np.searchsorted(arrivals, times, "right") - np.searchsorted(gone, times, "right")
    share = inside[-1] / n
    gaps = np.diff(arrivals)
    mean = float(gaps.mean())
    fluctuation = sqrt(n * (1.0 + float(gaps.var()) / (mean * mean) if mean > 0 else 2.0 * n))
    late = float(inside[-3:].mean())
    middle = float(inside[_WINDOWS // 4 : _WINDOWS // 2].mean())
    rising = float(np.mean(np.diff(inside.astype(float)) > 0))
    filling = _spent(arrival_s, finish_s, 0.75, 1.0) < _LONGER * _spent(arrival_s, finish_s, 0.25, 0.5)
    if late > _SURE * fluctuation / 2.0 and late > _RISE / 2.0 * middle and rising > 0.5 and not filling:
        return (
            f"Not stationary: more arrives than is served. {inside[-1]:,} requests ({share:.0%} of all) were unanswered when the last "
            "one arrived, and latencies grow with the length of the run."
        )
    counts = np.diff(np.searchsorted(arrivals, np.concatenate([[start], times]), "right"))
    if counts.min() * _LOAD < counts.max() and counts.max() - counts.min() > 8.0 * sqrt(n / _WINDOWS):
        return "Not stationary: the offered load changes during the run, so its figures describe this course of load, not a steady state."
    if late > _RISE * max(middle, 1.0) and rising > 0.7 and late > fluctuation / 2.0 and not filling:
        return "Perhaps not stationary: the backlog grows to the end of the run; a longer run would tell."
    return ""


def _spent(arrival_s: Values, finish_s: Values, first: float, last: float) -> float:
    """Mean time in the system of a part of the requests, by their arrival; those that never left count to the end of the run.

    More and more requests are inside, too, while a system fills that is short of nothing: but none of them stays longer than those before it.
    """
    order = np.argsort(arrival_s, kind="stable")[int(first * len(arrival_s)) : int(last * len(arrival_s))]
    end = max(float(arrival_s.max()), float(np.nanmax(finish_s, initial=-np.inf)))
    left = np.where(np.isnan(finish_s[order]), end, finish_s[order])
    return float((left - arrival_s[order]).mean())
