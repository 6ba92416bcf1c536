"""Small worlds in which several things happen at once: what is deployed, who sends, what stands between and what goes wrong, drawn once."""

from __future__ import annotations

from random import Random

from tests.fleet.catalogue import FULL, HOSTS, MOTOR, SCALERS, THREE, TRAFFIC, world
from tests.fleet.test_combinations import (
    CLIENTS,
    DOORS,
    FAULTS,
    HICACHE_SIDES,
    LOSS,
    MODEL_SIDES,
    MODELS,
    RANK_SIDES,
    RANKS,
    ROUTERS,
    SIDES,
    STORE,
    TWO,
)

WIRES = ("{}", "{bandwidth: 200MB, latency: 5ms}", "{bandwidth: 400MB, layerwise: true}")
DEPLOYMENTS = (
    THREE, THREE, FULL, TWO, MODELS, MODEL_SIDES, RANKS, RANK_SIDES, HICACHE_SIDES, STORE, MOTOR, *SIDES.values(), *SIDES.values(), *HOSTS.values(),
)  # fmt: skip
UNTIL = ("", "", "", "120ms", "450ms", "900ms")
MOST = 68
"""Worlds that are drawn; those that are refused say why."""


def drawn(number: int) -> str:
    """A world, always the same of a number."""
    rng = Random(number)
    deployment = DEPLOYMENTS[number % len(DEPLOYMENTS)]
    lines = [deployment, f"router: {rng.choice(ROUTERS)}"]
    if "role" in deployment:
        lines.append(f"transfer: {rng.choice(WIRES)}")
    if rng.random() < 0.7:
        lines.append(f"clients: {rng.choice(CLIENTS)}")
    if rng.random() < 0.6:
        lines.append(f"faults: {rng.choice((*FAULTS, *([LOSS] * 5 if deployment == STORE else ())))}")
    if rng.random() < 0.4:
        lines.append(f"admission: {rng.choice(DOORS)}")
    if rng.random() < 0.35:
        lines.append(f"scaling: {rng.choice(list(SCALERS.values()))}")
    if until := rng.choice(UNTIL):
        lines.append(f"until: {until}")
    return world(rng.choice(list(TRAFFIC)), *lines)


MIXED = {f"mixed {k}": drawn(k) for k in range(MOST)}
