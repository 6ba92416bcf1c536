"""Requests per CPU second of the run itself, on one core, everything recorded: `pytest -m speed -s tests/speed`.

Figures are printed, bounds are ratios and counts: a slow or busy machine must not fail them.
"""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sim
from sim.study.single import Prepared
from sim.workload.recorded import RecordedTraffic

pytestmark = pytest.mark.speed

SHARED = Path(__file__).parents[3] / "shared" / "data" / "traces" / "speed_w100000_q8.csv.gz"


def study(requests: int, *overrides: str, trace: bool = False) -> Prepared:
    given = [*overrides, f"traffic.synthetic.requests={requests}", "router=round_robin"]
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
    print(f"\n100k: {speeds[0]:,.0f}/s, 1M: {speeds[1]:,.0f}/s, peak {peak:.0f} MiB")
    assert peak < 1024
    assert speeds[1] > 0.7 * speeds[0]


def test_a_thousand_replicas_cost_little_more_per_request() -> None:
    """Least outstanding requests looks at every replica at every arrival."""
    cost = {}
    for replicas in (1, 1000):
        made = study(50_000, f"deployment.replicas={replicas}", "router=least_outstanding")
        arrive = 8.0 * replicas
        cost[replicas] = 1e6 / rate(made, rate=arrive)[0]
    print(f"\nµs per request: {cost}")
    assert cost[1000] - cost[1] < 10 * max(1.0, cost[1] / 10)


def test_memory_follows_requests_in_flight() -> None:
    """Rows of a recorded trace are shared, not copied, between runs."""
    block = next(study(1000).traffic.blocks())
    again = next(iter(RecordedTraffic(block).blocks()))
    assert np.shares_memory(block.prompt_tokens, again.prompt_tokens)
