"""Routers of proxies and gateways that count, poll and hear: each against what is known of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sim
from sim import registry
from sim.config import settings as made_of
from sim.policy.gateways.sglang import Buckets, prefix_hash
from sim.policy.router import ReplicaFacts
from sim.study.single import Prepared
from sim.workload.table import RequestBlock

SESSIONS = """
model: llama-3.1-8b
traffic: {synthetic: {arrival: {process: poisson, rate: 12/s}, lengths: {kind: lognormal, prompt_tokens: {mean: 400, cv: 0.6},
  output_tokens: {mean: 60, cv: 0.6}}, sessions: {turns: 5, think_time: 4s, max_context: 8000}, requests: 400}}
deployment: {accelerator: h100-sxm, replicas: 3, engine: {name: vllm, max_model_len: 16384}}
"""


class Replicas:
    """A snapshot that says what the test says."""

    def __init__(self, n: int) -> None:
        self.now = 0.0
        self.outstanding = np.zeros(n, np.int64)
        self.rows = np.zeros((5, n))
        self.rows[3] = 100.0

    def gauges(self) -> Any:
        return self.rows

    def cached(self, block: Any, row: int) -> Any:
        return np.zeros(self.rows.shape[1])


def router(name: str, replicas: int, engine: str = "vllm", **given: Any) -> Any:
    cls = registry.lookup("router", name)
    made = cls(made_of(cls.Params, given, "router"), replicas, np.random.default_rng(1))
    made.setup([ReplicaFacts(16, 1000.0, engine)] * replicas)
    return made


def prompts(n: int = 50, tokens: int = 320, contents: int = 5, klass: int = 0) -> RequestBlock:
    spans = (np.arange(n + 1), np.arange(n) % contents, np.zeros(n, np.int64), np.full(n, tokens))
    return RequestBlock.of(
        np.arange(n) * 1.0,
        np.full(n, tokens),
        np.full(n, 10),
        session=np.arange(n) % contents,
        spans=spans,
        klass=np.full(n, klass),
    )


def test_smooth_weighted_round_robin_as_nginx_documents_it() -> None:
    made = router("nginx", 3, method="round_robin", weights=(5, 1, 1))
    assert "".join("abc"[made.choose(Replicas(3), prompts(), 0)] for _ in range(14)) == "aabacaa" * 2


def test_least_conn_by_weight_and_ties_in_turn() -> None:
    made, seen = router("nginx", 3, weights=(2, 1, 1)), Replicas(3)
    seen.outstanding[:] = [3, 2, 2]
    assert made.choose(seen, prompts(), 0) == 0
    seen.outstanding[:] = [9, 2, 2]
    assert [made.choose(seen, prompts(), 0) for _ in range(4)] == [1, 2, 1, 2]
    blind = router("nginx", 2, worker_processes=8, zone=False)
    seen = Replicas(2)
    seen.outstanding[:] = [50, 0]
    chosen = [blind.choose(seen, prompts(), 0) for _ in range(40)]
    assert 0 in chosen  # workers that have sent nothing know nothing of the 50


def test_requests_on_a_kept_connection_go_to_one_pod() -> None:
    block, seen = prompts(60), Replicas(4)
    places = {}
    for keep in (True, False):
        made = router("kubernetes", 4, keep_alive=keep)
        places[keep] = []
        for row in range(60):
            seen.now = row * 1.0
            places[keep].append(made.choose(seen, block, row))
            made.on_sent(row, places[keep][-1], block, row, seen.now)
            made.on_end(row, seen.now + 0.5)
    assert len(set(places[True])) == 1
    assert len(set(places[False])) == 4
    made = router("kubernetes", 4, proxy_mode="ipvs", keepalive_expiry=0.3)
    out = []
    for row in range(8):
        seen.now = row * 1.0
        out.append(made.choose(seen, block, row))
        made.on_sent(row, out[-1], block, row, seen.now)
        made.on_end(row, seen.now + 0.5)
    assert out == [0, 1, 2, 3] * 2


def test_kv_events_tell_what_the_engine_finds_in_its_cache() -> None:
    """One client: what the router was told before is what the engine reports as cached afterwards."""
    told: list[float] = []
    cls = registry.lookup("router", "dynamo")
    overlap = cls._overlap
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cls, "_overlap", lambda *a: told.append(float(overlap(*a)[0])) or np.array([told[-1]]))
        given = [
            "router=dynamo",
            "traffic.closed_loop={concurrency: 1}",
            "traffic.synthetic.requests=60",
            "deployment.replicas=1",
        ]
        result = sim.run(sim.loads(SESSIONS, given))
    cached = result.requests.sort_values("arrival_s")["cached_tokens"].to_numpy()
    assert (cached == np.array(told) * 16).all()
    assert cached.sum() > 0


def test_the_ledger_of_dynamo_is_empty_in_the_end() -> None:
    seen: list[Any] = []
    cls = registry.lookup("router", "dynamo")
    setup = cls.setup
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cls, "setup", lambda router, facts: seen.append(router) or setup(router, facts))
        result = sim.run(sim.loads(SESSIONS, ["router=dynamo"]))
    assert result.summary["requests"]["finished"] == 400
    ledger = seen[-1]._ledger
    assert ledger.prefill.sum() == 0
    assert ledger.requests.sum() == 0
    assert not any(ledger._blocks)


@pytest.mark.parametrize(
    "name", ["dynamo", "{name: dynamo, use_kv_events: false}", "{name: litellm, routing_strategy: latency-based-routing}"]
)
def test_routers_that_hear_stand_before_sides_and_before_fleets_that_scale(name: str) -> None:
    engine = "{name: vllm, max_model_len: 16384}"
    pools = ", ".join(
        f"{{name: {r}, role: {r}, accelerator: h100-sxm, replicas: 2, engine: {engine}}}" for r in ("prefill", "decode")
    )
    sides = sim.run(sim.loads(SESSIONS, [f"router={name}", "deployment=null", f"pools=[{pools}]"]))
    scaling = (
        "scaling={name: eas, min: 1, max: 4, targets: {qps: 4/s}, scale_in_stabilization: 20s, "
        "startup: {provision: 1s, image: 1s, warmup: 1s, load_bandwidth: 100GB}}"
    )
    scaled = sim.run(sim.loads(SESSIONS, [f"router={name}", "deployment.replicas=1", scaling]))
    for result in (sides, scaled):
        assert result.summary["requests"]["finished"] == 400
    assert scaled.summary["scaling"]["replicas_peak"] > 1


def test_aibrix_guards_against_imbalance() -> None:
    made, seen, block = router("aibrix", 3), Replicas(3), prompts(contents=1)
    first = made.choose(seen, block, 0)
    assert [made.choose(seen, block, 1) for _ in range(3)] == [first] * 3
    seen.outstanding[:] = 1
    seen.outstanding[first] = 3
    assert made.choose(seen, block, 2) != first  # above mean + σ = 1.67 + 1.15
    seen.outstanding[:] = 0
    seen.outstanding[first] = 9
    assert made.choose(seen, block, 3) != first  # out of balance
    seen.outstanding[:] = 0
    seen.now = 3600.0
    assert made._match(made._keys(block, 4), range(3))
    made._forget(seen.now)
    assert made._match(made._keys(block, 4), range(3)) == {}


def test_aibrix_spreads_users_by_their_tokens() -> None:
    made, seen = router("aibrix", 4, routing_strategy="vtc-basic"), Replicas(4)
    heavy, light = prompts(40, 3000, klass=1), prompts(40, 100, klass=2)
    for row in range(30):
        made.choose(seen, heavy, row)
    assert made.choose(seen, light, 0) == 0
    nobody = router("aibrix", 4, routing_strategy="vtc-basic")
    assert min(np.bincount([nobody.choose(seen, prompts(40, 3000), row % 40) for row in range(400)], minlength=4)) > 60
    assert made.choose(seen, heavy, 31) == 2


def test_aibrix_reads_kv_use_now_and_then() -> None:
    made, seen, block = router("aibrix", 2, routing_strategy="least-kv-cache"), Replicas(2), prompts()
    assert made.choose(seen, block, 0) == 1  # of equals the last
    seen.rows[2, 1] = 50.0
    assert made.choose(seen, block, 1) == 1
    seen.now = 0.05
    assert made.choose(seen, block, 2) == 0


def test_litellm_goes_to_who_answered_first_and_tries_the_unknown() -> None:
    made, seen, block = router("litellm", 3, routing_strategy="latency-based-routing"), Replicas(3), prompts()
    for replica, latency in ((0, 0.5), (1, 0.2)):
        made.on_sent(replica, replica, block, 0, 0.0)
        made.on_first_token(replica, latency)
    assert made.choose(seen, block, 1) == 2
    made.on_sent(2, 2, block, 0, 0.0)
    made.on_first_token(2, 0.9)
    assert {made.choose(seen, block, 1) for _ in range(5)} == {1}
    wide = router("litellm", 2, weights=(3.0, 1.0))
    chosen = [wide.choose(seen, block, 0) for _ in range(2000)]
    assert np.mean(chosen) == pytest.approx(0.25, abs=0.03)
    used = router("litellm", 2, routing_strategy="usage-based-routing-v2")
    used.on_sent(0, 0, block, 0, 0.0)
    used.on_end(0, 1.0)
    assert {used.choose(seen, block, 0) for _ in range(5)} == {1}


def test_reports_of_engines_are_as_old_as_the_last_poll() -> None:
    made, seen, block = router("sglang_router", 2, "sglang", policy="power_of_two"), Replicas(2), prompts()
    assert made.interval == 10.0
    assert router("sglang_router", 2, "vllm", policy="power_of_two").interval is None
    seen.rows[2] = [90.0, 10.0]
    made.poll(seen)
    seen.rows[2] = [0.0, 100.0]
    assert {made.choose(seen, block, 0) for _ in range(20)} == {1}
    least = router("sglang_router", 2, "sglang", policy="least_load")
    seen.rows[:3] = 0.0
    least.poll(seen)
    assert [least.choose(seen, block, 0) for _ in range(4)] == [0, 1, 0, 1]  # what it has sent since counts


def test_prefix_hash_keeps_a_prefix_on_its_worker_until_that_has_too_much() -> None:
    made, seen, block = router("sglang_router", 4, policy="prefix_hash"), Replicas(4), prompts(contents=3)
    owners = [made.choose(seen, block, row) for row in range(9)]
    assert owners == owners[:3] * 3
    assert prefix_hash([0, 0, 0], 1) == 1
    assert prefix_hash([0, 9, 2], 1) == 0
    assert prefix_hash([4, 4, 4], 1) == 1
    sticky = router("sglang_router", 4, policy="consistent_hashing")
    before = {row % 5: sticky.choose(seen, prompts(), row) for row in range(10)}
    sticky.members([0, 1, 3])
    after = {row % 5: [0, 1, 3][sticky.choose(Replicas(3), prompts(), row)] for row in range(10)}
    assert all(after[k] == w for k, w in before.items() if w != 2)


def test_buckets_share_lengths_and_follow_them() -> None:
    made = Buckets(4, 64, 1.5, 5.0)
    assert made._bounds == [1024.0, 2048.0, 3072.0]
    even = Buckets(2, 10**9, 1.5, 5.0)
    assert [even.choose(0.0, n) for n in (100, 3000)] == [0, 1]
    for i in range(200):
        even.choose(0.1 + i * 0.01, 100 if i % 2 else 900)
    even.choose(5.0, 100)
    assert even._bounds[0] == 900.0  # half of the characters are in prompts up to there
    tight = Buckets(2, 64, 1.5, 5.0)
    assert [tight.choose(0.0, 500) for _ in range(4)] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    "name",
    ["{name: vllm_router, policy: kv_aware}", "{name: vllm_router, policy: power_of_two}", "{name: vllm_router, policy: consistent_hash}",
     "{name: production_stack, routing_logic: kvaware}", "{name: aibrix, routing_strategy: least-request}", "kubernetes",
     "{name: nginx, zone: false, worker_processes: 3}"],
)  # fmt: skip
def test_a_run_behind_each_is_complete_and_the_same_again(name: str) -> None:
    made = Prepared(sim.loads(SESSIONS, [f"router={name}"]))
    one, two = made.run(), made.run()
    assert one.summary["requests"]["finished"] == 400
    for column in one.requests:
        assert one.requests[column].to_numpy().tobytes() == two.requests[column].to_numpy().tobytes()
    affine = "kv_aware" in name or "kvaware" in name or "hash" in name
    assert (one.summary["tokens"]["cached_share"] > 0.5) == affine


def test_kv_events_of_other_engines_are_refused() -> None:
    with pytest.raises(sim.NotModelledError, match="KV events"):
        sim.run(sim.loads(SESSIONS, ["router=dynamo", "deployment.engine=sglang"]))


def test_a_version_that_yaml_reads_as_a_number_is_to_be_quoted() -> None:
    with pytest.raises(sim.ConfigError, match=r'router\.version: must be text.*quote it, as in version: "0\.3"'):
        Prepared(sim.loads(SESSIONS, ["router={name: sglang_router, version: 0.3}"]))


def test_smg_leaves_out_who_reports_a_long_queue_or_full_memory() -> None:
    made, seen, block = router("sglang_router", 3, "sglang", version="smg-1.13"), Replicas(3), prompts(contents=1)
    assert made.interval == 10.0 and made.rule() is None
    owner = made.choose(seen, block, 0)
    assert made.choose(seen, block, 1) == owner
    others = {0, 1, 2} - {owner}
    seen.rows[1, owner] = 8.0
    assert made.choose(seen, block, 2) == owner  # nobody has asked yet
    made.poll(seen)
    assert {made.choose(seen, block, row) for row in range(3, 20)} <= others
    seen.rows[1], seen.rows[2, list(others)] = 0.0, 80.0
    made.poll(seen)
    assert {made.choose(seen, block, row) for row in range(3)} == {owner}
    seen.rows[2] = 100.0
    seen.outstanding[:] = [5, 5, 5]
    seen.outstanding[min(others)] = 4
    made.poll(seen)
    assert made.choose(seen, block, 4) == min(others)  # all are: the least loaded
    for given in ({"version": "0.3"}, {"version": "smg-1.13", "worker_overload_protection": False}):
        assert router("sglang_router", 2, "sglang", **given).interval is None
    assert router("sglang_router", 2, "vllm", version="smg-1.13").interval is None  # it reports nothing here
