"""Step cost of models that are partly on the CPU: it adds up, it bends where ggml changes the device, it agrees with published speeds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sim.cost import features as f
from sim.cost.build import build_tables
from sim.cost.extras import Extras
from sim.cost.features import N_FEATURES
from sim.cost.ggml import MIN_BATCH
from sim.cost.layout import Layout
from sim.cost.placement import Placement, Sizes
from sim.cost.plain import plain_step_time
from sim.cost.profile import load_engine_profile
from sim.cost.tables import Tables
from sim.engine.schedulers.llamacpp.fit import last_layers
from sim.hardware import Accelerator, load_accelerator
from sim.model import load_model

PROFILE = load_engine_profile("llama.cpp")
HOST = load_accelerator("cpu-desktop")


def _tables(
    model: str, weights: str, card: Accelerator | str, p: Placement, tokens: int = 1100, layout: Layout | None = None
) -> Tables:
    accelerator = load_accelerator(card) if isinstance(card, str) else card
    spec = load_model(model, weights, "fp16")
    return build_tables(spec, accelerator, layout or Layout(), PROFILE, tokens, Extras(placement=p))[0]


def _placed(model: str, weights: str, n_gpu_layers: int, n_cpu_moe: int = 0, **changes: Any) -> Placement:
    p = last_layers(Sizes.of(load_model(model, weights, "fp16"), 4096), n_gpu_layers, n_cpu_moe)
    return replace(p, host=HOST, **changes)


def _decode(tables: Tables, context: float = 512.0, rows: int = 1) -> float:
    feat = [0.0] * N_FEATURES
    for index in (f.TOKENS, f.DECODE_ROWS, f.DECODE_TOKENS, f.SAMPLED, f.ROWS):
        feat[index] = float(rows)
    feat[f.DECODE_CTX] = rows * context
    return plain_step_time(tables, feat)[0]


def _prompt(tables: Tables, tokens: int) -> float:
    feat = [0.0] * N_FEATURES
    feat[f.TOKENS] = feat[f.PREFILL_TOKENS] = feat[f.PREFILL_CTX] = float(tokens)
    feat[f.PREFILL_ROWS] = feat[f.SAMPLED] = feat[f.ROWS] = 1.0
    feat[f.PREFILL_WORK] = tokens * tokens / 2.0
    return plain_step_time(tables, feat)[0]


def test_a_token_takes_longer_the_more_layers_are_on_the_processor() -> None:
    times = [
        _decode(_tables("llama-3.1-8b", "q4_k_m", "rtx-4090", _placed("llama-3.1-8b", "q4_k_m", n)))
        for n in (33, 32, 20, 10, 1, 0)
    ]
    assert times == sorted(times)
    steps = [(b - a) / n for a, b, n in zip(times[1:], times[2:], (12, 10, 9), strict=False)]
    assert steps == pytest.approx([steps[0]] * 3, rel=0.03)  # every layer costs the same
    slow = _decode(_tables("llama-3.1-8b", "q4_k_m", HOST, Placement()))
    assert times[-1] == pytest.approx(slow, rel=0.05)


def test_a_whole_placement_costs_what_the_card_costs() -> None:
    whole = _tables("llama-3.1-8b", "q4_k_m", "rtx-4090", Placement())
    plain, _ = build_tables(load_model("llama-3.1-8b", "q4_k_m", "fp16"), load_accelerator("rtx-4090"), Layout(), PROFILE, 1100)
    assert _decode(whole) == _decode(plain)
    assert _prompt(whole, 700) == _prompt(plain, 700)


def test_cards_hold_their_layers_one_after_the_other() -> None:
    one, two = (_decode(_tables("llama-3.1-8b", "q4_k_m", "rtx-4090", Placement(), layout=Layout(tp=n))) for n in (1, 2))
    assert one < two < 1.1 * one


def test_from_32_tokens_on_weights_are_copied_to_the_card() -> None:
    p = _placed("llama-3.1-8b", "q4_k_m", 10)
    lent, own = (_tables("llama-3.1-8b", "q4_k_m", "rtx-4090", replace(p, op_offload=on)) for on in (True, False))
    assert _prompt(lent, MIN_BATCH - 1) == pytest.approx(_prompt(own, MIN_BATCH - 1), rel=0.1)
    assert _prompt(lent, 512) < 0.5 * _prompt(own, 512)
    copies = sum(Sizes.of(load_model("llama-3.1-8b", "q4_k_m"), 0).layers[: p.cpu_layers]) / (0.4 * 31.5e9)
    assert _prompt(lent, 512) > copies
    assert _prompt(lent, 1024) == pytest.approx(2 * _prompt(lent, 512), rel=0.1)  # once in every micro-batch
    wide = _tables("llama-3.1-8b", "q4_k_m", "rtx-4090", replace(p, n_ubatch=1024))
    assert _prompt(wide, 1024) < 0.7 * _prompt(lent, 1024)


def test_experts_on_the_processor_cost_less_than_whole_layers() -> None:
    base = _decode(_tables("qwen3-30b-a3b", "q4_k_m", "rtx-4090", Placement()))
    experts = _decode(_tables("qwen3-30b-a3b", "q4_k_m", "rtx-4090", _placed("qwen3-30b-a3b", "q4_k_m", 49, 48)))
    layers = _decode(_tables("qwen3-30b-a3b", "q4_k_m", "rtx-4090", _placed("qwen3-30b-a3b", "q4_k_m", 1)))
    assert base < experts < layers


def _machine(base: str, **changes: Any) -> Accelerator:
    return replace(load_accelerator(base), **changes)


I7 = _machine("cpu-desktop", memory_bandwidth=42.7e9, peak_flops={"fp32": 0.83e12, "int8": 1.65e12}, sm_count=6)
I9 = _machine("cpu-desktop", memory_bandwidth=93.9e9, peak_flops={"fp32": 1.4e12, "int8": 5.5e12}, sm_count=10)
RTX_5060_TI = _machine("rtx-4090", memory_bandwidth=448e9, sm_count=36, peak_flops={"bf16": 47e12, "int8": 190e12, "fp32": 23e12})
RTX_2080 = _machine("rtx-3080", memory_bandwidth=448e9, sm_count=46, peak_flops={"bf16": 43e12, "int8": 160e12, "fp32": 10e12})


@pytest.mark.parametrize(
    ("model", "card", "host", "n_gpu_layers", "n_cpu_moe", "measured", "error"),
    [  # tokens/s of single streams: inventivehq.com vram-offload-cliff; AlexsJones/llmfit pull requests 774 and 778
        ("qwen2.5-14b", RTX_5060_TI, I7, 0, 0, 2.89, 0.12),
        ("qwen2.5-14b", RTX_5060_TI, I7, 24, 0, 5.61, 0.12),
        ("qwen2.5-14b", RTX_5060_TI, I7, 40, 0, 12.5, 0.12),
        ("qwen2.5-14b", RTX_2080, I9, 42, 0, 20.8, 0.25),
        ("qwen3-14b", RTX_2080, I9, 32, 0, 16.9, 0.25),
        ("gemma-3-12b", RTX_2080, I9, 44, 0, 26.1, 0.3),
        ("deepseek-v2-lite", RTX_2080, I9, 28, 16, 49.6, 0.35),
    ],
)
def test_published_speeds_of_partly_placed_models(
    model: str, card: Accelerator, host: Accelerator, n_gpu_layers: int, n_cpu_moe: int, measured: float, error: float
) -> None:
    p = replace(_placed(model, "q4_k_m", n_gpu_layers, n_cpu_moe), host=host)
    assert 1.0 / _decode(_tables(model, "q4_k_m", card, p, 64), 128.0) == pytest.approx(measured, rel=error)


def test_windowed_layers_keep_a_window_and_a_micro_batch() -> None:
    m = load_model("gemma-3-12b", "q4_k_m", "fp16")
    sizes = Sizes.of(m, 32768, 1, 1, 512)
    token = m.kv_groups()[0].bytes_per_token
    assert sorted(set(sizes.kv)) == [1536 * token, 32768 * token]  # a window of 1,024 and 512 more
    split, unified = Sizes.of(m, 32768, 4, 4, 512), Sizes.of(m, 32768, 1, 4, 512)
    assert min(split.kv) == 4 * 1536 * token
    assert min(unified.kv) == 4608 * token  # four windows share one micro-batch


@pytest.mark.parametrize(
    ("card", "seconds"),
    [("a100-sxm-80g", 0.175), ("l40s", 0.173), ("rtx-4090", 0.148), ("rtx-4000-ada", 0.443)],
)
def test_prompts_in_four_bits_wait_for_their_tiles(card: str, seconds: float) -> None:
    """1,024 tokens of Llama 3 8B in Q4_K_M: XiongjieDai/GPU-Benchmarks-on-LLM-Inference. Cards with more FLOP/s per byte/s reach less of their peak."""
    tables = _tables("llama-3-8b", "q4_k_m", card, _placed("llama-3-8b", "q4_k_m", 33))
    assert 2 * _prompt(tables, 512) == pytest.approx(seconds, rel=0.12)


@pytest.mark.parametrize(("card", "seconds"), [("rtx-4090", 0.113), ("rtx-4000-ada", 0.347)])
def test_prompts_in_16_bits_sum_up_in_16_bits(card: str, seconds: float) -> None:
    """As above in F16: cuBLAS sums up in 16 bits, which the GeForce does twice as fast as in 32, and the RTX 4000 Ada does not."""
    tables = _tables("llama-3-8b", "fp16", card, _placed("llama-3-8b", "fp16", 33))
    assert 2 * _prompt(tables, 512) == pytest.approx(seconds, rel=0.12)


def test_bf16_weights_sum_up_in_32_bits() -> None:
    fp16, bf16 = (_prompt(_tables("llama-3-8b", w, "rtx-4090", _placed("llama-3-8b", w, 33)), 512) for w in ("fp16", "bf16"))
    assert 1.5 < bf16 / fp16 < 2.0


@pytest.mark.parametrize(
    ("card", "model", "weights", "tokens_per_s"),
    [
        # llama.cpp pull request 3084 (7B) and brand-o/normiebench issue 40 (8B), 512 tokens
        ("apple-m2-ultra", "llama-2-7b", "fp16", 1265),
        ("apple-m2-ultra", "llama-2-7b", "q8_0", 1143),
        ("apple-m2-ultra", "llama-2-7b", "q4_0", 1164),
        ("apple-m1-max", "llama-3.1-8b", "q4_k_m", 500),
    ],
)
def test_metal_unpacks_prompts_to_16_bits(card: str, model: str, weights: str, tokens_per_s: float) -> None:
    layers = load_model(model).layers
    tables = _tables(model, weights, card, _placed(model, weights, layers + 1))
    assert 512 / _prompt(tables, 512) == pytest.approx(tokens_per_s, rel=0.15)
