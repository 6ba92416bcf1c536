"""What a fleet cannot be made of is refused, and each refusal names what is wrong: the recorded one."""

from __future__ import annotations

import itertools
from typing import Any

from sim.errors import ServesimError
from sim.study.single import Prepared
from tests.answers import same
from tests.fleet.catalogue import SCALERS, world
from tests.fleet.test_combinations import HICACHE_SIDES, MODEL_SIDES, MODELS, ONE, RANK_SIDES, RANKS, SIDES, STORE, TWO, hosts
from tests.whole import formula, load

PARTS = {
    "one": ONE, "two": TWO, "ranks": RANKS, "models": MODELS, "hosts": hosts(2), "store": STORE, "sides": SIDES["vllm"], "sglang sides": SIDES["sglang"],
    "rank sides": RANK_SIDES, "model sides": MODEL_SIDES, "cached sides": HICACHE_SIDES,
}  # fmt: skip
MORE = {
    "migration": "router: {name: llumnix_v0, enable_migration: true}",
    "rescheduling": "router: {name: llumnix, enable_rescheduling: true}",
    "kv events": "router: dynamo",
    "decider": "router: {name: llm_d, pd_decider: prefix-based-pd-decider, non_cached_tokens: 300}",
    "unknown router": "router: nobody",
    "scaler": f"scaling: {SCALERS['eas']}",
    "zero": f"scaling: {SCALERS['eas-zero']}",
    "gpu": f"scaling: {SCALERS['eas-gpu']}",
    "rank fault": "faults: {name: rank, at: 1s, for: 1s}",
    "link fault": "faults: {name: link, at: 1s, for: 1s}",
    "store loss": "faults: {name: store_loss, at: 1s, for: 1s}",
    "no such replica": "faults: {name: crash, at: 1s, for: 1s, replica: 99}",
    "restart": "faults: {name: router_restart, at: 1s}",
    "outage": "faults: {name: gateway_outage, at: 1s, for: 1s}",
    "doors": "admission: [priority_shedding, {name: flow_control}]",
    "clients": "clients: {name: openai, timeout: 1s}",
    "layerwise": "transfer: {bandwidth: 1GB, layerwise: true}",
    "transfer": "transfer: {link: rdma-400g}",
}
POOLS = {
    "engines of two kinds": SIDES["vllm"].replace("engine: {name: vllm, max_model_len: 4096}", "engine: sglang", 1),
    "ranks on one side": SIDES["vllm"].replace("replicas: 2", "replicas: 2, dp: 2", 1),
    "models of two kinds": SIDES["vllm"].replace("role: decode", "role: decode, model: qwen3-8b", 1),
    "prefill alone": SIDES["vllm"].replace("role: decode", "role: prefill"),
    "tgi": SIDES["vllm"].replace("name: vllm, max_model_len: 4096", "name: tgi"),
    "llama.cpp": SIDES["vllm"].replace("name: vllm, max_model_len: 4096", "name: llama.cpp"),
    "heads that do not divide": ONE.replace("replicas: 2", "tp: 3"),
    "a name twice": TWO.replace("name: b", "name: a"),
    "another engine last": TWO.replace(
        "kv_blocks: 400, engine: {name: vllm, max_model_len: 4096, async_scheduling: false}", "engine: tgi"
    ),
}


def answer(text: str) -> Any:
    """How many pools of how many replicas there are, or who is to blame."""
    try:
        with formula():
            made = Prepared(load(text))
            return [[p.name, p.replicas, p.role] for p in made.plans]
    except ServesimError as error:
        return [type(error).__name__, getattr(error, "field", ""), getattr(error, "problem", "")]


def test_what_is_refused_is_refused_as_recorded() -> None:
    found = {
        f"{a}, {b}": answer(world("plain", part, more)) for (a, part), (b, more) in itertools.product(PARTS.items(), MORE.items())
    }
    found |= {
        f"{a}, {b}": answer(world("plain", pools, more))
        for a, pools in POOLS.items()
        for b, more in (("", ""), *list(MORE.items())[:2])
    }
    same("fleet-refused", "combinations", found)
