"""Routing by a rule in compiled code: the same bytes as a router that is asked at every arrival."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sim
from sim.fleet.disaggregation import HandOvers
from sim.fleet.dispatch import Dispatch
from sim.fleet.engines import Engines
from sim.fleet.hand_over_flow import Flow
from sim.fleet.routers import make_router
from sim.fleet.wiring import wire
from sim.policy.routing.least_outstanding import LeastOutstanding
from sim.policy.routing.power_of_two import PowerOfTwo
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
    ],
)
def test_whoever_else_acts_turns_it_off(override: str) -> None:
    given = ("traffic.synthetic.requests=20", "deployment.replicas=2", "router=least_outstanding", override)
    s = Prepared(sim.load("quickstart", given))
    routers = [make_router(s.scenario.router, sum(p.replicas for p in s.plans), 0)]
    groups = [p.build(0, 1.0, (64, 1e-4, 8.0)) for p in s.plans]
    world = wire(groups, routers, s.traffic, plans=s.plans)
    assert not (world.stations[1].ahead and not world.clients.asks)
    world.run()
    assert world.finished == 20


SCALED = """
model: llama-3.1-8b
traffic:
  synthetic:
    arrival: {process: stages, stages: [{rate: 15/s, duration: 15s}, {rate: 0.05/s, duration: 40s}, {rate: 15/s, duration: 15s}]}
    lengths: {kind: lognormal, prompt_tokens: {mean: 500, cv: 0.6}, output_tokens: {mean: 60, cv: 0.6}}
    sessions: {turns: 4, think_time: 1s, max_context: 8000}
deployment: {accelerator: h100-sxm, replicas: 3, engine: {name: vllm, max_model_len: 16384}}
router: ROUTER
scaling:
  SCALER
  max: 6
  targets: {qps: 14/s}
  window: 2s
  interval: 2s
  startup: {provision: 1s, image: 1s, load_bandwidth: 100 GB, warmup: 1s}
"""


@pytest.mark.parametrize(
    ("router", "least"),
    [
        ("least_outstanding", 0),
        ("{name: sglang_router, version: smg-1.13, balance_abs_threshold: 4}", 1),
        ("{name: vllm_router, policy: power_of_two}", 1),
        ("{name: production_stack, routing_logic: session}", 0),
        ("nginx", 1),
    ],
)
def test_before_a_fleet_that_scales(router: str, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also replicas that come back with an empty cache, requests that wait while none serves, and routers that poll."""
    scaler = (
        "name: hpa\n  scale_down_stabilization: 4s"
        if least
        else "name: eas\n  min: 0\n  scale_in_stabilization: 2s\n  scale_to_zero_grace: 3s"
    )
    made = Prepared(sim.loads(SCALED.replace("ROUTER", router).replace("SCALER", scaler)))
    found = []
    for asked in (False, True):
        with monkeypatch.context() as patch:
            calls, again = [], []  # type: ignore[var-annotated]
            arrive, restarted = Dispatch.arrive, Engines.restarted
            patch.setattr(Dispatch, "arrive", lambda self, request, a=arrive, c=calls: c.append(0) or a(self, request))
            patch.setattr(Engines, "restarted", lambda self, k, r=restarted, c=again: c.append(0) or r(self, k))
            if asked:
                patch.setattr(Dispatch, "ahead", property(lambda self: False))
            found.append(made.run())
        assert again, "replicas came back"
        assert len(calls) == len(found[-1].requests) if asked else len(calls) < 60, "those that waited in the room"
    a, b = found
    assert a.requests.to_csv() == b.requests.to_csv()
    assert a.summary.as_dict() == b.summary.as_dict()
    assert a.timeseries.to_csv() == b.timeseries.to_csv()


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
            patch.setattr(Flow, "NOTES", 8)  # notes are emptied again and again
            if asked:
                patch.setattr(HandOvers, "ahead", False)
            found.append(made.run())
            assert len(calls) == (300 if asked else 0)
    a, b = found
    assert a.requests.to_csv() == b.requests.to_csv()
    assert a.summary.as_dict() == b.summary.as_dict()
    assert a.timeseries.to_csv() == b.timeseries.to_csv()
