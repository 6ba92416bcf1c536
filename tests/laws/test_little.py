"""Clients that wait: as many requests in flight as there are clients, at most, and throughput × time = clients (Little's law)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sim
from sim.errors import DataError
from sim.fleet.client_side import ClientSide
from sim.study.single import Prepared
from tests.laws.bench import group, traffic
from tests.laws.bench import run as bench

BASE = """
model: {model}
traffic:
  synthetic: {{arrival: {{process: constant, rate: 1/s}}, lengths: {lengths}, requests: 60}}
  closed_loop: {{concurrency: {clients}}}
{deployment}
"""
SHORT = "{kind: uniform, prompt_tokens: [1, 900], output_tokens: [1, 4]}"


def load(deployment: str, clients: int = 5, model: str = "llama-3.1-8b", lengths: str = SHORT, *overrides: str) -> Any:
    return sim.loads(BASE.format(model=model, lengths=lengths, clients=clients, deployment=deployment), overrides)


def one(engine: str, replicas: int = 1, card: str = "h100-sxm", more: str = "") -> str:
    return f"deployment: {{accelerator: {card}, replicas: {replicas}, engine: {engine}{more}}}"


def sides(engine: str, card: str = "h100-sxm") -> str:
    pool = "{{name: {0}, role: {0}, accelerator: {1}, replicas: 2, engine: {2}}}"
    return f"pools: [{pool.format('prefill', card, engine)}, {pool.format('decode', card, engine)}]"


def most_at_once(r: Any) -> int:
    """Requests between leaving their client and their answer's arrival there; who ends makes room before the next begins."""
    times = np.concatenate([r["arrival_s"], r["finish_s"]])
    step = np.repeat([1, -1], len(r["arrival_s"]))
    order = np.lexsort((step, times))
    return int(np.cumsum(step[order]).max())


def check(scenario: Any, clients: int) -> Any:
    r = Prepared(scenario).run().columns
    assert not np.isnan(r["finish_s"]).any()
    assert most_at_once(r) <= clients
    span = r["finish_s"].max() - r["arrival_s"].min()
    held = (r["finish_s"] - r["arrival_s"]).sum() / span  # X · E2E
    assert held <= clients * (1 + 1e-12)
    return r, held


ENGINES = [
    "{name: vllm, max_model_len: 4096}",
    "{name: vllm, version: '0.6', max_model_len: 4096}",
    "{name: vllm, max_model_len: 4096, async_scheduling: false}",
    "sglang",
    "tgi",
    "bladellm",
    "static",
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("clients", [1, 5])
def test_a_client_has_one_request_at_a_time(engine: str, clients: int) -> None:
    _, held = check(load(one(engine), clients), clients)
    assert held == pytest.approx(1.0) or clients > 1  # a client that does not think has always one


@pytest.mark.parametrize(
    ("engine", "card", "model"),
    [
        ("{name: mindie}", "ascend-910b4", "qwen2.5-7b"),
        ("{name: vllm-ascend, max_model_len: 4096}", "ascend-910b4", "qwen2.5-7b"),
        ("{name: ollama, num_ctx: 4096}", "rtx-4090", "{name: llama-3.1-8b, weights: q4_k_m}"),
        ("{name: llamacpp, n_ctx: 4096}", "rtx-4090", "{name: llama-3.1-8b, weights: q4_k_m}"),
    ],
)
def test_engines_for_other_cards(engine: str, card: str, model: str) -> None:
    check(load(one(engine, card=card), 3, model), 3)


ROUTERS = [
    "round_robin",
    "random",
    "least_outstanding",
    "power_of_two",
    "eas_tokenworks",
    "llumnix",
    "{name: llumnix_v0, dispatch_policy: balanced}",
    "{name: eas, load_threshold: 300, gateway: {wait_scheduling_timeout: 20ms, wait_scheduling_retry_interval: 10ms}}",
]


@pytest.mark.parametrize("router", ROUTERS)
def test_behind_every_router(router: str) -> None:
    check(load(one("{name: vllm, max_model_len: 4096}", 3) + f"\nrouter: {router}", 7), 7)


@pytest.mark.parametrize("router", ROUTERS[:3] + ROUTERS[5:6] + ["mindie_motor"])
@pytest.mark.parametrize("engine", ["{name: vllm, max_model_len: 4096}", "sglang"])
def test_between_prefill_and_decode_pools(router: str, engine: str) -> None:
    if router == "mindie_motor":
        check(load(sides("mindie", "ascend-910b4") + f"\nrouter: {router}", 6, "qwen2.5-7b"), 6)
    else:
        check(load(sides(engine) + f"\nrouter: {router}", 6), 6)


def test_data_parallel_ranks() -> None:
    check(load(one("{name: vllm, max_model_len: 4096}", more=", dp: 2"), 4), 4)
    check(load(one("{name: vllm, max_model_len: 4096}", more=", dp: 2, ep: 2"), 4, "deepseek-v2-lite"), 4)


def test_a_scaled_fleet() -> None:
    scaling = "\nscaling: {name: eas, min: 0, max: 3, targets: {queue: 1}, interval: 1s, startup: {provision: 1s, image: 0s, load_bandwidth: 1TB, warmup: 0s}}"
    check(load(one("{name: vllm, max_model_len: 4096}") + scaling, 6), 6)


def test_several_models_on_one_card() -> None:
    scenario = sim.load(
        "ollama-three-models", overrides=("traffic.synthetic.requests=60", "traffic.closed_loop={concurrency: 20}")
    )
    r, _ = check(scenario, 20)
    assert (r["status"] == 1).any()  # 503 is an answer too


def test_thinking_begins_when_the_answer_has_arrived() -> None:
    r, _ = check(load(one(ENGINES[0]), 1, "llama-3.1-8b", SHORT, "traffic.closed_loop.think_time=250ms"), 1)
    assert r["arrival_s"][1:] - r["finish_s"][:-1] == pytest.approx(0.25, abs=1e-9)


def test_a_conversation_waits_for_each_of_its_answers() -> None:
    turns = "traffic.synthetic.sessions={turns: [2, 5], think_time: 1s}"
    r, _ = check(load(one(ENGINES[0]), 4, "llama-3.1-8b", SHORT, turns), 4)
    assert (r["cached_tokens"] > 0).any()


def test_every_client_begins_at_once_and_there_are_no_more_of_them_than_requests() -> None:
    scenario = load(one(ENGINES[0]), 10_000_000)
    r, _ = check(scenario, 60)
    assert (r["arrival_s"] == 0.0).all()


def test_the_client_side_is_the_same_delay_for_who_waits_and_who_does_not() -> None:
    """An open loop that sends at the times at which clients sent gets the same answers at the same times."""
    scenario = load(one(ENGINES[0]), 1, lengths="{kind: uniform, prompt_tokens: [1, 900], output_tokens: [1, 40]}")
    study = Prepared(scenario)
    closed = study.run().columns
    plans = study.plans
    profile, side = plans[0].profile, ClientSide.of(plans)
    away = np.array([side.away(0, int(n)) for n in closed["prompt_tokens"]])

    assert away == pytest.approx(
        profile.client_request
        - profile.client_serial
        + profile.client_prompt_token * closed["prompt_tokens"]
        + profile.client_first_token
    )
    assert (closed["arrival_s"][1:] == closed["finish_s"][:-1]).all()


@pytest.mark.parametrize("clients", [0, 1])
def test_times_too_late_for_the_clock_are_refused(clients: int) -> None:
    arrival = np.array([0.0, 2e8])
    made = traffic(arrival, np.full(2, 10), np.ones(2), clients=clients, think_time=2e8)
    with pytest.raises(DataError, match="200,000,00[01] s.*at most 100,000,000 s"):
        bench([group(1, 1, 1.0, 0.0)], made)
    _, rows = bench([group(1, 1, 1.0, 0.0)], made, until=1e7)  # nobody gets there
    assert rows["finish_s"][0] == 1.0


def test_a_trace_in_the_wrong_unit_is_refused(tmp_path: Any) -> None:
    file = tmp_path / "t.csv"
    file.write_text("arrival_s,input_tokens,output_tokens\n0,10,2\n3000000000,10,2\n")
    with pytest.raises(DataError, match="check the unit"):
        sim.run(sim.load("quickstart", (f"traffic={{trace: {{format: csv, path: {file}}}}}",)))


def test_the_error_tells_a_late_time_from_the_limit(tmp_path: Any) -> None:
    file = tmp_path / "t.csv"
    file.write_text("arrival_s,input_tokens,output_tokens\n0,10,2\n100000096,10,2\n")
    with pytest.raises(DataError, match="100,000,096 s.*at most 100,000,000 s"):
        sim.run(sim.load("quickstart", (f"traffic={{trace: {{format: csv, path: {file}}}}}",)))


def test_an_engine_that_takes_years_is_refused() -> None:
    with pytest.raises(DataError, match="too coarse"):
        Prepared(sim.load("quickstart", ("traffic.synthetic.requests=3", "traffic.synthetic.arrival.rate=1e-9/s"))).run()
