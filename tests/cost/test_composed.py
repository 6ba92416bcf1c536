"""Whole decode steps against measured deployments: time per output token by Little's law, without a simulation.

A closed loop of C requests, or arrivals at rate λ (batch = λ·tokens·TPOT): TPOT = decode step + (batch / output length)·prompt step.
The simulation proper does this better (waves, chunking, queues); here the step times themselves are on trial.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from sim.cost.build import build_step_cost
from sim.cost.layout import Layout
from sim.cost.profile import engine_profiles, load_engine_profile
from sim.hardware import Proxy, load_accelerator
from sim.model import load_model
from tests.cost.common import SHARED, batch, needs_points, seconds

LOOPS = {
    "infx-h200-vllm-nan-llama-3.1-70b-fp8": (0.045, 60),
    "aicgap-h100-vllm-0.12.0-qwen3-32b": (0.045, 90),
    "infx-h": (0.07, 120),
}


def points(prefix):
    """Operating points of engines that are modelled."""
    for file in sorted((SHARED / "data/measured/points").glob(f"{prefix}*/points.jsonl")):
        for line in file.read_text().splitlines():
            point = json.loads(line)
            if (
                point["engine"]["name"] in engine_profiles()
                and point["quality"] != "weak"
                and not point.get("overload")
                and point["measured"].get("tpot_s")
            ):
                yield point


def cost_of(point, stand_in=None):
    p, engine = point["parallelism"], point["engine"]
    model = load_model(point["model"], weights=point["weights"], kv_cache=point["kv_cache"] or "auto")
    layout = Layout(tp=p["tp"], pp=p["pp"], dp=p["dp"], ep=p["ep"])
    profile = load_engine_profile(engine["name"], engine["version"]).adapted(engine["settings"].get("async_scheduling"))
    accelerator = load_accelerator(point["accelerator"])
    if stand_in:
        accelerator = replace(accelerator, name="unmeasured", aliases=(), proxy=Proxy(stand_in, "left out"))
    return build_step_cost(model, accelerator, layout, profile, 8192)[0]


def mean(length):
    return float(np.mean(length["uniform"])) if isinstance(length, dict) else float(length)


@needs_points
@pytest.mark.parametrize("prefix", list(LOOPS))
def test_closed_loops(prefix):
    limit, least = LOOPS[prefix]
    wrong = closed_loop_errors(prefix)

    assert len(wrong) >= least
    assert np.median(np.abs(wrong)) < limit


def closed_loop_errors(prefix, stand_in=None):
    wrong = []
    for point in points(prefix):
        cost, traffic = cost_of(point, stand_in), point["traffic"]
        rows, prompt, output = traffic["concurrency"], mean(traffic["prompt_tokens"]), mean(traffic["output_tokens"])
        decode = seconds(cost, batch(rows, prompt + output / 2))
        chunk = min(prompt, 8192.0 - rows)
        mixed = seconds(cost, batch(rows, prompt + output / 2, 1, chunk)) - decode
        wrong.append((decode + (rows - 1) / output * mixed * prompt / chunk) / point["measured"]["tpot_s"]["mean"] - 1.0)
    return wrong


@needs_points
def test_an_accelerator_left_out_is_predicted_from_its_stand_in():
    from_h100 = closed_loop_errors("infx-h200-vllm-nan-llama-3.1-70b-fp8", "h100-sxm")
    from_h200 = closed_loop_errors("aicgap-h100-vllm-0.12.0-qwen3-32b", "h200-sxm")

    assert np.median(np.abs(from_h100)) < 0.06
    assert np.median(np.abs(from_h200)) < 0.05


@needs_points
def test_arrivals_with_cached_prompts_on_three_accelerators_dense_and_moe():
    wrong = []
    for point in points("s2r-"):
        cost, traffic, measured = cost_of(point), point["traffic"], point["measured"]["tpot_s"]["mean"]
        output, prompt = mean(traffic["output_tokens"]), mean(traffic["prompt_tokens"])
        rows = traffic["stages"][point["window"]["stage"]]["rate"] * output * measured
        decode = seconds(cost, batch(rows, prompt + output / 2))
        mixed = seconds(cost, batch(rows, prompt + output / 2, 1, 16, prompt)) - decode
        wrong.append((decode + rows / output * mixed) / measured - 1.0)

    assert len(wrong) >= 20
    assert np.median(np.abs(wrong)) < 0.04
    assert np.percentile(np.abs(wrong), 90) < 0.09
