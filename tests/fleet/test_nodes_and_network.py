"""A deployment says its node and its network: engines that span nodes and the hand-over of KV use the same."""

from __future__ import annotations

from typing import Any

import pytest

from sim.config import loads
from sim.errors import ConfigError
from sim.fleet.build import plan
from sim.fleet.kv_links import Wire

SCENARIO = """
model: {name: llama-3.1-70b, weights: fp8}
traffic: {synthetic: {arrival: {process: poisson, rate: 1/s}, lengths: {kind: fixed, prompt_tokens: 100, output_tokens: 10}, requests: 10}}
deployment: {accelerator: h100-sxm, tp: 8, pp: 2, engine: {name: vllm, max_model_len: 8192}}
"""


def planned(*overrides: str) -> Any:
    return plan(loads(SCENARIO, overrides))[0]


def seconds(p: Any) -> float:
    from sim.cost.features import N_FEATURES, PREFILL_ROWS, PREFILL_TOKENS, ROWS, SAMPLED, TOKENS
    from sim.ledger import N_PARTS
    from tests.cost.common import np, seconds

    assert N_PARTS
    feat = np.zeros(N_FEATURES)
    feat[[TOKENS, PREFILL_TOKENS]] = 4096.0
    feat[[ROWS, PREFILL_ROWS, SAMPLED]] = 1.0
    return seconds(p.cost, feat)


def test_a_slow_network_shows_in_every_step() -> None:
    usual, slow, one = (
        planned(),
        planned("deployment.network=tcp-10g"),
        planned("deployment.node=16", "deployment.network=tcp-10g"),
    )

    assert seconds(slow) > seconds(usual) + 0.005
    assert seconds(one) < seconds(usual)
    assert any("joined by tcp-10g" in n for n in slow.evidence.notes)
    assert not any("nodes of" in n for n in one.evidence.notes)


def test_the_hand_over_of_kv_takes_the_same_network() -> None:
    slow = planned("deployment.network=tcp-10g")
    named = planned("deployment.node=dgx-h100")

    assert Wire.of(None, slow.accelerator, slow.layout).bandwidth == pytest.approx(0.72 * 1.25e9)
    assert Wire.of(None, named.accelerator, named.layout).name == "rdma-400g"


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("deployment.node=0", "greater than or equal to 1"), ("deployment.node=true", "node"), ("deployment.node=dgx-h10", "dgx-h100"),
        ("deployment.network=tcp-26g", "tcp-25g"), ("deployment.network=none", "joins nothing"), ("deployment.network=absent.yaml", "no such file"),
    ],
)  # fmt: skip
def test_what_is_no_node_or_network(override: str, problem: str) -> None:
    from sim.errors import ServesimError

    with pytest.raises(ServesimError, match=problem):
        planned(override)


def test_vllm_on_a_processor_as_its_platform_has_it() -> None:
    p = planned("deployment={accelerator: cpu-server, engine: {name: vllm, max_model_len: 8192}}", "model=llama-3.2-1b")

    assert (p.params.block_size, p.params.max_num_seqs, p.params.max_num_batched_tokens) == (128, 128, 2048)
    assert not p.params.async_scheduling and not p.profile.overlap and not p.profile.graph_sizes
    assert p.budget.kv_bytes == 0.5 * p.accelerator.memory_bytes
    sized = planned(
        "deployment={accelerator: cpu-server, engine: {name: vllm, max_model_len: 8192, VLLM_CPU_KVCACHE_SPACE: 1}}",
        "model=llama-3.2-1b",
    )
    assert sized.budget.kv_blocks == 2**30 // int(128 * sized.model.kv_bytes_per_token())


@pytest.mark.parametrize(
    ("setting", "accelerator"),
    [
        ("gpu_memory_utilization: 0.9", "cpu-server"),
        ("async_scheduling: true", "cpu-server"),
        ("VLLM_CPU_KVCACHE_SPACE: 4", "h100-sxm"),
    ],
)
def test_settings_without_effect_there_are_refused(setting: str, accelerator: str) -> None:
    with pytest.raises(ConfigError, match=setting.split(":")[0]):
        planned(
            f"deployment={{accelerator: {accelerator}, engine: {{name: vllm, max_model_len: 8192, {setting}}}}}",
            "model=llama-3.2-1b",
        )
