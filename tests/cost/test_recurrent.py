"""Time of recurrent layers against measured kernels."""

import pytest

from sim.cost.recurrent import state_time
from sim.hardware import load_accelerator
from sim.model import load_model

# One gated delta rule of Qwen3.5-35B-A3B (32 value heads, 128 × 128), microseconds less the launch of 5.3 (decode) or 16.7 (prompt):
# vLLM 0.24, medians of aiconfigurator-core 0.12.
LAYERS = 30  # of 40 are recurrent


@pytest.mark.parametrize(("card", "rows_per_ms"), [("h100-sxm", 780), ("h200-sxm", 1000), ("b200", 1500)])
def test_decode_reads_and_writes_every_state_once(card: str, rows_per_ms: float) -> None:
    found = state_time(load_model("qwen3.5-35b-a3b"), load_accelerator(card), 1, 1)

    assert found is not None
    assert 1e-3 / (found.row / LAYERS) == pytest.approx(rows_per_ms, rel=0.35)


def test_prompts_are_bound_by_the_multiprocessors() -> None:
    model = load_model("qwen3-next-80b-a3b")
    h100, h200 = (state_time(model, load_accelerator(card), 1, 1) for card in ("h100-sxm", "h200-sxm"))

    assert h100 is not None and h200 is not None
    assert h100.token == h200.token  # as many multiprocessors, 1.4 times the bandwidth
    assert h100.row > h200.row
    halves = state_time(model, load_accelerator("h100-sxm"), 2, 1)
    assert halves is not None
    assert halves.row == pytest.approx(h100.row / 2)
    assert halves.token == pytest.approx(h100.token / 2)
    assert state_time(load_model("qwen3-8b"), load_accelerator("h100-sxm"), 1, 1) is None
