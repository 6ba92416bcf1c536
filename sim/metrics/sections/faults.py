"""What broke, whom it hurt, what it cost of the SLO, and when all was as before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

import numpy as np

from sim.ledger import Values as Array
from sim.metrics.facts import Facts
from sim.metrics.faults import Incident
from sim.metrics.section import Extra, Section
from sim.registry import register

SHOWN: Final = 100
"""Incidents that are listed one by one; of more, those that cost most."""
_WINDOW: Final = 40  # requests that tell whether it is good again


@dataclass(frozen=True)
class IncidentRow(Section):
    """``hurt``: requests that it cut off; ``missed``: requests that came until it was good again and missed the SLO; ``recovery_s``: from its beginning
    until it was good again, 0 where it never was bad, None where the run ended before.
    """

    kind: str
    words: str
    start_s: float
    end_s: float
    replica: int
    hurt: int
    missed: int
    recovery_s: float | None


@register("section")
@dataclass(frozen=True)
class Faults(Extra):
    """The faults of a run. ``down_s``: replica seconds without service."""

    name = "faults"

    count: int
    by_kind: Mapping[str, int]
    hurt: int
    missed: int
    down_s: float
    recovery_worst_s: float | None
    unrecovered: int
    incidents: tuple[IncidentRow, ...]

    @classmethod
    def of(cls, facts: Facts) -> Faults | None:
        """Of a run in which something could break."""
        found = cast("Sequence[Incident] | None", facts.record.stations.get("faults"))
        if found is None:
            return None
        rows = _rows(found, facts)
        worst = sorted(rows, key=lambda r: (-r.missed, r.start_s))[:SHOWN]
        recovered = [r.recovery_s for r in rows if r.recovery_s is not None]
        return cls(
            count=len(rows),
            by_kind=dict(sorted(Counter(r.kind for r in rows).items())),
            hurt=sum(r.hurt for r in rows),
            missed=sum(r.missed for r in rows),
            down_s=float(sum(i.end_s - i.start_s for i in found if i.kind in ("crash", "rank"))),
            recovery_worst_s=max(recovered, default=None),
            unrecovered=sum(r.recovery_s is None for r in rows),
            incidents=tuple(sorted(worst, key=lambda r: r.start_s)),
        )

    def sentences(self) -> list[str]:
        """In words, for the first screen."""
        if not self.count:
            return ["nothing broke"]
        if self.count > 3:
            kinds = ", ".join(f"{n:,} × {kind}" for kind, n in self.by_kind.items())
            text = f"{self.count:,} faults ({kinds}) cut off {self.hurt:,} requests; {self.missed:,} missed the SLO until it was good again"
            if self.recovery_worst_s:
                text += f", which took {self.recovery_worst_s:,.0f} s at most"
            return [text]
        return [_sentence(row) for row in self.incidents]


def _sentence(row: IncidentRow) -> str:
    text = f"at {row.start_s:,.0f} s {row.words}" + (f", until {row.end_s:,.0f} s" if row.end_s > row.start_s else "")
    text += f": {row.hurt:,} requests were cut off" if row.hurt else ""
    if row.recovery_s is None:
        return f"{text}; it was not good again before the run ended ({row.missed:,} requests missed the SLO)"
    if row.recovery_s == 0.0:
        return f"{text}; the SLO was held all the time"
    return f"{text}; {row.missed:,} requests missed the SLO, after {row.recovery_s:,.0f} s it was good again"


def _rows(found: Sequence[Incident], facts: Facts) -> list[IncidentRow]:
    order = np.argsort(facts.columns["arrival_s"], kind="stable")
    order = order[facts.counted[order]]
    arrival, ok = facts.columns["arrival_s"][order], facts.ok[order]
    required = min(facts.record.slo.required, float(ok.mean()) if ok.size else 1.0)
    bad, reach = _bad_windows(ok, required), _reach(arrival)
    return [_row(i, arrival, ok, bad, reach) for i in found]


def _row(incident: Incident, arrival: Array, ok: Array, bad: Array, reach: float) -> IncidentRow:
    i = incident
    lo = int(np.searchsorted(arrival, i.start_s - reach))
    recovery: float | None = 0.0
    missed = 0
    until = max(i.end_s, i.start_s)
    for start, end in _bad_stretches(ok[lo:], bad[lo:]):
        came, left = float(arrival[lo + start]), float(arrival[min(lo + end, arrival.size - 1)])
        if came > until + reach:
            break
        until = max(until, left)
        missed = int(np.count_nonzero(~ok[lo : lo + end]))
        recovery = max(left - i.start_s, 0.0) if lo + end < ok.size else None
    return IncidentRow(i.kind, i.words, i.start_s, i.end_s, i.replica, i.hurt, missed, recovery)


def _reach(arrival: Array) -> float:
    """So long before a fault a request may have come that it hurts: the time of one window."""
    return float(arrival[-1] - arrival[0]) / arrival.size * _WINDOW if arrival.size > 1 else 0.0


def _bad_windows(ok: Array, required: float) -> Array:
    """b1: whether the `_WINDOW` requests from each one on miss the SLO by more than chance; empty where there are fewer."""
    if ok.size <= _WINDOW:
        return np.zeros(0, bool)
    share = np.convolve(ok.astype(float), np.ones(_WINDOW) / _WINDOW, "valid")
    bad: Array = share < required - 2.0 * np.sqrt(required * (1.0 - required) / _WINDOW) - 1e-9
    return bad


def _bad_stretches(ok: Array, bad: Array) -> list[tuple[int, int]]:
    """Stretches [lo, hi) of requests of bad windows; of few requests all, if any missed."""
    n = ok.size
    if n <= _WINDOW:
        return [(0, n)] if n and not ok.all() else []
    edges = np.flatnonzero(np.diff(np.concatenate([[0], bad.astype(int), [0]])))
    return [(int(a), min(int(b) + _WINDOW - 1, n)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
