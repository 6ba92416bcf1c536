"""Prefill and decode pools in which something breaks or somebody leaves: nobody is forgotten, no KV is used twice, all memory comes back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sim
from sim.fleet.world import World
from sim.policy.routing.dynamo import Dynamo
from sim.study.single import Prepared
from tests.fleet.test_combinations import SCALING, SIDES, check, sides, text_of

MINDIE = sides("{name: mindie, maxSeqLen: 4096, maxInputTokenLen: 2048}").replace("h100-sxm", "ascend-910b3")
ALL = SIDES | {"mindie": MINDIE}
SLOW = "transfer: {bandwidth: 400MB, latency: 1ms}"
"""A prompt of 350 tokens takes 0.1 s."""
ONCE = "{kv_role: kv_consumer, kv_load_failure_policy: recompute}"
RECOMPUTES = SIDES["vllm"].replace("max_model_len: 4096}}]", f"max_model_len: 4096, kv_transfer_config: {ONCE}}}}}]")


def played(text: str) -> tuple[Any, World]:
    """Result and world, in which in the end no request is left and no memory is held."""
    seen: list[World] = []

    def run(world: World, play: Any = World.run) -> None:
        play(world)
        seen.append(world)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(World, "run", run)
        result = Prepared(sim.loads(text)).run()
    view = seen[0].engines.view
    assert (view.outstanding == 0).all()
    assert (view.gauges()[:3] == 0).all()  # running, waiting, KV in use
    return result, seen[0]


def stopped(result: Any, replica: int, dead: tuple[float, float]) -> None:
    """Nothing came from a replica while it was dead."""
    r = result.columns
    for column, times in (("prefill_replica", ("prefill_end_s",)), ("replica", ("decode_start_s",))):
        mine = (r[column] == replica) & (r["status"] == 0)
        for name in times:
            t = r[name][mine]
            assert not ((t > dead[0] + 1e-9) & (t < dead[1])).any(), (column, name)


@pytest.mark.parametrize(("engine", "replica"), [(e, k) for e in SIDES for k in (0, 3)] + [("mindie", 0)])
def test_a_replica_dies_and_the_router_sends_its_requests_elsewhere(engine: str, replica: int) -> None:
    router = "router: {name: sglang_router, policy: round_robin}"
    text = text_of(ALL[engine], router, SLOW, f"faults: {{name: crash, replica: {replica}, at: 1s, for: 1s}}")
    result, _ = played(text)
    s = result.summary
    assert s["faults"]["incidents"][0]["hurt"] + s["fleet"]["kv_lost"] > 0
    assert s["requests"]["finished"] + s["requests"]["failed"] == 400
    assert s["requests"]["failed"] < 30  # whose answer had begun
    assert s["clients"]["rerouted"] > 0
    stopped(result, replica, (1.0, 2.0))
    check(text, 0)


@pytest.mark.parametrize("stream", [True, False])
def test_a_router_sends_no_answer_again_whose_first_token_the_prefill_side_gave(stream: bool) -> None:
    """MindIE's coordinator passes P's token on at once (``PRequestRepeater.cpp: SendPResStream``): what D takes with it has begun for who streams."""
    router = "router: {name: sglang_router, policy: round_robin}"
    clients = f"clients: {{name: simple, stream: {str(stream).lower()}}}"
    text = text_of(MINDIE, router, SLOW, clients, "faults: {name: crash, replica: 3, at: 1s, for: 1s}")
    result, _ = played(text)
    s = result.summary
    hurt = s["faults"]["incidents"][0]["hurt"] + 1  # whose prompt P was computing when D died
    assert hurt > 10
    assert s["clients"]["failed_attempts"] == ({"broken": hurt} if stream else {})
    assert s["clients"]["rerouted"] == (0 if stream else hurt)
    assert s["requests"]["finished"] == 400 - s["requests"]["failed"] == (400 - hurt if stream else 400)
    stopped(result, 3, (1.0, 2.0))
    check(text, 0)


@pytest.mark.parametrize(("pools", "fails"), [(SIDES["vllm"], True), (RECOMPUTES, False)])
def test_kv_that_is_lost_on_its_way_fails_or_is_computed_by_the_decode_side(pools: str, fails: bool) -> None:
    result, world = played(text_of(pools, SLOW, "faults: {name: crash, at: 1500ms, for: 100ms}"))
    s = result.summary
    lost, computed = s["fleet"]["kv_lost"], s["fleet"]["kv_recomputed"]
    assert lost > 0 and computed == (0 if fails else lost)
    refused = s["clients"]["failed_attempts"].get("connect", 0)
    hurt = s["faults"]["incidents"][0]["hurt"]
    assert s["requests"]["failed"] == refused + hurt + (lost if fails else 0)
    assert world.leaves()["links"]
    r = result.columns
    again = (r["status"] == 0) & np.isnan(r["kv_arrived_s"])
    assert again.sum() == computed
    assert (r["decode_start_s"][again] >= 1.5).all()


def test_a_prompt_is_sent_once_for_every_time_it_is_computed() -> None:
    """No KV twice: what went over the links is what was computed, block by block."""
    result, _ = played(
        text_of(SIDES["vllm"], "router: {name: sglang_router, policy: random}", "faults: {name: crash, at: 1s, for: 1s}")
    )
    r, s = result.columns, result.summary
    assert s["requests"]["finished"] == 400
    assert s["fleet"]["kv_transfers"] == 400 + s["fleet"]["kv_lost"]
    once = -(-r["prompt_tokens"] // 16) * 16 * 131072.0
    assert s["fleet"]["kv_transferred_bytes"] == pytest.approx(once.sum(), rel=0.02)


def test_running_answers_go_on_at_another_pair() -> None:
    """Dynamo's migration: prompt and what was generated are prefilled again, the client sees a pause."""
    router = "router: {name: dynamo, use_kv_events: false, migration_limit: 3}"
    result, _ = played(text_of(SIDES["vllm"], router, "faults: {name: crash, replica: 2, at: [1s, 2s], for: 300ms}"))
    r, s = result.columns, result.summary
    assert sum(i["hurt"] for i in s["faults"]["incidents"]) > 0
    assert s["requests"]["finished"] == 400 - s["clients"]["failed_attempts"].get("connect", 0)
    assert s["clients"]["rerouted"] > 0
    calm, _ = played(text_of(SIDES["vllm"], router))
    both = (r["status"] == 0) & (calm.columns["status"] == 0)
    assert (r["output_tokens"][both] == calm.columns["output_tokens"][both]).all()


def test_a_prefill_replica_keeps_what_nobody_reads_for_the_time_of_its_engine() -> None:
    """A decode replica dies while KV is on its way: vLLM's blocks are free 480 s later, SGLang's at once."""
    held = {}
    for engine in ("vllm", "sglang"):
        lengths = "traffic.synthetic.lengths={kind: fixed, prompt_tokens: 700, output_tokens: 2}"
        text = text_of(
            SIDES[engine].replace("replicas: 2", "replicas: 1"), SLOW, requests=2, arrival="{process: constant, rate: 0.001/s}"
        )
        broken = "faults={name: crash, replica: 1, at: 1000.15s, for: 10s}"
        result, world = played(sim.config.to_yaml(sim.loads(text, [lengths, broken])))
        assert result.summary["requests"]["failed"] == 1
        held[engine] = float(world.engines.groups[0]._states[0].now)
    assert held["vllm"] == pytest.approx(1480.15, abs=1e-3)
    assert held["sglang"] < 1001


CLIENTS = (
    "clients: {name: simple, first_token_timeout: 150ms, max_attempts: 3, backoff: 10ms}",
    "clients: {name: simple, patience: {mean: 200ms}, hedge_after: 100ms}",
    "clients: {name: httpx, read: 250ms, stream: false}",
)


@pytest.mark.parametrize("engine", ALL)
def test_clients_leave_wherever_their_request_is(engine: str) -> None:
    for clients in CLIENTS:
        slow = SLOW.replace("400MB", "150MB")
        pools = ALL[engine].replace("replicas: 2", "replicas: 1")
        result, _ = played(text_of(pools, slow, clients, requests=150))
        s = result.summary
        assert s["clients"]["failed_attempts"] or s["clients"]["left"] or s["clients"]["hedges_won"]
        assert s["requests"]["finished"] + s["requests"]["failed"] == 150
        assert s["clients"]["wasted"]["attempts"] > 0


@pytest.mark.parametrize("engine", ALL)
def test_the_gateway_is_out_and_the_routers_start_anew(engine: str) -> None:
    faults = "faults: [{name: gateway_outage, at: 1s, for: 300ms}, {name: router_restart, at: [500ms, 2s]}]"
    result, _ = played(text_of(ALL[engine], SLOW, faults, "router: {name: sglang_router, policy: cache_aware}"))
    s = result.summary
    assert s["faults"]["incidents"][1]["hurt"] > 0
    assert s["requests"]["finished"] + s["requests"]["failed"] == 400


@pytest.mark.parametrize("crash", ["", "{name: crash, at: 500ms, for: 100ms}, "])
def test_routers_that_start_anew_play_their_roles(crash: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that are shown only the replicas that serve."""
    told: list[str] = []
    plays = Dynamo.plays
    monkeypatch.setattr(Dynamo, "plays", lambda self, role: told.append(role) or plays(self, role))
    router = "router: {name: dynamo, use_kv_events: false}"
    result, _ = played(text_of(SIDES["vllm"], router, f"faults: [{crash}{{name: router_restart, at: 1s}}]"))
    assert told == ["prefill", "decode"] * 2
    assert result.summary["requests"]["finished"] > 350


def test_who_left_while_p_computed_is_none_that_found_no_decode_replica() -> None:
    """MindIE computes to its end the prompt that it is at."""
    fast = SLOW.replace("400MB", "4GB")
    result, _ = played(text_of(MINDIE, fast, "clients: {name: simple, patience: {mean: 60ms}}"))
    s = result.summary
    assert s["clients"]["left"] == s["requests"]["failed"] > 200
    assert s["fleet"]["no_decode"] == 0.0


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_spot_machines_of_either_side_are_reclaimed(engine: str) -> None:
    scaling = SCALING.format(least=2, target="qps: 8").replace(
        "interval: 1s", "interval: 1s, spot: {mtbf: 3s, notice: 50ms, on_demand: 1}"
    )
    result, world = played(text_of(ALL[engine], SLOW, scaling))
    assert world.totals()["fleet_spot_cut_off"] > 0
    assert result.summary["requests"]["in_flight"] == 0


def test_replicas_of_both_pools_fail_at_random() -> None:
    text = text_of(
        SIDES["vllm"], "faults: {name: crash, mtbf: 1s, for: 100ms}", requests=400, arrival="{process: poisson, rate: 20/s}"
    )
    result, _ = played(text)
    found = result.summary["faults"]["incidents"]
    by = np.bincount([i["replica"] for i in found], minlength=4)
    assert (by > 0).all()
    assert len(found) == pytest.approx(4 * result.summary["simulated_s"] / 1.1, rel=0.35)


def test_a_request_whose_kv_was_lost_before_a_decode_replica_served_ends_when_that_asks_for_it() -> None:
    """Nothing else happens in this world: what D says of it must be heard at once, or time goes on for ever."""
    startup = "startup: {provision: 300ms, image: 0s, load_bandwidth: 10TB, warmup: 100ms}"
    scaling = f"scaling: {{name: keda, min: 0, max: 3, threshold: 1, polling_interval: 1s, scrape_interval: 1s, {startup}}}"
    result, _ = played(
        text_of(SIDES["vllm"], scaling, "faults: {name: crash, at: 300ms, for: 500ms}", requests=1, arrival="burst")
    )
    s = result.summary
    assert (s["requests"]["failed"], s["fleet"]["kv_lost"]) == (1, 1.0)
    assert result.columns["finish_s"][0] < 20
