"""Fleets that degenerate to systems with known answers: M/M/c, power of two, the shorter of two queues, a tandem."""

from __future__ import annotations

from dataclasses import replace
from math import factorial
from types import SimpleNamespace

import numpy as np
import pytest

import sim
from sim.config.deployment import Transfer
from sim.cost.features import DECODE_ROWS, PREFILL_TOKENS
from sim.cost.step import new_linear_cost
from sim.fleet.run import execute
from sim.study.single import Prepared
from sim.workload.recorded import RecordedTraffic
from sim.workload.table import RequestBlock
from tests.laws.bench import group, run, traffic

S = 0.01


def exponential(n: int, seed: int = 2) -> np.ndarray:
    """Prompts whose service takes `S` seconds on average, at 1 µs a token."""
    drawn = np.random.default_rng(seed).exponential(1.0, n)
    return np.maximum(1, np.rint(drawn * (1e6 * S / drawn.mean())))


def arrivals(rate: float, n: int, seed: int = 1) -> np.ndarray:
    """Poisson, at exactly that rate over the whole."""
    times = np.cumsum(np.random.default_rng(seed).exponential(1.0, n))
    return times * (n / rate / times[-1])


@pytest.mark.parametrize("load", [0.6, 0.9])
def test_a_perfect_router_makes_one_queue_of_all_replicas(load: float) -> None:
    """One line at the door, a free replica takes the next: M/M/c, whose mean wait is Erlang's C / (c μ − λ)."""
    c, n = 4, 40_000
    door = SimpleNamespace(
        name="queue_limit",
        settings={"max_concurrent_requests": c, "rate_limit_tokens_per_second": 0.0, "queue_size": n, "queue_timeout_secs": 1e6},
    )
    _, r = run(
        [group(c, 1, 0.0, 1e-6)],
        traffic(arrivals(load * c / S, n), exponential(n), np.ones(n)),
        "least_outstanding",
        admission=[door],
    )
    a = load * c
    last = a**c / factorial(c) / (1 - load)
    erlang = last / (sum(a**k / factorial(k) for k in range(c)) + last)
    assert (r["status"] == 0).all()
    assert (r["first_scheduled_s"] - r["arrival_s"]).mean() == pytest.approx(erlang * S / (c * (1 - load)), rel=0.08)


def test_two_choices_against_the_fluid_limit() -> None:
    """Many replicas: a share ρ^(2^k − 1) of them has k requests or more, and the mean time in the system is S Σ ρ^(2^k − 2) (Mitzenmacher, 2001)."""
    replicas, load, n = 400, 0.9, 200_000
    rate = load * replicas / S
    _, r = run([group(replicas, 1, 0.0, 1e-6)], traffic(arrivals(rate, n), exponential(n), np.ones(n)), "power_of_two")
    late = r["arrival_s"] > 0.25 * r["arrival_s"][-1]
    late &= r["arrival_s"] < 0.98 * r["arrival_s"][-1]
    time = (r["finish_s"] - r["arrival_s"])[late].mean()
    assert time == pytest.approx(S * sum(load ** (2**k - 2) for k in range(1, 12)), rel=0.04)
    # replicas with k requests or more, at moments of the run
    for k in (1, 2, 3):
        share = []
        for t in np.linspace(0.4, 0.9, 15) * r["arrival_s"][-1]:
            there = (r["arrival_s"] <= t) & (r["finish_s"] > t)
            share.append((np.bincount(r["replica"][there], minlength=replicas) >= k).mean())
        assert np.mean(share) == pytest.approx(load ** (2**k - 1), abs=0.03)


def test_the_shorter_of_two_queues_against_its_markov_chain() -> None:
    """JSQ before two exponential servers: the chain of both lengths, cut at 40, solved numerically."""
    load, most, n = 0.8, 40, 120_000
    size = most + 1
    q = np.zeros((size * size, size * size))
    lam = 2 * load
    for i in range(size):
        for j in range(size):
            here = i * size + j
            for to, rate in (
                ((i + 1, j), lam * (1.0 if i < j else 0.5 if i == j else 0.0)),
                ((i, j + 1), lam * (1.0 if j < i else 0.5 if i == j else 0.0)),
                ((i - 1, j), 1.0),
                ((i, j - 1), 1.0),
            ):
                if 0 <= to[0] < size and 0 <= to[1] < size:
                    q[here, to[0] * size + to[1]] += rate
                    q[here, here] -= rate
    q[:, 0] = 1.0
    b = np.zeros(size * size)
    b[0] = 1.0
    p = np.linalg.solve(q.T, b).reshape(size, size)
    mean = float((p * (np.arange(size)[:, None] + np.arange(size))).sum())
    _, r = run([group(2, 1, 0.0, 1e-6)], traffic(arrivals(lam / S, n), exponential(n), np.ones(n)), "least_outstanding")
    assert (r["finish_s"] - r["arrival_s"]).mean() == pytest.approx(mean / lam * S, rel=0.05)


def test_prefill_and_decode_in_tandem() -> None:
    """Exponential prompts before a prefill engine of one, exponential answers before a decode engine of one: two M/M/1 queues (Burke, 1956)."""
    n, rate, prefill, decode = 5_000, 5.0, 0.12, 0.1
    engine = "{name: vllm, max_num_seqs: 1, max_model_len: 131072, max_num_batched_tokens: 131072, async_scheduling: false}"
    pools = ", ".join(
        f"{{name: {r}, role: {r}, accelerator: h100-sxm, kv_blocks: 500000, engine: {engine}}}" for r in ("prefill", "decode")
    )
    one = "{synthetic: {arrival: burst, lengths: {kind: fixed, prompt_tokens: 10, output_tokens: 2}, requests: 1}}"
    made = Prepared(sim.loads(f"{{model: llama-3.1-8b, traffic: {one}, pools: [{pools}]}}"))
    step = 0.002
    costs = [
        new_linear_cost(np.zeros(2), np.array([PREFILL_TOKENS]), np.array([[0.0], [prefill / 2000]])),
        new_linear_cost(np.zeros(2), np.array([DECODE_ROWS]), np.array([[step], [step]])),
    ]
    quiet = {"client_request": 0.0, "client_prompt_token": 0.0, "client_first_token": 0.0, "client_serial": 0.0}
    plans = [replace(p, cost=cost, profile=replace(p.profile, **quiet)) for p, cost in zip(made.plans, costs, strict=True)]
    rng = np.random.default_rng(4)
    prompt = np.clip(np.rint(rng.exponential(2000, n)), 1, 100_000)
    output = np.clip(np.rint(rng.exponential(decode / step, n)), 1, 20_000) + 1
    block = RequestBlock.of(arrivals(rate, n), prompt, output)
    raw = execute(
        plans, RecordedTraffic(block), SimpleNamespace(name="round_robin", settings={}), 0, bins=0, histogram=(3800, 1e-5, 200.0),
        transfer=Transfer(bandwidth=1e30, latency=0.0, overhead=0.0),
    )  # fmt: skip
    r = raw.requests
    assert (r["status"] == 0).all()
    first = (r["prefill_end_s"] - r["arrival_s"]).mean()
    second = (r["finish_s"] - r["prefill_end_s"]).mean()
    for found, service in (
        (first, prompt.mean() * prefill / 2000),
        (second, output.mean() * step),
    ):  # D computes the first token anew
        assert found == pytest.approx(1 / (1 / service - rate), rel=0.1)
