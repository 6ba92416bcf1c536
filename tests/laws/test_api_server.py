"""The API server before an engine: one process whose event loop works in rounds."""

import numpy as np
import pytest

import sim
from sim.streams import stream
from sim.study.single import Prepared
from tests.laws.bench import group, run, traffic

SERVICE = 1e-9  # of the engine: nothing beside the API server


def rounds(arrival, serial):
    """When each request is through: the end of the round that takes it."""
    ready, i = [], 0
    free = 0.0
    while i < len(arrival):
        opens = max(float(arrival[i]), free)
        taken = int(np.searchsorted(arrival, opens, side="right")) - i
        free = opens
        for _ in range(taken):
            free += serial
        ready += [free] * taken
        i += taken
    return np.array(ready)


@pytest.mark.parametrize("load", [0.3, 0.9, 1.4])
def test_requests_reach_the_engine_at_the_end_of_their_round(load):
    serial = 0.1
    arrival = np.cumsum(stream(3, "test").exponential(serial / load, 2000))
    engine = group(1, 1, SERVICE, 0.0)
    engine.set_front(serial)

    _, requests = run([engine], traffic(arrival, np.full(2000, 10), np.ones(2000)))

    assert requests["arrival_s"] == pytest.approx(arrival)
    assert requests["first_scheduled_s"] == pytest.approx(rounds(arrival, serial), abs=2000 * SERVICE)


def test_a_burst_arrives_at_once_and_spread_requests_one_by_one():
    engine = group(1, 100, SERVICE, 0.0)
    engine.set_front(0.01)
    arrival = np.array([0.0] * 50 + [10.0, 11.0])

    _, requests = run([engine], traffic(arrival, np.full(52, 10), np.ones(52)))

    assert requests["first_scheduled_s"][:50] == pytest.approx(0.5)
    assert requests["first_scheduled_s"][50:] == pytest.approx([10.01, 11.01])


def test_clients_that_wait_pass_it_too():
    engine = group(1, 1, SERVICE, 0.0)
    engine.set_front(0.5)

    _, requests = run([engine], traffic(np.zeros(6), np.full(6, 10), np.ones(6), clients=1))

    assert requests["finish_s"] == pytest.approx(0.5 * np.arange(1, 7), abs=1e-6)


def test_a_lone_request_takes_what_the_profile_says_whatever_of_it_is_serial():
    plan = Prepared(sim.load("quickstart")).plans[0]
    profile = plan.profile

    assert 0.0 < profile.client_serial < profile.client_request
    assert profile.before_engine(0) + profile.client_serial == pytest.approx(profile.client_request)


@pytest.mark.parametrize(
    ("version", "model", "waits"), [("0.11", "qwen3-8b", True), ("0.11", "gpt-oss-20b", False), ("0.15", "qwen3-8b", False)]
)
def test_chat_requests_wait_where_the_template_is_looked_up_each_time(version, model, waits):
    profile = {
        endpoint: Prepared(
            sim.load(
                "quickstart",
                overrides=(f"model.name={model}", f"deployment.engine.version='{version}'", f"traffic.endpoint={endpoint}"),
            )
        )
        .plans[0]
        .profile
        for endpoint in ("completions", "chat")
    }

    assert (profile["chat"].client_serial > 5 * profile["completions"].client_serial) == waits
    assert (profile["chat"] == profile["completions"]) != waits
