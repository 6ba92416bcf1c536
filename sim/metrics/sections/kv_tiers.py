"""KV cache beyond the accelerators: what host memory, disks and remote stores gave back, what moved, who waited for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from sim.metrics.facts import Facts
from sim.metrics.section import ABSENT, Extra, Section, keyed
from sim.registry import register
from sim.units import show_number


@dataclass(frozen=True)
class KvTier(Section):
    """One medium of all replicas. ``hit_share``: of the tokens looked up, those that came from here; ``skipped``: not kept, as all there was in use.

    ``capacity`` of one store in bytes, of which there are ``stores``.
    """

    name: str
    capacity: float = field(metadata=keyed("capacity_bytes"))
    stores: int
    hit_tokens: int
    hit_share: float
    read: float = field(metadata=keyed("read_bytes"))
    written: float = field(metadata=keyed("written_bytes"))
    skipped: float = field(metadata=keyed("skipped_bytes"))
    evicted: float = field(metadata=keyed("evicted_bytes"))


@dataclass(frozen=True)
class TierSeries(Section):
    """One medium over time: tokens found there and bytes moved per second, and the share of all its stores that was in use."""

    name: str
    hit_tokens_per_s: tuple[float, ...]
    read_bytes_per_s: tuple[float, ...]
    written_bytes_per_s: tuple[float, ...]
    used: tuple[float, ...]


@dataclass(frozen=True)
class TiersOverTime(Section):
    """``time_s``: middles of the bins of ``width_s``."""

    width_s: float
    time_s: tuple[float, ...]
    tiers: tuple[TierSeries, ...]


@register("section")
@dataclass(frozen=True)
class KvTiers(Extra):
    """Shares of the tokens that were looked up when requests were taken in. Waits are from the admission to the end of the load.

    ``stalled``: seconds by which steps were longer, summed over replicas. ``late``: loads beyond the engine's time-out.
    """

    name = "kv_tiers"

    looked_up_tokens: int
    device_share: float
    recomputed_share: float
    tiers: tuple[KvTier, ...]
    loads: int
    wait_mean: float | None = field(metadata=keyed("wait_mean_s"))
    wait_longest: float | None = field(metadata=keyed("wait_longest_s"))
    stalled: float = field(metadata=keyed("stalled_s"))
    late: int
    series: TiersOverTime | None = field(default=None, metadata=ABSENT)

    @classmethod
    def of(cls, facts: Facts) -> KvTiers | None:
        """Of a run with engines that have tiers; pools with tiers of one name as one."""
        found = cast("Sequence[Mapping[str, Any]] | None", facts.record.stations.get("kv_tiers"))
        if not found:
            return None
        total = {name: sum(use[name] for use in found) for name in ("asked", "device", "loads", "waited", "stalled", "late")}
        asked, device, loads = total["asked"], total["device"], total["loads"]
        share = 1.0 / asked if asked > 0 else 0.0
        rows: dict[str, dict[str, Any]] = {}
        for tier in (tier for use in found for tier in use["tiers"]):
            row = rows.setdefault(tier["name"], dict.fromkeys(_SUMS, 0.0) | {"capacity": 0.0})
            row["capacity"] = max(row["capacity"], tier["capacity"])
            for name in _SUMS:
                row[name] += tier[name]
        outside = sum(row["hit_tokens"] for row in rows.values())
        tiers = tuple(
            KvTier(
                **row
                | {
                    "name": name,
                    "hit_share": row["hit_tokens"] * share,
                    "stores": int(row["stores"]),
                    "hit_tokens": int(row["hit_tokens"]),
                }
            )
            for name, row in rows.items()
        )
        return cls(
            looked_up_tokens=int(asked),
            device_share=device * share,
            recomputed_share=(asked - device - outside) * share,
            tiers=tiers,
            loads=int(loads),
            wait_mean=total["waited"] / loads if loads > 0 else None,
            wait_longest=max(use["longest"] for use in found) if loads > 0 else None,
            stalled=total["stalled"],
            late=int(total["late"]),
            series=_over_time(found, facts.horizon),
        )

    def sentences(self) -> list[str]:
        """In words, for the first screen."""
        parts = [f"{self.device_share:.0%} on the accelerator"] + [f"{t.hit_share:.0%} in {MEDIA[t.name]}" for t in self.tiers]
        text = f"of the tokens looked up {', '.join(parts)}, {self.recomputed_share:.0%} computed"
        if self.wait_mean is not None and self.wait_longest is not None:
            text += f"; {self.loads:,} loads, {show_number(1e3 * self.wait_mean)} ms on average, {show_number(1e3 * self.wait_longest)} ms at most"
        out = [text]
        for t in self.tiers:
            size = show_number(t.capacity / 2**30)
            if t.skipped > 0.1 * (t.skipped + t.written):
                out.append(
                    f"{show_number(t.skipped / 1e9)} GB were not kept in {MEDIA[t.name]}, as all of it was in use: {size} GiB are few"
                )
        if self.late > 0:
            out.append(f"{self.late:,} loads took longer than the engine's time-out, after which it would have computed again")
        return out


def _over_time(found: Sequence[Mapping[str, Any]], span: float) -> TiersOverTime | None:
    """All pools' tiers of one name together, in bins of the widest, of which at most `_POINTS` are told."""
    kept = [(use["width_s"], tier) for use in found for tier in use["tiers"] if tier.get("series") is not None]
    if not kept or span <= 0:
        return None
    width = max(w for w, _ in kept)
    while span / width > _POINTS:
        width *= 2
    bins = int(np.ceil(span / width))
    sums: dict[str, NDArray[np.float64]] = {}
    room: dict[str, float] = {}
    for w, tier in kept:
        fold = round(width / w)
        rows = tier["series"][: bins * fold]
        rows = np.concatenate([rows, np.zeros((bins * fold - len(rows), rows.shape[1]))])
        sums[tier["name"]] = sums.get(tier["name"], 0.0) + rows.reshape(bins, fold, -1).sum(axis=1)
        room[tier["name"]] = room.get(tier["name"], 0.0) + tier["capacity"] * tier["stores"]
    starts = width * np.arange(bins)
    seconds = np.minimum(width, span - starts)
    tiers = []
    for name, rows in sums.items():
        hits, read, written, held = (tuple(column.tolist()) for column in (rows / seconds[:, None]).T)
        tiers.append(TierSeries(name, hits, read, written, tuple(h / room[name] if room[name] > 0 else 0.0 for h in held)))
    return TiersOverTime(width, tuple((starts + seconds / 2).tolist()), tuple(tiers))


_POINTS = 200  # of a series in a summary
_SUMS = ("stores", "hit_tokens", "read", "written", "skipped", "evicted")
MEDIA: Final = {"cpu": "host memory", "disk": "disks", "remote": "the remote store"}
