"""What Hopper's multiplication by warp groups means for kernels with and without it."""

from __future__ import annotations

import numpy as np
import pytest

from sim.cost.attention import surfaces
from sim.cost.formats import gemm_format, plain_format
from sim.cost.kernels import Kernels
from sim.cost.profile import load_engine_profile
from sim.cost.step import CONTEXT_GRID, grid_point
from sim.hardware import load_accelerator
from sim.model import load_model


@pytest.mark.parametrize(("card", "least"), [("h20", 1.5), ("h100-sxm", 1.3), ("a100-sxm-80g", 1.1)])
def test_prompts_to_packed_weights_take_longer_where_kernels_do_without_warp_groups(card: str, least: float) -> None:
    """Marlin reaches 63 % of Hopper's peak (arXiv 2402.13499); prompts to Qwen3 8B took 1.6 times as long in AWQ on H20."""
    a = load_accelerator(card)
    kernels, model = Kernels(a, "sglang"), load_model("qwen3-8b", "awq-int4")

    packed, plain = (
        float(kernels.gemm("linear", fmt, np.array(8192.0), 24576, 4096).total)
        for fmt in (gemm_format(model, a), plain_format(model))
    )

    assert least < packed / plain < least + 0.15


def test_decode_attention_grows_by_whole_blocks_of_keys() -> None:
    """FlashAttention 3 gives each of H20's 78 multiprocessors a whole number of blocks of 128 keys: three of one row's 8 x 20 and of its 8 x 24."""
    a = load_accelerator("h20")
    made = surfaces(load_model("qwen3-8b"), a, 1, Kernels(a, "sglang"), load_engine_profile("sglang", "0.4.6", "h20"))
    contexts = [grid_point(i) for i in range(CONTEXT_GRID)]
    seconds = {n: float(made.decode[0, contexts.index(n)]) for n in (2560, 3072, 3584)}

    assert seconds[2560] == seconds[3072]
    assert seconds[3584] - seconds[3072] == pytest.approx(
        (seconds[3072] - float(made.decode.min())) / 2
    )  # the shortest context takes one
