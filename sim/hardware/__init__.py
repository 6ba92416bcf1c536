"""What it runs on: accelerators, links, instances; every figure with its source and grade."""

from sim.hardware.accelerator import Accelerator, Figure, Proxy
from sim.hardware.links import LINKS, Link, find_link

__all__ = ["LINKS", "Accelerator", "Figure", "Link", "Proxy", "find_link"]
