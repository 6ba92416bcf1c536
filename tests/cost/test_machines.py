"""Whose kernels stand in for whom: by rules in data, by numbers and not by the spelling of names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sim.cost.formats import HALF
from sim.cost.kernels import Kernels
from sim.cost.machines import alike, choose, machines
from sim.cost.profile import load_engine_profile
from sim.cost.stack import load_stack
from sim.errors import UnknownNameError
from sim.hardware import Accelerator, accelerator_names, load_accelerator, parse_accelerator
from sim.resources import path


def card(**changes: Any) -> Accelerator:
    raw = {
        "name": "mine", "vendor": "nvidia", "memory": "80GiB", "memory_bandwidth": "3000GB", "peak_tflops": {"bf16": 900}, "sm_count": 100,
        "tdp_watts": 600,
    }  # fmt: skip
    return parse_accelerator(raw | changes, "mine")


@pytest.mark.parametrize(
    ("changes", "system"),
    [
        ({"compute_capability": "10.0"}, "h100-sxm"), ({"compute_capability": "10.3", "memory_type": "hbm"}, "h100-sxm"),
        ({"compute_capability": "9.0"}, "h100-sxm"), ({"compute_capability": "8.0"}, "a100-sxm"), ({"compute_capability": "7.0"}, "a100-sxm"),
        ({"compute_capability": "12.0"}, "l40s"), ({"compute_capability": "12.0", "memory_type": "gddr"}, "l40s"),
        ({"compute_capability": "8.6"}, "l40s"), ({"compute_capability": "8.9"}, "l40s"), ({"compute_capability": "7.5"}, "l40s"),
        ({"compute_capability": "13.0", "memory_type": "hbm"}, "h100-sxm"), ({"vendor": "huawei", "kind": "npu"}, "ascend-910b"),
        ({"vendor": "amd"}, "a100-sxm"), ({"architecture": "x86-64 AVX2", "vendor": "generic"}, "any"), ({"kind": "cpu"}, "any"),
        ({"proxy": {"name": "h20-141g", "reason": "alike"}}, "h20"), ({"proxy": {"name": "rtx-5090", "reason": "alike"}}, "l40s"),
    ],
)  # fmt: skip
def test_a_stand_in_follows_from_what_an_accelerator_is(changes: dict[str, Any], system: str) -> None:
    found = choose(card(**changes), "vllm")

    assert found.system == system
    assert found.reason


@pytest.mark.parametrize("name", ["h100", "a10", "l20", "hopper-x", "a-card"])
def test_the_spelling_of_a_name_decides_nothing(name: str) -> None:
    ampere = card(name=name, compute_capability="8.6")
    hopper = card(name=name, compute_capability="9.0")

    assert choose(ampere, "vllm").system == "l40s"
    op = load_stack("h100-sxm.vllm")["gemm.bf16"]
    assert Kernels(hopper, "vllm").same_machine(op) and not Kernels(ampere, "vllm").same_machine(op)


@pytest.mark.parametrize("name", accelerator_names())
def test_every_accelerator_has_kernels_for_every_framework(name: str) -> None:
    a = load_accelerator(name)
    for framework in ("vllm", "sglang", "vllm-ascend", "llama.cpp"):
        t = Kernels(a, framework).gemm("x", HALF, np.array([1.0, 64.0]), 4096, 4096).total
        assert (t > 0).all()


def test_measured_accelerators_take_their_own_kernels() -> None:
    for system, m in machines().items():
        for name in m.accelerators:
            found = choose(load_accelerator(name), "vllm")
            assert (found.system, found.reason) == (system, "")


def test_every_fitted_profile_belongs_to_a_machine_and_rules_have_an_order() -> None:
    systems = {f.name.split(".")[0] for f in path("profiles", "fitted").glob("*.yaml")}
    orders = [r.order for m in machines().values() for r in m.stands_in_for]

    assert systems == set(machines())
    assert len(orders) == len(set(orders))
    assert {s for m in machines().values() for s in m.others} <= systems


def test_proxies_that_go_round_end_and_unknown_ones_are_named() -> None:
    assert choose(card(name="h20-141g", proxy={"name": "h20-141g", "reason": "itself"}), "vllm").system
    with pytest.raises(UnknownNameError, match=r"proxy of mine.*h1000"):
        choose(card(proxy={"name": "h1000", "reason": "alike"}), "vllm")


def test_a_processor_does_not_multiply_tiles_of_a_gpu() -> None:
    cpu = load_accelerator("cpu-server")
    one, many = Kernels(cpu, "vllm").gemm("x", HALF, np.array([1.0, 64.0]), 4096, 4096).total

    assert many > 5 * one  # memory for one row, compute for 64
    weights = 2.0 * 4096 * 4096 / cpu.memory_bandwidth
    assert one < 2.0 * weights


def test_an_engine_on_a_processor_says_whose_kernels_it_takes() -> None:
    kernels = Kernels(load_accelerator("cpu-server"), "vllm")

    assert any("llama.cpp's CPU backend" in n for n in kernels.notes)
    assert not Kernels(load_accelerator("cpu-server"), "llama.cpp").notes


def test_only_accelerators_with_such_memory_are_held_back_by_their_cores() -> None:
    hbm = load_accelerator("h100-sxm")
    gddr = replace(hbm, memory_type="gddr")
    slow, fast = (Kernels(a, "llama.cpp").gemm("x", HALF, np.array([1.0]), 8192, 8192).total[0] for a in (hbm, gddr))

    assert slow > 2 * fast


def test_figures_of_engines_hold_for_accelerators_whose_kernels_stand_in() -> None:
    assert alike(load_accelerator("h200-sxm")) == ("h200-sxm",)  # measured itself
    assert alike(load_accelerator("mi325x"))[:3] == ("mi325x", "mi300x", "h200-sxm")
    assert alike(card(compute_capability="8.0")) == ("mine", "a100-sxm-80g")

    def old(name: str) -> float:
        return load_engine_profile("vllm", "0.2", *alike(load_accelerator(name))).comms_scale

    assert old("a800-sxm-80g") == old("a100-sxm-80g") != old("h100-sxm")
    assert old("h800-sxm") == old("h100-sxm") > 1.0
    # nobody measured it, and it ran the software of its time
    assert old("a100-sxm-80g") < old("l40s") == load_engine_profile("vllm", "0.2").comms_scale < old("h100-sxm")
    assert load_engine_profile("vllm", "0.6").comms_scale == 1.0


def test_mxfp4_experts_run_the_kernels_of_their_generation_whoever_else_stands_in() -> None:
    for capability, system in (("8.0", "l40s"), ("8.6", "l40s"), ("9.0", "h100-sxm"), ("10.0", "h100-sxm")):
        as_hopper = card(compute_capability=capability, proxy={"name": "h100-sxm", "reason": "alike"})
        found = Kernels(as_hopper, "vllm").find("moe.mxfp4")
        assert found is not None
        assert found.system == system
    hopper = {m: Kernels(load_accelerator("h100-sxm"), "vllm", marlin=m).find("moe.mxfp4") for m in (False, True)}
    assert {m: op.system for m, op in hopper.items() if op is not None} == {False: "h100-sxm", True: "l40s"}
    own = Kernels(load_accelerator("a100-sxm-80g"), "vllm").find("moe.mxfp4", "moe.int4")
    assert own is not None
    assert own.stack == "l40s.vllm"


@pytest.mark.parametrize("name", ["a10g", "rtx-4090", "rtx-5090", "l4"])
def test_cards_with_little_compute_for_a_byte_read_weights_as_fast_as_the_one_that_was_measured(name: str) -> None:
    """Kernels before Hopper have tiles of 16 rows: padding to 64 would make a row compute bound where there is less compute for a byte."""

    def share(a: Accelerator) -> float:
        t = Kernels(a, "vllm").gemm("x", HALF, np.array([1.0]), 14336, 4096).total[0]
        return float(2.0 * 14336 * 4096 / t / a.memory_bandwidth / (a.memory_efficiency or 0.83))

    assert share(load_accelerator(name)) == pytest.approx(share(load_accelerator("l40s")), rel=0.1)
    h20 = load_accelerator("h20")  # 64 rows at a time, and a seventh of the compute of an H100
    assert share(h20) < 0.6


def test_kernels_that_stand_in_start_as_much_slower_as_the_clock_is() -> None:
    """1.7 GHz of an RTX 3090 against 2.5 of the L40S whose kernels it takes; an L4's are as fast."""

    def least(name: str) -> float:
        a = load_accelerator(name)
        op = Kernels(a, "vllm").find("gemm.bf16")
        assert op is not None
        return Kernels(a, "vllm").q(op)[2]

    assert load_accelerator("rtx-3090").clock == pytest.approx(1.70e9, rel=0.01)
    assert load_accelerator("a100-sxm-80g").clock == pytest.approx(1.41e9, rel=0.01)
    assert load_accelerator("ascend-910b3").clock == 0.0
    assert least("rtx-3090") / least("l40s") == pytest.approx(2.52 / 1.70, rel=0.01)
    assert least("rtx-4090") == pytest.approx(least("l40s"), rel=0.01)
