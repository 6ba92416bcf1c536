"""Servers and instance types."""

import pytest

from sim.errors import ConfigError, UnknownNameError
from sim.hardware import instance_names, load_instance


@pytest.mark.parametrize("name", instance_names())
def test_every_instance_is_complete(name: str) -> None:
    instance = load_instance(name)

    assert instance.count >= 1
    assert instance.source
    assert instance.network.kind in ("rdma", "tcp")


def test_instances_hold_what_they_hold() -> None:
    node = load_instance("ecs.gn7e-c16g1.32xlarge")
    node.check_fits(8)

    assert (node.accelerator.name, node.count) == ("a100-sxm-80g", 8)
    with pytest.raises(ConfigError, match="more accelerators than"):
        node.check_fits(16)
    with pytest.raises(UnknownNameError, match="did you mean 'dgx-h100'"):
        load_instance("dgx-h10")
