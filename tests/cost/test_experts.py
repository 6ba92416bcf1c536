"""Experts: the busiest rank by chance, kernels that were measured by what they did, weights that are unpacked on the way."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sim.cost import forms
from sim.cost.build import build_tables
from sim.cost.formats import HALF, Gemm, expert_format
from sim.cost.kernels import Kernels
from sim.cost.launches import around_experts
from sim.cost.layout import Layout
from sim.cost.profile import load_engine_profile
from sim.cost.stack import load_stack
from sim.hardware import load_accelerator
from sim.model import load_model

if TYPE_CHECKING:
    from sim.cost.residual import Floats
    from sim.model.spec import ModelSpec


@pytest.mark.parametrize(("experts", "top_k", "ranks"), [(128, 8, 4), (256, 8, 8), (8, 2, 2), (8, 2, 4), (128, 4, 4)])
@pytest.mark.parametrize("tokens", [1, 4, 16, 64, 512])
def test_the_busiest_rank_is_that_of_drawing(experts: int, top_k: int, ranks: int, tokens: int) -> None:
    rng = np.random.default_rng(1)
    drawn = []
    for _ in range(400):
        chosen = np.argpartition(rng.random((tokens, experts)), top_k, axis=1)[:, :top_k]
        load = np.bincount((chosen // (experts // ranks)).ravel(), minlength=ranks)
        drawn.append(load.max() / (tokens * top_k / ranks))

    assert float(forms.busiest(tokens, experts, top_k, ranks)) == pytest.approx(np.mean(drawn), rel=0.09)


def test_the_busiest_rank_is_never_below_the_mean_or_above_everything() -> None:
    tokens = np.arange(1, 5000)
    for ranks in (1, 2, 8, 64, 256):
        found = forms.busiest(tokens, 256, 8, ranks)
        assert (found >= 1.0).all() and (found <= ranks).all()
        assert (np.diff(found) <= 1e-12).all()
    assert (forms.busiest(tokens, 256, 8, 1) == 1.0).all()


@pytest.mark.parametrize(
    ("framework", "model", "counted"),
    [
        ("vllm", "minimax-m2.5", False),  # 256 experts: the busiest rank was timed, under skewed routing
        ("vllm", "mixtral-8x7b", True),  # 8 experts: even routing was timed
        ("vllm-ascend", "qwen3-30b-a3b", True),  # nothing is known of how its experts were routed
    ],
)
def test_the_busiest_rank_is_counted_once(framework: str, model: str, counted: bool) -> None:
    card = load_accelerator("ascend-910b3" if framework == "vllm-ascend" else "h100-sxm")
    m, kernels, tokens, ep = load_model(model), Kernels(card, framework), np.array([16.0, 512.0]), 4
    shape, fmt = m.moe_shape(ep, ep, 1), expert_format(m, card)
    assert shape is not None
    op = kernels.find(*[t.replace("gemm", "moe") for t in fmt.tables])
    assert op is not None and (shape.experts <= op.skewed_beyond) == counted
    found = np.asarray(kernels.moe(fmt, tokens, shape, ep).total)
    kernels.find = lambda *_: replace(op, skewed_beyond=0.0)  # type: ignore[method-assign]
    as_timed = np.asarray(kernels.moe(fmt, tokens, shape, ep).total)

    assert (found > as_timed).all() if counted else (found == as_timed).all()


def test_small_batches_gain_less_from_spreading_experts() -> None:
    model, card, profile = load_model("qwen3-30b-a3b"), load_accelerator("h100-sxm"), load_engine_profile("vllm")
    cut, _ = build_tables(model, card, Layout(tp=4), profile, 4096)
    spread, _ = build_tables(model, card, Layout(tp=4, ep=4), profile, 4096)
    ratio = spread.layers.sum(axis=1) / np.maximum(cut.layers.sum(axis=1), 1e-12)

    assert ratio[4] > 1.05


@pytest.mark.parametrize("name", ["h100-sxm", "h200-sxm", "l40s", "a100-sxm-80g"])
@pytest.mark.parametrize("framework", ["vllm", "sglang"])
def test_experts_are_not_read_faster_than_memory(name: str, framework: str) -> None:
    """All experts of a rank are woken at 512 tokens: their bytes take their time, whatever a table says."""
    card = load_accelerator(name)
    kernels = Kernels(card, framework)
    for model, weights in (
        ("deepseek-v3", "fp8"),
        ("gpt-oss-120b", "mxfp4"),
        ("qwen3-235b-a22b", "fp8"),
        ("glm-4.5-air", "bf16"),
    ):
        m = load_model(model, weights)
        fmt, shape = expert_format(m, card), m.moe_shape(8, 1, 1)
        assert shape is not None
        least = shape.local_experts * 3.0 * shape.hidden * shape.intermediate * fmt.weight_bytes / card.memory_bandwidth
        t = float(np.asarray(kernels.moe(fmt, np.array([512.0]), shape, 1).total)[0])
        assert t > 0.9 * least, (model, t / least)


def test_mxfp4_experts_take_the_kernel_that_engines_run() -> None:
    """SGLang's table was timed with the kernel for 16-bit weights; A100 runs Marlin as L40S does."""
    m = load_model("gpt-oss-120b", "mxfp4")
    shape = m.moe_shape(1, 1, 1)
    assert shape is not None
    for name in ("h100-sxm", "h200-sxm", "a100-sxm-80g", "l40s"):
        card = load_accelerator(name)
        one, two = (Kernels(card, f).moe(expert_format(m, card), np.array([64.0]), shape, 1).total[0] for f in ("vllm", "sglang"))
        assert one == pytest.approx(two)
        packed = 128 * 3.0 * 2880 * 2880 * 4.25 / 8 / card.memory_bandwidth
        assert one < 2.5 * packed  # 16-bit weights alone are 3.8 times as many bytes


def test_expert_parallelism_of_a100_divides_the_work() -> None:
    m, card = load_model("glm-4.5-air", "bf16"), load_accelerator("a100-sxm-80g")
    kernels = Kernels(card, "sglang")
    cut, spread = (
        float(kernels.moe(expert_format(m, card), np.array([4096.0]), m.moe_shape(4, ep, 1), ep).total[0])  # type: ignore[arg-type]
        for ep in (1, 4)
    )

    assert spread == pytest.approx(cut, rel=0.25)
    assert not (load_stack("a100-sxm.sglang")["moe.bf16"].residual.keys[:, 4] > 1).any()  # type: ignore[union-attr]


def test_packed_weights_read_as_fast_as_others_where_cores_keep_up() -> None:
    int4 = Gemm("awq", ("gemm.int4", "gemm.bf16"), "bf16", 0.52, 2.0)

    def share(name: str) -> float:
        kernels = Kernels(load_accelerator(name), "vllm")
        one = np.array([1.0])
        return float(kernels.gemm("x", int4, one, 16384, 8192).total[0] / kernels.gemm("x", HALF, one, 16384, 8192).total[0])

    assert 0.26 < share("a100-sxm-80g") < 0.40
    assert share("h20") > share("a100-sxm-80g")  # few cores for much bandwidth


def test_launches_of_experts_without_graphs() -> None:
    """Below 128 tokens vLLM runs fused kernels, from there on grouped products with many launches."""
    profile = load_engine_profile("vllm", "0.12").adapted(graphs=False)
    tables, _ = build_tables(
        load_model("qwen3-235b-a22b", "fp8"), load_accelerator("h200-sxm"), Layout(tp=2), profile, max_tokens=256
    )
    floor = tables.layers.reshape(-1, 5)[:, 4]

    assert floor[20] == pytest.approx(94 * (profile.eager_layer + 0.15e-3))
    assert floor[20] == floor[127]
    assert floor[128] == pytest.approx(94 * (profile.eager_layer + profile.eager_expert_layer))


def test_lent_kernels_reach_as_much_of_the_peak_as_dense_products_do() -> None:
    """Marlin of mxfp4 experts was measured on L40S, whose power limit keeps dense products at 63 % of the peak; A100 reaches 86 %."""
    model = load_model("gpt-oss-20b")
    shape = model.moe_shape(1, 1, 1)
    assert shape is not None
    compute, dense = {}, {}
    for name, stack in (("l40s", "l40s.vllm"), ("a100-sxm-80g", "a100-sxm.vllm")):
        accelerator = load_accelerator(name)
        times = Kernels(accelerator, "vllm").moe(expert_format(model, accelerator), 8192.0, shape, 1)
        compute[name] = float(times.compute)
        dense[name] = accelerator.peak("bf16") * load_stack(stack)["gemm.bf16"].q[0]

    assert compute["a100-sxm-80g"] / compute["l40s"] == pytest.approx(dense["l40s"] / dense["a100-sxm-80g"], rel=0.01)


def test_vllm_ran_experts_with_block_scales_by_cutlass_on_hopper_for_two_releases() -> None:
    model = load_model("MiniMaxAI/MiniMax-M2.5", "fp8")

    def experts(version: str, model: ModelSpec, ep: int = 1, name: str = "h200-sxm") -> Floats:
        """Seconds of steps of 4 and of 7,400 tokens, all parts together."""
        card = load_accelerator(name)
        profile = load_engine_profile("vllm", version, name)
        tables, _ = build_tables(model, card, Layout(tp=4, ep=ep), profile, 7400)
        return tables.layers_prompt[[4, 7400], :4].sum(axis=1)

    more = experts("0.16", model) - experts("0.14", model)
    assert more[0] == pytest.approx(62 * 50e-6, rel=0.15)  # measured: 12.4 ms a token at 4 requests, 9.1 with the kernels before
    assert more[1] == pytest.approx(62 * 1.0e-3, rel=0.2)  # measured: 77 ms a prompt
    for version, ep, name in (("0.17", 1, "h200-sxm"), ("0.16", 4, "h200-sxm"), ("0.16", 1, "a100-sxm-80g")):
        assert (experts(version, model, ep, name) == experts("0.14", model, ep, name)).all()
    scout = load_model("meta-llama/Llama-4-Scout-17B-16E-Instruct", "fp8")
    assert (experts("0.16", scout) == experts("0.14", scout)).all()  # no block scales
    assert load_engine_profile("vllm", "0.16", "h200-sxm").line == "0.14"


def test_sglang_computes_the_shared_expert_of_deepseek_with_the_routed_ones() -> None:
    """A kernel less in few tokens, about as much work in many; not where ranks hold whole experts, nor for other models."""

    def layers(model: str, fused: bool, tokens: int, ep: int = 1) -> float:
        card = load_accelerator("h200-sxm")
        profile = replace(load_engine_profile("sglang", "0.5", "h200-sxm"), fused_shared_experts=fused)
        tables, _ = build_tables(load_model(model), card, Layout(tp=8, ep=ep), profile, tokens)
        return float(tables.layers_prompt[tokens, :4].sum())

    assert load_engine_profile("sglang", "0.4.6").fused_shared_experts > load_engine_profile("sglang", "0.4").fused_shared_experts
    few = layers("deepseek-r1", False, 8) - layers("deepseek-r1", True, 8)
    assert 58 * 8e-6 < few < 58 * 20e-6
    assert layers("deepseek-r1", True, 4096) == pytest.approx(layers("deepseek-r1", False, 4096), rel=0.05)
    assert layers("deepseek-r1", True, 8, ep=8) == layers("deepseek-r1", False, 8, ep=8)
    assert layers("kimi-k2", True, 8) == layers("kimi-k2", False, 8)


def test_what_surrounds_experts_grows_with_tokens_and_the_hidden_width() -> None:
    """As much a token of DeepSeek (7,168 wide) as of 3.5 tokens of Qwen3 30B-A3B (2,048), under vLLM of either scheduling."""
    card, tokens = load_accelerator("h200-sxm"), np.array([1000.0])
    for version in ("0.11", "0.15"):
        profile = load_engine_profile("vllm", version, "h200-sxm")
        added = []
        for name in ("deepseek-r1", "qwen3-30b-a3b"):
            m = load_model(name)
            shape = m.moe_shape(1, 1, 1)
            assert shape is not None
            with_it, without = (
                around_experts(p, shape, expert_format(m, card), tokens, 1)[0]
                for p in (profile, replace(profile, expert_element=0.0))
            )
            added.append(with_it - without)
        assert added[0] == pytest.approx(1000 * 7168 * profile.expert_element)
        assert added == pytest.approx([3.5 * added[1], added[1]])
        assert added[1] > 0
