"""Routing by load in compiled code is routing by load: the same bytes as a router that is asked at every arrival."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sim
from sim.fleet.disaggregation import HandOvers
from sim.fleet.hand_over_flow import Flow
from sim.fleet.routers import make_router
from sim.fleet.wiring import wire
from sim.policy.routing.least_outstanding import LeastOutstanding
from sim.policy.routing.power_of_two import PowerOfTwo
from sim.registry import lookup
from sim.streams import stream
from sim.study.single import Prepared
from tests.laws.bench import group, traffic


class AskedLeast(LeastOutstanding):
    """Asked at every arrival, as it has a `choose` of its own."""

    name = "asked_least"

    def choose(self, snapshot: Any, block: Any, row: int) -> int:
        return super().choose(snapshot, block, row)


class AskedTwo(PowerOfTwo):
    """The same."""

    name = "asked_two"

    def choose(self, snapshot: Any, block: Any, row: int) -> int:
        return super().choose(snapshot, block, row)


def rows(kind: Any, requests: Any, replicas: int, ahead: bool, **how: Any) -> Any:
    params = {"choices": 3} if issubclass(kind, PowerOfTwo) else {}
    world = wire([group(replicas, 2, 0.02, 1e-5)], [kind(kind.Params(**params), replicas, stream(7, "router"))], requests, **how)
    assert world.stations[1].ahead is ahead
    world.run()
    return world.requests(), world.sent, world.finished


@pytest.mark.parametrize(("compiled", "asked"), [(LeastOutstanding, AskedLeast), (PowerOfTwo, AskedTwo)])
@pytest.mark.parametrize("replicas", [1, 2, 37])
@pytest.mark.parametrize("until", [np.inf, 0.0, 3.3])
def test_the_same_bytes(compiled: Any, asked: Any, replicas: int, until: float) -> None:
    rng = np.random.default_rng(replicas)
    n = 40_000 if until == np.inf and replicas == 37 else 900  # several blocks, and columns that grow
    gaps = rng.choice([0.0, 0.001, 0.2], n, p=[0.3, 0.6, 0.1]) * rng.exponential(size=n)
    made = traffic(np.cumsum(gaps), rng.integers(1, 2000, n), np.ones(n))
    a, b = rows(compiled, made, replicas, True, until=until), rows(asked, made, replicas, False, until=until)

    assert a[1:] == b[1:]
    for name in a[0]:
        assert a[0][name].tobytes() == b[0][name].tobytes(), name


def test_a_burst_that_needs_room_again_and_again() -> None:
    n = 5000
    made = traffic(np.zeros(n), np.full(n, 100), np.ones(n))
    a, b = (rows(kind, made, 3, kind is LeastOutstanding) for kind in (LeastOutstanding, AskedLeast))
    assert a[0]["finish_s"].tobytes() == b[0]["finish_s"].tobytes()
    assert np.bincount(a[0]["replica"]).tolist() == [1667, 1667, 1666]


@pytest.mark.parametrize(
    "override",
    [
        "traffic.closed_loop={concurrency: 3}",
        "deployment.dp=2",
        "router=llumnix",
        "scaling={name: eas, max: 3, targets: {qps: 9}}",
    ],
)
def test_whoever_else_acts_turns_it_off(override: str) -> None:
    given = ("traffic.synthetic.requests=20", "deployment.replicas=2", "router=least_outstanding", override)
    s = Prepared(sim.load("quickstart", given))
    plans = s.scaling.grown(s.plans) if s.scaling is not None else s.plans
    routers = [make_router(s.scenario.router, sum(p.replicas for p in plans), 0)]
    groups = [p.build(0, 1.0, (64, 1e-4, 8.0)) for p in plans]
    world = wire(groups, routers, s.traffic, plans=plans, scaling=s.scaling)
    assert not (world.stations[1].ahead and not world.clients.asks)
    world.run()
    assert world.finished == 20


def test_draws_in_one_go_are_the_draws_one_by_one() -> None:
    cls = lookup("router", "power_of_two")
    one, all_ = (cls(cls.Params(), 1000, stream(3, "router")) for _ in range(2))
    singly = [one.rng.integers(0, 1000, 2) for _ in range(999)]
    assert all_.fewest(999).drawn.tolist() == [list(map(int, d)) for d in singly]


PAIRS = """
model: llama-3.1-8b
traffic:
  synthetic:
    arrival: {{process: poisson, rate: 30/s}}
    lengths: {{kind: lognormal, prompt_tokens: {{mean: 900, cv: 0.6, max: 3000}}, output_tokens: {{mean: 60, cv: 0.6, max: 400}}}}
    requests: 300
pools:
  - {{name: p, role: prefill, accelerator: h100-sxm, replicas: {p}, engine: {{name: {engine}}}}}
  - {{name: d, role: decode, accelerator: h100-sxm, replicas: {d}, kv_blocks: {blocks}, engine: {{name: {engine}}}}}
transfer: {{link: tcp-25g}}
router: {router}
"""


@pytest.mark.parametrize(
    ("engine", "p", "d", "router", "blocks"),
    [
        ("vllm, max_model_len: 4096", 3, 2, "least_outstanding", 300),
        ("vllm, max_model_len: 4096", 2, 5, "power_of_two", 600),
        ("sglang, chunked_prefill_size: 512", 2, 3, "least_outstanding", 5000),
        ("sglang, chunked_prefill_size: 512", 3, 1, "random", 20_000),
    ],
)
def test_pools_with_roles(engine: str, p: int, d: int, router: str, blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From prefill to decode in compiled code, or by the world at every outcome: the same bytes of everything that is written down."""
    made = Prepared(sim.loads(PAIRS.format(engine=engine, p=p, d=d, router=router, blocks=blocks)))
    found = []
    for asked in (False, True):
        with monkeypatch.context() as patch:
            calls: list[int] = []
            arrive = HandOvers.arrive
            patch.setattr(HandOvers, "arrive", lambda self, request, a=arrive, c=calls: c.append(0) or a(self, request))
            patch.setattr(Flow, "NOTES", 8)  # notes are emptied, and draws renewed, again and again
            if asked:
                patch.setattr(HandOvers, "ahead", False)
            found.append(made.run())
            assert len(calls) == (300 if asked else 0)
    a, b = found
    assert a.requests.to_csv() == b.requests.to_csv()
    assert a.summary.as_dict() == b.summary.as_dict()
    assert a.timeseries.to_csv() == b.timeseries.to_csv()
