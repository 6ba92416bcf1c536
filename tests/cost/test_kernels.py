"""Operator times against the measurements they were fitted to, and against shapes held out of the fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sim.cost.fit import operators
from sim.cost.fit.core import median
from sim.cost.fit.stacks import STACKS, _half
from sim.cost.formats import HALF
from sim.cost.kernels import Kernels
from sim.cost.residual import Residual, multilinear, pack
from sim.cost.stack import load_stack
from sim.hardware import load_accelerator
from tests.cost.common import SHARED, needs_kernels

# (system, framework, version) → held-out errors (median, p90) of the operator study, form e, per cent
GEMM = {"h100-sxm.vllm": (2.8, 10.2), "a100-sxm.vllm": (3.2, 13.0)}
DECODE = {"h100-sxm.vllm": (1.2, 3.9), "a100-sxm.vllm": (1.9, 26.0)}
PREFILL = {"h100-sxm.vllm": (2.9, 10.0), "a100-sxm.vllm": (2.0, 16.0)}


def rows(table, stack):
    data = pd.read_parquet(SHARED / f"data/kernels/{table}.parquet")
    s = STACKS[stack]
    return data[(data.system == s["system"]) & (data.framework == s["framework"]) & (data.version == s["version"])]


def test_multilinear_is_exact_on_its_grid_and_linear_in_logarithms_between():
    axes = (np.array([1.0, 4.0, 16.0]), np.array([2.0, 8.0]))
    values = np.arange(6.0).reshape(3, 2)

    assert multilinear(axes, values, 4.0, 8.0) == 3.0
    assert multilinear(axes, values, 2.0, 2.0) == 1.0
    assert multilinear(axes, values, 1e9, 1e-9) == 4.0


def test_a_measured_shape_keeps_its_own_residual_and_others_take_their_neighbours():
    table = Residual(np.array([[8.0, 1.0], [32.0, 8.0]]), (np.array([1.0, 2.0]),), pack(np.array([[0.1, 0.2], [0.5, 0.5]])))

    assert table.at((8, 1), 1.0) == pytest.approx(0.1, abs=0.01)
    assert 0.1 < table.at((16, 4), 1.0) < 0.5
    assert table.known((32, 8))
    assert not table.known((16, 4))


@needs_kernels
@pytest.mark.parametrize("stack", ["h100-sxm.vllm", "a100-sxm.vllm"])
def test_gemm_profile_reproduces_its_measurements(stack):
    d = rows("gemm", stack)
    d = median(
        d[(d.dtype.astype(str) == "bfloat16") & d.n.between(512, 16384) & d.k.between(512, 16384) & (d.m <= 8192)],
        ["m", "n", "k"],
    )
    kernels = Kernels(load_accelerator({"h": "h100-sxm", "a": "a100-sxm-80g"}[stack[0]]), "vllm")
    wrong = []
    for (n, k), part in d.groupby(["n", "k"]):
        wrong.append(np.abs(kernels.gemm("x", HALF, part.m.to_numpy(float), n, k).total / part.seconds.to_numpy() - 1.0))

    assert np.median(np.concatenate(wrong)) < 0.01


@needs_kernels
@pytest.mark.parametrize("stack", list(GEMM))
def test_gemm_on_shapes_held_out(stack):
    d = rows("gemm", stack)
    found = operators.gemm(d[d.dtype.astype(str) == "bfloat16"], _half(STACKS[stack]), 2.0, 2.0, True)["error"]["held_out_shapes"]

    assert found["median"] <= 1.3 * GEMM[stack][0]
    assert found["p90"] <= 1.3 * GEMM[stack][1]


@needs_kernels
@pytest.mark.parametrize("stack", list(DECODE))
def test_attention_on_heads_held_out(stack):
    half = _half(STACKS[stack])
    d = rows("attention_decode", stack)
    decode = operators.decode(d[d.kv_dtype.astype(str) == "bfloat16"], half, 128, 2.0, True)["error"]["held_out_shapes"]
    d = rows("attention_prefill", stack)
    prefill = operators.prefill(d[d.kv_dtype.astype(str) == "bfloat16"], half, 128, True)["error"]["held_out_shapes"]

    assert decode["median"] <= 1.4 * DECODE[stack][0]
    assert decode["p90"] <= 1.4 * DECODE[stack][1]
    assert prefill["median"] <= 1.4 * PREFILL[stack][0]
    assert prefill["p90"] <= 1.4 * PREFILL[stack][1]


def test_profiles_are_small_and_quick_to_read():
    import time

    load_stack.cache_clear()
    start = time.perf_counter()
    operators_read = load_stack("h100-sxm.vllm")

    assert time.perf_counter() - start < 0.5
    assert {"gemm.bf16", "gemm.fp8", "prefill.bf16.128", "decode.bf16.128", "moe.bf16", "all_reduce"} <= set(operators_read)


def test_prompts_attend_to_expanded_keys_and_values_and_sparse_attention_to_latent_ones():
    kernels = Kernels(load_accelerator("h200-sxm"), "vllm")
    expanded = float(kernels.latent_prefill(1, 16384, 16, "bf16"))
    latent = float(kernels.latent_prefill(1, 16384, 16, "bf16", chosen=True))

    assert latent / expanded == pytest.approx(1088 / 320, rel=0.02)
    # TensorRT-LLM's kernel, which is expanded too, was measured on this card at 604 TFLOP/s
    assert 16 * 16384**2 / 2 * 640 / expanded == pytest.approx(604e12, rel=0.1)
