"""Graphs of vllm-ascend: on by default from 0.9.2, and off where the user says so."""

from __future__ import annotations

import pytest

from sim.cost.profile import load_engine_profile
from sim.engine.contract import Site
from sim.engine.schedulers.vllm_ascend import VllmAscend, VllmAscendParams


@pytest.mark.parametrize("version", ["0.9.2", "0.10", "0.11", "0.18", "0.24"])
def test_enforce_eager_switches_graphs_off_in_every_release_that_has_them(version: str) -> None:
    profile = load_engine_profile("vllm-ascend", version, "ascend-910b3")
    hosts = []
    for eager in (False, True):
        params = VllmAscend.resolve(VllmAscendParams(version=version, enforce_eager=eager), Site())
        hosts.append(VllmAscend.host(params, profile))
    assert hosts[0].graph_sizes
    assert hosts[1].graph_sizes == ()
