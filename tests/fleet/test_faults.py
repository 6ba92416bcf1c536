"""What breaks: textbook answers, nothing served by the dead, everybody accounted for."""

from __future__ import annotations

from collections import deque
from math import sqrt
from typing import Any

import numpy as np
import pytest

import sim
from sim.errors import ConfigError
from sim.fleet.attempts import Attempts
from sim.fleet.clients import OpenClients
from sim.fleet.clock import Clock
from sim.fleet.coordinator import Queue
from sim.fleet.dispatch import Dispatch
from sim.fleet.engines import Engines
from sim.fleet.faults import Faults
from sim.fleet.world import World
from sim.metrics.laws import check_laws
from sim.policy.clients.simple import Simple, SimpleParams
from sim.policy.coordinator import Coordinator
from sim.policy.coordinator import Dispatch as To
from sim.policy.fault import Unit
from sim.policy.faults.crash import Crash, CrashParams
from sim.policy.faults.rank import Rank, RankParams
from sim.policy.faults.slow import Slow, SlowParams
from sim.policy.recovery import Recovery
from sim.policy.requests import Requests
from sim.policy.router import RouterParams, Snapshot
from sim.registry import lookup
from sim.streams import stream
from sim.study.single import Prepared
from sim.study.stress.failures import breaking, per_hour
from tests.fleet.test_combinations import run as run_with_record
from tests.laws.bench import engine, group, traffic, vllm_engine, vllm_group

SERVICE = 0.01


def world(faults: Any, requests: Any, servers: int = 1) -> tuple[World, Any]:
    """A bare M/M/1 with faults; or an engine of several ``servers``, which decodes as many requests, a token in `SERVICE` / 20."""
    clock = Clock()
    engines = Engines(clock, [group(1, 1, 0.0, 1e-6) if servers == 1 else vllm_group(servers, SERVICE / 20)])
    cls = lookup("router", "round_robin")
    choice = Dispatch(clock, cls(cls.Params(), 1, stream(0, "router")), engines.view)
    attempts = Attempts(clock, Simple(SimpleParams()), stream(0, "a"), stream(0, "b"), None)

    def fresh(replica: int, recorder: Any) -> Any:
        return [
            engine(replica, recorder, 1, 0.0, 1e-6) if servers == 1 else vllm_engine(replica, recorder, servers, SERVICE / 20)
        ]

    broken = Faults(
        clock, faults, [Unit(0)], engines, [stream(5, f"f{i}") for i in range(len(faults) + 1)], fresh, Recovery(detects=1e6)
    )
    broken.attempts = attempts
    made = World(clock, OpenClients(clock, requests.blocks()), [attempts, choice, broken], engines)
    made.run()
    rows = made.requests()
    assert rows["id"].tolist() == list(range(made.sent))
    return made, rows


def exponential(rate: float, n: int) -> Any:
    rng = np.random.default_rng(7)
    return traffic(np.cumsum(rng.exponential(1 / rate, n)), np.maximum(1, np.rint(rng.exponential(SERVICE * 1e6, n))), np.ones(n))


def test_a_queue_with_catastrophes() -> None:
    """M/M/1 that loses all it has at rate ξ: the number in it is geometric with the smaller root of μr² − (λ+μ+ξ)r + λ = 0."""
    rate, mu, xi = 80.0, 1 / SERVICE, 10.0
    made, rows = world([Crash(CrashParams(**{"for": 1e-9, "mtbf": 1 / xi}))], exponential(rate, 4_000))
    r = (rate + mu + xi - sqrt((rate + mu + xi) ** 2 - 4 * rate * mu)) / (2 * mu)
    lost = xi * r / (1 - r) / rate
    failed = rows["status"] == 2
    assert failed.mean() == pytest.approx(lost, rel=0.15)
    incidents = made.leaves()["faults"]
    assert sum(i.hurt for i in incidents) == failed.sum()
    assert len(incidents) == pytest.approx(xi * rows["arrival_s"].max(), rel=0.15)


def test_several_servers_that_break_down_together() -> None:
    """M/M/c that loses all it has at rate ξ, against its Markov chain (cut at 200, solved numerically): ξ E[n] requests a second are lost."""
    servers, rate, mu, xi, most = 4, 320.0, 1 / SERVICE, 8.0, 200
    q = np.zeros((most + 1, most + 1))
    for n in range(most + 1):
        q[n, min(n + 1, most)] += rate
        q[n, max(n - 1, 0)] += min(n, servers) * mu
        q[n, 0] += xi
    np.fill_diagonal(q, q.diagonal() - q.sum(axis=1))
    p = np.linalg.lstsq(np.vstack([q.T, np.ones(most + 1)]), np.append(np.zeros(most + 1), 1.0), rcond=None)[0]
    rng = np.random.default_rng(8)
    n = 16_000
    arrival = np.cumsum(rng.exponential(1 / rate, n))
    made, rows = world(
        [Crash(CrashParams(**{"for": 1e-9, "mtbf": 1 / xi}))], traffic(arrival, np.ones(n), rng.geometric(1 / 20, n)), servers
    )
    failed = rows["status"] == 2
    assert failed.mean() == pytest.approx(xi * (p @ np.arange(most + 1)) / rate, rel=0.1)
    assert sum(i.hurt for i in made.leaves()["faults"]) == failed.sum()


class OneLine(Coordinator):
    """First come, first served: whoever is first goes to a server that is up and has nothing to do."""

    name = "one_line"

    def __init__(self, servers: int, down: set[int]) -> None:
        super().__init__(RouterParams(), servers, np.random.default_rng(0))
        self._line: deque[int] = deque()
        self._at: dict[int, int] = {}
        self._down = down
        self.period = 1.0

    def arrive(self, snapshot: Snapshot, number: int, block: Requests, row: int) -> None:
        self._line.append(number)

    def dispatch(self, snapshot: Snapshot) -> list[To]:
        free = [k for k in range(self.replicas) if k not in self._down and k not in self._at.values()]
        out = [To(self._line.popleft(), k) for k in free[: len(self._line)]]
        self._at |= {to.request: to.replica for to in out}
        return out

    def ended(self, number: int) -> None:
        del self._at[number]

    def withdraw(self, number: int) -> None: ...

    def prompt_computed(self, number: int) -> None: ...


def test_servers_behind_one_line_that_break_down_one_by_one() -> None:
    """M/M/c whose servers break at rate ξ each, lose whom they serve and are repaired at rate η each: the chain of (customers, servers up)."""
    servers, rate, mu, xi, eta, most, n = 3, 170.0, 1 / SERVICE, 10.0, 40.0, 250, 16_000
    up = servers + 1
    q = np.zeros((most + 1, up, most + 1, up))
    for i in range(most + 1):
        for k in range(up):
            busy = min(i, k)
            q[i, k, min(i + 1, most), k] += rate
            q[i, k, max(i - 1, 0), k] += busy * mu
            q[i, k, max(i - 1, 0), max(k - 1, 0)] += busy * xi
            q[i, k, i, max(k - 1, 0)] += (k - busy) * xi
            q[i, k, i, min(k + 1, servers)] += (servers - k) * eta
    q = q.reshape((most + 1) * up, -1)
    np.fill_diagonal(q, q.diagonal() - q.sum(axis=1))
    q[:, 0] = 1.0
    p = np.linalg.solve(q.T, np.eye(len(q))[0]).reshape(most + 1, up)
    customers = np.arange(most + 1)[:, None]
    lost = xi * (p * np.minimum(customers, np.arange(up))).sum() / rate
    clock = Clock()
    engines = Engines(clock, [group(servers, 1, 0.0, 1e-6)])
    line = OneLine(servers, engines.dead)
    queue = Queue(clock, line, engines.view)
    fault = Crash(CrashParams(**{"for": 1 / eta, "mtbf": 1 / xi, "repair": "exponential"}))
    units = [Unit(k) for k in range(servers)]
    broken = Faults(
        clock, [fault], units, engines, [stream(5, "f"), stream(5, "g")], lambda k, r: [engine(k, r, 1, 0.0, 1e-6)], Recovery(detects=0.0, returns=0.0)
    )  # fmt: skip
    broken.members, broken.changed = True, queue._round
    broken.attempts = Attempts(clock, Simple(SimpleParams()), stream(0, "a"), stream(0, "b"), None)
    made = World(
        clock,
        OpenClients(clock, exponential(rate, n).blocks()),
        [broken.attempts, queue, Dispatch(clock, line, engines.view), broken],
        engines,
    )
    made.run()
    rows = made.requests()
    assert rows["id"].tolist() == list(range(n))
    assert (rows["status"] == 2).mean() == pytest.approx(lost, rel=0.1)
    assert (rows["finish_s"] - rows["arrival_s"]).mean() == pytest.approx((p * customers).sum() / rate, rel=0.1)


def test_a_server_that_breaks_is_away_for_its_share_of_the_time() -> None:
    """Poisson arrivals see time averages: the share refused is repair / (repair + time to failure)."""
    fault = Crash(CrashParams(**{"for": 0.5, "mtbf": 1.5, "repair": "exponential"}))
    _, rows = world([fault], exponential(40.0, 6_000))
    refused = (rows["status"] == 2) & np.isnan(rows["taken_s"])
    in_it = np.isclose(rows["finish_s"], rows["arrival_s"])
    assert (refused & in_it).mean() == pytest.approx(0.25, rel=0.15)


def test_a_slow_server_is_another_queue() -> None:
    """Twice as slow from the beginning on: M/D/1 of twice the load."""
    n = 6_000
    arrival = np.cumsum(np.random.default_rng(1).exponential(1 / 40.0, n))
    _, rows = world(
        [Slow(SlowParams(**{"at": 0.0, "for": 1e6, "factor": 2.0}))], traffic(arrival, np.full(n, 10_000), np.ones(n))
    )
    wait = (rows["first_scheduled_s"] - rows["arrival_s"]).mean()
    assert wait == pytest.approx(0.8 * 0.02 / (2 * 0.2), rel=0.12)
    assert (rows["finish_s"] - rows["first_scheduled_s"])[100:] == pytest.approx(0.02, rel=1e-6)


def test_a_replica_of_eight_accelerators_fails_eight_times_as_often() -> None:
    rank = Rank(RankParams())
    assert rank.rate(Unit(0, 8)) == pytest.approx(8 / (2112 * 86400))
    assert rank.lasts(Unit(0, 8, 90.0, 150.0)) == 150.0


SMALL = """
model: llama-3.1-8b
traffic: {synthetic: {arrival: {process: poisson, rate: 30/s}, lengths: {kind: azure-2023-conv}, requests: 900}}
deployment: {accelerator: h100-sxm, replicas: 3, engine: {name: vllm}}
router: ROUTER
slo: {ttft: 1s}
faults: FAULTS
"""


def run(faults: str, *more: str, router: str = "least_outstanding") -> Any:
    """A result whose record keeps the laws."""
    text = sim.config.to_yaml(sim.loads(SMALL.replace("ROUTER", router).replace("FAULTS", faults), list(more)))
    result, record = run_with_record(text)
    check_laws(record)
    again = sim.run(sim.loads(text))
    for name, column in result.requests.items():
        assert column.to_numpy().tobytes() == again.requests[name].to_numpy().tobytes(), name
    return result


def test_nothing_comes_from_a_dead_replica() -> None:
    result = run("{name: crash, replica: 1, at: 10s, for: 10s}")
    c, s = result.columns, result.summary
    there = (c["replica"] == 1) & (c["status"] == 0)
    assert not (there & (c["finish_s"] > 10.2) & (c["arrival_s"] < 10.0)).any()
    assert not (there & (c["first_token_s"] > 10.1) & (c["first_token_s"] < 20.0)).any()
    assert (there & (c["arrival_s"] > 20.0)).any(), "it serves again"
    assert (c["cached_tokens"] <= c["prompt_tokens"]).all()
    row = s["faults"]["incidents"][0]
    assert (row["start_s"], row["end_s"], row["replica"]) == (10.0, 20.0, 1)
    assert 0 < row["hurt"] <= s["requests"]["failed"]
    assert any("replica 1 died" in note for note in result.notes)


def test_limits_for_each_replica_count_one_that_died() -> None:
    """Nobody is refused: no request is larger than what three replicas may have in flight."""
    result = run(
        "{name: crash, replica: 1, at: 10s, for: 10s}", "admission={name: vtc, running_max_req_size: 64, max_total_tokens: 50000}"
    )
    assert result.summary["requests"]["rejected"] == 0
    assert result.summary["requests"]["finished"] > 600


def test_a_router_that_tries_again_saves_what_had_not_begun() -> None:
    fault = "{name: crash, replica: 1, at: 500ms, for: 10s}"  # fewer are in it than open the breaker
    blind, smg = run(fault), run(fault, router="sglang_router")
    assert blind.summary["clients"]["rerouted"] == 0
    assert smg.summary["clients"]["rerouted"] > 0
    assert smg.summary["requests"]["failed"] < blind.summary["requests"]["failed"]


def test_production_stack_sends_elsewhere_as_often_as_it_is_told() -> None:
    fault = "{name: crash, replica: 1, at: 5s, for: 10s}"
    lost = []
    for more in (0, 2):
        name = f"{{name: production_stack, max_instance_failover_reroute_attempts: {more}}}"
        found = run(fault, router=name).summary
        assert (found["clients"]["rerouted"] > 0) == (more > 0)
        lost.append(found["requests"]["failed"])
    assert lost[1] < 0.3 * lost[0]


def test_a_replica_that_dies_while_it_is_shut_out_is_tried_again_all_the_same() -> None:
    """nginx does not look at who is shut out: 10 s later it tries again, though the replica has died twice meanwhile."""
    result = run("{name: crash, replica: 1, at: [5s, 8s, 12s, 17s], for: 100ms}", router="nginx")
    sent = result.columns["arrival_s"][result.columns["replica"] == 1]
    assert not ((sent > 5.5) & (sent < 15.0)).any()
    assert ((sent > 15.1) & (sent < 17.0)).any()
    assert not ((sent > 17.5) & (sent < 27.0)).any()


def test_what_a_router_is_about_to_send_elsewhere_when_the_run_ends_is_in_flight() -> None:
    result = run("{name: gateway_outage, at: 10s, for: 4s}", "until=12s", router="sglang_router")
    last = result.columns["status"][-3:]
    assert (last == 3).any(), "it pauses before the next attempt"
    assert (np.isnan(result.columns["finish_s"]) == (result.columns["status"] == 3)).all()


def test_clients_that_retry_are_served_elsewhere() -> None:
    fault = "{name: crash, replica: 1, at: 10s, for: 10s}"
    once, thrice = run(fault, router="round_robin"), run(fault, "clients={name: openai, max_retries: 5}", router="round_robin")
    assert thrice.summary["requests"]["failed"] < once.summary["requests"]["failed"]
    assert thrice.summary["clients"]["failed_attempts"]["connect"] > 0


def test_a_gateway_that_is_out_refuses_or_hangs() -> None:
    refused = run("{name: gateway_outage, at: 10s, for: 4s}")
    c = refused.columns
    during = (c["arrival_s"] >= 10.0) & (c["arrival_s"] < 14.0)
    assert (c["status"][during] == 2).all()
    assert (c["status"][c["arrival_s"] >= 14.0] == 0).all()
    assert refused.summary["faults"]["incidents"][0]["hurt"] > 0
    hangs = run("{name: gateway_outage, at: 10s, for: 4s, new: hang}")
    c = hangs.columns
    assert (c["status"][during] == 0).all()
    assert c["ttft_s"][during].max() > 3.5
    given_up = run("{name: gateway_outage, at: 10s, for: 4s, new: hang}", "clients={name: httpx, connect: 1s}")
    assert given_up.summary["clients"]["failed_attempts"]["connect"] > 50


def test_a_slow_replica_costs_whoever_is_sent_there() -> None:
    fault = "{name: slow, replica: 0, at: 5s, for: 15s, factor: 6}"
    turns, least = (run(fault, router=r).summary["latency"]["e2e_s"]["p99"] for r in ("round_robin", "least_outstanding"))
    assert turns > least


@pytest.mark.parametrize("router", ["sglang_router", "llm_d", "vllm_router"])
def test_a_router_that_starts_anew_has_a_cold_tree(router: str) -> None:
    """Twenty long prefixes, each of which it had at one replica; engines keep their caches, and all restarts are before the end of the traffic."""
    traffic = [
        "traffic.synthetic.prefixes={groups: 20, shared_tokens: 3000}",
        "traffic.synthetic.arrival.rate=10/s",
        "traffic.synthetic.requests=400",
    ]
    restarts = [f"{4 + 2 * i}s" for i in range(16)]
    warm = run("[]", *traffic, router=router)
    cold = run(f"{{name: router_restart, at: [{', '.join(restarts)}]}}", *traffic, router=router)
    missed = [r.columns["prompt_tokens"].sum() - r.columns["cached_tokens"].sum() for r in (warm, cold)]
    assert missed[1] > 1.1 * missed[0], "prefixes were computed at a second replica"
    before = warm.columns["arrival_s"] < 4.0
    assert (cold.columns["replica"][before] == warm.columns["replica"][before]).all()
    assert cold.summary["faults"]["by_kind"] == {"router_restart": 16} and cold.summary["requests"]["finished"] == 400


def test_links_that_are_down_hold_kv_back() -> None:
    calm = sim.run(sim.load("pd-vllm"))
    start = float(np.percentile(calm.columns["arrival_s"], 40))
    torn = sim.run(sim.load("pd-vllm", [f"faults={{name: link, at: {start}s, for: 5s}}"]))
    assert torn.summary["faults"]["count"] == 1
    late = np.nanmax(torn.columns["kv_arrived_s"] - torn.columns["prefill_end_s"])
    assert late > np.nanmax(calm.columns["kv_arrived_s"] - calm.columns["prefill_end_s"]) + 2.0
    weak = sim.run(sim.load("pd-vllm", [f"faults={{name: link, at: {start}s, for: 5s, factor: 0.05}}"]))
    assert weak.summary["requests"]["finished"] == calm.summary["requests"]["finished"]


def test_links_that_flap_hurt_each_time_and_the_report_says_when() -> None:
    """Down for 3 s of every 10 s: whose prompt was computed meanwhile waits for the rest of the 3 s, all others as ever."""
    flaps = np.array([10.0, 20.0, 30.0])
    given = ["traffic.synthetic.arrival={process: poisson, rate: 12/s}", "traffic.synthetic.requests=500", "slo={ttft: 500ms}"]
    calm, torn = (
        sim.run(sim.load("pd-vllm", [*given, f"faults={faults}"]))
        for faults in ("[]", "{name: link, at: [10s, 20s, 30s], for: 3s}")
    )
    c, s = torn.columns, torn.summary
    since = c["prefill_end_s"][:, None] - flaps
    in_it = ((since >= 0) & (since < 3.0)).any(1)
    waits = c["kv_arrived_s"] - c["prefill_end_s"]
    over = np.where((since >= 0) & (since < 3.0), 3.0 - since, 0).sum(1)
    assert in_it.sum() > 60 and (waits[in_it] > over[in_it]).all()
    assert np.nanmax(waits[~in_it & (since > 4.0).any(1) & ~((since > -0.5) & (since < 4.0)).any(1)]) < 0.5
    told = s["faults"]
    assert told["by_kind"] == {"link": 3} and all(i["missed"] > 20 for i in told["incidents"])
    assert 6.9 < told["recovery_worst_s"] < 32
    assert 8 < s["spell"]["start_s"] < 10.5 and 32 < s["spell"]["end_s"] < 36
    assert calm.summary["slo"]["attainment"]["joint"] > 0.99 and calm.summary["spell"] is None
    links = s["links"]
    assert {"time_s", "width_s"} <= set(links)
    random = sim.run(
        sim.load("pd-vllm", [*given, "faults={name: link, mtbf: 8s, for: 2s, repair: exponential, factor: 0.02}"])
    ).summary
    assert random["faults"]["count"] > 2 and random["requests"]["finished"] == 500


def test_random_faults_are_the_same_every_time_and_end_with_the_traffic() -> None:
    result = run("[{name: crash, mtbf: 20s, for: 3s}, {name: slow, mtbf: 10s, for: 2s, repair: exponential}]")
    assert result.summary["faults"]["count"] > 3
    assert result.summary["simulated_s"] < 200


def test_a_fleet_that_scales_loses_replicas_too() -> None:
    scaling = (
        "scaling={name: hpa, min: 2, max: 4, targets: {qps: 12/s}, interval: 2s, window: 4s, "
        "startup: {provision: 1s, image: 0s, load_bandwidth: 1TB, warmup: 0s}}"
    )
    result = run("{name: crash, mtbf: 15s, for: 4s}", scaling, "clients=openai")
    assert result.summary["faults"]["hurt"] > 0
    assert result.summary["requests"]["injected"] == 900


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_whoever_is_fast_again_is_not_left_alone_for_too_long(seed: int) -> None:
    """Two steps are in flight: the one that is under way may be slower than those that follow, of which one frees a place at the door."""
    lengths = "{kind: uniform, prompt_tokens: [1, 400], output_tokens: [1, 40]}"
    text = [
        f"traffic.synthetic={{arrival: {{process: poisson, rate: 60/s}}, lengths: {lengths}, requests: 200}}",
        "deployment.replicas=2",
        "router=least_outstanding",
        "admission=[{name: queue_limit, max_concurrent_requests: 6, queue_size: 400, queue_timeout_secs: 100}]",
        "clients={name: simple}",
        "faults=[{name: slow, mtbf: 60ms, for: 50ms, factor: 8}]",
        f"seed={seed}",
    ]
    run = Prepared(sim.load("quickstart", text))
    strokes, steps = (run.run(multi_step=at_once).requests for at_once in (True, False))
    assert strokes.equals(steps)


def test_what_cannot_be_is_told() -> None:
    with pytest.raises(ConfigError, match=r"faults\[0\].at"):
        run("crash")
    with pytest.raises(ConfigError, match="is no replica of this fleet"):
        run("{name: crash, replica: 7, at: 1s}")
    with pytest.raises(ConfigError, match="not both"):
        run("{name: crash, at: 1s, mtbf: 3h}")
    with pytest.raises(ConfigError, match="there are none"):
        run("{name: link, at: 1s}")
    apart = sim.run(sim.load("pd-vllm", ["faults={name: crash, at: 1s}", "traffic.synthetic.requests=60"])).summary
    assert apart["faults"]["count"] == 1
    assert apart["requests"]["finished"] + apart["requests"]["failed"] == 60
    late = run("{name: crash, at: 2h}")
    assert any("after the run had ended" in w for w in late.warnings)


def test_stress_along_failures_per_hour() -> None:
    text = SMALL.replace("ROUTER", "least_outstanding").replace("FAULTS", "[{name: crash, mtbf: 10min, for: 5s}]")
    short = ["slo.attainment=0.97", "traffic.synthetic.requests=600"]
    found = sim.stress(sim.loads(text, short), along="failures", spike=None, hysteresis=False, most=300, replications=1, jobs=1)
    assert found.failures_per_hour == pytest.approx(18.0)
    _, bad = found.curve.breaks["joint"]
    assert bad > 1.0
    assert "failures per hour" in found.sentence()
    assert found.curve.points[-1].figures["requests_per_s"][0] > 0
    with pytest.raises(ConfigError, match="at random"):
        sim.stress(
            sim.loads(SMALL.replace("ROUTER", "round_robin").replace("FAULTS", "[]")), along="failures", spike=None, jobs=1
        )


@pytest.mark.parametrize("factor", [1.0, 0.25, 6.0])
def test_what_breaks_so_many_times_as_often_fails_so_many_times_an_hour(factor: float) -> None:
    """Faults at fixed times stay as they are, and do not count."""
    faults = "[{name: crash, mtbf: 10min, for: 5s}, {name: slow, at: 3s, for: 2s, factor: 2}]"
    scenario = sim.loads(SMALL.replace("ROUTER", "least_outstanding").replace("FAULTS", faults))
    often = breaking(scenario, factor)
    assert per_hour(often) == pytest.approx(factor * per_hour(scenario))
    assert often.faults[1] == scenario.faults[1]


def test_dynamo_goes_on_elsewhere_with_what_was_generated() -> None:
    """The client sees a pause; no token is lost, none comes twice."""
    fault = "{name: crash, replica: 1, at: 10s, for: 10s}"
    off, on = (run(fault, router=f"{{name: dynamo, migration_limit: {n}}}") for n in (0, 3))
    assert off.summary["requests"]["failed"] > 0
    assert on.summary["requests"]["failed"] == 0
    assert on.summary["clients"]["rerouted"] >= on.summary["faults"]["hurt"] > 0
    calm = sim.run(sim.loads(SMALL.replace("ROUTER", "dynamo").replace("FAULTS", "[]")))
    for name in ("prompt_tokens", "output_tokens"):
        assert (on.columns[name] == calm.columns[name]).all()
    assert (on.columns["attempts"] == 1).all()
    assert (on.columns["cached_tokens"] <= on.columns["prompt_tokens"]).all()
