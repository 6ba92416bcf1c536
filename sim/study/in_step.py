"""Whether waiting clients march in step: requests of equal lengths end together, so that their successors come, and are computed, together too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sim.config.traffic import Traffic

_FEWEST: Final = 4
"""Clients and rounds from which on it matters."""
_SHARE: Final = 0.5
"""Share of later requests that come together with half of all clients."""


def note(traffic: Traffic, arrivals: NDArray[np.float64]) -> str:
    """What a run of waiting clients that march in step does not say of others; empty for all other runs. ``arrivals``: of all requests, seconds."""
    loop = traffic.closed_loop
    if loop is None or loop.paced or loop.concurrency < _FEWEST or len(arrivals) < _FEWEST * loop.concurrency:
        return ""
    times, together = np.unique(np.round(arrivals, 6), return_counts=True)
    later = together[times > times[0]]
    crowded = later[later >= max(_FEWEST, loop.concurrency / 2)]
    if not later.size or crowded.sum() < _SHARE * later.sum():
        return ""
    share = crowded.sum() / later.sum()
    return (
        f"{loop.concurrency} clients march in step: {share:.0%} of requests after the first come together with half of the clients or more, as "
        "answers are equally long. TTFT, and with it TPOT, hang on that: clients of real lengths drift apart (lengths: {kind: uniform} tells)"
    )
