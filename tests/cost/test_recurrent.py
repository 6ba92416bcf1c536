"""Time of recurrent layers against measured kernels."""

import pytest

from sim.cost.build import build_tables
from sim.cost.layout import Layout
from sim.cost.plain import plain_step_time
from sim.cost.profile import load_engine_profile
from sim.cost.recurrent import state_time
from sim.hardware import load_accelerator
from sim.model import load_model
from tests.cost.common import batch

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


@pytest.mark.parametrize(
    ("tp", "ep", "tokens", "decoding", "logged_ms"),
    [
        (4, 1, 128, 0, 15.8), (4, 1, 100, 31, 15.9), (4, 1, 528, 0, 40.0), (4, 1, 2112, 31, 41.4), (4, 1, 7920, 1, 45.2),
        (2, 2, 128, 0, 15.8), (2, 2, 1024, 0, 40.2), (2, 2, 7392, 1, 51.5),
    ],
)  # fmt: skip
def test_prompts_of_hybrid_models_wait_for_launches(tp: int, ep: int, tokens: int, decoding: int, logged_ms: float) -> None:
    """Medians of logged forward passes of Qwen3.6-35B-A3B on B300 under vLLM 0.20.1 (aiconfigurator).

    Up to 512 tokens graphs hold all but attention and recurrent layers, beyond nothing; only long prompts keep the device busy for longer than that.
    """
    accelerator = load_accelerator("b300")
    profile = load_engine_profile("vllm", "0.20.1", accelerator.name)
    tables, _ = build_tables(load_model("qwen3.6-35b-a3b"), accelerator, Layout(tp=tp, ep=ep), profile, 8192)

    assert 1e3 * plain_step_time(tables, batch(decoding, 4000, 1, tokens))[0] == pytest.approx(logged_ms, rel=0.12)


def test_only_prompts_pay_for_launching_recurrent_layers() -> None:
    profile = load_engine_profile("vllm", "0.20.1", "b300")
    bare = profile.changed({"recurrent_layer": 0.0})
    built = (load_model("qwen3.6-35b-a3b"), load_accelerator("b300"), Layout(tp=4))
    with_launches, without = (build_tables(*built, p, 1024)[0] for p in (profile, bare))

    assert plain_step_time(with_launches, batch(16, 500)) == plain_step_time(without, batch(16, 500))
    assert plain_step_time(with_launches, batch(0, 0, 1, 64))[0] > 2 * plain_step_time(without, batch(0, 0, 1, 64))[0]
    dense = (load_model("qwen3-32b"), *built[1:])
    a, b = (build_tables(*dense, p, 1024)[0] for p in (profile, bare))
    assert plain_step_time(a, batch(0, 0, 1, 64)) == plain_step_time(b, batch(0, 0, 1, 64))
