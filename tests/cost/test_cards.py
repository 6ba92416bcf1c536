"""Cards with GDDR that were not measured: what they reach of memory and matrix units, and kernels that do not split contexts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sim.cost.attention import surfaces
from sim.cost.formats import HALF
from sim.cost.kernels import Kernels
from sim.cost.profile import load_engine_profile
from sim.cost.step import grid_point
from sim.hardware import Accelerator, load_accelerator
from sim.model import load_model


def share_of_bandwidth(a: Accelerator) -> float:
    """What a product of one row reads, of what the datasheet says."""
    t = Kernels(a, "vllm").gemm("x", HALF, np.array([1.0]), 28672, 8192).total[0]
    return float(2.0 * 28672 * 8192 / t / a.memory_bandwidth)


def share_of_peak(a: Accelerator) -> float:
    """What a product of many rows computes, of what the datasheet says."""
    t = Kernels(a, "vllm").gemm("x", HALF, np.array([8192.0]), 28672, 8192).total[0]
    return float(2.0 * 8192 * 28672 * 8192 / t / a.peak("bf16"))


def test_gddr_without_error_correction_reads_faster_than_the_l40s_also_where_nobody_measured_it() -> None:
    known = load_accelerator("rtx-4090")
    unknown = replace(known, memory_efficiency=0.0)
    with_correction = replace(known, memory_efficiency=load_accelerator("l40s").memory_efficiency)

    assert share_of_bandwidth(unknown) == pytest.approx(share_of_bandwidth(known), rel=0.04)
    assert share_of_bandwidth(with_correction) == pytest.approx(share_of_bandwidth(load_accelerator("l40s")), rel=0.05)
    assert share_of_bandwidth(unknown) > 1.08 * share_of_bandwidth(with_correction)


def test_a_kernel_that_a_cache_helped_gains_nothing_from_faster_memory() -> None:
    """Decode attention was measured on L40S at 0.95 of its bandwidth, where long reads reach 0.83."""
    faster = load_accelerator("rtx-4090")
    op = Kernels(faster, "vllm").find("decode.bf16.128")
    assert op is not None

    assert Kernels(faster, "vllm").machine(op).bandwidth == pytest.approx(faster.memory_bandwidth, rel=0.01)


@pytest.mark.parametrize(("name", "least", "most"), [("rtx-3090", 0.75, 0.85), ("rtx-a6000", 0.5, 0.66), ("rtx-5090", 0.5, 0.66)])
def test_tensor_cores_at_half_rate_reach_more_of_their_peak(name: str, least: float, most: float) -> None:
    """GA102 with half of the rate (RTX 3090) is held back less than the whole (RTX A6000); on Blackwell it was not seen."""
    assert least < share_of_peak(load_accelerator(name)) < most


def test_an_accelerator_whose_kernels_were_measured_keeps_them() -> None:
    own = load_accelerator("l40s")
    op = Kernels(own, "vllm").find("gemm.bf16")
    assert op is not None

    assert Kernels(own, "vllm").machine(op) == op.machine


def test_paged_attention_of_tgi_1_1_goes_through_a_long_context_in_one_block() -> None:
    """Batch 1, Llama 2 13B on four A10G: 3,500 tokens cost 0.2 ms a layer; from 1.1.1 on contexts are cut into parts."""

    def layer(version: str, rows: int, context: int) -> float:
        a, m = load_accelerator("a10g"), load_model("llama-2-13b")
        s = surfaces(m, a, 4, Kernels(a, "vllm"), load_engine_profile("tgi", version, "a10g"))
        return float(_at(s.decode, rows, context)) / m.layers

    assert layer("1.1.0", 1, 3500) == pytest.approx(70e-9 * 3500, rel=0.2)
    assert layer("1.1.1", 1, 3500) < 0.4 * layer("1.1.0", 1, 3500)
    assert layer("1.1.0", 1, 3500) == pytest.approx(layer("1.1.0", 4, 3500), rel=0.01)  # blocks run side by side
    assert layer("1.1.0", 512, 3500) == pytest.approx(layer("1.1.1", 512, 3500))  # and then memory bounds both


def _at(surface: Any, rows: int, context: int) -> float:
    """The surface at the grid point nearest to ``rows`` and ``context``."""
    grid = [np.array([grid_point(i) for i in range(n)]) for n in surface.shape]
    return float(surface[np.abs(grid[0] - rows).argmin(), np.abs(grid[1] - context).argmin()])
