"""Does our vLLM decide as the real server did? Its iteration log against our scheduler, step by step."""

from difflib import SequenceMatcher

import pytest

from sim.fleet.build import plan
from tests.realserver.files import bench, iterations, server
from tests.realserver.replay import closed_loop, late_as_logged


def recorded(name):
    told = bench(name)
    return told["input_lens"], told["output_lens"], [tuple(row) for row in iterations(name).steps.tolist()]


@pytest.mark.parametrize(
    ("name", "clients", "steps", "preemptions"), [("c1A", 1, 501, 0), ("c1B", 1, 503, 0), ("preempt", 16, 456, 6)]
)
def test_every_step_is_the_servers(name, clients, steps, preemptions):
    prompts, outputs, real = recorded(name)
    ours = closed_loop(plan(server())[0], prompts, outputs, clients)

    assert ours.free_blocks == 39  # of 40: one is the null block
    assert len(real) == steps
    assert ours.steps == real
    assert ours.preemptions == preemptions


@pytest.mark.parametrize(("name", "clients", "late_requests"), [("c4A", 4, 13), ("c4B", 4, 1), ("c16A", 16, 13)])
def test_every_step_is_the_servers_when_the_requests_are_as_late(name, clients, late_requests):
    """Client and server shared two busy cores: some requests reached the engine a step or two later than a client at leisure sends them."""
    prompts, outputs, real = recorded(name)
    ours, late = late_as_logged(plan(server())[0], prompts, outputs, clients, real, 2 * late_requests)

    assert ours.steps == real
    assert len(late) == late_requests
    assert max(late.values()) <= 3


@pytest.mark.parametrize(("name", "clients"), [("c4B", 4), ("c16B", 16)])
def test_nine_of_ten_steps_in_order_without_a_word_on_lateness(name, clients):
    """In c16B two requests of the first burst came in another order, which the log does not tell apart."""
    prompts, outputs, real = recorded(name)
    ours = closed_loop(plan(server())[0], prompts, outputs, clients)

    same = sum(m.size for m in SequenceMatcher(None, ours.steps, real, autojunk=False).get_matching_blocks())
    assert same >= 0.9 * len(real)


@pytest.mark.parametrize(("dtype", "blocks"), [("fp32", 682), ("bf16", 1365)])
def test_blocks_of_a_given_kv_memory(dtype, blocks):
    scenario = server("deployment.kv_blocks=null", "deployment.engine.kv_cache_memory_bytes=1GiB", f"model.kv_cache={dtype}")

    assert plan(scenario)[0].kv_blocks == blocks
