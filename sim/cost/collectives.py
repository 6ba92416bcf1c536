"""Times of collectives by topology: all-reduce, all-to-all, point to point."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.cost import forms
from sim.cost.layout import Wires
from sim.cost.machines import machines
from sim.cost.residual import Residual
from sim.cost.stack import STACK_ORDER, FittedOperator, load_stack
from sim.errors import DataError
from sim.hardware.accelerator import Accelerator, Evidence
from sim.hardware.links import Link, find_link
from sim.hardware.load import load_accelerator

if TYPE_CHECKING:
    from sim.cost.residual import Floats, Numbers

_RING = 0.72  # of the bandwidth that a ring reaches where nothing was measured (NCCL between H100 nodes: 36 of 50 GB/s)


class Collectives:
    """Mixed into `kernels.Kernels`, which finds the fitted profiles and keeps the evidence."""

    accelerator: Accelerator
    proxy_reason: str
    used: dict[str, tuple[Evidence, str]]

    def find(self, *names: str) -> FittedOperator | None:
        """The fitted operator of that name."""
        raise NotImplementedError

    def note(self, what: str, op: FittedOperator | None, exact: bool = True, why: str = "") -> None:
        """Record the grade of an operator."""
        raise NotImplementedError

    def all_reduce(self, size: Numbers, ranks: int, wires: Wires) -> Floats:
        """Seconds to add up ``size`` bytes over ``ranks`` accelerators: within each node, then between nodes."""
        size = np.asarray(size, float)
        if ranks <= 1:
            return np.zeros_like(size)
        inside = wires.inside(ranks)
        t = self._node_all_reduce(size, inside, wires.near(ranks))
        nodes = -(-ranks // inside)
        if nodes > 1:
            wire = wires.network
            t = (
                t
                + 2.0 * wire.latency * np.ceil(np.log2(nodes))
                + 2.0 * (nodes - 1) / nodes * size / (_RING * wire.bandwidth * inside)
            )
            self.used["all-reduce"] = (
                "estimated",
                f"ring within the node, then between nodes at {_RING:.0%} of the line rate of {wire.name or wire.kind}",
            )
        return t

    def _node_all_reduce(self, size: Floats, ranks: int, link: Link) -> Floats:
        if ranks <= 1:
            return np.zeros_like(size)
        op = self.find("all_reduce")
        if op is not None and link == self.accelerator.link and not self.proxy_reason and isinstance(op.residual, Residual):
            self.note("all-reduce", op, op.residual.known((ranks,)))
            return _at_least_as_fast(op.q, op.residual, min(max(ranks, 2), 8), size)
        found = _measured(link)
        if found is None:
            # no measurement: ring at 72 % of what the group can send, two latencies
            self.used["all-reduce"] = (
                "estimated",
                f"ring over {link.kind} at {_RING:.0%} of its bandwidth; latency {link.latency * 1e6:.0f} µs",
            )
            return link.latency + 2.0 * (ranks - 1) / ranks * size / (_RING * link.group_bandwidth(ranks))
        op, reference = found
        speed = link.group_bandwidth(ranks) / reference.bandwidth
        q = list(op.q)
        q[2], q[5] = q[2] * speed, q[5] * speed
        self.note("all-reduce", op, False, link.why)
        self.used["all-reduce"] = ("estimated", self.used["all-reduce"][1])
        if link.kind == reference.kind == "pcie" and isinstance(op.residual, Residual):
            return _at_least_as_fast(q, op.residual, ranks, size)
        return forms.all_reduce(q, size, ranks)

    def all_to_all(self, tokens: Numbers, token_bytes: float, top_k: int, ranks: int, wires: Wires) -> Floats:
        """Seconds to send each of ``tokens`` of this rank to the ranks of its ``top_k`` experts (or to collect the results).

        Below the crossing a copy per expert (low-latency kernels), above it a copy per rank (normal kernels).
        *Source*: DeepEP 0.5 on H100 nodes (7168 wide, 8 of 256 experts): 14 µs and half the link within a node, 22 µs and 82 % of the
        line rate between nodes, 40 µs for the normal kernels; the figures reproduce its 17 to 2,048 tokens within 20 %.
        """
        tokens = np.asarray(tokens, float)
        if ranks <= 1:
            return np.zeros_like(tokens)
        inside, link, wire = wires.inside(ranks), wires.near(ranks), wires.network
        distinct = ranks * (1.0 - (1.0 - 1.0 / ranks) ** top_k)

        def way(copies: float, start: float) -> Floats:
            size = tokens * token_bytes * copies
            t = (inside - 1) / ranks * size / (0.5 * link.group_bandwidth(inside)) if inside > 1 else 0.0 * size
            if ranks > inside:
                t = np.maximum(t, (ranks - inside) / ranks * size / (0.82 * wire.bandwidth)) + 8e-6
            return start + t

        grade: Evidence = "fitted" if link.kind == "nvswitch" and not self.proxy_reason else "estimated"
        self.used["all-to-all"] = (grade, "form of DeepEP timings on H100 nodes, scaled by link bandwidth")
        return np.minimum(way(float(top_k), 14e-6), way(distinct, 40e-6))

    def gather(self, size: Numbers, ranks: int, wires: Wires) -> Floats:
        """Seconds in which every rank gets ``size`` bytes from each other one (all-gather; a reduce-scatter takes as long)."""
        return 0.5 * self.all_reduce(np.asarray(size, float) * ranks, ranks, wires)

    def send(self, size: Numbers, link: Link) -> Floats:
        """Seconds of one point-to-point message."""
        self.used["stage hand-over"] = (
            "fitted" if link.kind.startswith("nv") else "estimated",
            f"{link.name or link.kind}: latency and 80 % of bandwidth",
        )
        return link.latency + np.asarray(size, float) / (0.8 * link.bandwidth)


def _at_least_as_fast(q: forms.Parameters, residual: Residual, ranks: int, size: Floats) -> Floats:
    """Measured seconds, but of a message no more than any larger one took: single sizes stand out of a curve (4 KiB on eight A100: 15 µs, 16 KiB 7)."""

    def measured(sizes: Floats) -> Floats:
        t: Floats = forms.all_reduce(q, sizes, ranks) * np.exp(residual.at((min(ranks, 8),), np.maximum(sizes, 1.0)))
        return t

    grid = residual.axes[0]
    least = np.minimum.accumulate(measured(grid)[::-1])[::-1]
    t, last = measured(size), float(grid[-1])
    return np.where(size < last, np.minimum(t, np.interp(size, grid, least)), t)


def _measured(link: Link) -> tuple[FittedOperator, Link] | None:
    """The measured all-reduce that stands in on a link, and the link it was measured on."""
    if not link.collectives:
        return None
    machine = machines().get(link.collectives)
    if machine is None or not (machine.accelerators or machine.link):
        raise DataError("profiles/links", f"{link.name}: collectives of an unknown system {link.collectives!r}")
    for framework in STACK_ORDER:
        op = load_stack(f"{link.collectives}.{framework}").get("all_reduce")
        if op is not None:
            return op, find_link(machine.link) if machine.link else load_accelerator(machine.accelerators[0]).link
    return None
