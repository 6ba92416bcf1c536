"""Where the KV memory of a replica went: pools of their own, or kinds of layer that share one; how full, and which the queue waited for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from sim.metrics.facts import Facts
from sim.metrics.section import Extra, Section
from sim.registry import register

_POINTS = 200  # of the series in a summary
_WAITED = 0.05  # share of the time from which on it is said, as with KV blocks


class KvUse(NamedTuple):
    """What a run leaves of a deployment pool whose replicas have several: (name, size, unit) of each; f8[replica, pool, 3] used × time, most
    used, time waited for; f8[replica, bin, pool] used × time; f8[replica] width of the bins in seconds. ``shared``: they are kinds of layer that
    share one pool, each with the size of the whole; time waited counts for the one that held most.
    """

    deployment: str
    pools: Sequence[tuple[str, int, str]]
    use: NDArray[np.float64]
    series: NDArray[np.float64]
    width: NDArray[np.float64]
    shared: bool = False


@dataclass(frozen=True)
class KvPool(Section):
    """``total`` of one replica, in ``unit``; shares of it, over all replicas; ``waited``: of the time, the queue's head waited for this one.

    ``shared``: a kind of layer that shares ``total`` with the others; a block counts for every request that holds it, so shared ones more than
    once, and waiting counts for the kind that held most.
    ``used``: shares over the bins of the widest replica, ``bin_s`` seconds each.
    """

    deployment: str
    name: str
    unit: str
    total: int
    shared: bool
    mean: float
    peak: float
    waited: float
    bin_s: float
    used: tuple[float, ...]


@register("section")
@dataclass(frozen=True)
class KvPools(Extra):
    """Of engines that tell layers that forget from those that do not. A deployment without such layers has no such section."""

    name = "kv_pools"

    pools: tuple[KvPool, ...]

    @classmethod
    def of(cls, facts: Facts) -> KvPools | None:
        """Of a run in which some replica has several pools."""
        found = cast("Sequence[KvUse]", facts.record.stations.get("kv_pools", ()))
        span = facts.horizon if facts.horizon > 0 else 1.0
        rows = [_pool(u, k, span) for u in found for k in range(len(u.pools))]
        return cls(pools=tuple(rows)) if rows else None

    def sentences(self) -> list[str]:
        """Which pool bound the run."""
        short = [p for p in self.pools if p.waited >= _WAITED]
        return [
            f"requests waited for KV blocks for {p.waited:.0%} of the time while {p.name} held most of them; "
            f"on average they hold {p.mean:.0%} of all, {p.peak:.0%} at most"
            if p.shared
            else f"the queue waited for {p.name} ({p.total:,} {p.unit} a replica) for {p.waited:.0%} of the time; "
            f"{p.mean:.0%} of them were in use on average, {p.peak:.0%} at most"
            for p in short
        ]


def longest_waited(found: Sequence[KvUse]) -> str | None:
    """The pool that queues waited for most, in words; None: there are no such pools, or nobody waited."""
    waited = {
        (u.deployment, f"KV blocks, most of them held by {name}" if u.shared else f"the pool of {name}"): float(
            u.use[:, k, 2].mean()
        )
        for u in found
        for k, (name, _, _) in enumerate(u.pools)
    }
    most = max(waited, key=lambda key: waited[key], default=None)
    return most[1] if most is not None and waited[most] > 0 else None


def _pool(u: KvUse, k: int, span: float) -> KvPool:
    name, total, unit = u.pools[k]
    mean, peak, waited = u.use[:, k, 0], u.use[:, k, 1], u.use[:, k, 2]
    width = float(u.width.max())
    bins = int(min(np.ceil(span / width), u.series.shape[1])) if u.series.size else 0
    same = u.series[u.width == width, :bins, k]
    covered = np.minimum(width, np.maximum(span - width * np.arange(bins), 0.0))
    fold = max(-(-bins // _POINTS), 1)
    starts = np.arange(0, bins, fold)
    level = np.add.reduceat(same.sum(axis=0), starts) if bins else np.zeros(0)
    time = np.add.reduceat(covered, starts) if bins else np.ones(0)
    used = level / np.maximum(time, 1e-12) / max(len(same), 1) / total
    return KvPool(
        deployment=u.deployment,
        name=name,
        unit=unit,
        total=total,
        shared=u.shared,
        mean=float(mean.mean()) / span / total,
        peak=float(peak.max()) / total,
        waited=min(float(waited.mean()) / span, 1.0),
        bin_s=width * fold,
        used=tuple(float(min(v, 1.0)) for v in used),
    )
