"""Whether requests come for long enough to show which rate a deployment holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from sim.units import show_number, show_seconds

if TYPE_CHECKING:
    from sim.study.figures import Figures

_RESIDENCES: Final = 5.0
"""Requests must come for so many times as long as one of them takes: in less there is nothing but the start and the end of a run."""


def too_few(summary: Figures) -> str:
    """Said where no rate was too high for a deployment."""
    n = summary.requests.injected
    many = f"even where all {n:,} requests come" if n > 1 else "for the one request that comes"
    return f"{many} at once: too few to find the rate that it holds. Send more of them."


def too_short(held: Sequence[Figures], rate: float) -> list[str]:
    """A warning where the requests come, at ``rate`` per second, for too short a time. ``held``: summaries of runs below it."""
    known = [(mean, s.requests.injected) for s in held if (mean := s.latency.e2e.mean)]
    if not known:
        return []
    took, n = max(known, key=lambda pair: pair[0])
    if n / rate >= _RESIDENCES * took:
        return []
    text = f"At {show_number(rate)} requests/s the {n:,} requests come within {show_seconds(n / rate)}, and one takes {show_seconds(took)}: "
    return [
        text
        + f"too short to show what is held for long, which is less; send {math.ceil(4 * _RESIDENCES * took * rate):,} or more."
    ]
