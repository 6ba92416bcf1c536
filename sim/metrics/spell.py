"""When it was bad, and for how long: the stretch of a run in which the SLO was missed. An average over the whole run hides it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from sim.ledger import Values as Array
from sim.metrics.section import Section
from sim.metrics.windows import stretches

_PER_WINDOW: Final = 50  # requests, on average
_WINDOWS: Final = (10, 240)
_FEWEST: Final = 8  # requests in a window that says something
_FALL: Final = 1.3  # the load has fallen where its peak was so many times what came after
_MOST: Final = 0.85  # of the run: longer is no spell but the run


@dataclass(frozen=True)
class Spell(Section):
    """The stretch in which most requests missed the SLO.

    ``start_s, end_s`` (of arrivals), ``requests`` that came in it, ``met`` their share that met the SLO, ``stretches`` how many there are and
    ``bad_s`` how long all are together, ``met_outside`` the share outside all of them, ``waiting_peak`` most requests that waited at once,
    ``offered_peak_per_s``, ``recovered``: it was good again before the run ended, ``recovery_s``: from the fall of the load to the end of the
    stretch (None: the load did not fall in it), ``width_s``: how finely this is told.
    """

    start_s: float
    end_s: float
    requests: int
    met: float
    stretches: int
    bad_s: float
    met_outside: float
    waiting_peak: int
    offered_peak_per_s: float
    recovered: bool
    recovery_s: float | None
    width_s: float


def worst_spell(columns: Mapping[str, Array], ok: Array, counted: Array, required: float) -> Spell | None:
    """None when there is no such stretch, or when it is (nearly) the whole run."""
    arrival = columns["arrival_s"]
    n = int(np.count_nonzero(counted))
    if n < _PER_WINDOW * _WINDOWS[0] // 2:
        return None
    at, good = arrival[counted], ok[counted]
    first, last = float(at.min()), float(at.max())
    if last <= first:
        return None
    windows = int(np.clip(n // _PER_WINDOW, *_WINDOWS))
    width = (last - first) / windows
    index = np.minimum(((at - first) / width).astype(np.int64), windows - 1)
    came, met = np.bincount(index, minlength=windows), np.bincount(index, good, windows)
    found = stretches(_bad(came, met, required))
    bad = np.zeros(windows, bool)
    for a, b in found:
        bad[a:b] = True
    outside = ~bad[index]
    if not found or bad.mean() > _MOST or not outside.any() or good[outside].mean() < required:
        return None  # bad elsewhere too: the whole run is to be judged
    lo, hi = max(found, key=lambda ab: float((came - met)[ab[0] : ab[1]].sum()))
    inside = (index >= lo) & (index < hi)
    start, end = first + lo * width, first + hi * width
    peak, fell = _fall(came / width, lo, hi)
    return Spell(
        start_s=start,
        end_s=end,
        requests=int(inside.sum()),
        met=float(good[inside].mean()),
        stretches=len(found),
        bad_s=float(bad.sum()) * width,
        met_outside=float(good[outside].mean()),
        waiting_peak=_waiting_peak(columns, start, end),
        offered_peak_per_s=peak,
        recovered=hi < windows,
        recovery_s=None if fell is None or hi == windows else (hi - fell) * width,
        width_s=width,
    )


def _bad(came: Array, met: Array, required: float) -> Array:
    """Which windows miss the SLO by more than chance; one with too few requests is as the one before it."""
    share = met / np.maximum(came, 1)
    bad = share < required - 2.0 * np.sqrt(required * (1.0 - required) / np.maximum(came, 1))
    sure = came >= _FEWEST
    told = np.maximum.accumulate(np.where(sure, np.arange(len(came)), 0))
    return np.asarray(bad[told] & sure[told])


def _fall(rate: Array, lo: int, hi: int) -> tuple[float, int | None]:
    """Highest rate of arrivals just before and in the stretch, and the window at which it has fallen again."""
    smooth = np.convolve(rate, np.ones(3) / 3, "same") if len(rate) >= 3 else rate
    a = max(lo - 2, 0)
    top = a + int(np.argmax(smooth[a:hi]))
    peak = float(smooth[top])
    after = float(np.median(rate[hi:])) if hi < len(rate) else float(rate[-1])
    if peak < _FALL * after:
        return peak, None
    high = np.flatnonzero(smooth[a:hi] > 0.5 * (peak + after))
    return peak, min(a + int(high[-1]) + 1, hi)


def _waiting_peak(columns: Mapping[str, Array], start: float, end: float) -> int:
    """Most requests that had been sent and not yet scheduled, at once, from ``start`` to ``end``."""
    arrival, begun = columns["arrival_s"], columns["first_scheduled_s"]
    gone = np.where(np.isnan(begun), columns["finish_s"], begun)
    gone = np.where(np.isnan(gone), np.inf, gone)
    times = np.sort(arrival[(arrival >= start) & (arrival <= end)])
    waiting = np.searchsorted(np.sort(arrival), times, "right") - np.searchsorted(np.sort(gone), times, "right")
    return int(waiting.max(initial=0))
