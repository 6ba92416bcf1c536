"""What no engine runs is predicted and named, what engines do run is not."""

from __future__ import annotations

import pytest

from sim.engine.contract import Site
from sim.engine.unfit import unfit
from sim.hardware import load_accelerator
from sim.model import load_model


@pytest.mark.parametrize(
    ("engine", "card", "weights", "says"),
    [
        ("vllm-ascend", "h100-sxm", "auto", "Ascend NPUs only"),
        ("vllm", "ascend-910b3", "auto", "vllm-ascend"),
        ("mindie", "ascend-910b3", "fp8", "no FP8 units"),
        ("vllm", "p100-pcie-16g", "auto", "needs compute capability 7; "),
        ("vllm", "v100-sxm-32g", "fp8", "no kernels for fp8 weights below compute capability 7.5"),
        ("sglang", "v100-sxm-32g", "auto", "needs compute capability 7.5"),
    ],
)
def test_it_is_named(engine, card, weights, says):
    (sentence,) = unfit(engine, Site(load_model("llama-3.1-8b", weights), load_accelerator(card)))
    assert says in sentence


@pytest.mark.parametrize(
    ("engine", "card", "weights"),
    [("vllm", "h100-sxm", "fp8"), ("vllm", "t4", "awq"), ("vllm-ascend", "ascend-910b3", "w8a8"), ("sglang", "ascend-910b3", "w8a8"),
     ("vllm", "v100-sxm-32g", "fp16"), ("llama.cpp", "p100-pcie-16g", "q4_k_m"), ("vllm", "mi300x", "fp8"), ("vllm", "a100-sxm-80g", "fp8")],
)  # fmt: skip
def test_nothing_is_said_of_what_runs(engine, card, weights):
    assert unfit(engine, Site(load_model("llama-3.1-8b", weights), load_accelerator(card))) == ()
