"""Random instances: our Llumnix v0 policies against the reference model."""

import importlib.util
import random

import pytest

from sim.study.conformance.llumnix import _EVALUATE, _same
from tests.fuzz import enough

KINDS = ("instance_load", "dispatch", "migration_defrag", "tie_order_remaining_steps")


def _reference(shared):
    spec = importlib.util.spec_from_file_location("llumnix_reference", shared / "reference" / "llumnix.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _instance(rng, number, small):
    running = rng.choice([0, 0, 1, 2, rng.randint(0, 200)])
    waiting = rng.choice([0, 0, 1, rng.randint(0, 20)])
    total = rng.choice([10, 100, 851, 1000])
    first = rng.randint(1, 3 if small else 60) if waiting else 0
    return {
        "instance_id": f"i{number}",
        "num_total_gpu_blocks": total,
        "num_used_gpu_blocks": rng.randint(0, total),
        "num_running_requests": running,
        "num_waiting_requests": waiting,
        "num_blocks_first_waiting_request": first,
        "num_blocks_all_waiting_requests": first + (rng.randint(0, 400) if waiting > 1 else 0),
        "num_blocks_last_running_request": rng.randint(0, 50) if running else 0,
        "num_killed_requests": rng.choice([0, 0, 0, 1, 3]),
        "decode_batch_size": rng.choice([0, running, 127, 128, 129]),
        "num_miss_tokens_all_waiting_requests": rng.choice([0, 999_999, 1_000_000, rng.randint(0, 10_000)]),
        "enable_defrag": rng.random() < 0.3,
    }


def _row(rng):
    kind = rng.choice(KINDS)
    n = rng.randint(1, 6)
    instances = [_instance(rng, i, rng.random() < 0.5) for i in range(n)]
    if rng.random() < 0.2:
        instances = [instances[0] | {"instance_id": f"i{i}"} for i in range(n)]
    if kind == "instance_load":
        return kind, instances[0] | {"num_running_requests": max(1, instances[0]["num_running_requests"])}
    given = {"instances": instances}
    if kind == "dispatch":
        given["instance_num_requests"] = {f"i{i}": rng.randint(0, 5) for i in range(n)}
    if kind == "migration_defrag":
        given["migrate_out_threshold"] = rng.choice([-3.0, 0.0, 5.0])
    return kind, given


def _compare(shared, rows, seed):
    reference = _reference(shared)
    rng = random.Random(seed)
    for n in range(rows):
        kind, given = _row(rng)
        theirs = reference.evaluate({"kind": kind, "input": given})
        ours = _EVALUATE[kind](given)
        assert _same(theirs, {k: ours[k] for k in theirs}), (n, kind, given)


def test_choices_equal_the_reference_model(shared):
    _compare(shared, enough(20_000), 1)


@pytest.mark.slow
def test_choices_equal_the_reference_model_for_long(shared):
    _compare(shared, 2_000_000, 2)
