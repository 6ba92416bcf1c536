"""vllm-ascend: which scheduler decides in which release, what is refused, and its schedulers' known answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sim.cost.features import PREFILL_TOKENS
from sim.cost.step import new_linear_cost
from sim.engine.contract import Site
from sim.engine.group import EngineGroup
from sim.engine.schedulers.vllm_ascend import VllmAscend, VllmAscendParams
from sim.engine.state import new_recorder
from sim.errors import ConfigError, NotModelledError
from sim.workload.table import RequestBlock

FIRST = {"ascend_scheduler_config": {"enabled": True}}


def lanes(threshold: int, wait_ms: float = 0.0) -> dict[str, Any]:
    return {"scheduler_config": {"short_request_first_config": {"threshold": threshold, "long_max_wait_ms": wait_ms}}}


def site(latent: bool = False, **layout: int) -> Site:
    card = SimpleNamespace(is_cpu=False, name="ascend-910b3", device_name="", memory_bytes=64 << 30, vendor="huawei")
    return Site(model=SimpleNamespace(max_position=8192, is_mla=latent), accelerator=card, **layout)


@pytest.mark.parametrize(
    ("version", "latent", "given", "first"),
    [
        ("0.9", False, {}, True),
        ("0.9.1", False, {}, True),
        ("0.9", True, {}, False),
        ("0.9", False, {"ascend_scheduler_config": {"enabled": False}}, False),
        ("0.9", False, {"ascend_scheduler_config": {"enabled": True, "enable_chunked_prefill": True}}, False),
        ("0.11", False, {}, False),
        ("0.11", True, FIRST, True),
        ("0.24", False, {}, False),
    ],
)
def test_the_scheduler_follows_the_release(version: str, latent: bool, given: dict[str, Any], first: bool) -> None:
    p = VllmAscend.resolve(VllmAscendParams(version=version, additional_config=given), site(latent))

    assert (p.prefill_first, p.enable_prefix_caching, p.enable_chunked_prefill) == (first, not first, not first)
    assert p.max_num_batched_tokens == (8192 if first else 2048)


@pytest.mark.parametrize(
    ("given", "layout", "error", "field"),
    [
        ({"version": "0.7"}, {}, NotModelledError, "version"),
        ({"version": "0.12", "additional_config": FIRST}, {}, ConfigError, "ascend_scheduler_config.enabled"),
        ({"version": "0.9", "async_scheduling": True}, {}, ConfigError, "async_scheduling"),
        ({"version": "0.9", "scheduling_policy": "priority"}, {}, ConfigError, "scheduling_policy"),
        ({"version": "0.9"}, {"pp": 2}, NotModelledError, "pp"),
        ({"version": "0.9", "max_num_batched_tokens": 1024}, {}, ConfigError, "max_num_batched_tokens"),
        ({"version": "0.9", "additional_config": lanes(10)}, {}, ConfigError, "short_request_first_config"),
        ({"scheduling_policy": "priority", "additional_config": lanes(10)}, {}, ConfigError, "scheduling_policy"),
        ({"max_loras": 2, "additional_config": lanes(10)}, {}, NotModelledError, "max_loras"),
        ({"additional_config": {"scheduler_config": {"dyntra_lb_config": {"x": 1.0}}}}, {}, NotModelledError, "dyntra_lb_config"),
        (
            {"additional_config": {"scheduler_config": {"recompute_scheduler_enable": True}}},
            {},
            NotModelledError,
            "recompute_scheduler_enable",
        ),
    ],
)
def test_refused(given: dict[str, Any], layout: dict[str, int], error: type[Exception], field: str) -> None:
    with pytest.raises(error) as caught:
        VllmAscend.resolve(VllmAscendParams(**given), site(**layout))

    assert caught.value.field.endswith(field)


def run(given: dict[str, Any], blocks: int, arrival: Any, prompt: Any, output: Any) -> dict[str, Any]:
    """One engine whose every step lasts 1 s."""
    recorder = new_recorder(1, 0, 1.0, 1024, 64, 1e-4, 4.0)
    cost = new_linear_cost(np.ones(2), np.array([PREFILL_TOKENS]), np.zeros((2, 1)))
    params = VllmAscend.resolve(
        VllmAscendParams(block_size=16, **{"max_model_len": 64, "async_scheduling": False} | given), Site()
    )
    group = EngineGroup([VllmAscend.new_state(params, Site(), blocks, 0, recorder, cost)], recorder)
    block = RequestBlock.of(np.array(arrival, float), prompt, output)
    group.submit(0, block.columns, block.spans, 0, len(block), 0)
    group.advance(np.inf, False)
    rows = group.drain()
    order = np.argsort(rows["id"], kind="stable")
    return {name: column[order] for name, column in rows.items()}


def test_prompts_go_first_and_pass_those_that_do_not_fit() -> None:
    """Of 9 usable blocks 2 are taken; the long prompt needs 4 of 7 and is passed over after another of 4, the short one is not."""
    rows = run({"version": "0.9"}, 10, [0.0, 0.5, 0.5, 0.5], [20, 60, 60, 10], [4, 2, 2, 2])

    np.testing.assert_array_equal(rows["first_scheduled_s"][[0, 1, 3]], [0.0, 1.0, 1.0])
    assert rows["first_scheduled_s"][2] == rows["finish_s"][[1, 3]].max() == 3.0
    assert rows["finish_s"][0] == 6.0  # its tokens waited for two steps of prompts


def test_short_prompts_pass_long_ones_until_those_have_waited() -> None:
    """One may run at a time, for two steps: of two long and two short prompts the short ones go first, unless a long one is 3 s old."""
    arrival, prompt, output = [0.0, 0.1, 0.2, 0.3, 2.5], [50, 50, 50, 10, 10], [2, 2, 2, 2, 2]
    never = run({"max_num_seqs": 1, "additional_config": lanes(16)}, 100, arrival, prompt, output)
    aged = run({"max_num_seqs": 1, "additional_config": lanes(16, 3000.0)}, 100, arrival, prompt, output)

    np.testing.assert_array_equal(never["first_scheduled_s"], [0.0, 6.0, 8.0, 2.0, 4.0])
    np.testing.assert_array_equal(aged["first_scheduled_s"], [0.0, 4.0, 6.0, 2.0, 8.0])
