"""Small worlds in which several things happen at once: what is deployed, who sends, what stands between and what goes wrong, drawn once."""

from __future__ import annotations

from random import Random

from tests.fleet.catalogue import FULL, HOSTS, LEAST, MOTOR, SCALERS, THREE, TRAFFIC, world
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

ASKED = ("{name: dynamo, use_kv_events: true}", "llm_d", "llumnix", "aibrix")
"""Routers that ask what is in the caches of engines."""
STATELESS = ("round_robin", "random", "{name: nginx, method: 'random two least_conn'}")


def moments() -> dict[str, str]:
    """What happens at any moment: replicas of either side die, engines begin again, runs are cut off, sides scale to nobody."""
    made = {}
    for k in range(14):
        pools = (SIDES["vllm"], SIDES["sglang"], RANK_SIDES)[k % 3]
        crash = f"faults: [{{name: crash, replica: {k % 4}, at: [{30 + 37 * k}ms, {400 + 37 * k}ms], for: {60 + 15 * k}ms}}]"
        lines = [pools, "transfer: {bandwidth: 500MB, latency: 3ms}", LEAST, crash]
        lines += [f"clients: {CLIENTS[k % len(CLIENTS)]}"] if k % 2 else []
        made[f"moment {k}, a side dies"] = world(("burst", "plain", "closed")[k // 5], *lines)
    for k, router in enumerate(ASKED):
        for where, deployment in (("one", THREE), ("store", STORE)):
            made[f"moment {k}, caches at {where} begin again"] = world(
                "shared", deployment, f"router: {router}", f"faults: {FAULTS[0]}"
            )
    for k, router in enumerate(STATELESS):
        for until in ("30ms", "200ms"):
            made[f"moment {k}, ranks cut off at {until}"] = world("burst", RANKS, f"router: {router}", f"until: {until}")
        made[f"moment {k}, ranks"] = world("classes", RANKS, f"router: {router}", f"faults: {FAULTS[2]}")
    for k, router in enumerate((*ASKED, "kubernetes", "eas_tokenworks", "vllm_router")):
        more = [f"clients: {CLIENTS[k % len(CLIENTS)]}", *(["until: 700ms"] if k % 2 else [])]
        made[f"moment {k}, hosts"] = world("plain", HOSTS["three hosts"], f"router: {router}", *more)
    for engine, pools in SIDES.items():
        for k, least in enumerate((0, 1)):
            scaler = SCALERS["eas-zero"].replace("min: 0", f"min: {least}")
            lines = [pools.replace("replicas: 2", "replicas: 1"), f"scaling: {scaler}", f"faults: {FAULTS[0]}" if k else LEAST]
            made[f"moment {k}, {engine} sides scale to nobody"] = world("few", *lines)
    return made


MOMENTS = moments()
