"""V0 by the version of ``vllm``: defaults of each release, what is refused, and rules with known answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import sim
from sim.cost.features import COPIED_BLOCKS
from sim.cost.step import new_linear_cost
from sim.engine.contract import Site
from sim.engine.group import EngineGroup
from sim.engine.schedulers.vllm import Vllm
from sim.engine.schedulers.vllm_v0 import VllmV0, VllmV0Params
from sim.engine.state import new_recorder
from sim.errors import ConfigError, NotModelledError
from sim.fleet.build import plan
from sim.ledger import FINISHED, REJECTED
from sim.workload.table import RequestBlock


def site(context: int = 4096, **layout: int) -> Site:
    card = SimpleNamespace(is_cpu=False, name="a100-80g-sxm", device_name="", memory_bytes=80 << 30, vendor="nvidia")
    model = SimpleNamespace(max_position=context, kinds=("full",), vision_params=0, is_mla=False)
    return Site(model=model, accelerator=card, **layout)


@pytest.mark.parametrize(("version", "v0"), [("0.2", True), ("0.6.3", True), ("0.7", True), ("0.8", False), ("0.11", False)])
def test_vllm_hands_over_by_version(version: str, v0: bool) -> None:
    scenario = sim.load("quickstart", [f"deployment.engine={{name: vllm, version: '{version}', max_model_len: 4096}}"])

    assert (plan(scenario)[0].scheduler is VllmV0) == v0


def test_a_version_without_quotes_is_understood_as_text() -> None:
    assert Vllm.edition({"version": 0.6}) is VllmV0
    assert Vllm.edition({}) is Vllm


@pytest.mark.parametrize(
    ("version", "context", "chunked", "tokens", "manager_v2"),
    [
        ("0.2", 4096, False, 4096, False),
        ("0.3", 1024, False, 2048, False),
        ("0.5", 131072, True, 512, False),
        ("0.5.2", 131072, False, 131072, False),
        ("0.6.2", 131072, True, 512, False),
        ("0.6", 131072, True, 2048, True),
        ("0.7", 32768, False, 32768, True),
    ],
)
def test_defaults_follow_the_release(version: str, context: int, chunked: bool, tokens: int, manager_v2: bool) -> None:
    p = VllmV0.resolve(VllmV0Params(version=version), site(context))

    assert (p.enable_chunked_prefill, p.max_num_batched_tokens, p.use_v2_block_manager) == (chunked, tokens, manager_v2)
    assert (p.max_num_seqs, p.gpu_memory_utilization, p.swap_space, p.preemption_mode) == (256, 0.9, 4.0, "recompute")


@pytest.mark.parametrize(
    ("given", "layout", "error", "field"),
    [
        ({"version": "0.1"}, {}, NotModelledError, "engine.version"),
        ({"version": "0.8"}, {}, NotModelledError, "engine.version"),
        ({"version": "0.3", "enable_chunked_prefill": True}, {}, ConfigError, "engine.enable_chunked_prefill"),
        ({"version": "0.4", "preemption_mode": "swap"}, {}, ConfigError, "engine.preemption_mode"),
        ({"version": "0.6.1", "scheduling_policy": "priority"}, {}, ConfigError, "engine.scheduling_policy"),
        ({"version": "0.6", "max_paddings": 8}, {}, ConfigError, "engine.max_paddings"),
        ({"version": "0.5", "disable_async_output_proc": True}, {}, ConfigError, "engine.disable_async_output_proc"),
        (
            {"version": "0.6", "scheduling_policy": "priority", "preemption_mode": "swap"},
            {},
            ConfigError,
            "engine.preemption_mode",
        ),
        ({"version": "0.6.1", "num_lookahead_slots": 4}, {}, ConfigError, "engine.num_lookahead_slots"),
        ({"version": "0.6", "num_scheduler_steps": 8}, {}, NotModelledError, "engine.num_scheduler_steps"),
        ({"version": "0.6", "enable_prefix_caching": True}, {}, NotModelledError, "engine.enable_prefix_caching"),
        ({"version": "0.6", "max_num_batched_tokens": 1024}, {}, ConfigError, "engine.max_num_batched_tokens"),
        ({"version": "0.6"}, {"pp": 2}, NotModelledError, "deployment.pp"),
    ],
)
def test_refused(given: dict[str, Any], layout: dict[str, int], error: type[Exception], field: str) -> None:
    with pytest.raises(error) as caught:
        VllmV0.resolve(VllmV0Params(**given), site(**layout))

    assert caught.value.field == field


def run(given: dict[str, Any], blocks: int, arrival: Any, prompt: Any, output: Any, copy: float = 0.0) -> dict[str, Any]:
    """One engine whose every step lasts 1 s, and ``copy`` more per block of 16 tokens that is swapped."""
    recorder = new_recorder(1, 0, 1.0, 1024, 64, 1e-4, 4.0)
    cost = new_linear_cost(np.ones(2), np.array([COPIED_BLOCKS]), np.full((2, 1), copy))
    at = Site(extra={"host_blocks": 1000})
    params = VllmV0.resolve(VllmV0Params(**({"max_model_len": 64} | given)), at)
    group = EngineGroup([VllmV0.new_state(params, at, blocks, 0, recorder, cost)], recorder)
    block = RequestBlock.of(np.array(arrival, float), prompt, output)
    group.submit(0, block.columns, block.spans, 0, len(block), 0)
    group.advance(np.inf, False)
    rows = group.drain()
    order = np.argsort(rows["id"], kind="stable")
    return {name: column[order] for name, column in rows.items()}


def test_prompts_go_first_and_decodes_wait() -> None:
    """The second prompt, which comes during the first step, is computed before the first request's second token."""
    rows = run({"version": "0.5"}, 100, [0.0, 0.5], [16, 16], [3, 3])

    np.testing.assert_array_equal(rows["first_token_s"], [1.0, 2.0])
    np.testing.assert_array_equal(rows["finish_s"], [4.0, 4.0])


def test_chunked_prefill_goes_on_decoding() -> None:
    """With a budget of 16 tokens: 48 prompt tokens beside one decode row take 15 + 15 + 15 + 3."""
    given = {"version": "0.5", "enable_chunked_prefill": True, "max_num_batched_tokens": 16, "max_num_seqs": 4}
    rows = run(given, 100, [0.0, 0.5], [16, 48], [9, 2])

    np.testing.assert_array_equal(rows["first_token_s"], [1.0, 5.0])
    np.testing.assert_array_equal(rows["finish_s"], [9.0, 6.0])


def test_padded_prompts_of_0_3() -> None:
    """A batch of a long and a short prompt would be 48 tokens of padding; later releases compute both at once."""
    arrival, prompt, output = [0.0, 0.0], [60, 12], [1, 1]

    old = run({"version": "0.3", "max_paddings": 40}, 100, arrival, prompt, output)
    new = run({"version": "0.5"}, 100, arrival, prompt, output)

    np.testing.assert_array_equal(old["finish_s"], [1.0, 2.0])
    np.testing.assert_array_equal(new["finish_s"], [1.0, 1.0])


def test_outputs_processed_asynchronously_hold_a_place_for_one_more_step() -> None:
    """Only one sequence may run: the next one starts when the scheduler has learned of the end, one step later."""
    given = {"version": "0.6", "max_num_seqs": 1}
    late = run(given, 100, [0.0, 0.0], [4, 4], [2, 2])
    at_once = run(given | {"disable_async_output_proc": True}, 100, [0.0, 0.0], [4, 4], [2, 2])

    np.testing.assert_array_equal(at_once["first_scheduled_s"], [0.0, 2.0])
    np.testing.assert_array_equal(late["first_scheduled_s"], [0.0, 3.0])
    np.testing.assert_array_equal(late["finish_s"], [2.0, 5.0])


def test_swapping_costs_the_copies_and_keeps_the_tokens() -> None:
    """Two requests of 16 + 24 tokens need three blocks each; four are there.

    A recomputed one is admitted as soon as its tokens fit and preempted at its next token, until the other ends; swapping in asks for
    a block to spare.
    """
    arrival, prompt, output = [0.0, 0.0], [16, 16], [24, 24]
    again = run({"version": "0.5"}, 4, arrival, prompt, output)
    swapped = run({"version": "0.5", "preemption_mode": "swap"}, 4, arrival, prompt, output)
    slow = run({"version": "0.5", "preemption_mode": "swap"}, 4, arrival, prompt, output, copy=0.25)

    assert swapped["preemptions"].tolist() == [0, 1]
    assert again["preemptions"][1] > 10
    assert (again["output_tokens"] == 24).all() and (swapped["output_tokens"] == 24).all()
    blocks = 2  # of the preempted request, out and in
    assert slow["finish_s"].max() == swapped["finish_s"].max() + 0.25 * 2 * blocks


def test_what_never_fits_above_the_watermark_is_turned_away() -> None:
    """200 blocks of one token have a watermark of two."""
    rows = run({"version": "0.6", "block_size": 1, "max_model_len": 200}, 200, [0.0, 0.0], [199, 198], [1, 1])

    assert rows["status"].tolist() == [REJECTED, FINISHED]


def test_a_delay_factor_gathers_prompts() -> None:
    """The prompt that comes at 0.9 waits until it is older than twice the last prompt step."""
    rows = run({"version": "0.5", "scheduler_delay_factor": 2.0}, 100, [0.0, 0.9], [4, 4], [20, 2])

    np.testing.assert_array_equal(rows["first_scheduled_s"], [0.0, 3.0])
