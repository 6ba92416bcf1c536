"""Textbook queues by Lindley's recursion, and what the textbook says of them (service mean = load, one arrival a second)."""

from __future__ import annotations

from math import exp, factorial, log

import numpy as np
from scipy.optimize import brentq


def times_in_system(seed: int, n: int, load: float, deterministic: bool) -> tuple[np.ndarray, np.ndarray]:
    """(arrival, time in the system) of ``n`` customers of an M/M/1 or M/D/1 queue that starts empty."""
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(1.0, n)
    service = np.full(n, load) if deterministic else rng.exponential(load, n)
    steps = np.concatenate([[0.0], service[:-1] - gaps[1:]])
    walk = np.cumsum(steps)
    return np.cumsum(gaps), walk - np.minimum.accumulate(np.minimum(walk, 0.0)) + service


def truth(load: float, deterministic: bool) -> dict[str, float]:
    """mean, p50, p99 of the time in the system."""
    if not deterministic:  # exponential with mean ρ/(1−ρ)
        mean = load / (1 - load)
        return {"mean": mean, "p50": mean * log(2), "p99": mean * log(100)}

    def waits(x: float) -> float:  # Erlang (1909): P(W ≤ x), time in units of the service
        return (1 - load) * sum(exp(load * (x - j)) * (-load * (x - j)) ** j / factorial(j) for j in range(int(x) + 1))

    wait = {p: 0.0 if waits(0.0) >= p else brentq(lambda x, p=p: waits(x) - p, 0.0, 15.0, xtol=1e-9) for p in (0.5, 0.99)}
    return {"mean": load + load * load / (2 * (1 - load)), "p50": load * (1 + wait[0.5]), "p99": load * (1 + wait[0.99])}
