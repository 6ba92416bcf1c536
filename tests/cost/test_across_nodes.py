"""Replicas that span nodes pay the network between them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from sim.cost.build import build_tables
from sim.cost.kernels import Kernels
from sim.cost.layout import Layout, Wires
from sim.cost.profile import load_engine_profile
from sim.cost.step import COMMS
from sim.errors import ConfigError, DataError, UnknownNameError
from sim.hardware import find_link, link_names, load_accelerator, node_of
from sim.model import load_model

H100 = load_accelerator("h100-sxm")


def comms(layout: Layout, tokens: int = 8192, model: str = "llama-3.1-405b", accelerator: str = "h100-sxm") -> float:
    tables, _ = build_tables(load_model(model, "fp8"), load_accelerator(accelerator), layout, load_engine_profile("vllm"), 8192)
    return float(tables.layers[tokens, COMMS])


def test_a_slower_wire_costs_more_and_a_node_that_holds_all_costs_nothing_of_it() -> None:
    times = [comms(Layout(tp=16, network=find_link(n))) for n in ("tcp-10g", "tcp-25g", "tcp-100g", "rdma-400g")]

    assert times == sorted(times, reverse=True)
    assert times[1] > 3.5  # 4.57 s a step of 8,192 tokens, with everything else
    assert times[3] < 0.6
    inside = {n: comms(Layout(tp=8, network=find_link(n))) for n in ("tcp-10g", "rdma-400g")}
    assert inside["tcp-10g"] == inside["rdma-400g"]
    assert comms(Layout(tp=8, network=find_link("tcp-25g"), node_size=4)) > 3 * inside["rdma-400g"]


def test_pipeline_stages_on_other_nodes_pay_the_network() -> None:
    near = comms(Layout(tp=4, pp=2))
    far = comms(Layout(tp=8, pp=2)) - comms(Layout(tp=8))

    assert near > 0
    wire = H100.network
    assert wire is not None
    assert far == pytest.approx(wire.latency + 8192 * 16384 * 2 / 8 / (0.8 * wire.bandwidth), rel=0.01)
    slow = comms(Layout(tp=8, pp=2, network=find_link("tcp-1g"))) - comms(Layout(tp=8))
    assert slow > 20 * far


@pytest.mark.parametrize(
    ("tp", "pp", "node", "hops"), [(4, 4, 8, (2, 1)), (8, 4, 8, (0, 3)), (2, 4, 8, (3, 0)), (1, 8, 2, (4, 3)), (16, 2, 8, (0, 1))]
)
def test_hops_between_stages(tp: int, pp: int, node: int, hops: tuple[int, int]) -> None:
    assert Wires.of(Layout(tp=tp, pp=pp, node_size=node), H100).hops(tp, pp) == hops


def test_beyond_a_bridge_cards_meet_through_the_host() -> None:
    pair = load_accelerator("h100-nvl")
    wires = Wires.of(Layout(), pair)

    assert wires.near(2).kind == "nvlink"
    assert wires.near(4) == find_link(pair.host_link)
    assert comms(Layout(tp=4), 512, "llama-3.1-8b", "h100-nvl") > comms(Layout(tp=2), 512, "llama-3.1-8b", "h100-nvl")


def test_what_has_no_link_needs_a_network() -> None:
    model, mac, profile = load_model("llama-3.1-8b"), load_accelerator("apple-m4-max"), load_engine_profile("vllm")
    for layout, field in ((Layout(tp=2), "tp"), (Layout(pp=2), "pp")):
        with pytest.raises(ConfigError, match=rf"deployment\.{field}.*no link"):
            build_tables(model, mac, layout, profile, 512)
    tables, evidence = build_tables(model, mac, Layout(pp=2, node_size=1, network=find_link("tcp-10g")), profile, 512)
    assert tables.layers[512, COMMS] > 0
    assert any("2 nodes of 1" in n for n in evidence.notes)


def test_the_note_says_what_is_assumed() -> None:
    def notes(accelerator: str, **said: object) -> str:
        layout = Layout(tp=16, **said)  # type: ignore[arg-type]
        _, e = build_tables(
            load_model("llama-3.1-405b", "fp8"), load_accelerator(accelerator), layout, load_engine_profile("vllm"), 64
        )
        return " ".join(e.notes)

    assert "spans 2 nodes of 8" in notes("h100-sxm") and "rdma-400g" in notes("h100-sxm") and "assumed" not in notes("h100-sxm")
    assert "assumed: say deployment.network" in notes("h100-pcie")
    assert "spans" not in notes("h100-sxm", node_size=16)


def test_nodes_by_name_and_by_number() -> None:
    assert node_of(H100, None, None) == (None, None)
    assert node_of(H100, 4, "tcp-25g") == (4, find_link("tcp-25g"))
    assert node_of(H100, "dgx-h100", None) == (8, find_link("rdma-400g"))
    assert node_of(H100, "dgx-h100", "tcp-100g") == (8, find_link("tcp-100g"))
    with pytest.raises(ConfigError, match=r"deployment\.node: holds a100-sxm-80g, not h100-sxm.*dgx-h100"):
        node_of(H100, "dgx-a100", None)
    with pytest.raises(UnknownNameError, match="did you mean 'dgx-h100'"):
        node_of(H100, "dgx-h10", None)
    with pytest.raises(UnknownNameError, match="did you mean 'tcp-25g'"):
        node_of(H100, None, "tcp-25gb")
    with pytest.raises(ConfigError, match="joins nothing"):
        node_of(H100, None, "none")
    with pytest.raises(ConfigError, match="without quotes"):
        node_of(H100, "8", None)


@pytest.mark.parametrize("name", link_names())
def test_every_link_is_sourced(name: str) -> None:
    link = find_link(name)

    assert link.name == name
    assert link.source and link.evidence in ("measured", "fitted", "datasheet", "estimated")
    assert link.domain >= 1


def test_a_link_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "wire.yaml"
    good = {"name": "mine", "kind": "tcp", "bandwidth": "2GB/s", "latency": "80us"}
    file.write_text(yaml.safe_dump(good))
    assert (find_link(str(file)).bandwidth, find_link(str(file)).latency) == (2e9, pytest.approx(80e-6))

    file.write_text(yaml.safe_dump(good | {"kind": "string", "bandwidth": -1, "latency": float("nan"), "domian": 2}))
    with pytest.raises(DataError, match="4 things are wrong") as caught:
        find_link(str(file))
    for part in ("kind", "bandwidth", "latency", "unknown key 'domian' (did you mean 'domain'?)"):
        assert part in str(caught.value)


def test_cards_with_peer_to_peer_reach_what_nccl_reaches_over_pcie() -> None:
    """20 GB/s of bus bandwidth on 2 to 8 L40S; through host memory a fifth of it on four."""
    size = np.array([64.0 * 2**20])

    def bus(accelerator: str, ranks: int) -> float:
        a = load_accelerator(accelerator)
        t = Kernels(a, "vllm").all_reduce(size, ranks, Wires.of(Layout(), a))
        return float(2 * (ranks - 1) / ranks * size[0] / t[0] / 1e9)

    assert [round(bus("l40s", n)) for n in (2, 4, 8)] == [19, 21, 20]
    assert bus("rtx-pro-6000", 4) == pytest.approx(2 * bus("l40s", 4), rel=0.05)  # PCIe 5.0
    assert 3 < bus("rtx-5090", 4) < 5 and 3 < bus("a10g", 4) < 5
    assert bus("a100-sxm-80g", 4) > 150
