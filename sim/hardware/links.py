"""Links between accelerators and between nodes: bandwidth, latency, topology, each with source and grade."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from sim.errors import UnknownNameError

LinkKind = Literal["nvswitch", "nvlink", "pcie", "hccs", "ub", "icn", "rdma", "tcp", "none"]


@dataclass(frozen=True)
class Link:
    """How one accelerator reaches the others.

    *Units*: ``bandwidth`` bytes per second in one direction out of one accelerator, all its lanes together; ``latency`` seconds of
    one small message. ``peer_bandwidth`` is what one *pair* can use where there is no switch (HCCS full mesh: one lane of seven);
    0 means a pair can use everything. ``domain`` is how many accelerators the link joins.
    """

    kind: LinkKind
    bandwidth: float
    latency: float
    domain: int = 8
    peer_bandwidth: float = 0.0
    source: str = ""
    evidence: str = "datasheet"

    @property
    def switched(self) -> bool:
        """Whether a group of any size has the full bandwidth of every member."""
        return self.kind in ("nvswitch", "ub", "icn")

    def group_bandwidth(self, n: int) -> float:
        """Bytes/s one member can send to the other ``n - 1`` of a group together: a mesh uses only the lanes to members."""
        return min(self.bandwidth, self.peer_bandwidth * (n - 1)) if self.peer_bandwidth and n > 1 else self.bandwidth


def _link(
    kind: LinkKind, gb_per_s: float, latency_us: float, domain: int, source: str, evidence: str = "datasheet", peer: float = 0.0
) -> Link:
    return Link(kind, gb_per_s * 1e9, latency_us * 1e-6, domain, peer * 1e9, source, evidence)


_NCCL = "of NCCL point to point measured by microsoft/vidur @7d475133"
LINKS: Mapping[str, Link] = MappingProxyType(
    {
        "nvlink2": _link("nvlink", 150, 14, 8, "NVIDIA V100 datasheet: 300 GB/s both directions; latency taken from A100"),
        "nvswitch-a100": _link("nvswitch", 300, 13.6, 8, f"NVIDIA A100 datasheet: 600 GB/s both directions; latency {_NCCL} (288 GB/s measured)"),
        "nvswitch-a800": _link("nvswitch", 200, 13.6, 8, "NVIDIA A800 datasheet: 400 GB/s both directions; latency as A100"),
        "nvswitch-h100": _link("nvswitch", 450, 7.7, 8, f"NVIDIA H100 datasheet: 900 GB/s both directions; latency {_NCCL} (359 GB/s measured)"),
        "nvswitch-h800": _link("nvswitch", 200, 7.7, 8, "NVIDIA H800: 400 GB/s both directions (alibaba/InferSim hardware/gpu.py); latency as H100"),
        "nvswitch-b200": _link("nvswitch", 900, 7.7, 8, "NVIDIA HGX B200 datasheet: 1.8 TB/s both directions; latency as H100"),
        "nvlink4-pair": _link("nvlink", 300, 7.7, 2, "NVIDIA H100 NVL datasheet: NVLink bridge 600 GB/s both directions, two cards; latency as H100"),
        "xgmi-mi300x": _link(
            "nvlink", 448, 15, 8, "AMD MI300X platform: 7 Infinity Fabric links of 64 GB/s per direction, full mesh; latency estimated", "estimated", peer=64,
        ),
        "nvlink-pair": _link("nvlink", 56.25, 13.6, 2, "NVIDIA RTX A6000/A40 datasheet: NVLink bridge 112.5 GB/s both directions, two cards"),
        "pcie3-x16": _link("pcie", 15.75, 20, 8, "PCI-SIG: 8 GT/s × 16 lanes × 128/130; latency estimated", "estimated"),
        "pcie4-x16": _link("pcie", 31.5, 20, 8, "PCI-SIG: 16 GT/s × 16 lanes × 128/130; latency estimated", "estimated"),
        "pcie4-x8": _link("pcie", 15.75, 20, 8, "PCI-SIG: 16 GT/s × 8 lanes × 128/130; latency estimated", "estimated"),
        "pcie5-x16": _link("pcie", 63.0, 20, 8, "PCI-SIG: 32 GT/s × 16 lanes × 128/130; latency estimated", "estimated"),
        "hccs-910b": _link(
            "hccs", 196, 30, 8,
            "7 links of 28 GB/s per direction, full mesh without a switch: MindIE-Motor machine_config/800IA2.json (392 GB/s both directions); "
            "latency estimated, no HCCL measurement found", "estimated", peer=28,
        ),
        "ub-910c": _link(
            "ub", 196, 1.2, 768, "CloudMatrix384, arXiv 2506.12708 section 3: 196 GB/s per die and direction, 1.2 µs for 512 B between NPUs"
        ),
        "ub-910c-package": _link("ub", 392, 1.2, 384, "CloudMatrix384, arXiv 2506.12708 section 3: 392 GB/s per package and direction"),
        "icn-zhenwu": _link("icn", 350, 10, 16, "servernews.ru/1136036: 7 ICN links, 700 GB/s both directions; latency estimated", "estimated"),
        "unified": _link("none", 100, 1, 1, "processor and accelerator share one memory; copies at about 100 GB/s, estimated", "estimated"),
        "none": _link("none", 0, 0, 1, "a device that works alone"),
        # between nodes, per accelerator
        "rdma-100g": _link("rdma", 12.5, 25, 4096, "line rate; latency as rdma-200g", "estimated"),
        "rdma-200g": _link("rdma", 25, 29, 4096, f"HDR InfiniBand or RoCE line rate; latency {_NCCL}, between A100 nodes"),
        "rdma-400g": _link("rdma", 50, 19.7, 4096, f"NDR InfiniBand line rate; latency {_NCCL}, between H100 nodes (36 GB/s measured)"),
        "tcp-25g": _link("tcp", 3.125, 50, 4096, "line rate; latency of TCP inside a data centre, estimated", "estimated"),
        "tcp-100g": _link("tcp", 12.5, 50, 4096, "line rate; latency of TCP inside a data centre, estimated", "estimated"),
    }
)  # fmt: skip


def find_link(name: str, field: str = "link") -> Link:
    """The link of that name. Raises `UnknownNameError` with the nearest names."""
    if name not in LINKS:
        raise UnknownNameError(field, name, LINKS)
    return LINKS[name]
