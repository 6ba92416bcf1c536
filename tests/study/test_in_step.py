"""Waiting clients that march in step are named in the result; those that drift apart, or do not wait, are not."""

import numpy as np
import pytest

import sim
from sim.study.in_step import note


def run(lengths, concurrency=8, requests=64, **loop):
    traffic = {
        "synthetic": {"arrival": {"process": "burst"}, "lengths": lengths, "requests": requests},
        "closed_loop": {"concurrency": concurrency} | loop,
    }
    return sim.run(
        sim.Scenario.model_validate(
            {"model": "llama-3.1-8b", "traffic": traffic, "deployment": {"accelerator": "h100-sxm", "engine": "vllm"}}
        )
    )


EQUAL = {"kind": "fixed", "prompt_tokens": 100, "output_tokens": 20}


def test_equal_answers_march_and_unlike_ones_do_not():
    (said,) = [w for w in run(EQUAL).warnings if "march in step" in w]
    assert said.startswith("8 clients march in step: 100% of requests after the first")

    unlike = run({"kind": "uniform", "prompt_tokens": [50, 150], "output_tokens": [5, 60]})
    assert not [w for w in unlike.warnings if "march" in w]


def sent(*times):
    return np.concatenate([np.full(n, t) for t, n in times])


def traffic(**loop):
    return sim.Scenario.model_validate(
        {
            "model": "llama-3.1-8b",
            "traffic": {
                "synthetic": {"arrival": {"process": "burst"}, "lengths": EQUAL, "requests": 10},
                **({"closed_loop": loop} if loop else {}),
            },
            "deployment": {"accelerator": "h100-sxm", "engine": "vllm"},
        }
    ).traffic


@pytest.mark.parametrize(
    ("loop", "times", "marches"),
    [
        ({"concurrency": 8}, [(0.0, 8), (1.0, 8), (2.0, 8), (3.0, 8)], True),
        ({"concurrency": 8}, [(0.0, 8), (1.0, 4), (1.1, 4), (2.0, 4), (2.1, 4), (3.0, 4), (3.1, 4)], True),  # in two halves
        ({"concurrency": 8}, [(0.0, 8), *((1.0 + 0.1 * i, 1) for i in range(24))], False),
        ({"concurrency": 8}, [(0.0, 8), (1.0, 8), *((1.1 + 0.1 * i, 1) for i in range(9)), (9.0, 7)], True),  # 15 of 24
        ({"concurrency": 8}, [(0.0, 8), (1.0, 8), *((1.1 + 0.1 * i, 1) for i in range(16))], False),  # 8 of 24
        ({"concurrency": 8}, [(0.0, 8), (1.0, 8)], False),  # too few rounds to say
        ({"concurrency": 2}, [(float(i), 2) for i in range(20)], False),
        ({"concurrency": 8, "paced": True}, [(float(i), 8) for i in range(4)], False),
        ({}, [(float(i), 8) for i in range(4)], False),
    ],
)
def test_when_clients_march(loop, times, marches):
    assert bool(note(traffic(**loop), sent(*times))) == marches
