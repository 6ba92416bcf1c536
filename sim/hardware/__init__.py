"""What it runs on: accelerators, links, instances; every figure with its source and grade."""

from sim.hardware.accelerator import Accelerator, Figure, Proxy
from sim.hardware.instances import Instance, instance_names, load_instance
from sim.hardware.links import Link, find_link, link_names
from sim.hardware.load import accelerator_names, load_accelerator, parse_accelerator
from sim.hardware.nodes import node_of

__all__ = [
    "Accelerator", "Figure", "Instance", "Link", "Proxy", "accelerator_names", "find_link", "instance_names", "link_names",
    "load_accelerator", "load_instance", "node_of", "parse_accelerator",
]  # fmt: skip
