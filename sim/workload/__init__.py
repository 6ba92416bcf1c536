"""Who sends what and when: synthetic traffic, sessions, recorded traces, waiting clients."""

from sim.streams import stream
from sim.workload.base import Traffic
from sim.workload.closed_loop import ClosedLoop
from sim.workload.table import RequestBlock
from sim.workload.traffic import build_traffic

__all__ = ["ClosedLoop", "RequestBlock", "Traffic", "build_traffic", "stream"]
