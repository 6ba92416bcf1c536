"""The links that KV takes from prefill to decode replicas: latency, bandwidth, and a queue.

Every accelerator of a replica has a port of its own, and a transfer uses the ports of both replicas as a whole: it begins when the transfers
before it are through on both sides (first come, first served), lasts bytes / bandwidth of the side with fewer ports, and its latency and
overhead pass without holding a port. *Assumed*: the switches between the ports do not block; computing and copying do not slow each other.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sim.config.deployment import Transfer
from sim.cost.layout import Layout, Wires
from sim.hardware import Accelerator, find_link

if TYPE_CHECKING:
    from sim.fleet.build import Plan

F8: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Wire:
    """What one accelerator's port does. ``bandwidth`` bytes per second in one direction, ``latency`` seconds of one transfer with its overhead."""

    name: str
    bandwidth: float
    latency: float
    source: str
    evidence: str
    layerwise: bool = False
    """KV leaves layer by layer while the next ones are computed."""

    @classmethod
    def of(cls, transfer: Transfer | None, accelerator: Accelerator, layout: Layout) -> Wire:
        """Of the ``transfer`` section; without a link, the network of the prefill pool's servers. Raises `UnknownNameError`."""
        t = transfer or Transfer()
        link = find_link(t.link, "transfer.link") if t.link is not None else Wires.of(layout, accelerator).network
        bandwidth = (t.bandwidth if t.bandwidth is not None else link.bandwidth) * t.efficiency
        latency = (t.latency if t.latency is not None else link.latency) + t.overhead
        source = (
            f"{t.efficiency:.0%} of the line rate; {link.source}" if t.bandwidth is None else "transfer.bandwidth of the scenario"
        )
        return cls(t.link or link.name or link.kind, bandwidth, latency, source, "estimated", t.layerwise)

    @classmethod
    def between(cls, transfer: Transfer | None, plans: Sequence[Plan]) -> list[Wire]:
        """The same of planned pools, for each: that of the first prefill pool of its model."""
        first = {p.model.name: p for p in reversed(plans) if p.role == "prefill"}
        made = {name: cls.of(transfer, p.accelerator, p.layout) for name, p in first.items()}
        return [made[p.model.name] for p in plans]


class PortArrays(NamedTuple):
    """`Ports` for compiled code, [replica] each, and the latency of a transfer (f8[1])."""

    free: F8
    rate: F8
    busy: F8
    bytes_of: F8  # of KV per token
    latency: F8


class Ports:
    """The ports of all replicas. ``wires[replica]`` (or one for all): what leads there; ``ranks[replica]``: accelerators of each."""

    def __init__(self, wires: Wire | Sequence[Wire], ranks: Sequence[int]) -> None:
        each = [wires] * len(ranks) if isinstance(wires, Wire) else wires
        self._latency = [wire.latency for wire in each]
        self._rate = [wire.bandwidth * n for wire, n in zip(each, ranks, strict=True)]
        self._whole = list(self._rate)
        self._free = [0.0] * len(ranks)
        self.busy = [0.0] * len(ranks)
        """Seconds that each replica's ports were in use."""
        self.waits = array("d")
        """Seconds that each transfer waited for ports."""
        self.bytes = 0.0
        self.log = array("q"), array("d"), array("d")
        """Of each use of a replica's ports: replica, start, length in seconds."""

    @classmethod
    def of(cls, plans: Sequence[Plan], wires: Sequence[Wire]) -> Ports:
        """Those of planned pools; a data-parallel rank is a replica here, as it has accelerators of its own."""
        each = [(p, wire) for p, wire in zip(plans, wires, strict=True) for _ in range(p.replicas * p.rank_count)]
        return cls([wire for _, wire in each], [p.layout.tp * p.layout.pp for p, _ in each])

    def scale(self, factor: float, until: float) -> None:
        """Ports carry ``factor`` times as much as ever; with 0 transfers begin at ``until``."""
        if factor > 0.0:
            self._rate = [rate * factor for rate in self._whole]
        else:
            self._free = [max(t, until) for t in self._free]

    def send(self, source: int, destination: int, size: float, now: float) -> float:
        """``size`` bytes are ready to go; returns when they will have arrived."""
        free, rate, busy = self._free, self._rate, self.busy
        start = max(now, free[source], free[destination])
        out, into = size / rate[source], size / rate[destination]
        free[source], free[destination] = start + out, start + into
        busy[source] += out
        busy[destination] += into
        for end, length in ((source, out), (destination, into)):
            self.log[0].append(end)
            self.log[1].append(start)
            self.log[2].append(length)
        self.waits.append(start - now)
        self.bytes += size
        return start + max(out, into) + self._latency[source]

    def send_while(self, source: int, destination: int, size: float, begin: float, now: float, layers: int) -> float:
        """The same of what was computed from ``begin`` to ``now``, each of ``layers`` having left when it was there.

        The last layer leaves now; all of them take their time on the ports, which others use in between. *Assumed*: layers take equally long.
        """
        first = begin + (now - begin) / layers
        through = self.send(source, destination, size, first)
        return max(through, now + size / layers / min(self._rate[source], self._rate[destination]) + self._latency[source])

    def arrays(self, bytes_of: F8) -> PortArrays:
        """The same for compiled code, which then has them to itself, of one wire; ``bytes_of``: f8[replica], of KV per token."""
        return PortArrays(np.array(self._free), np.array(self._rate), np.array(self.busy), bytes_of, np.array(self._latency[:1]))

    def note(self, uses: F8, waits: F8, now: PortArrays, size: float) -> None:
        """What compiled code did: f8[use, 3] replica, start, length; waits of transfers; bytes of all so far."""
        self.log[0].frombytes(uses[:, 0].astype(np.int64).tobytes())
        self.log[1].frombytes(uses[:, 1].tobytes())
        self.log[2].frombytes(uses[:, 2].tobytes())
        self.waits.frombytes(waits.tobytes())
        self.busy = now.busy.tolist()
        self.bytes = size

    def totals(self, span: float) -> dict[str, float]:
        """Figures for the summary."""
        waits = np.frombuffer(self.waits) if self.waits else np.zeros(1)
        return {
            "fleet_kv_transfers": float(len(self.waits)),
            "fleet_kv_transferred_bytes": self.bytes,
            "fleet_kv_port_wait_mean_s": float(waits.mean()),
            "fleet_kv_port_wait_max_s": float(waits.max()),
            "fleet_kv_port_busy_max": max(self.busy) / span if span > 0 else 0.0,
        }
