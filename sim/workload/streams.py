"""Random substreams, for traffic; see `sim.streams`."""

from sim.streams import stream

__all__ = ["stream"]
