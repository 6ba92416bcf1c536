"""Several models in one fleet: each request at a replica of its model, and nothing of one model's fate in the other's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sim
from sim.errors import ConfigError, NotModelledError
from sim.study.single import Prepared
from tests.fleet.test_combinations import SCALING, check, started

ENGINE = "{name: vllm, max_model_len: 4096}"
POOLS = (
    f"pools: [{{name: big, model: qwen3-8b, accelerator: h100-sxm, replicas: 2, engine: {ENGINE}}}, "
    f"{{name: small, model: llama-3.1-8b, accelerator: a100-sxm-80g, replicas: 2, engine: {ENGINE}}}, "
    f"{{name: more, model: qwen3-8b, accelerator: h100-sxm, replicas: 1, engine: {ENGINE}}}]"
)
LENGTHS = "{kind: uniform, prompt_tokens: [1, 700], output_tokens: [1, 40]}"


def klass(name: str, model: str, rate: int = 20) -> str:
    return f"{name}: {{model: {model}, synthetic: {{arrival: {{process: poisson, rate: {rate}/s}}, lengths: {LENGTHS}, requests: 200}}}}"


TWO = f"traffic: {{classes: {{{klass('chat', 'qwen3-8b')}, {klass('code', 'small')}}}}}"


def text(*lines: str) -> str:
    return sim.config.to_yaml(sim.loads("\n".join(["model: llama-3.1-8b", *lines])))


ROUTERS = (
    "round_robin",
    "least_outstanding",
    "{name: sglang_router, policy: cache_aware}",
    "{name: dynamo, use_kv_events: false}",
    "llm_d",
)


@pytest.mark.parametrize("router", ROUTERS)
def test_each_request_is_served_by_a_replica_of_its_model(router: str) -> None:
    result = check(text(TWO, POOLS, f"router: {router}"), 0)
    r, s = result.columns, result.summary
    qwen = np.isin(r["replica"], [0, 1, 4])
    assert (qwen == (r["klass"] == 0)).all() and (r["model"] == r["klass"]).all()
    assert {*r["replica"].tolist()} == {0, 1, 2, 3, 4}
    rows = {row["name"]: row for row in s["models"]["rows"]}
    assert {name: (row["requests"], row["finished"], row["replicas"]) for name, row in rows.items()} == {
        "qwen3-8b": (200, 200, 3),
        "llama-3.1-8b": (200, 200, 2),
    }
    assert rows["qwen3-8b"]["ttft_p99_s"] == next(c for c in s["classes"] if c["name"] == "chat")["ttft_p99_s"]


def test_a_fleet_of_two_models_is_two_fleets() -> None:
    """Routers of their own, traffic of its own, engines of its own: to the last digit."""
    router = "router: {name: sglang_router, policy: cache_aware}"
    both = check(text(TWO, POOLS, router), 0)
    alone = POOLS.replace(
        "{name: small, model: llama-3.1-8b, accelerator: a100-sxm-80g, replicas: 2, engine: " + ENGINE + "}, ", ""
    )
    one = check(text(f"traffic: {{classes: {{{klass('chat', 'qwen3-8b')}}}}}", alone, router), 0)
    mine = both.columns["klass"] == 0
    for name in ("arrival_s", "first_token_s", "finish_s"):
        assert np.array_equal(np.sort(both.columns[name][mine]), np.sort(one.columns[name])), name


def test_requests_that_name_no_model_are_drawn_by_share() -> None:
    pools = POOLS.replace("name: small,", "name: small, share: 6,")
    traffic = f"traffic: {{synthetic: {{arrival: {{process: poisson, rate: 40/s}}, lengths: {LENGTHS}, requests: 800}}}}"
    result = check(text(traffic, pools), 0)
    assert [c["name"] for c in result.summary["classes"]] == ["qwen3-8b", "llama-3.1-8b"]
    assert (result.columns["model"] == 1).mean() == pytest.approx(6 / 8, abs=0.04)


def test_a_model_that_nobody_serves_is_refused_by_name() -> None:
    with pytest.raises(ConfigError) as raised:
        Prepared(sim.loads(text(TWO.replace("model: small", "model: qwen3-14b"), POOLS)))
    assert all(word in str(raised.value) for word in ("traffic.classes.code.model", "qwen3-14b", "qwen3-8b, llama-3.1-8b"))


@pytest.mark.parametrize(
    ("pools", "why"),
    [
        (POOLS.replace("name: small,", "name: small, role: prefill,"), "role"),
        (POOLS.replace("engine: {name: vllm, max_model_len: 4096}}, {name: more", "engine: ollama}, {name: more"), "ollama"),
    ],
)
def test_what_does_not_go_together(pools: str, why: str) -> None:
    with pytest.raises((ConfigError, NotModelledError), match=why):
        Prepared(sim.loads(text(TWO, pools)))


def test_a_crash_hurts_only_its_own_model() -> None:
    broken = check(text(TWO, POOLS, "faults: {name: crash, replica: 2, at: 2s, for: 2s}", "router: least_outstanding"), 0)
    r = broken.columns
    assert broken.summary["faults"]["incidents"][0]["hurt"] > 0
    assert (r["status"][r["klass"] == 0] == 0).all() and (r["status"][r["klass"] == 1] != 0).any()
    calm = check(text(TWO, POOLS, "router: least_outstanding"), 0)
    mine = r["klass"] == 0
    assert np.array_equal(r["finish_s"][mine], calm.columns["finish_s"][mine])


def test_each_model_is_scaled_by_itself_from_nothing() -> None:
    scaling = SCALING.format(least=0, target="qps: 8").replace("scaling: {", "scaling: {pools: {small: {max: 2}}, ")
    result = check(text(TWO, POOLS, scaling, "router: least_outstanding"), 0)
    assert result.summary["requests"]["finished"] == 400
    assert started(result)


def every(*lines: str) -> Any:
    return check(text(TWO, POOLS, *lines), 0)


def test_what_stands_before_and_beside_the_routers_goes_on() -> None:
    result = every("clients: {name: openai, timeout: 300ms}", "admission: {name: queue_limit, max_concurrent_requests: 20}")
    assert result.summary["requests"]["injected"] == 400
    every("faults: {name: router_restart, at: [1s, 3s]}", "router: {name: sglang_router, policy: cache_aware}")
