"""Advancing many unchanged decode steps in one stroke gives the same bytes as step by step, whatever the engine and its settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import sim
from sim.config import settings
from sim.fleet.build import Plan, plan
from sim.fleet.wiring import wire
from sim.jit import JIT
from sim.metrics.laws import check_laws
from sim.metrics.record import RunRecord, collect
from sim.registry import lookup
from sim.streams import stream
from sim.workload.base import Traffic
from sim.workload.closed_loop import ClosedLoop
from sim.workload.recorded import RecordedTraffic
from sim.workload.table import RequestBlock

HISTOGRAM = (3800, 1e-5, 200.0)


def vllm(rng: np.random.Generator) -> tuple[dict[str, Any], int]:
    budget = int(rng.choice([64, 256, 2048]))
    given = {
        "max_num_seqs": int(rng.integers(1, 24)),
        "max_num_batched_tokens": budget,
        "enable_prefix_caching": bool(rng.integers(2)),
        "async_scheduling": bool(rng.integers(2)),
        "max_model_len": 4096,
    }
    return given, int(rng.integers(260, 700))


def vllm_v0(rng: np.random.Generator) -> tuple[dict[str, Any], int]:
    version = str(rng.choice(["0.2", "0.4.2", "0.5", "0.6.1", "0.6", "0.7"]))
    given: dict[str, Any] = {"version": version, "max_num_seqs": int(rng.integers(1, 24)), "max_model_len": 4096}
    if version != "0.2":
        given["enable_chunked_prefill"] = bool(rng.integers(2))
        given["scheduler_delay_factor"] = float(rng.choice([0.0, 0.0, 0.5]))
    if version in ("0.5", "0.6", "0.7") and rng.integers(2):
        given["preemption_mode"] = "swap"
    if version in ("0.6", "0.7"):
        given["num_lookahead_slots"] = int(rng.choice([0, 0, 5]))
    return given, int(rng.integers(260, 700))


def vllm_ascend(rng: np.random.Generator) -> tuple[dict[str, Any], int]:
    given: dict[str, Any] = {"max_num_seqs": int(rng.integers(1, 24)), "max_model_len": 4096, "block_size": 16}
    given["enable_prefix_caching"] = bool(rng.integers(2))
    if rng.integers(2):
        given |= {"version": "0.9"}  # prompts first
    else:
        lanes = {"threshold": int(rng.choice([10, 150])), "long_max_wait_ms": float(rng.choice([0, 200]))}
        given["additional_config"] = {"scheduler_config": {"short_request_first_config": lanes}}
        given["async_scheduling"] = bool(rng.integers(2))
    return given, int(rng.integers(260, 700))


def sglang(rng: np.random.Generator) -> tuple[dict[str, Any], int]:
    given = {
        "max_running_requests": int(rng.integers(1, 24)),
        "chunked_prefill_size": int(rng.choice([-1, 128, 2048])),
        "disable_overlap_schedule": bool(rng.integers(2)),
        "disable_radix_cache": bool(rng.integers(2)),
        "context_length": 4096,
    }
    return given, int(rng.integers(4200, 9000))


def tgi(rng: np.random.Generator) -> tuple[dict[str, Any], int]:
    return {"max_concurrent_requests": int(rng.integers(4, 200))}, int(rng.integers(5000, 9000))


def static(rng: np.random.Generator) -> tuple[dict[str, Any], int]:
    return {"max_batch_size": int(rng.integers(1, 24)), "response": str(rng.choice(["with_batch", "when_done"]))}, 0


ENGINES = {
    "vllm": (vllm, 1000),
    "vllm-v0": (vllm_v0, 300),
    "vllm-ascend": (vllm_ascend, 200),
    "sglang": (sglang, 300),
    "tgi": (tgi, 300),
    "static": (static, 100),
}


def random_traffic(rng: np.random.Generator) -> Traffic:
    n = int(rng.integers(1, 60))
    arrival = np.cumsum(rng.exponential(rng.choice([0.001, 0.02, 0.2]), n))
    prompt = rng.integers(1, int(rng.choice([20, 300, 1500])), n)
    output = rng.integers(1, int(rng.choice([3, 40, 400])), n)
    spans = None
    if rng.integers(2):  # some prompts begin alike
        shared = np.minimum(rng.integers(0, 200, n), prompt - 1)
        group = rng.integers(0, 3, n)
        ids, start, length, off = [], [], [], [0]
        for i in range(n):
            if shared[i] > 0:
                ids.append(int(group[i]))
                start.append(0)
                length.append(int(shared[i]))
            ids.append(1_000_000 + i)
            start.append(0)
            length.append(int(prompt[i] - shared[i]))
            off.append(len(ids))
        spans = (off, ids, start, length)
    made = RecordedTraffic(RequestBlock.of(arrival, prompt, output, **({"spans": spans} if spans else {})).validate())
    return made.with_closed_loop(ClosedLoop(int(rng.integers(1, 30)), 0.01, made)) if rng.integers(4) == 0 else made


@pytest.fixture(scope="module", params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> tuple[str, Plan]:
    given = [f"deployment.engine={request.param}", "traffic.synthetic.requests=10"]
    return request.param, plan(sim.load("quickstart", given))[0]


def run(p: Plan, traffic: Traffic, router: str, multi_step: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    group = p.build(0, 1.0, HISTOGRAM)
    group.set_multi_step(multi_step)
    cls = lookup("router", router)
    world = wire([group], [cls(cls.Params(), p.replicas, stream(0, "router"))], traffic)
    world.run()
    requests = world.requests()
    check_laws(RunRecord(requests=requests, **collect([group])))
    return requests, group.totals()


def test_multi_step_is_step_by_step(engine: tuple[str, Plan]) -> None:
    name, base = engine
    draw, cases = ENGINES[name]
    for case in range(cases if JIT else 60):
        rng = np.random.default_rng([case, 7])
        given, blocks = draw(rng)
        params = base.scheduler.resolve(settings(base.scheduler.Params, given), base.site)
        budget = replace(base.budget, kv_blocks=blocks) if base.budget else None
        p = replace(base, params=params, budget=budget, replicas=int(rng.integers(1, 4)))
        traffic = random_traffic(rng)
        router = str(rng.choice(["round_robin", "least_outstanding"]))
        (one, one_totals), (many, many_totals) = (run(p, traffic, router, multi) for multi in (False, True))
        for column in one:
            np.testing.assert_array_equal(one[column], many[column], err_msg=f"{name} case {case}: {given} {blocks} {column}")
        assert one_totals["steps"] == many_totals["steps"], (name, case)
        assert one_totals["preemptions"] == many_totals["preemptions"], (name, case)
        assert (one["status"] != 3).all(), (name, case, given, blocks)
