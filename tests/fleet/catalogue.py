"""Small worlds, one for each thing that a fleet can be made of: what runs, who sends, and what stands between."""

from __future__ import annotations

from tests.fleet.test_combinations import (
    CLIENTS,
    DOORS,
    FAULTS,
    HICACHE_SIDES,
    LOSS,
    MODEL_SIDES,
    MODELS,
    ONE,
    RANK_SIDES,
    RANKS,
    ROUTERS,
    SIDES,
    STORE,
    TWO,
    hosts,
)

LENGTHS = "lengths: {kind: uniform, prompt_tokens: [1, 700], output_tokens: [1, 40]}"
TRAFFIC = {
    "plain": f"synthetic: {{arrival: {{process: poisson, rate: 60/s}}, {LENGTHS}, requests: 40}}",
    "burst": f"synthetic: {{arrival: burst, {LENGTHS}, requests: 30}}",
    "even": f"synthetic: {{arrival: {{process: constant, rate: 100/s}}, {LENGTHS}, requests: 40}}",
    "shared": "synthetic: {arrival: {process: poisson, rate: 40/s}, lengths: {kind: uniform, prompt_tokens: [20, 300], output_tokens: [1, 30]}, "
    "requests: 45, prefixes: {groups: 3, shared_tokens: 320}, sessions: {turns: [1, 4], think_time: 100ms, max_context: 1000}}",
    "turns": "synthetic: {arrival: {process: poisson, rate: 20/s}, lengths: {kind: uniform, prompt_tokens: [20, 300], output_tokens: [1, 30]}, "
    "requests: 40, sessions: {turns: [2, 5], think_time: 200ms, think_from: answer, max_context: 1000}}",
    "agents": "synthetic: {arrival: {process: poisson, rate: 4/s}, lengths: {kind: uniform, prompt_tokens: [20, 300], output_tokens: [1, 30]}, "
    "requests: 40, agents: {steps: [2, 4], tool_time: 150ms, fan_out: 3, fan_out_share: 0.5, max_context: 1000}}",
    "closed": f"synthetic: {{arrival: burst, {LENGTHS}, requests: 40}}\n  closed_loop: {{concurrency: 7, think_time: 50ms}}",
    "paced": f"synthetic: {{arrival: {{process: poisson, rate: 60/s}}, {LENGTHS}, requests: 40}}\n  closed_loop: {{concurrency: 9}}",
    "few": "synthetic: {arrival: {process: stages, stages: [{rate: 30/s, duration: 1s}, {rate: 0.7/s, duration: 8s}, {rate: 25/s, duration: 1s}]}, "
    f"{LENGTHS}}}",
    "classes": "endpoint: chat\n  requests: 44\n  classes:\n"
    f"    chat: {{tenant: a, priority: 1, slo: {{ttft: 60ms}}, synthetic: {{arrival: {{process: poisson, rate: 40/s}}, {LENGTHS}}}}}\n"
    "    code: {tenant: b, priority: 5, synthetic: {arrival: {process: gamma, rate: 30/s, cv: 3}, lengths: {kind: fixed, prompt_tokens: 600, "
    "output_tokens: 10}}}\n"
    f"    batch: {{tenant: a, priority: -1, slo: {{e2e: 1s}}, synthetic: {{arrival: burst, {LENGTHS}, requests: 9}}, "
    "closed_loop: {concurrency: 2, think_time: 10ms}}\n"
    f"    rest: {{synthetic: {{arrival: {{process: constant, rate: 10/s}}, {LENGTHS}}}}}",
}


def _scaler(name: str, more: str, least: int = 1, most: int = 4, interval: str = "250ms") -> str:
    starts = "startup: {provision: 300ms, image: 200ms, load_bandwidth: 100GB, warmup: 100ms}"
    every = "" if name in ("keda", "ray_serve") else f"interval: {interval}, "
    return f"{{name: {name}, min: {least}, max: {most}, {every}{starts}, {more}}}"


IN = "window: 500ms, scale_in_stabilization: 1s"
SCALERS = {
    "eas": _scaler("eas", f"targets: {{qps: 7/s, queue: 3}}, {IN}"),
    "eas-gpu": _scaler(
        "eas", "targets: {gpu: 0.4}, window: 1s, scale_out_delay: 300ms, dedicated: 2, resource_burstable: true", 2, 3
    ),
    "eas-zero": _scaler("eas", f"from_zero: 2, targets: {{qps: 9/s}}, {IN}, scale_to_zero_grace: 1s", 0, 3),
    "hpa": _scaler(
        "hpa", "targets: {queue: 2}, window: 500ms, scale_down_stabilization: 1s, scale_up_pods: 1, scale_up_percent: 50"
    ),
    "keda": _scaler(
        "keda", "threshold: 2, scrape_interval: 200ms, polling_interval: 300ms, cooldown_period: 1s, scale_down_stabilization: 1s"
    ),
    "kpa": _scaler("kpa", "container_concurrency_target_default: 6, stable_window: 6s, scale_to_zero_grace_period: 1s", 0),
    "predictive": _scaler("predictive", "qps: 8, horizon: 500ms, margin: 0.2, max_step: 2, scale_in_stabilization: 1s"),
    "ray": _scaler("ray_serve", "upscale_delay_s: 0.3, downscale_delay_s: 1, metrics_interval_s: 0.2, look_back_period_s: 0.5"),
    "wva": _scaler("wva", "sample_interval: 250ms, kv_cache_threshold: 0.4, queue_length_threshold: 2", interval="500ms"),
    "spot": _scaler("eas", f"targets: {{qps: 7/s}}, {IN}, spot: {{at: [700ms, 900ms], notice: 200ms}}", 2),
    "upkeep": _scaler(
        "eas",
        f"targets: {{qps: 20/s}}, {IN}, "
        "maintenance: [{start: 400ms, duration: 1s}, {start: 2s, duration: 300ms, replicas: 2}]",
        2,
    ),
}
HOSTS = {"one host": hosts(1), "three hosts": hosts(3)}
MOTOR = (
    "pools: ["
    + ", ".join(
        f"{{name: {n}, role: {n}, replicas: 2, accelerator: ascend-910b4, kv_blocks: 200, engine: {{name: mindie}}}}"
        for n in ("prefill", "decode")
    )
    + "]"
)
SHORT = ONE.replace("4096", "1024")
THREE = SHORT.replace("replicas: 2", "replicas: 3, kv_blocks: 120")
FULL = SHORT.replace("replicas: 2", "replicas: 1, kv_blocks: 66")
LEAST = "router: least_outstanding"


def world(traffic: str, *lines: str) -> str:
    """A scenario."""
    return "\n".join(["model: llama-3.1-8b", "slo: {ttft: 100ms, tpot: 20ms}", "traffic:", f"  {TRAFFIC[traffic]}", *lines])


def _routers() -> dict[str, str]:
    made = {}
    for k, router in enumerate(
        (
            *(r for r in ROUTERS if "pd_decider" not in r),
            "mindie_motor",
            "aibrix",
            "random",
            "{name: nginx, method: 'random two least_conn'}",
        )
    ):
        word = router.strip("{}").replace("name: ", "").partition(",")[0]
        made[f"router {k} {word}"] = world("shared", THREE, f"router: {router}")
        if "migration: " not in router:
            made[f"router {k} {word}, classes"] = world("classes", TWO, f"router: {router}")
    return made


def _sides() -> dict[str, str]:
    wires = ("{}", "{bandwidth: 200MB, latency: 5ms, overhead: 3ms}", "{bandwidth: 400MB, layerwise: true}")
    made = {}
    for engine, pools in (*SIDES.items(), ("ranks", RANK_SIDES), ("models", MODEL_SIDES), ("hicache", HICACHE_SIDES)):
        for k, wire in enumerate(wires):
            if engine in ("ranks", "sglang", "hicache") and "layerwise" in wire:
                continue
            traffic = ("plain", "burst", "shared")[k]
            base = (pools, f"transfer: {wire}")
            made[f"sides {engine} {k}"] = world(traffic, *base, LEAST)
            made[f"sides {engine} {k}, clients leave"] = world(traffic, *base, LEAST, f"clients: {CLIENTS[3]}")
            made[f"sides {engine} {k}, a prefill side dies"] = world(
                traffic, *base, LEAST, "faults: [{name: crash, replica: 0, at: 150ms, for: 200ms}]"
            )
            made[f"sides {engine} {k}, a decode side dies"] = world(
                traffic, *base, "faults: [{name: crash, replica: 2, at: 200ms, for: 200ms}]", f"clients: {CLIENTS[0]}"
            )
            made[f"sides {engine} {k}, in the middle"] = world(traffic, *base, LEAST, "until: 400ms")
        made[f"sides {engine}, in turn"] = world("closed", pools, "router: round_robin")
    for k, router in enumerate(r for r in ROUTERS if not r.startswith(("{name: llumnix_v0", "ray", "litellm"))):
        if "rescheduling" not in router and "migrat" not in router:
            made[f"sides, router {k}"] = world("shared", SIDES["vllm"], f"router: {router}", "transfer: {bandwidth: 2GB}")
    made["sides, both at once"] = world("classes", MOTOR, "router: mindie_motor")
    made["sides, links fail"] = world(
        "plain", SIDES["vllm"], "transfer: {bandwidth: 400MB}", f"faults: {FAULTS[8]}", f"clients: {CLIENTS[5]}"
    )
    made["sides, links are slow"] = world("plain", SIDES["sglang"], "transfer: {bandwidth: 400MB}", f"faults: {FAULTS[9]}")
    made["sides that scale"] = world(
        "few", SIDES["vllm"].replace("replicas: 2", "replicas: 1"), f"scaling: {SCALERS['eas']}", LEAST
    )
    made["sides that scale, sglang"] = world(
        "few", SIDES["sglang"].replace("replicas: 2", "replicas: 1"), f"scaling: {SCALERS['hpa']}", "clients: simple"
    )
    return made


def catalogue() -> dict[str, str]:
    """All of them, by name."""
    made = _routers() | _sides()
    for name in TRAFFIC:
        for where, deployment in (
            ("one", THREE),
            ("full", FULL),
            ("two", TWO),
            ("ranks", RANKS),
            ("store", STORE),
            *HOSTS.items(),
        ):
            if name in ("plain", "classes") or where in ("one", "full", "one host"):
                made[f"{name} at {where}"] = world(name, deployment, LEAST)
        made[f"{name} in the middle"] = world(name, THREE, LEAST, "until: 250ms")
        made[f"{name}, clients that try again"] = world(name, FULL, f"clients: {CLIENTS[3]}")
    for k, client in enumerate(CLIENTS):
        made[f"client {k}, too much"] = world("burst", FULL, f"clients: {client}")
        made[f"client {k}, replicas die"] = world("plain", THREE, LEAST, f"clients: {client}", f"faults: {FAULTS[1]}")
        made[f"client {k}, no gateway"] = world("closed", TWO, f"clients: {client}", f"faults: {FAULTS[6]}")
        made[f"client {k}, ranks"] = world("even", RANKS, f"clients: {client}", f"faults: {FAULTS[2]}", "until: 600ms")
        made[f"client {k}, doors"] = world("classes", THREE, f"clients: {client}", f"admission: {DOORS[k % len(DOORS)]}")
    for k, fault in enumerate(FAULTS):
        for where, deployment in (("one", THREE), ("ranks", RANKS), ("models", MODELS), ("store", STORE)):
            if (where, k) not in {("one", 2), ("models", 2), ("store", 2), ("ranks", 1), ("ranks", 3), ("store", 3)} and k < 8:
                made[f"fault {k} at {where}"] = world("even", deployment, LEAST, f"faults: {fault}")
    made["the store is lost"] = world("shared", STORE, f"faults: {LOSS}")
    for k, door in enumerate(DOORS):
        made[f"door {k}"] = world("classes", THREE, LEAST, f"admission: {door}")
        made[f"door {k} at two, in the middle"] = world("burst", TWO, f"admission: {door}", "until: 300ms")
        made[f"door {k}, closed"] = world("paced", FULL, f"admission: {door}", "clients: {name: simple, patience: {mean: 100ms}}")
        made[f"door {k}, sides"] = world("classes", SIDES["vllm"], f"admission: {door}")
    for name, scaler in SCALERS.items():
        made[f"scaler {name}"] = world("few", ONE, LEAST, f"scaling: {scaler}")
        made[f"scaler {name}, turns"] = world("turns", ONE, "router: sglang_router", f"scaling: {scaler}", "until: 6s")
        made[f"scaler {name}, clients"] = world(
            "closed", THREE, f"scaling: {scaler}", f"clients: {CLIENTS[1]}", f"faults: {FAULTS[3]}"
        )
    for where, deployment in (("two", TWO), ("ranks", RANKS), ("models", MODELS)):
        made[f"scaler eas at {where}"] = world("few", deployment, LEAST, f"scaling: {SCALERS['eas']}")
    own = SCALERS["eas"].replace("name: eas", "name: eas, pools: {b: {max: 1}}")
    made["a pool with a scaler of its own"] = world("few", TWO, LEAST, f"scaling: {own}")
    made["scaler and door"] = world("few", ONE, LEAST, f"scaling: {SCALERS['eas-zero']}", f"admission: {DOORS[1]}")
    made["models, classes"] = world("plain", MODELS, "router: {name: sglang_router, policy: cache_aware}")
    return made


LOADS = {
    "rate": {"rate": 25.0},
    "replicas": {"replicas": 2},
    "units": {"units": 2},
    "lengths": {"lengths": 1.35},
    "burst": {"burst": 3.0},
    "spike": {"spike": (4.0, 0.1, 0.3)},
    "course": {"course": ((0.0, 0.2, 0.4), (1.0, 3.0, 0.5))},
    "steps": {"multi_step": False},
}
