"""Stations in whatever combination: nothing is lost, nothing comes before its cause, and the same run gives the same bytes."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sim
from sim.errors import ConfigError, NotModelledError
from sim.fleet.refused import REFUSED
from sim.metrics.laws import check_laws
from sim.study import single
from sim.study.single import Prepared
from tests.laws.test_little import most_at_once
from tests.whole import in_order

BASE = """
model: {model}
traffic: {{synthetic: {{arrival: {arrival}, lengths: {{kind: uniform, prompt_tokens: [1, 700], output_tokens: [1, 40]}}, requests: {requests}}}}}
{deployment}
"""
SYNC = "{name: vllm, max_model_len: 4096, async_scheduling: false}"
ONE = f"deployment: {{accelerator: h100-sxm, replicas: 2, engine: {SYNC}}}"
RANKS = "deployment: {accelerator: h100-sxm, replicas: 2, dp: 2, engine: {name: vllm, max_model_len: 4096}}"
TWO = (
    f"pools: [{{name: a, accelerator: h100-sxm, replicas: 2, engine: {SYNC}}}, "
    f"{{name: b, accelerator: a100-sxm-80g, replicas: 1, kv_blocks: 400, engine: {SYNC}}}]"
)


def sides(engine: str) -> str:
    pools = [
        f"{{name: {n}, role: {r}, accelerator: h100-sxm, replicas: 2, engine: {engine}}}"
        for n, r in (("a", "prefill"), ("b", "decode"))
    ]
    return f"pools: [{', '.join(pools)}]"


def hosts(n: int) -> str:
    engine = "{name: ollama, num_ctx: 8192, OLLAMA_MAX_QUEUE: 4}"
    models = ["{name: llama-3.1-8b, weights: q4_k_m}", "{name: qwen3-14b, weights: q4_k_m}"]
    pools = [
        f"{{name: {k}, model: {m}, replicas: {n}, accelerator: rtx-4090, engine: {engine}}}"
        for k, m in zip("ab", models, strict=True)
    ]
    return f"pools: [{', '.join(pools)}]"


MODELS = (
    f"pools: [{{name: a, model: llama-3.1-8b, accelerator: h100-sxm, replicas: 2, engine: {SYNC}}}, "
    f"{{name: b, model: qwen3-8b, share: 2, accelerator: a100-sxm-80g, replicas: 1, engine: {SYNC}}}]"
)
MODEL_SIDES = (
    "pools: ["
    + ", ".join(
        f"{{name: {name}, role: {role}, model: {model}, accelerator: h100-sxm, replicas: {n}, engine: {{name: vllm, max_model_len: 4096}}}}"
        for name, role, model, n in (
            ("a", "prefill", "llama-3.1-8b", 2),
            ("b", "decode", "llama-3.1-8b", 1),
            ("c", "prefill", "qwen3-8b", 1),
            ("d", "decode", "qwen3-8b", 2),
        )
    )
    + "]"
)
STORE = (
    "deployment: {accelerator: h100-sxm, replicas: 2, kv_blocks: 100, engine: {name: sglang, page_size: 16, enable_hierarchical_cache: true, "
    "hicache_ratio: 1, hicache_storage_backend: mooncake, hicache_storage_backend_extra_config: {prefetch_threshold: 32, bandwidth: 1GB, size: 1}}}"
)
SIDES = {"vllm": sides("{name: vllm, max_model_len: 4096}"), "sglang": sides("sglang")}
RANK_SIDES = SIDES["vllm"].replace("replicas: 2", "replicas: 2, dp: 2")
HICACHE = "{name: sglang, page_size: 16, enable_hierarchical_cache: true, hicache_ratio: 1}"
HICACHE_SIDES = sides("{name: sglang, page_size: 16}").replace(
    "replicas: 2, engine: {name: sglang, page_size: 16}", f"replicas: 2, kv_blocks: 100, engine: {HICACHE}", 1
)
SCALING = (
    "scaling: {{name: eas, min: {least}, max: 3, targets: {{{target}}}, interval: 1s, window: 2s, scale_in_stabilization: 2s, "
    "startup: {{provision: 1s, image: 0s, load_bandwidth: 1TB, warmup: 0s}}}}"
)
DOORS = (
    "{name: token_bucket, rate: 15/s, burst: 3, queue_size: 20, queue_timeout: 500ms}",
    "{name: queue_limit, max_concurrent_requests: 6, queue_size: 40, queue_timeout_secs: 1}",
    "{name: vtc, running_max_req_size: 3}",
    "[{name: tenant_quota, max_parallel_requests: 20}, {name: flow_control, detector: concurrency-detector, max_concurrency: 4}]",
    "[priority_shedding, {name: flow_control, default_request_ttl: 2s}]",
)
ROUTERS = (
    "round_robin",
    "least_outstanding",
    "{name: dynamo, use_kv_events: false}",
    "{name: dynamo, use_kv_events: false, migration_limit: 2}",
    "llm_d",
    "{name: llm_d, pd_decider: prefix-based-pd-decider, non_cached_tokens: 300}",
    "{name: sglang_router, policy: cache_aware}",
    "{name: vllm_router, policy: power_of_two}",
    "{name: production_stack, routing_logic: prefixaware}",
    "aibrix",
    "ray_serve",
    "litellm",
    "{name: nginx, method: least_conn}",
    "kubernetes",
    "power_of_two",
    "eas_tokenworks",
    "llumnix",
    "{name: llumnix, gateway: {scheduler_outage: [1s, 3s]}}",
    "{name: eas, load_threshold: 1500, gateway: {wait_scheduling_timeout: 500ms, wait_scheduling_retry_interval: 100ms}}",
    "{name: llumnix_v0, dispatch_policy: balanced}",
    "{name: llumnix_v0, enable_migration: true, migrate_out_threshold: 80, enable_defrag: false}",
    "{name: llumnix, enable_rescheduling: true, rescheduling_load_threshold: 0.001, rescheduling_load_diff_threshold: 0.0}",
)
WORLDS = int(os.environ.get("SERVESIM_WORLDS", "100"))
"""Worlds that are tried: 3,000 in a night of their own."""
FAULTS = (
    "{name: crash, at: 300ms, for: 500ms}",
    "[{name: crash, mtbf: 400ms, for: 200ms}, {name: slow, mtbf: 300ms, for: 200ms, repair: exponential}]",
    "{name: rank, mtbf: 1s, for: 300ms, replica: 1}",
    "[{name: crash, replica: 2, at: [100ms, 700ms], for: 300ms}, {name: crash, replica: 0, at: 500ms, for: 1s}]",
    "[{name: crash, mtbf: 700ms, for: 100ms}, {name: router_restart, at: 400ms}]",
    "{name: gateway_outage, at: [200ms, 1s], for: 300ms}",
    "[{name: gateway_outage, at: 200ms, for: 600ms, new: hang}, {name: crash, at: 400ms, for: 100ms}]",
    "{name: router_restart, at: [100ms, 500ms]}",
    "{name: link, at: 100ms, for: 400ms}",
    "[{name: link, mtbf: 500ms, for: 200ms, factor: 0.05}, {name: crash, mtbf: 500ms, for: 200ms}]",
)
LOSS = "[{name: store_loss, at: 300ms, for: 300ms}, {name: crash, at: 500ms, for: 100ms}]"
CLIENTS = (
    "simple",
    "{name: openai, timeout: 300ms}",
    "{name: httpx, read: 150ms, stream: false}",
    "{name: simple, first_token_timeout: 100ms, max_attempts: 4, backoff: 10ms, jitter: 1, hedge_after: 60ms, max_hedges: 2}",
    "{name: simple, patience: {mean: 200ms}, deadline: 2s, hedge_after: 50ms}",
    "{name: envoy, timeout: 500ms, per_try_timeout: 100ms, num_retries: 3}",
)


@st.composite
def worlds(draw: Any) -> tuple[str, int]:
    """A scenario, and how many clients wait in it (0: none)."""
    pick = lambda *values: draw(st.sampled_from(values))  # noqa: E731
    deployment = pick(
        ONE,
        TWO,
        MODELS,
        MODEL_SIDES,
        RANKS,
        RANK_SIDES,
        HICACHE_SIDES,
        STORE,
        *SIDES.values(),
        *SIDES.values(),
        hosts(1),
        hosts(3),
    )
    lines = [deployment, f"router: {pick(*ROUTERS)}"]
    if "role" in deployment:
        lines.append(f"transfer: {pick('{}', '{bandwidth: 200MB}', '{bandwidth: 400MB, layerwise: true}')}")
    if pick(False, True):
        lines.append(
            SCALING.format(
                least=pick(0, 1, 1 if deployment in (TWO, MODELS, MODEL_SIDES) else 2),
                target=pick("qps: 4", "queue: 1", "gpu: 0.3", "qps: 9, queue: 2"),
            )
        )
    if pick(False, True):
        lines.append(f"clients: {pick(*CLIENTS)}")
    if pick(False, True):
        lines.append(f"faults: {pick(*FAULTS, *([LOSS] * 3 if deployment == STORE else []))}")
    lines.append(f"admission: {pick('[]', '[]', *DOORS)}")
    if pick(False, False, True):
        lines.append(f"until: {pick('0.3s', '4s')}")
    clients = pick(0, 0, 3, 25)
    arrival = pick("burst", "{process: poisson, rate: 20/s}", "{process: gamma, rate: 5/s, cv: 4}")
    text = BASE.format(model="llama-3.1-8b", arrival=arrival, requests=pick(1, 30, 120), deployment="\n".join(lines))
    shared = deployment in (STORE, HICACHE_SIDES)
    overrides = ["traffic.synthetic.prefixes={groups: 4, shared_tokens: 400}"] if shared else []
    overrides += [f"traffic.closed_loop={{concurrency: {clients}, think_time: {pick('0s', '200ms')}}}"] if clients else []
    return sim.config.to_yaml(sim.loads(text, [*overrides, f"seed={draw(st.integers(0, 9))}"])), clients


def run(text: str, **how: Any) -> tuple[Any, Any]:
    """Result and record."""
    seen: list[Any] = []

    def keep(*facts: Any, make: Any = single._record) -> Any:
        seen.append(make(*facts))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(single, "_record", keep)
        result = Prepared(sim.loads(text)).run(**how)
    return result, seen[0]


def check(text: str, clients: int) -> Any:
    """Run it twice, and step by step; check what always holds."""
    result, record = run(text)
    r, s = result.columns, result.summary
    count = s["requests"]
    assert (np.sort(r["id"]) == np.arange(count["injected"])).all()
    assert count["injected"] == count["finished"] + count["rejected"] + count["failed"] + count["in_flight"]
    if "until" not in text or "until: null" in text:
        assert count["in_flight"] == 0
    if not count["in_flight"]:
        check_laws(record)
    if "clients" in s:
        told = s["clients"]
        assert told["attempts"] >= count["injected"]
        assert told["given_up"] == count["rejected"] + count["failed"]
    in_order(r)
    if clients:
        assert most_at_once({**r, "finish_s": np.where(np.isnan(r["finish_s"]), np.inf, r["finish_s"])}) <= clients
    for other in (run(text)[0], run(text, multi_step=False)[0]):
        for name, column in result.requests.items():
            assert column.to_numpy().tobytes() == other.requests[name].to_numpy().tobytes(), name
    return result


@settings(max_examples=WORLDS, derandomize=True, suppress_health_check=list(HealthCheck))
@given(worlds())
def test_whatever_is_combined_obeys_the_laws(world: tuple[str, int]) -> None:
    text, clients = world
    try:
        check(text, clients)
    except NotModelledError as refused:
        words = (*(pair.why for pair in REFUSED), "of this engine", "this engine", "its hand-over between pools", "not modelled")
        assert any(w in str(refused) for w in words), refused
    except ConfigError as refused:
        assert "of which there are none" in str(refused) or "is no replica of this fleet" in str(refused), refused


def text_of(deployment: str, *more: str, requests: int = 400, arrival: str = "{process: poisson, rate: 40/s}") -> str:
    made = BASE.format(model="llama-3.1-8b", arrival=arrival, requests=requests, deployment="\n".join([deployment, *more]))
    return sim.config.to_yaml(sim.loads(made))


QPS = SCALING.format(least=1, target="qps: 8")


def started(result: Any) -> set[int]:
    """Replicas that were started."""
    return {k for _, what, k in result.summary["scaling"]["events"] if what == "ready"}


def test_each_of_several_pools_is_scaled_by_itself() -> None:
    result = check(text_of(TWO, QPS, "router: least_outstanding"), 0)
    assert any(k < 3 for k in started(result)) and any(k >= 3 for k in started(result))
    names = {row["name"] for row in result.summary["replicas"]}
    assert {"a 0", "b 0"} <= names
    own = check(text_of(TWO, QPS.replace("name: eas", "name: eas, pools: {b: {max: 1}}"), "router: least_outstanding"), 0)
    assert {row["name"] for row in own.summary["replicas"] if row["name"].startswith("b")} == {"b 0"}


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_both_sides_are_scaled(engine: str) -> None:
    pools = SIDES[engine].replace("replicas: 2", "replicas: 1")
    result = check(text_of(pools, QPS, "router: least_outstanding"), 0)
    assert {k < 3 for k in started(result)} == {True, False}
    assert len({*result.columns["prefill_replica"].tolist()}) > 1
    gone = [k for _, what, k in result.summary["scaling"]["events"] if what == "gone"]
    assert result.summary["requests"]["finished"] == 400 and isinstance(gone, list)


def test_engines_with_ranks_are_scaled() -> None:
    result = check(text_of(RANKS.replace("replicas: 2", "replicas: 1"), QPS, "router: least_outstanding"), 0)
    s = result.summary
    assert started(result)
    assert s["context"]["replicas"] == 3
    assert len(s["replicas"]) == 6  # results are by rank
    assert s["context"]["accelerators"] <= 6
    assert s["scaling"]["accelerator_hours"] == pytest.approx(s["context"]["accelerators"] * s["simulated_s"] / 3600)


def test_running_requests_move_in_a_fleet_that_scales() -> None:
    router = "router: {name: llumnix_v0, enable_migration: true, migrate_out_threshold: 80}"
    pool = ONE.replace("engine:", "kv_blocks: 260, engine:")
    result = check(text_of(pool, QPS, router), 0)
    assert result.summary["fleet"]["migrations"] > 0
    assert started(result)


def test_a_scheduler_that_is_out_goes_round_robin_among_those_who_serve() -> None:
    router = "router: {name: llumnix, gateway: {scheduler_outage: [0s, 5s]}}"
    result = check(text_of(ONE, QPS, router), 0)
    assert result.summary["requests"]["finished"] == 400


def test_a_router_spreads_requests_over_several_hosts() -> None:
    one = check(text_of(hosts(1), requests=100, arrival="{process: poisson, rate: 1/s}"), 0)
    three = check(text_of(hosts(3), "router: least_outstanding", requests=100, arrival="{process: poisson, rate: 1/s}"), 0)
    assert set(three.columns["replica"]) == set(range(6))
    assert [c["name"] for c in three.summary["classes"]] == ["a", "b"]
    assert three.summary["fleet"]["busy_503"] <= one.summary["fleet"]["busy_503"]
    assert three.summary["context"]["accelerators"] == 3
    klass, replica = three.columns["klass"], three.columns["replica"]
    served = three.columns["status"] == 0
    assert (klass[served] == replica[served] // 3).all()


def test_a_gateway_stands_before_hosts() -> None:
    check(text_of(hosts(2), "router: {name: eas, load_threshold: 500}", requests=60, arrival="burst"), 0)


@pytest.mark.parametrize("pair", REFUSED, ids=lambda pair: f"{pair.one} and {pair.other}")
def test_what_is_refused_is_refused_with_its_reason(pair: Any) -> None:
    features = {
        "scaling": QPS,
        "a router of a fixed fleet": "router: vllm_dp",
        "a coordinator": "router: mindie_motor",
        "migration": "router: {name: llumnix_v0, enable_migration: true}",
        "scaled roles": QPS,
        "a saturation detector": "admission: flow_control",
        "clients": "clients: openai",
        "faults": "faults: {name: crash, at: 1s}",
        "broken replicas": "faults: {name: crash, at: 1s}",
        "slow replicas": "faults: {name: slow, at: 1s}",
        "layer-wise transfers": "transfer: {layerwise: true}",
        "a router that restarts": "faults: {name: router_restart, at: 1s}",
        "a gateway that is out": "faults: {name: gateway_outage, at: 1s}",
        "token times": "record: {token_times: true}",
    }
    pools = {"several models": hosts(1), "models apart": MODELS, "roles": SIDES["vllm"], "ranks": RANKS}
    kinds = {pair.one, pair.other}
    deployment = SIDES["vllm"] if "scaled roles" in kinds else next((pools[k] for k in pools if k in kinds), ONE)
    if kinds == {"ranks", "layer-wise transfers"}:
        deployment = RANK_SIDES
    with pytest.raises(NotModelledError) as raised:
        Prepared(sim.loads(text_of(deployment, *(features[k] for k in kinds if k in features))))
    assert pair.why in str(raised.value)


def test_a_bill_for_several_pools_that_scale_is_refused() -> None:
    with pytest.raises(NotModelledError, match="economics"):
        Prepared(sim.loads(text_of(TWO, QPS, "economics: {accelerator_hour: {h100-sxm: 3, a100-sxm-80g: 2}}")))


def test_looking_at_a_fleet_costs_nothing_while_nothing_happens(monkeypatch: Any) -> None:
    """A manager that polls every 50 ms, and requests 1,000 s apart: a look before each request and while one runs, and none in between."""
    looks: list[float] = []
    from sim.policy.routing.llumnix_v0 import LlumnixV0

    poll = LlumnixV0.poll
    monkeypatch.setattr(LlumnixV0, "poll", lambda router, seen: looks.append(seen.now) or poll(router, seen))
    text = text_of(ONE, "router: llumnix_v0", requests=10, arrival="{process: constant, rate: 0.001/s}")
    result, _ = run(text)
    assert len(looks) < 400
    for came in result.requests["arrival_s"]:
        assert any(came - 0.1 < t < came for t in looks) or came == 0
