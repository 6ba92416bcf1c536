"""How busy each replica's link for KV is, over time."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Final, cast

import numpy as np

from sim.metrics.facts import Facts
from sim.metrics.section import Extra, Section
from sim.registry import register

_BINS: Final = 60
_MOST: Final = 64


@dataclass(frozen=True)
class Port(Section):
    """``busy``: share of the whole time; ``busy_share``: of each bin."""

    replica: int
    transfers: int
    busy: float
    busy_share: tuple[float, ...]


@register("section")
@dataclass(frozen=True)
class Links(Extra):
    """Of disaggregated deployments: ``time_s``: middles of the bins; ``ports``: of the busiest replicas, busiest first."""

    name = "links"

    width_s: float
    time_s: tuple[float, ...]
    ports: tuple[Port, ...]

    @classmethod
    def of(cls, facts: Facts) -> Links | None:
        """Of a run in which KV travelled."""
        found = cast("tuple[array[int], array[float], array[float]] | None", facts.record.stations.get("links"))
        if found is None or not len(found[0]) or facts.horizon <= 0:
            return None
        replica, start, length = np.array(found[0]), np.array(found[1]), np.array(found[2])
        width = facts.horizon / _BINS
        n = int(replica.max()) + 1
        busy = np.zeros((n, _BINS))
        lo = np.clip((start / width).astype(np.int64), 0, _BINS - 1)
        hi = np.clip(((start + length) / width).astype(np.int64), 0, _BINS - 1)
        for k in range(int((hi - lo).max()) + 1):  # a transfer lies in few bins
            mine = lo + k <= hi
            a = np.maximum(start[mine], (lo[mine] + k) * width)
            b = np.minimum(start[mine] + length[mine], (lo[mine] + k + 1) * width)
            np.add.at(busy, (replica[mine], lo[mine] + k), np.maximum(b - a, 0.0))
        share = np.minimum(busy / width, 1.0)
        counts = np.bincount(replica, minlength=n)
        order = np.argsort(-busy.sum(axis=1), kind="stable")[:_MOST]
        ports = tuple(Port(int(r), int(counts[r]), float(share[r].mean()), tuple(share[r].tolist())) for r in order if counts[r])
        return cls(width, tuple(((np.arange(_BINS) + 0.5) * width).tolist()), ports)
