"""Requests per CPU second of the run itself, on one core, everything recorded: `pytest -m speed -s tests/speed`.

Figures are printed, bounds are ratios and counts: a slow or busy machine must not fail them.
"""

from __future__ import annotations

import time
import tracemalloc
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sim
from sim.fleet.dispatch import Dispatch
from sim.study.single import Prepared
from sim.workload.recorded import RecordedTraffic

pytestmark = pytest.mark.speed

SHARED = Path(__file__).parents[3] / "shared" / "data" / "traces" / "speed_w100000_q8.csv.gz"


def study(requests: int, *overrides: str, trace: bool = False) -> Prepared:
    given = [f"traffic.synthetic.requests={requests}", "router=round_robin", *overrides]  # the last one wins
    if trace:
        if not SHARED.exists():
            pytest.skip("the speed trace is not at hand")
        given = [*overrides, "traffic.synthetic=null", f"traffic.trace={{format: csv, path: {SHARED}, limit: {requests}}}"]
    return Prepared(sim.load("quickstart", given))


def rate(made: Prepared, **load: Any) -> tuple[float, Any]:
    made.run(**load)  # compiled, warm
    began = time.process_time()
    result = made.run(**load)
    return result.summary["requests"]["finished"] / (time.process_time() - began), result


@pytest.mark.parametrize("load", [None, 0.97])
@pytest.mark.parametrize("caching", [False, True])
def test_requests_per_cpu_second(load: float | None, caching: bool) -> None:
    """100,000 requests with Azure 2023 conversation lengths, as recorded and near saturation."""
    made = study(100_000, f"deployment.engine.enable_prefix_caching={str(caching).lower()}", trace=True)
    arrive = None
    if load is not None:
        burst = made.run(rate=1000.0).summary
        arrive = load * burst["throughput"]["requests_per_s"]
    speed, result = rate(made, rate=arrive)
    use = result.summary["utilisation"]
    print(f"\nvllm caching={caching} rate={arrive or made.traffic.mean_rate:.1f}/s: {speed:,.0f} requests per CPU s, {use}")
    assert result.summary["requests"]["finished"] == 100_000


def test_a_million_requests_need_little_memory_and_linear_time() -> None:
    """Peak of Python-side allocations; time of ten times the requests is ten times the time."""
    small, large = study(100_000), study(1_000_000)
    speeds = [rate(made)[0] for made in (small, large)]
    tracemalloc.start()
    large.run()
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    ratio = speeds[1] / speeds[0]
    print(f"\n100k: {speeds[0]:,.0f}/s, 1M: {speeds[1]:,.0f}/s: {ratio:.2f} (bar 0.7), peak {peak:.0f} MiB (bar 1024)")
    assert peak < 1024
    assert ratio > 0.7


def microseconds(made: Prepared, **load: Any) -> float:
    return 1e6 / rate(made, **load)[0]


@pytest.mark.parametrize("replicas", [1, 64, 1000])
def test_routing_by_load_costs_little_beside_the_engines(replicas: int) -> None:
    """Least outstanding looks at every replica at every arrival, round robin at none: the same engines, the same load."""
    given = f"deployment.replicas={replicas}"
    cost = {}
    for router in ("round_robin", "least_outstanding", "power_of_two"):
        made = study(50_000, given, f"router={router}")
        assert made.scenario.router.name == router
        cost[router] = microseconds(made, rate=8.0 * replicas)
    for router in ("least_outstanding", "power_of_two"):
        ratio = cost[router] / cost["round_robin"]
        print(
            f"\n{replicas} replicas, {router}: {cost[router]:.1f} µs per request, {ratio:.2f} times round robin (bar 2.5)", end=""
        )
        assert ratio < 2.5


@pytest.mark.parametrize("router", ["least_outstanding", "power_of_two"])
def test_a_rule_that_compiled_code_knows_costs_half(router: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same router asked by the world at every arrival, and in blocks; interleaved, the better of three each."""
    made = study(50_000, f"router={router}")
    block, asked = inf, inf
    for _ in range(3):
        block = min(block, microseconds(made))
        with monkeypatch.context() as patch:
            patch.setattr(Dispatch, "ahead", property(lambda self: False))
            asked = min(asked, microseconds(made))
    print(f"\n{router}, µs per request: {block:.1f} in blocks, {asked:.1f} asked at every arrival: {block / asked:.2f} (bar 0.6)")
    assert block < 0.6 * asked


def test_memory_follows_requests_in_flight() -> None:
    """Rows of a recorded trace are shared, not copied, between runs."""
    block = next(study(1000).traffic.blocks())
    again = next(iter(RecordedTraffic(block).blocks()))
    assert np.shares_memory(block.prompt_tokens, again.prompt_tokens)
