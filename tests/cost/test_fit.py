"""A user's own micro-benchmarks become a profile that a step cost can be built on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sim.cost import forms
from sim.cost.fit.stacks import fit_stack
from sim.cost.formats import HALF
from sim.cost.forms import Machine
from sim.cost.kernels import Kernels
from sim.cost.stack import load_stack
from sim.hardware import load_accelerator

HERE = Machine(100e12, 1e12, 64)
TRUE = (0.7, 0.8, 5.0, 3.0, 0.2, 50.0)


@pytest.fixture
def folder(tmp_path):
    sizes = [256, 1024, 4096]
    rows = [
        {"m": m, "n": n, "k": k, "latency_us": 1e6 * float(forms.gemm(TRUE, HERE, m, n, k).total)}
        for m in (1, 8, 64, 512, 4096)
        for n in sizes
        for k in sizes
    ]
    data = pd.DataFrame(rows).assign(system="mine", framework="own", version="1", dtype="bfloat16")
    data.to_parquet(tmp_path / "gemm.parquet")
    return tmp_path


def test_one_table_is_enough(folder, monkeypatch):
    stack = {"system": "mine", "framework": "own", "version": "1", "source": "a test"}
    reference = {"peak": {"bf16": HERE.peak}, "bandwidth": HERE.bandwidth, "sm": HERE.sm, "link": 1e9}

    fit_stack("rtx-3090.vllm", stack | {"reference": reference}, folder, folder, False)

    load_stack.cache_clear()
    monkeypatch.setattr("sim.cost.stack.path", lambda *parts: folder / parts[-1])
    try:
        kernels = Kernels(load_accelerator("rtx-3090"), "vllm")
        got = kernels.gemm("linear layers", HALF, np.array([1.0, 100.0]), 2048, 1024).total
    finally:
        load_stack.cache_clear()
    expected = forms.gemm(TRUE, HERE, np.array([1.0, 100.0]), 2048.0, 1024.0).total
    assert got == pytest.approx(expected, rel=0.12)
    assert kernels.used["linear layers"][0] == "measured"
