"""Requests are prefilled by one pool and decoded by another: nothing is lost, nothing happens before its cause, and known answers hold."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import sim
from sim.config.deployment import Transfer
from sim.cost.features import DECODE_ROWS, TOKENS
from sim.cost.step import new_linear_cost
from sim.engine.schedulers.vllm import Vllm
from sim.engine.sides import HandOver
from sim.errors import ConfigError, NotModelledError
from sim.fleet.build import Plan, plan
from sim.fleet.clock import Clock
from sim.fleet.disaggregation import HandOvers
from sim.fleet.journey import InUse, Journey
from sim.fleet.kv_links import Ports, Wire
from sim.fleet.request import Request
from sim.fleet.run import Raw, execute
from sim.metrics.laws import check_laws
from sim.policy.router import ReplicaFacts
from sim.report.terminal import as_text, screen
from sim.study.single import Prepared, _record
from sim.workload.base import Traffic
from sim.workload.recorded import RecordedTraffic
from sim.workload.table import RequestBlock

BASE = """
model: llama-3.1-8b
traffic: {synthetic: {arrival: {process: poisson, rate: 20/s}, lengths: {kind: fixed, prompt_tokens: 300, output_tokens: 20}, requests: 120}}
pools:
  - {name: p, role: prefill, accelerator: h100-sxm, engine: {name: vllm, max_model_len: 2048}}
  - {name: d, role: decode, accelerator: h100-sxm, engine: {name: vllm, max_model_len: 2048}}
"""
HISTOGRAM = (3800, 1e-5, 200.0)
FREE = Transfer(bandwidth=1e30, latency=0.0, overhead=0.0)


def scenario(*overrides: str) -> Any:
    return sim.loads(BASE, overrides)


def unshifted(p: Plan) -> Plan:
    """The pool without what its clients see besides the engine."""
    return replace(
        p, profile=replace(p.profile, client_request=0.0, client_prompt_token=0.0, client_first_token=0.0, client_serial=0.0)
    )


def run(s: Any, **more: Any) -> tuple[Raw, Any]:
    """Raw arrays, and the record with its laws checked."""
    study = Prepared(s)
    plans = [unshifted(p) for p in study.plans]
    until = np.inf if s.until is None else s.until
    traffic = more.pop("traffic", study.traffic)
    raw = execute(plans, traffic, s.router, s.seed, bins=50, histogram=HISTOGRAM, until=until, transfer=s.transfer, **more)
    record = _record(s, plans, raw, study.traffic)
    check_laws(record)
    return raw, record


def check_causes(r: dict[str, Any]) -> None:
    """No stage begins before the one that it needs has ended."""
    chain = (
        "arrival_s",
        "first_scheduled_s",
        "prefill_end_s",
        "kv_allocated_s",
        "kv_arrived_s",
        "decode_start_s",
        "first_token_s",
    )
    for before, after in pairwise(chain):
        assert not (r[after] < r[before] - 1e-9).any(), (before, after)


def random_traffic(rng: np.random.Generator, n: int) -> Traffic:
    """Bursts, shared prefixes, further turns, priorities, outputs that end early, requests that are too long."""
    arrival = np.cumsum(rng.choice([0.0, 0.01, 0.3], n) * rng.exponential(size=n))
    prompt = rng.integers(1, 900, n)
    prompt[rng.random(n) < 0.02] = 2100
    limit = rng.choice([1, 5, 60, 150], n)
    output = np.minimum(limit, rng.integers(1, 151, n))
    offsets, spans = [0], []
    for i in range(n):
        kind, left = rng.random(), int(prompt[i])
        pieces = []
        if kind < 0.4:
            pieces.append((int(rng.integers(1, 4)), 0, min(left, int(rng.integers(1, 600)))))
        if kind < 0.5 and sum(p[2] for p in pieces) < left:
            pieces.append((1000 + i, 0, left - sum(p[2] for p in pieces)))
        if pieces and sum(p[2] for p in pieces) < left:
            pieces.append((5000 + i, 0, left - sum(p[2] for p in pieces)))
        spans += pieces
        offsets.append(len(spans))
    columns = np.array(spans, np.int64).reshape(-1, 3)
    block = RequestBlock.of(
        arrival,
        prompt,
        output,
        max_tokens=limit,
        priority=rng.integers(0, 3, n),
        spans=(np.array(offsets), columns[:, 0], columns[:, 1], columns[:, 2]),
    )
    return RecordedTraffic(block.validate())


ROUTERS = (
    "round_robin",
    "least_outstanding",
    "power_of_two",
    "llumnix",
    "{name: llumnix, separate_pd_scheduling: true}",
    "{name: llumnix, enable_cache_aware_scheduling: true, cache_aware_min_tokens: 256, gateway: null}",
    "{name: eas, load_threshold: 3000, gateway: {wait_scheduling_timeout: 1s}}",
    "eas_tokenworks",
)


def random_setting(seed: int) -> tuple[Any, Traffic]:
    rng = np.random.default_rng(seed)
    engine = {
        "enable_prefix_caching": bool(rng.integers(2)),
        "async_scheduling": bool(rng.integers(2)),
        "scheduling_policy": str(rng.choice(["fcfs", "fcfs", "priority"])),
        "max_num_batched_tokens": int(rng.choice([256, 2048])),
    }
    router = str(rng.choice(ROUTERS))
    overrides = [f"router={router}", f"seed={seed}"]
    for i in range(2):
        seats = rng.choice([2, 8, 64])
        overrides += [f"pools[{i}].engine.{k}={v}" for k, v in engine.items()]
        overrides += [f"pools[{i}].engine.max_num_seqs={seats}", f"pools[{i}].replicas={rng.integers(1, 4)}"]
        overrides.append(f"pools[{i}].kv_blocks={int(rng.choice([140, 200, 2000]))}")
    overrides.append(f"transfer.bandwidth={rng.choice([1e8, 1e9, 50e9])}")
    if rng.random() < 0.3:
        overrides.append(f"until={rng.uniform(0.05, 8.0):.3f}s")
    return scenario(*overrides), random_traffic(rng, int(rng.integers(20, 150)))


@pytest.mark.parametrize("seed", range(24))
def test_whatever_the_settings_requests_are_conserved_and_strokes_change_nothing(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    s, traffic = random_setting(seed)
    raw, _ = run(s, traffic=traffic)
    slow, _ = run(s, traffic=traffic, multi_step=False)
    with monkeypatch.context() as patch:
        patch.setattr(HandOvers, "ahead", False)  # asked at every outcome
        again, _ = run(s, traffic=traffic)

    r = raw.requests
    check_causes(r)
    done = r["status"] == 0
    assert (r["output_tokens"][done] == next(iter(traffic.blocks())).output_tokens[: len(done)][done]).all()
    assert (r["prefill_replica"][done] < s.pools[0].replicas).all()
    assert (r["replica"][done] >= s.pools[0].replicas).all()
    assert not np.isnan(r["kv_arrived_s"][done]).any()
    if s.until is None:
        assert set(r["status"].tolist()) <= {0, 1, 2}
    for other in (slow, again):
        for name, column in r.items():
            assert column.tobytes() == other.requests[name].tobytes(), name
        assert other.itl_hist.sum() == pytest.approx(raw.itl_hist.sum())


@pytest.mark.parametrize("seed", range(100, 106))
def test_a_protocol_that_asks_the_decode_side_first(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As SGLang does, here between vLLM's sides: P gets the request when D has memory for it."""
    monkeypatch.setattr(Vllm, "hands_over", HandOver(first="decode", first_token="decode"))
    s, traffic = random_setting(seed)
    raw, _ = run(s, traffic=traffic)
    monkeypatch.setattr(HandOvers, "ahead", False)
    slow, _ = run(s, traffic=traffic, multi_step=False)

    r = raw.requests
    chain = (
        "arrival_s",
        "kv_allocated_s",
        "first_scheduled_s",
        "prefill_end_s",
        "kv_arrived_s",
        "decode_start_s",
        "first_token_s",
    )
    for before, after in pairwise(chain):
        assert not (r[after] < r[before] - 1e-9).any(), (before, after)
    assert (r["status"] == 0).sum() > 0
    for name, column in r.items():
        assert column.tobytes() == slow.requests[name].tobytes(), name


def test_a_decode_side_without_memory_computes_preempted_requests_again() -> None:
    s = scenario("pools[1].kv_blocks=150", "traffic.synthetic.lengths.output_tokens=300", "traffic.synthetic.requests=60")
    raw, _ = run(s)

    assert raw.totals["preemptions"] > 0
    assert (raw.requests["status"] == 0).all()
    assert raw.totals["fleet_kv_transfers"] == 60  # none is pulled twice


MINDIE = BASE.replace("h100-sxm", "ascend-910b3").replace("{name: vllm, max_model_len: 2048}", "{name: mindie, maxSeqLen: 2048}")


@pytest.mark.parametrize("router", ROUTERS[:4])
@pytest.mark.parametrize("closed", [False, True])
def test_requests_that_mindie_gives_back_are_prefilled_again_and_lose_nothing(router: str, closed: bool) -> None:
    overrides = [f"router={router}", "pools[0].replicas=2", "pools[1].kv_blocks=18"]
    overrides.append("traffic.synthetic.lengths={kind: uniform, prompt_tokens: [1, 700], output_tokens: [1, 300]}")
    if closed:
        overrides.append("traffic.closed_loop={concurrency: 20, think_time: 10ms}")
    s = sim.loads(MINDIE, overrides)
    raw, _ = run(s)
    slow, _ = run(s, multi_step=False)

    r = raw.requests
    asked = next(iter(Prepared(s).traffic.blocks()))
    assert raw.totals["fleet_returned"] > 0
    assert (r["status"] == 0).all()
    assert (r["output_tokens"] == asked.output_tokens).all()
    assert (r["prompt_tokens"] == asked.prompt_tokens).all()  # not those of a later try
    assert (r["first_token_s"] <= r["prefill_end_s"] + 1e-9).all()  # of the first try, from P
    assert (r["finish_s"] >= np.fmax(r["decode_start_s"], r["prefill_end_s"])).all()
    for name, column in r.items():
        assert column.tobytes() == slow.requests[name].tobytes(), name


def deterministic(prefill: float, decode: float, poll: float = 1e-3) -> Any:
    """Plans with one seat on either side: P takes ``prefill`` seconds per request, D ``decode`` per token."""
    s = scenario(
        *(
            f"pools[{i}].engine.{k}"
            for i in range(2)
            for k in ("max_num_seqs=1", "async_scheduling=false", "enable_prefix_caching=false")
        ),
        *(
            f"pools[{i}].engine.kv_transfer_config={{kv_role: {role}, idle_poll: {poll}s}}"
            for i, role in enumerate(("kv_producer", "kv_consumer"))
        ),
    )
    index = np.array([TOKENS, DECODE_ROWS], np.int64)
    none = np.zeros((2, 2))
    costs = [new_linear_cost(np.array([t, t]), index, none) for t in (prefill, decode)]
    plans = [replace(unshifted(p), cost=c) for p, c in zip(plan(s), costs, strict=True)]
    return s, plans


def tandem(arrival: Any, prefill: float, decode: Any, pause: float) -> tuple[Any, Any]:
    """When each customer leaves the first station (Lindley), and the second, which is gated.

    An empty D pulls all that wait at its door, pauses once until it sees that their KV is there, and serves them before it looks again.
    """
    n = len(arrival)
    first, second = np.zeros(n), np.zeros(n)
    free = -np.inf
    for i, t in enumerate(arrival):
        free = first[i] = max(t, free) + prefill
    i, free = 0, -np.inf
    while i < n:
        begin = max(free, first[i])
        inside = int(np.searchsorted(first, begin, side="right"))
        second[i:inside] = begin + pause + np.cumsum(decode[i:inside])
        i, free = inside, second[inside - 1]
    return first, second


@pytest.mark.parametrize(("prefill", "decode"), [(0.0213, 0.0041), (0.1037, 0.0011), (0.0021, 0.0053)])
def test_a_burst_leaves_two_stations_in_a_row_as_the_recursion_says(prefill: float, decode: float) -> None:
    s, plans = deterministic(prefill, decode)
    output = np.random.default_rng(0).integers(1, 20, 40)
    traffic = RecordedTraffic(RequestBlock.of(np.zeros(40), np.full(40, 100), output))
    r = execute(plans, traffic, s.router, 0, bins=0, histogram=HISTOGRAM, transfer=FREE).requests

    first, second = tandem(np.zeros(40), prefill, output * decode, 1e-3)
    np.testing.assert_allclose(r["prefill_end_s"], first, rtol=1e-12)
    np.testing.assert_allclose(r["finish_s"], second, rtol=1e-12)


def test_poisson_arrivals_leave_as_the_recursion_says_but_for_the_polls_of_an_idle_core() -> None:
    poll = 1e-6
    s, plans = deterministic(0.02, 0.004, poll)
    rng = np.random.default_rng(1)
    arrival, output = np.cumsum(rng.exponential(0.025, 200)), rng.integers(1, 9, 200)
    traffic = RecordedTraffic(RequestBlock.of(arrival, np.full(200, 100), output))
    r = execute(plans, traffic, s.router, 0, bins=0, histogram=HISTOGRAM, transfer=FREE).requests

    first, second = tandem(arrival, 0.02, output * 0.004, poll)
    np.testing.assert_allclose(r["prefill_end_s"], first, atol=100 * poll)
    np.testing.assert_allclose(r["finish_s"], second, atol=100 * poll)


def test_transfers_of_one_port_pass_one_after_the_other() -> None:
    ports = Ports(Wire("x", 100.0, 0.5, "", ""), [1, 1, 2, 1])  # bytes per second and rank

    assert ports.send(0, 2, 200.0, 0.0) == 2.5
    assert ports.send(0, 3, 100.0, 1.0) == 3.5  # waits for the port of 0
    assert ports.send(1, 2, 400.0, 0.5) == 5.5  # two ranks at the destination were through after one second
    assert ports.send(1, 3, 100.0, 9.0) == 10.5
    assert list(ports.waits) == [0.0, 1.0, 0.5, 0.0]
    assert ports.bytes == 800.0


class Told:
    """Sides that note what they are told."""

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []

    def kv_arrived(self, *what: Any) -> None:
        self.log.append(("arrived", *what[:4]))

    def release_kept(self, *what: Any) -> None:
        self.log.append(("release", *what))


def test_chunks_are_sent_as_they_are_computed_and_only_what_the_decode_side_lacks() -> None:
    ports, told = Ports(Wire("x", 16.0, 0.0, "", ""), [1, 1]), Told()
    h: Any = object.__new__(HandOvers)
    h._protocol = HandOver(first="decode", first_token="with_kv", sends="chunks")
    h._facts, h._ports = [ReplicaFacts(16, 1.0)] * 2, ports
    h._is_decode, h._first = [False, True], [0, 1]
    h._sides, h._pool, h._number, h._there = [told, told], [0, 1], [0, 0], {}
    h._times = [[], [], []]
    h._layers, h._says_at_d = [0, 0], True
    h.use, h.before = InUse(Clock(), 2), SimpleNamespace(first_token=lambda request, time: None)
    j = Journey(Request(RequestBlock.of([0.0], [100], [9]), 0, 0, 0.0), 0, 1, 0)
    h._there[0] = j
    j.d_slot, j.p_slot, j.need = 5, 7, 80  # D has 20 tokens of the 100

    j.p_at = j.d_at = 0
    h._chunk_done(j, 1.0, 7, 10)
    assert ports.bytes == 0.0  # D has those
    h._chunk_done(j, 2.0, 7, 50)
    assert (ports.bytes, j.sent) == (16.0, 16)  # whole blocks of the 30 that it lacks
    h._chunk_done(j, 3.0, 7, 90)
    assert (ports.bytes, j.sent) == (64.0, 64)
    h._prompt_computed(j, 4.0, 7)
    assert ports.bytes == 80.0
    assert told.log == [("arrived", 0, 5, 7.0, 1), ("release", 0, 7, 7.0)]  # 1 s at 2, 3 s at 3, 1 s behind it


def test_llumnix_sends_prompts_to_idle_prefill_and_decodes_to_empty_decode_instances() -> None:
    """Batch mode counts what is on its way to a decode instance; asking later sees what is there."""
    for mode in ("false", "true"):
        s = scenario(
            f"router={{name: llumnix, separate_pd_scheduling: {mode}, status_interval: 10s}}",
            "pools[0].replicas=2",
            "pools[1].replicas=3",
            "traffic.synthetic.arrival.rate=60/s",
        )
        raw, _ = run(s)
        r = raw.requests
        assert (r["status"] == 0).all()
        if mode == "false":  # one status for all of them: the ledgers alone spread them evenly
            assert np.bincount(r["replica"], minlength=5)[2:].tolist() == [40, 40, 40]
            assert np.bincount(r["prefill_replica"]).tolist() == [60, 60]


def test_the_gateway_keeps_requests_while_every_prefill_instance_is_loaded() -> None:
    s = scenario("router={name: eas, load_threshold: 500, status_interval: 20ms}", "traffic.synthetic.arrival.rate=300/s")
    raw, _ = run(s)

    assert raw.totals["fleet_gateway_waited"] > 0
    assert (raw.requests["status"] == 0).sum() + raw.totals["fleet_gateway_failed"] == 120
    served = raw.requests["status"] == 0
    assert raw.requests["first_scheduled_s"][served].max() > raw.requests["arrival_s"].max()


def test_what_the_decode_side_has_cached_is_not_pulled_again() -> None:
    text = BASE.replace("requests: 120}", "requests: 200, sessions: {turns: 4, think_time: 2s}}")
    pulled = []
    for caching in (True, False):
        s = sim.loads(text, [f"pools[1].engine.enable_prefix_caching={str(caching).lower()}"])
        raw, _ = run(s)
        pulled.append(raw.totals["fleet_kv_transferred_bytes"])
        assert (raw.requests["status"] == 0).all()

    assert pulled[0] < 0.8 * pulled[1]


def test_a_slow_link_is_what_breaks_first_and_the_report_says_so() -> None:
    slow = sim.run(scenario("transfer.bandwidth=300MB", "traffic.synthetic.requests=400"))
    fast = sim.run(scenario("traffic.synthetic.requests=400"))

    assert slow.summary["bottleneck"]["limit"] == "kv_transfer"
    assert fast.summary["bottleneck"]["sentence"].startswith("Nothing is saturated")
    assert sum(slow.summary["bottleneck"]["request_time"].values()) == pytest.approx(1.0)
    assert "KV transfer" in slow.html()
    assert "KV transfer" in as_text(screen(slow))
    assert [row["requests"] for row in slow.summary["replicas"]] == [400, 400]
    assert any(row["what"] == "KV transfer over rdma-400g" for row in fast.evidence)
    stages = slow.columns
    parts = (
        stages["first_scheduled_s"] - stages["arrival_s"],
        stages["prefill_end_s"] - stages["first_scheduled_s"],
        stages["kv_allocated_s"] - stages["prefill_end_s"],
        stages["kv_arrived_s"] - stages["kv_allocated_s"],
        stages["decode_start_s"] - stages["kv_arrived_s"],
    )
    assert np.all(np.sum(parts, axis=0) <= stages["ttft_s"] + 1e-9)


def test_clients_that_wait_get_their_answer_from_the_decode_side() -> None:
    s = scenario("traffic.closed_loop={concurrency: 7, think_time: 50ms}")
    raw, _ = run(s)

    r = raw.requests
    assert (r["status"] == 0).all() and len(r["id"]) == 120
    events = np.concatenate([np.stack([r["arrival_s"], np.ones(120)]), np.stack([r["finish_s"], -np.ones(120)])], axis=1)
    order = np.lexsort((events[1], events[0]))
    assert np.cumsum(events[1][order]).max() <= 7


@pytest.mark.parametrize(
    ("override", "error", "field"),
    [
        ("pools[1].role=null", ConfigError, "scenario"),
        ("pools[1].role=prefill", ConfigError, "scenario"),
        ("pools[1].engine=vllm-ascend", ConfigError, "pools[1].engine.name"),
        ("pools[1].engine=tgi", NotModelledError, "pools.role"),
        ("pools[1].engine.block_size=32", ConfigError, "pools[1].engine.block_size"),
        ("pools[1].engine.kv_transfer_config={kv_role: kv_producer}", ConfigError, "engine.kv_transfer_config.kv_role"),
        ("pools[1].engine.speculative_config={method: ngram}", NotModelledError, "engine.speculative_config"),
        ("transfer.link=rdma-401g", ConfigError, "transfer.link"),
        ("router={name: llumnix_v0, enable_migration: true}", NotModelledError, "router"),
    ],
)
def test_what_cannot_be_is_refused(override: str, error: type[Exception], field: str) -> None:
    with pytest.raises(error) as raised:
        sim.run(scenario(override))
    assert field in str(raised.value)


def test_a_transfer_section_needs_sides() -> None:
    text = BASE.replace("role: prefill, ", "").replace("role: decode, ", "") + "transfer: {link: rdma-400g}\n"
    with pytest.raises(ConfigError, match="transfer"):
        sim.loads(text)
