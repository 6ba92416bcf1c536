"""How a benchmark sent its requests, and when the simulation sends them again."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from sim.ledger import Values as Array
from sim.streams import stream

if TYPE_CHECKING:
    from sim.study.accuracy.point import Told

_SLOWEST = 1e-9


@dataclass(frozen=True)
class Sent:
    """How requests were sent: their times where the file has them, else what the tool was told."""

    start: Array | None = None
    rate: float | None = None
    concurrency: int | None = None
    burstiness: float = 1.0
    ramp: tuple[str, float, float] | None = None
    """Strategy (linear, exponential), first and last rate."""
    constant: bool = False
    """Evenly spaced instead of drawn."""


def _plain() -> Told:
    return {"kind": "trace"}


@dataclass(frozen=True)
class Planned:
    """Seconds [n], the kind of traffic, what was assumed; or why it cannot be known."""

    arrival_s: Array = field(default_factory=lambda: np.zeros(0))
    traffic: Told = field(default_factory=_plain)
    notes: tuple[str, ...] = ()
    refused: str = ""


def planned(sent: Sent, n: int) -> Planned:
    """When ``n`` requests are sent."""
    rate, limit = sent.rate, sent.concurrency
    for told in (rate, *(sent.ramp[1:] if sent.ramp else ())):
        if told is not None and not told >= _SLOWEST:
            return Planned(refused=f"a rate of {told:g} requests/s is no rate")
    if limit and sent.ramp is None and (rate is None or math.isinf(rate)):
        return Planned(np.zeros(n), {"kind": "closed_loop", "concurrency": int(limit)})
    if sent.start is not None:
        limited = (f"requests are sent when the file says; its limit of {limit} in flight is not applied again",) if limit else ()
        return _trace(sent.start, *limited)
    if limit and limit < n:
        drawn = planned(replace(sent, concurrency=None), n)
        said = f"no more than {limit} of them in flight: a request that would be is sent when one has ended"
        kind: Told = {"kind": "closed_loop", "concurrency": int(limit), "paced": True}
        return replace(drawn, traffic=kind, notes=(*drawn.notes, said)) if not drawn.refused else drawn
    if sent.ramp is not None:
        return _trace(_ramped(sent, n), f"arrivals drawn along the {sent.ramp[0]} ramp: the file has no start times")
    if rate is None:
        return Planned(refused="does not say how requests were sent: neither start times, a rate nor a concurrency")
    if math.isinf(rate):
        return _trace(np.zeros(n))
    if sent.constant:
        return _trace(np.arange(n) / rate, f"arrivals every 1/{rate:g} s: the file has no start times")
    at = np.cumsum(stream(0, "bench.arrivals").standard_gamma(sent.burstiness, n))
    what = "Poisson" if sent.burstiness == 1.0 else f"gamma (burstiness {sent.burstiness:g})"
    said = f"{what} arrivals drawn at {rate:g}/s, scaled to last n/rate as the tool does: the file has no start times"
    return _trace(at * (n / rate / at[-1]), said)


def _trace(arrival_s: Array, *notes: str) -> Planned:
    return Planned(np.asarray(arrival_s, float), {"kind": "trace"}, notes)


def _ramped(sent: Sent, n: int) -> Array:
    assert sent.ramp is not None
    strategy, first, last = sent.ramp
    progress = np.arange(n) / max(n - 1, 1)
    rates = first + (last - first) * progress if strategy == "linear" else first * (last / first) ** progress
    gaps = stream(0, "bench.arrivals").standard_gamma(sent.burstiness, n) / (sent.burstiness * rates)
    at: Array = np.cumsum(gaps)
    return at
