"""The media that settings and a machine make: how much each keeps, how fast it is read and written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from sim.engine.contract import Site

GIB = 1 << 30
PCIE_EFFICIENCY = 0.8
"""Of a PCIe link's bandwidth that large copies reach: 50 of 63 GB/s in one direction on an H100 (vLLM blog of 2026-01-08, blocks of 0.5 to 2 MB)."""


WATERMARK, EVICTS, LEASE = 0.9, 0.05, 10.0
"""Of a Mooncake store: share of it above which it evicts, share it evicts at once, seconds for which what was read stays. *Source*:
``mooncake-store/include/types.h`` (``eviction_high_watermark_ratio``, ``eviction_ratio``, ``default_kv_lease_ttl``)."""
PLACES = {"cpu": 0, "disk": 1, "remote": 2}
"""Which tier of `sim.engine.tiers.counts` a medium is, by name."""


@dataclass(frozen=True)
class Medium:
    """``size`` bytes in all, ``read`` and ``write`` bytes per second, ``latency`` seconds of a transfer. ``shared`` by all replicas of a pool."""

    name: str
    size: float
    read: float
    write: float
    latency: float = 0.0
    shared: bool = False


class Kept(TypedDict):
    """A medium by its name: what it keeps, in blocks."""

    name: str
    blocks: int
    shared: bool


@dataclass(frozen=True)
class TierPlan:
    """``tokens`` and ``bytes`` of the blocks that tiers keep (of all ranks of a replica together)."""

    tokens: int
    bytes: float
    media: tuple[Medium, ...]

    def blocks(self, k: int) -> int:
        """Blocks that medium ``k`` keeps."""
        return int(self.media[k].size // self.bytes)

    def told(self) -> list[Kept]:
        """For `sim.engine.tiers.counts.tiers_use`."""
        return [{"name": m.name, "blocks": self.blocks(k), "shared": m.shared} for k, m in enumerate(self.media)]


def host_memory(size: float, site: Site) -> Medium:
    """Memory of the host behind the accelerators' own links to it, all of a replica's at once."""
    a = site.accelerator
    rate, latency = 50e9, 20e-6
    if a is not None:
        share = PCIE_EFFICIENCY if a.host_link.startswith("pcie") else 1.0
        rate = share * a.host_bandwidth
    return Medium("cpu", size, rate * site.tp * site.pp, rate * site.tp * site.pp, latency)


def bytes_per_token(site: Site) -> float:
    """KV of one token on all accelerators of a replica."""
    return float(site.model.kv_bytes_per_token(site.tp, site.pp)) * site.tp * site.pp if site.model is not None else 131072.0
