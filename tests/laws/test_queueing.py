"""Engines that degenerate to textbook queues give the textbook's answers."""

from __future__ import annotations

from math import factorial

import numpy as np
import pytest

from tests.laws.bench import group, run, traffic, vllm_group

N = 200_000


def arrivals(rate: float, seed: int = 1) -> np.ndarray:
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, N))


def waits(requests: dict[str, np.ndarray]) -> np.ndarray:
    return requests["first_scheduled_s"] - requests["arrival_s"]


@pytest.mark.parametrize("load", [0.3, 0.7, 0.9])
def test_m_d_1(load: float) -> None:
    """Deterministic service: mean wait ρ·D / 2(1−ρ) (Pollaczek–Khinchine)."""
    _, r = run([group(1, 1, 0.01, 0.0)], traffic(arrivals(load / 0.01), np.ones(N), np.ones(N)))
    assert waits(r).mean() == pytest.approx(load * 0.01 / (2 * (1 - load)), rel=0.06)


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_m_m_1(load: float) -> None:
    """Exponential service, by prompts of exponential length: the time in the system is exponential with mean S/(1−ρ)."""
    prompt = np.maximum(1, np.rint(np.random.default_rng(2).exponential(10_000, N)))
    _, r = run([group(1, 1, 0.0, 1e-6)], traffic(arrivals(load / 0.01), prompt, np.ones(N)))
    time = r["finish_s"] - r["arrival_s"]
    assert time.mean() == pytest.approx(0.01 / (1 - load), rel=0.06)
    assert np.percentile(time, 90) == pytest.approx(0.01 / (1 - load) * np.log(10), rel=0.08)


def test_little() -> None:
    """Mean number in the system = rate × mean time in it, from series and request table independently."""
    rate = 80.0
    world, r = run([group(1, 1, 0.01, 0.0, bins=500)], traffic(arrivals(rate), np.ones(N), np.ones(N)))
    series, _, _ = world.engines.groups[0].series()
    time = series["time_s"].sum()
    in_system = (series["running"].sum() + series["waiting"].sum()) / time
    assert in_system == pytest.approx(N / time * (r["finish_s"] - r["arrival_s"]).mean(), rel=0.02)


def test_a_faster_machine_makes_nobody_wait_longer() -> None:
    """FCFS without preemption: every single request starts no later."""
    prompt = np.random.default_rng(3).integers(1, 2000, N)
    slow, fast = (run([group(1, 1, 0.002 * f, 1e-6 * f)], traffic(arrivals(200), prompt, np.ones(N)))[1] for f in (1.0, 0.8))
    assert (fast["first_token_s"] <= slow["first_token_s"] + 1e-9).all()


def test_two_pools_behind_one_gateway_are_two_queues() -> None:
    """Splitting a Poisson stream at random gives two M/D/1 queues, whichever pool a replica stands in."""
    pools = [group(1, 1, 0.01, 0.0), group(1, 1, 0.01, 0.0)]
    _, r = run(pools, traffic(arrivals(160), np.ones(N), np.ones(N)), "random")
    assert np.bincount(r["replica"]) == pytest.approx([N / 2, N / 2], rel=0.02)
    assert waits(r).mean() == pytest.approx(0.8 * 0.01 / (2 * 0.2), rel=0.06)


def test_joining_the_shorter_queue_beats_taking_turns_beats_chance() -> None:
    """Known order of policies for exponential service."""
    prompt = np.maximum(1, np.rint(np.random.default_rng(2).exponential(10_000, N)))
    mean = {}
    for router in ("least_outstanding", "power_of_two", "round_robin", "random"):
        _, r = run([group(4, 1, 0.0, 1e-6)], traffic(arrivals(320), prompt, np.ones(N)), router)
        mean[router] = waits(r).mean()
    assert mean["least_outstanding"] < mean["power_of_two"] < mean["round_robin"] < mean["random"]


def test_closed_loop_machine_repair() -> None:
    """N clients, one server, no thinking: throughput is the server's, and each answer takes N services."""
    _, r = run([group(1, 1, 0.01, 0.0)], traffic(np.zeros(N), np.ones(N), np.ones(N), clients=8))
    assert r["finish_s"].max() == pytest.approx(N * 0.01, rel=1e-9)
    assert np.median(r["finish_s"] - r["arrival_s"]) == pytest.approx(0.08, rel=1e-6)


@pytest.mark.parametrize("pools", [1, 2])
def test_closed_loop_never_has_more_in_the_house_than_clients(pools: int) -> None:
    """Each client waits for its answer, whatever the number of pools."""
    prompt = np.random.default_rng(3).integers(1, 2000, 5000)
    groups = [group(2, 3, 0.002, 1e-6) for _ in range(pools)]
    _, r = run(groups, traffic(np.zeros(5000), prompt, np.ones(5000), clients=7, think_time=0.001), "least_outstanding")
    events = np.concatenate([np.stack([r["arrival_s"], np.ones(5000)]), np.stack([r["finish_s"], -np.ones(5000)])], axis=1)
    level = np.cumsum(events[1][np.lexsort((events[1], events[0]))])
    assert level.max() == 7
    assert (r["status"] == 0).all()


def test_work_is_conserved() -> None:
    """A waiting request never meets an idle engine: each one starts at its arrival or when the one before it ends, to the bit."""
    prompt = np.random.default_rng(5).integers(1, 3000, N)
    _, r = run([group(1, 1, 0.001, 1e-6)], traffic(arrivals(350), prompt, np.ones(N)))
    before = np.concatenate([[0.0], r["finish_s"][:-1]])
    np.testing.assert_array_equal(r["first_scheduled_s"], np.maximum(r["arrival_s"], before))


def test_several_servers_share_one_queue() -> None:
    """M/M/c: an engine that decodes at most c requests, each token as long whatever the batch, is c servers (Erlang C)."""
    servers, load, step = 4, 0.8, 0.001
    output = np.random.default_rng(6).geometric(1 / 200, N)  # in steps; their mean is long against one step
    mean = 200 * step
    _, r = run([vllm_group(servers, step)], traffic(arrivals(load * servers / mean), np.ones(N), output))
    a = load * servers
    tail = a**servers / (factorial(servers) * (1 - load))
    wait = tail / (sum(a**k / factorial(k) for k in range(servers)) + tail)
    expected = wait * mean / (servers * (1 - load))
    assert waits(r).mean() == pytest.approx(expected, rel=0.08, abs=step)
