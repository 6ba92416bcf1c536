"""What a deployment says of its servers: how many accelerators share one, and what joins them."""

from __future__ import annotations

from sim.errors import ConfigError
from sim.hardware.accelerator import Accelerator
from sim.hardware.instances import instance_names, load_instance
from sim.hardware.links import Link, find_link


def node_of(
    accelerator: Accelerator, node: str | int | None, network: str | None, field: str = "deployment"
) -> tuple[int | None, Link | None]:
    """Accelerators of a node and the link between nodes, as far as they are said; None: as in the accelerator's usual servers.

    ``node``: a number of accelerators, or the name of a server or instance type, which brings its network unless ``network`` says another.
    *Raises*: `UnknownNameError`; `ConfigError` where the server holds other accelerators, or the network is no network.
    """
    wire = find_link(network, f"{field}.network") if network is not None else None
    if wire is not None and wire.bandwidth <= 0.0:
        raise ConfigError(f"{field}.network", network, "joins nothing")
    if node is None or isinstance(node, int):
        return node, wire
    if node.strip().isdigit():
        raise ConfigError(f"{field}.node", node, "must be a number of accelerators, without quotes, or the name of a server")
    found = load_instance(node, f"{field}.node")
    if found.accelerator.name != accelerator.name:
        those = [i for i in instance_names() if load_instance(i).accelerator.name == accelerator.name]
        raise ConfigError(
            f"{field}.node",
            node,
            f"holds {found.accelerator.name}, not {accelerator.name}",
            ", ".join((*those, "a number of accelerators")),
        )
    return found.count, wire or found.network
