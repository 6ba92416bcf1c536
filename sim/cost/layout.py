"""How a model is cut over accelerators, and what joins them."""

from __future__ import annotations

from dataclasses import dataclass

from sim.hardware.accelerator import Accelerator
from sim.hardware.links import Link, find_link

DEFAULT_NETWORK = "rdma-200g"
"""Between servers of which nothing is known."""


@dataclass(frozen=True)
class Layout:
    """Widths of the parallel groups of one replica.

    ``tp`` width of attention and dense layers, ``pp`` pipeline stages, ``dp`` attention replicas that share the experts,
    ``ep`` expert-parallel width (1: experts are cut over tp·dp), ``expert_imbalance`` tokens of the busiest such rank over the mean, beyond what
    chance makes of even routing (`sim.cost.forms.busiest`).
    ``link`` joins the accelerators of a node (None: the accelerator's own), ``network`` joins nodes (bandwidth per accelerator; None: that
    of the accelerator's usual servers), ``node_size`` accelerators share a node (None: as in those).
    """

    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int = 1
    expert_imbalance: float = 1.0
    link: Link | None = None
    network: Link | None = None
    node_size: int | None = None


@dataclass(frozen=True)
class Wires:
    """What joins the accelerators of a replica: ``link`` up to ``domain`` of them, ``host`` the others of a node, ``network`` the nodes.

    ``assumed``: neither the deployment nor the accelerator says what the network is.
    """

    link: Link
    host: Link
    network: Link
    node: int
    assumed: bool

    @classmethod
    def of(cls, layout: Layout, a: Accelerator) -> Wires:
        """Of a layout on an accelerator."""
        network = layout.network or a.network or find_link(DEFAULT_NETWORK)
        node = layout.node_size or a.node_size
        return cls(layout.link or a.link, find_link(a.host_link), network, node, (layout.network or a.network) is None)

    def inside(self, ranks: int) -> int:
        """How many of a group of ``ranks`` share a node."""
        return min(ranks, self.node)

    def near(self, ranks: int) -> Link:
        """What joins the members of a group that share a node: beyond the link's domain they meet through the host."""
        n = self.inside(ranks)
        return self.link if n <= self.link.domain or self.host.bandwidth <= 0.0 or self.link.kind == "none" else self.host

    def hops(self, tp: int, pp: int) -> tuple[int, int]:
        """Hand-overs between pipeline stages within a node, and between nodes; ranks are numbered through a stage first."""
        between = sum(i * tp // self.node != (i + 1) * tp // self.node for i in range(pp - 1))
        return pp - 1 - between, between

    def nodes(self, world: int) -> int:
        """Nodes that ``world`` accelerators take."""
        return -(-world // self.node)
