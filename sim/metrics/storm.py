"""A storm of retries: when it began, whether it ended, and whether it outlives its cause.

A *storm*: windows in which clients send at least `_STORM` times as much as they want. It is *metastable* when the load that clients want has been
back where it was before for at least a fifth of the run and most requests still fail or come too late: retries alone keep the fleet overloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from sim.ledger import Values as Array
from sim.metrics.section import Section
from sim.metrics.windows import stretches
from sim.units import show_number

_STORM: Final = 1.5
_WINDOWS: Final = 120
_FEWEST: Final = 30  # requests below which no storm is told from chance
_BACK: Final = 1.15  # the load is back when it is no more than so many times what it was before the storm
_GOOD: Final = 0.5  # of the requests: fewer that are answered is no service


@dataclass(frozen=True)
class Storm(Section):
    """The longest storm of retries. ``width_s``: how finely it is told."""

    start_s: float
    end_s: float
    peak: float
    ended: bool
    before_per_s: float
    wanted_per_s: float
    load_back_s: float | None
    served_after: float | None
    metastable_s: float
    width_s: float

    def sentences(self) -> list[str]:
        """In words."""
        lasted = (
            f"from {self.start_s:,.0f} s to {self.end_s:,.0f} s" if self.ended else f"from {self.start_s:,.0f} s on, without end"
        )
        out = [f"retry storm {lasted}: up to {self.peak:.1f} attempts for each request wanted"]
        if self.metastable_s > 0.0:
            out.append(
                f"metastable: since {self.load_back_s:,.0f} s clients want no more than before the storm "
                f"({show_number(self.before_per_s)} requests/s), yet only {self.served_after:.0%} are served: retries alone keep it overloaded"
            )
        return out


def storm(arrival: Array, retries: Array, ok: Array) -> Storm | None:
    """The longest storm; None: there was none. ``arrival``, ``retries``: when requests and attempts after the first were sent; ``ok``: who got what.

    ``peak``: most attempts per request wanted, in a window; ``ended`` before the last request came; ``before_per_s`` and ``wanted_per_s``: requests
    wanted before it and when most were; ``load_back_s``: from when on clients wanted no more than before (None: never in it); ``served_after``:
    share of the requests from then on that were answered as wanted; ``metastable_s``: how long it outlived its cause, 0 where it did not.
    """
    n = arrival.size
    if n < _FEWEST or retries.size < 0.2 * _FEWEST:
        return None
    order = np.argsort(arrival, kind="stable")
    arrival, ok = arrival[order], ok[order]
    first, last = float(arrival[0]), float(arrival[-1])
    if last <= first:
        return None
    windows = int(np.clip(n // _FEWEST, 8, _WINDOWS))
    width = (last - first) / windows
    edges = first + width * np.arange(windows + 1)
    edges[-1] = np.nextafter(last, np.inf)
    came = np.histogram(arrival, edges)[0].astype(float)
    again = np.histogram(retries, edges)[0]
    served = np.add.reduceat(np.append(ok, False).astype(float), np.minimum(np.searchsorted(arrival, edges[:-1]), n)) * (came > 0)
    floor = max(float(came.mean()) * 0.25, 1.0)
    ratio = 1.0 + again / np.maximum(came, floor)
    found = stretches(ratio >= _STORM)
    if not found:
        return None
    lo, hi = max(found, key=lambda ab: ab[1] - ab[0])
    normal = float(np.median(came[:lo])) if lo > 0 else float(np.median(came))
    peak = lo + int(np.argmax(came[lo:hi]))
    back = _back(came, peak, hi, normal)
    after = served[back:hi].sum() / max(came[back:hi].sum(), 1.0) if back is not None and back < hi else None
    lasting = back is not None and hi - back >= max(0.2 * windows, 3)
    metastable = bool(lasting and after is not None and after < _GOOD and came[peak] > _limit(normal))
    end = float(edges[hi]) if hi < windows else last
    return Storm(
        start_s=float(edges[lo]),
        end_s=end,
        peak=float(ratio[lo:hi].max()),
        ended=hi < windows,
        before_per_s=normal / width,
        wanted_per_s=float(came[peak]) / width,
        load_back_s=None if back is None else float(edges[back]),
        served_after=None if after is None else float(after),
        metastable_s=end - float(edges[back]) if metastable and back is not None else 0.0,
        width_s=width,
    )


def _back(came: Array, peak: int, hi: int, normal: float) -> int | None:
    """The window from which on the load stays where it was before."""
    smooth = np.convolve(np.concatenate([came[:1], came, came[-1:]]), np.ones(3) / 3, "valid")
    high = np.flatnonzero(smooth[peak:hi] > _limit(normal))
    back = peak + (int(high[-1]) + 1 if high.size else 0)
    return back if back < hi else None


def _limit(normal: float) -> float:
    """Requests in a window that are more than before, and more than chance."""
    return max(_BACK * normal, normal + 2.5 * float(np.sqrt(normal)))
