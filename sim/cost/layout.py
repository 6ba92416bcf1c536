"""How a model is cut over accelerators."""

from __future__ import annotations

from dataclasses import dataclass

from sim.hardware.links import Link


@dataclass(frozen=True)
class Layout:
    """Widths of the parallel groups of one replica.

    ``tp`` width of attention and dense layers, ``pp`` pipeline stages, ``dp`` attention replicas that share the experts,
    ``ep`` expert-parallel width (1: experts are cut over tp·dp), ``expert_imbalance`` tokens of the busiest such rank over the mean.
    ``link`` joins the accelerators of a node (None: the accelerator's own), ``network`` joins nodes (bandwidth per accelerator),
    ``node_size`` accelerators share a node.
    """

    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int = 1
    expert_imbalance: float = 1.0
    link: Link | None = None
    network: Link | None = None
    node_size: int = 8
