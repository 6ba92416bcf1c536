"""What it runs on: accelerators, links, instances; every figure with its source and grade."""

from sim.hardware.accelerator import Accelerator, Figure, Proxy
from sim.hardware.instances import Instance, instance_names, load_instance
from sim.hardware.links import LINKS, Link, find_link
from sim.hardware.load import accelerator_names, load_accelerator, parse_accelerator

__all__ = [
    "LINKS", "Accelerator", "Figure", "Instance", "Link", "Proxy", "accelerator_names", "find_link", "instance_names", "load_accelerator",
    "load_instance", "parse_accelerator",
]  # fmt: skip
