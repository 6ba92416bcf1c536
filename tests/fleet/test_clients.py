"""Clients that give up, try again, send twice: textbook answers, and nobody is counted twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sim
from sim import registry
from sim.errors import ConfigError
from sim.fleet.attempts import Attempts, client_of
from sim.fleet.clients import OpenClients
from sim.fleet.clock import Clock
from sim.fleet.dispatch import Dispatch
from sim.fleet.engines import Engines
from sim.fleet.request import Request
from sim.fleet.station import Station
from sim.fleet.world import World
from sim.metrics.storm import storm
from sim.policy.client import BROKEN, BUSY, FAILURES, Client, ClientParams
from sim.registry import lookup
from sim.streams import stream
from tests.laws.bench import group, traffic

N = 20_000
SERVICE = 0.01


class Loss(Station):
    """A server that refuses whoever comes while it is busy."""

    def __init__(self) -> None:
        super().__init__()
        self.busy = False

    def arrive(self, request: Request) -> bool:
        if self.busy:
            return False
        self.busy = True
        return self.then.arrive(request)

    def ended(self, request: Request, time: float, replica: int) -> None:
        def free() -> None:
            self.busy = False

        self.clock.call(time, free)
        self.before.ended(request, time, replica)

    clock: Clock


class Persistent(Client):
    """Tries again for ever, after exponential pauses."""

    name = "persistent"
    attempts = 10**9
    pause = 0.0

    def retries(self, failure: str) -> bool:
        return failure == BUSY

    def delay(self, attempt: int, rng: np.random.Generator) -> float:
        return float(rng.exponential(self.pause))


def world(client: Client, requests: Any, replicas: int = 1, loss: bool = False) -> tuple[World, Any]:
    clock = Clock()
    engines = Engines(clock, [group(replicas, 1, 0.0, 1e-6)])
    cls = lookup("router", "round_robin")
    choice = Dispatch(clock, cls(cls.Params(), replicas, stream(0, "router")), engines.view)
    attempts = Attempts(clock, client, stream(0, "pauses"), stream(0, "patience"), None)
    between: list[Station] = [attempts, choice]
    if loss:
        between.insert(1, Loss())
        between[1].clock = clock  # type: ignore[attr-defined]
    made = World(clock, OpenClients(clock, requests.blocks()), between, engines)
    made.run()
    rows = made.requests()
    assert rows["id"].tolist() == list(range(made.sent))
    return made, rows


def exponential(rate: float, n: int = N) -> Any:
    """Poisson arrivals, exponential service of mean `SERVICE`."""
    rng = np.random.default_rng(7)
    return traffic(np.cumsum(rng.exponential(1 / rate, n)), np.maximum(1, np.rint(rng.exponential(SERVICE * 1e6, n))), np.ones(n))


def test_a_queue_that_customers_leave() -> None:
    """Erlang-A with one server: birth and death, where each of those who wait leaves at rate θ."""
    rate, theta, mu = 120.0, 20.0, 1 / SERVICE
    client = client_of(sim.loads(SMALL.format(clients="{name: simple, patience: {mean: 50ms}}")).clients)
    made, rows = world(client, exponential(rate))
    p = [1.0]
    for n in range(1, 200):
        p.append(p[-1] * rate / (mu + (n - 1) * theta))
    chance = np.array(p) / np.sum(p)
    leave_queue = theta * np.sum(np.maximum(np.arange(200) - 1, 0) * chance) / rate
    leave = leave_queue + (1 - leave_queue) * theta / (mu + theta)  # who is being served may go too: the server does not know
    failed = rows["status"] == 2
    assert failed.mean() == pytest.approx(leave, rel=0.04)
    assert made.clients is not None
    waited = (rows["finish_s"] - rows["arrival_s"])[failed]
    assert waited.max() < 1.0


def test_customers_in_orbit() -> None:
    """M/M/1/1 with retrials: the mean wait is ρ(λ/γ + ρ) / ((1−ρ)λ) (Falin & Templeton 1997)."""
    rate, rho, gamma = 60.0, 0.6, 50.0
    client = Persistent(ClientParams())
    client.pause = 1 / gamma
    made, rows = world(client, exponential(rate), loss=True)
    assert (rows["status"] == 0).all()
    wait = rows["first_scheduled_s"] - rows["arrival_s"]
    assert wait.mean() == pytest.approx(rho * (rate / gamma + rho) / ((1 - rho) * rate), rel=0.07)
    (attempts,) = (s for s in made.stations if isinstance(s, Attempts))
    assert attempts.record.retries_s.size == attempts.record.failures["overloaded"]


def test_two_servers_race_for_a_hedged_request() -> None:
    """Sent twice at once to two idle servers, an answer takes the shorter of two independent times: half the mean."""
    rng = np.random.default_rng(3)
    n = 1000
    client = client_of(sim.loads(SMALL.format(clients="{name: simple, hedge_after: 1us}")).clients)
    requests = traffic(np.arange(n) * 10.0, np.maximum(1, np.rint(rng.exponential(1e4, n))), np.ones(n))
    made, rows = world(client, requests, replicas=2)
    (attempts,) = (s for s in made.stations if isinstance(s, Attempts))
    assert attempts.record.hedges == n
    assert attempts.record.retries_s.size == n and attempts.record.after_failures_s.size == 0
    assert (rows["status"] == 0).all()
    assert rows["finish_s"] - rows["arrival_s"] == pytest.approx(
        requests.blocks().__next__().prompt_tokens * 1e-6, rel=1e-3, abs=2e-6
    )


SMALL = """
model: llama-3.1-8b
traffic: {{synthetic: {{arrival: {{process: poisson, rate: 25/s}}, lengths: {{kind: azure-2023-conv}}, requests: 600}}}}
deployment: {{accelerator: a100-sxm-80g, engine: {{name: vllm, max_num_seqs: 16}}}}
slo: {{ttft: 2s}}
clients: {clients}
"""


def run(clients: str, *overrides: str) -> Any:
    return sim.run(sim.loads(SMALL.format(clients=clients), list(overrides)))


def test_every_request_has_one_outcome_and_attempts_are_counted_apart() -> None:
    result = run("{name: openai, timeout: 4s}")
    s, c = result.summary, result.columns
    clients = s["clients"]
    assert s["requests"]["injected"] == 600 == s["requests"]["finished"] + s["requests"]["failed"]
    assert clients["attempts"] == 600 + sum(clients["failed_attempts"].values()) - clients["given_up"]
    assert clients["given_up"] == s["requests"]["failed"] > 0
    assert 1.0 < clients["attempts_per_request"] <= 3.0
    assert 0.0 < clients["wasted"]["share"] < 1.0
    failed = c["status"] == 2
    time = (c["finish_s"] - c["arrival_s"])[failed]
    assert ((time > 12.0) & (time < 12.0 + 0.5 + 1.0 + 1e-6)).all(), "three time-outs and two pauses"
    assert c["ttft_s"][~failed].max() <= 3 * 4.0 + 1.5
    assert any("attempts" in note for note in result.notes)


def test_nothing_changes_for_clients_that_never_give_up() -> None:
    """They only cost an event each: the same times as without."""
    alone = sim.run(sim.loads(SMALL.format(clients="null")))
    patient = run("simple")
    for name in alone.requests:
        assert alone.requests[name].to_numpy().tobytes() == patient.requests[name].to_numpy().tobytes(), name


def test_answers_in_one_piece_must_come_whole() -> None:
    streamed, whole = (run(f"{{name: httpx, read: 5s, stream: {s}}}").summary["requests"]["failed"] for s in ("true", "false"))
    assert whole > streamed


def test_a_deadline_holds_for_all_attempts_together() -> None:
    result = run("{name: envoy, timeout: 6s, per_try_timeout: 2s, num_retries: 9, retry_on: [5xx]}")
    c = result.columns
    assert (c["finish_s"] - c["arrival_s"]).max() <= 6.0 + 1e-6
    assert result.summary["clients"]["deadlines"] > 0


def test_users_who_leave_free_the_engine_for_others() -> None:
    stay, leave = run("simple"), run("{name: simple, patience: {mean: 3s, distribution: fixed}}")
    assert leave.summary["clients"]["left"] > 0
    assert leave.columns["ttft_s"][leave.columns["status"] == 0].max() <= 3.0
    assert np.nanmean(leave.columns["ttft_s"]) < np.nanmean(stay.columns["ttft_s"])


@pytest.mark.parametrize("name", registry.names("client"))
def test_delays_are_those_of_the_source(name: str) -> None:
    cls = lookup("client", name)
    client, rng = cls(cls.Params()), stream(1, "test")
    assert client.attempts >= 1
    assert not client.retries(BROKEN)
    for failure in FAILURES:
        client.retries(failure)
        for k in range(8):
            assert 0.0 <= client.delay(k, rng) <= 20.0
    if name == "openai":
        for k, most in enumerate((0.5, 1.0, 2.0, 4.0, 8.0, 8.0)):
            drawn = [client.delay(k, rng) for _ in range(200)]
            assert 0.75 * most <= min(drawn) < 0.78 * most
            assert 0.97 * most < max(drawn) <= most


def test_what_is_wrong_is_told() -> None:
    with pytest.raises(ConfigError, match="max_retrys"):
        run("{name: openai, max_retrys: 3}")
    with pytest.raises(ConfigError, match="openai"):
        run("{name: opennai}")
    counts = sim.run(sim.load("pd-vllm", ["clients=openai", "traffic.synthetic.requests=60"])).summary["requests"]
    assert counts["finished"] == counts["injected"] == 60


def test_a_storm_and_its_end_are_told() -> None:
    """Load of 10/s; from 100 s to 110 s three times as much; retries hold on until 150 s, or for ever."""
    rng = np.random.default_rng(1)
    arrival = np.sort(np.concatenate([rng.uniform(0, 300, 3000), rng.uniform(100, 110, 200)]))
    storming = (arrival >= 100) & (arrival < 150)
    ended = storm(arrival, rng.uniform(100, 150, 900), ~storming)
    assert ended is not None and ended["ended"]
    assert ended["start_s"] == pytest.approx(100, abs=6) and ended["end_s"] == pytest.approx(150, abs=6)
    assert ended["load_back_s"] == pytest.approx(110, abs=6)
    lasting = storm(arrival, rng.uniform(100, 300, 4000), arrival < 100)
    assert lasting is not None and lasting["metastable_s"] > 150 and not lasting["ended"]
    assert storm(arrival, np.zeros(0), arrival > 0) is None


def test_second_copies_of_requests_that_are_all_answered_are_no_storm_of_retries() -> None:
    told = run("{name: simple, hedge_after: 50ms, max_hedges: 3}", "deployment.replicas=2").summary["clients"]
    assert told["attempts_per_request"] > 1.5 and not told["failed_attempts"]
    assert told["storm"] is None
