"""``load`` of a summary: how much of what could be served was asked for."""

from __future__ import annotations

from dataclasses import dataclass

from sim.metrics.section import Section


@dataclass(frozen=True)
class Load(Section):
    """Offered and possible requests per second, whatever the latency, and their ratio on average and at the peak."""

    offered_requests_per_s: float
    could_serve_requests_per_s: float
    share: float
    peak_share: float
