"""What a request costs behind a fleet that follows prefixes and scales, against one before a single replica: `pytest -m speed -s tests/speed`."""

from __future__ import annotations

import time
from math import inf

import pytest

import sim
from sim.study.single import Prepared

pytestmark = pytest.mark.speed

TEXT = """
model: llama-3.1-8b
traffic:
  synthetic:
    arrival: {{process: poisson, rate: {rate}/s}}
    lengths: {{kind: lognormal, prompt_tokens: {{mean: 500, cv: 0.6}}, output_tokens: {{mean: 120, cv: 0.6}}}}
    sessions: {{turns: 4, think_time: 2s, max_context: 8000}}
    requests: {requests}
deployment: {{accelerator: h100-sxm, replicas: {replicas}, engine: {{name: vllm, max_model_len: 16384}}}}
router: {router}
"""
SCALING = "scaling={name: hpa, min: 32, max: 64, targets: {qps: 18/s}}"


def microseconds(requests: int, rate: float, replicas: int, router: str, *overrides: str) -> float:
    made = Prepared(sim.loads(TEXT.format(requests=requests, rate=rate, replicas=replicas, router=router), overrides))
    began = time.process_time()
    result = made.run()
    assert result.summary["requests"]["finished"] == requests
    return 1e6 * (time.process_time() - began) / requests


@pytest.mark.parametrize("requests", [100_000, 1_000_000])
def test_prefixes_sessions_and_scaling_over_64_replicas(requests: int) -> None:
    """At most six times what the same request costs before one replica, where nobody routes and nothing scales."""
    microseconds(20_000, 18, 1, "round_robin"), microseconds(20_000, 1000, 48, "sglang_router", SCALING)  # compiled, warm
    plain = microseconds(requests // 10, 18, 1, "round_robin")
    fleet = microseconds(requests, 1000, 48, "sglang_router", SCALING)
    print(
        f"\n{requests:,} requests: {plain:.1f} µs before one replica, {fleet:.1f} µs behind the fleet: {fleet / plain:.1f} times (bar 6)"
    )
    assert fleet < 6.0 * plain


ROLES = """
model: llama-3.1-8b
traffic: {{synthetic: {{arrival: {{process: poisson, rate: {rate}/s}}, lengths: {{kind: azure-2023-conv}}, requests: 20000}}}}
pools:
  - {{name: p, role: prefill, accelerator: h100-sxm, replicas: {n}, engine: {{name: vllm}}}}
  - {{name: d, role: decode, accelerator: h100-sxm, replicas: {n}, engine: {{name: vllm}}}}
transfer: {{link: rdma-400g}}
router: {router}
"""


@pytest.mark.parametrize(("n", "router"), [(1, "round_robin"), (4, "least_outstanding")])
def test_prefill_and_decode_pools(n: int, router: str) -> None:
    """At most four times what the same request costs before one replica that does both; interleaved, the better of three each."""
    roles = Prepared(sim.loads(ROLES.format(rate=8 * n, n=n, router=router)))
    plain = Prepared(sim.load("quickstart", ("traffic.synthetic.requests=20000", "router=round_robin")))
    cost = {}
    for _ in range(4):
        for name, made in (("plain", plain), ("roles", roles)):
            began = time.process_time()
            made.run(rate=8.0) if made is plain else made.run()
            cost[name] = min(cost.get(name, inf), 1e6 * (time.process_time() - began) / 20_000)
    ratio = cost["roles"] / cost["plain"]
    print(
        f"\n{n} + {n} replicas, µs per request: {cost['roles']:.1f}, one replica {cost['plain']:.1f}: {ratio:.1f} times (bar 4)"
    )
    assert ratio < 4.0
