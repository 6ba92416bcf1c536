"""HiCache's third level: what is stored is found again, by others too, in the time that fetching takes and no longer than the policy says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sim
from sim.cost.features import TOKENS
from sim.cost.step import new_linear_cost
from sim.engine.contract import Site
from sim.engine.kv.radix_storage import FETCHED, KEPT, STORED
from sim.engine.schedulers.sglang import Sglang, SglangParams, hicache
from sim.engine.schedulers.sglang.hierarchy_group import HostEngines
from sim.engine.state import new_recorder
from sim.engine.tiers.counts import LATE
from sim.engine.tiers.plan import Medium
from sim.report.events import tier_figures
from sim.report.exports.perfetto import events
from sim.study.single import Prepared
from tests.engines.sglang_bench import random_traffic, simulate
from tests.engines.talks import talks
from tests.engines.test_sglang_hicache import ON, SMALL, check_tree, conversations, random_hicache

BYTES = 131_072  # of a token


def storage(kind: str = "mooncake", policy: str = "wait_complete", **config: Any) -> dict[str, Any]:
    return ON | {
        "hicache_storage_backend": kind,
        "hicache_storage_prefetch_policy": policy,
        "hicache_storage_backend_extra_config": {"prefetch_threshold": 16} | config,
    }


@pytest.mark.parametrize("seed", range(12))
def test_strokes_are_steps_and_all_memory_comes_back(seed: int) -> None:
    r = np.random.default_rng([seed, 6])
    tokens = int(r.choice([1024, 4096]))
    policy = str(r.choice(["best_effort", "wait_complete", "timeout"]))
    config = {"bandwidth": float(r.choice([1e7, 1e9])), "size": float(r.choice([0.02, 1.0])), "prefetch_timeout_base": 0.01}
    params = random_hicache(r) | storage(str(r.choice(["file", "mooncake", "hf3fs"])), policy, **config)
    columns, spans = random_traffic(r, 80, tokens)
    fast, fast_totals, state = simulate(columns, spans, params, tokens, True)
    slow, slow_totals, _ = simulate(columns, spans, params, tokens, False)
    assert fast_totals == slow_totals
    for name, values in fast.items():
        np.testing.assert_array_equal(values, slow[name], err_msg=name)
    check_tree(state.tree, tokens // params["page_size"] * params["page_size"])
    assert (state.l_n, state.l_occupied) == (0, 0)
    assert not state.l_req[:, 0].any()
    store = state.tree.l_store
    assert store.used + store.evicted == state.tree.l_count[STORED] // params["page_size"]
    assert state.tree.l_count[KEPT] <= state.tree.l_count[FETCHED]


def test_large_storage_at_no_cost_is_a_large_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Host memory keeps a fraction of what comes back; the rest is in storage."""
    monkeypatch.setattr(hicache, "host_memory", lambda size, site: Medium("cpu", size, 1e18, 1e18))
    traffic = conversations(5, 12, 2.0)
    free = {"bandwidth": 1e18, "latency": 0.0}
    params = SMALL | {"hicache_ratio": 2.0} | storage(**free)
    kept, _, state = simulate(*traffic, params, 1536)
    device, _, _ = simulate(*traffic, SMALL, 100_000)
    assert state.tree.l_count[FETCHED] > 5000
    np.testing.assert_array_equal(kept["cached_tokens"], device["cached_tokens"])
    for name in ("first_token_s", "finish_s"):
        np.testing.assert_allclose(kept[name], device[name], rtol=1e-9)


def test_whoever_waits_for_all_waits_for_its_batches_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversation of 880 tokens comes back to an idle server: 55 pages are one batch of 0.1 s and its bytes."""
    monkeypatch.setattr(hicache, "host_memory", lambda size, site: Medium("cpu", size, 1e18, 1e18))
    traffic = conversations(5, 12, 2.0)
    slow = {"bandwidth": 1e8, "latency": 0.1}
    base, _, _ = simulate(*traffic, SMALL | {"hicache_ratio": 2.0} | storage(bandwidth=1e18, latency=0.0), 1536)
    kept, _, _ = simulate(*traffic, SMALL | {"hicache_ratio": 2.0} | storage(**slow), 1536)
    late = kept["first_token_s"] - base["first_token_s"]
    whole = (kept["cached_tokens"] == base["cached_tokens"]) & (late > 0.05)
    pages = (late[whole] - 0.1) * 1e8 / BYTES / 16
    assert whole.sum() > 10
    np.testing.assert_allclose(pages, np.round(pages), atol=1e-3)
    assert (np.round(pages) * 16 <= kept["cached_tokens"][whole]).all()


def test_policies_differ_in_how_long_they_wait() -> None:
    """One page takes 21 ms: best effort takes nothing, the time-out what has come by then, the third all of it."""
    traffic = conversations(4, 12, 3.0)
    found, late = {}, {}
    for policy in ("best_effort", "timeout", "wait_complete"):
        config = {"bandwidth": 1e8, "latency": 0.0, "prefetch_timeout_base": 0.1, "prefetch_timeout_per_ki_token": 0.0}
        rows, _, state = simulate(*traffic, SMALL | {"hicache_ratio": 1.0} | storage(policy=policy, **config), 1024)
        found[policy] = int(rows["cached_tokens"].sum())
        late[policy] = state.tc[LATE]
        waited = rows["first_scheduled_s"] - rows["arrival_s"]
        assert (waited.max() < 0.2) == (policy != "wait_complete")
    assert found["best_effort"] <= found["timeout"] < found["wait_complete"]
    assert late["timeout"] > 0
    assert late["best_effort"] == late["wait_complete"] == 0


TEXT = (
    talks(300)
    + """deployment:
  accelerator: h100-sxm
  kv_blocks: 400
  replicas: 2
  engine: {name: sglang, page_size: 16, context_length: 4096, enable_hierarchical_cache: true, hicache_ratio: 1,
           hicache_storage_backend: mooncake, hicache_storage_prefetch_policy: wait_complete}
router: round_robin
"""
)


def tiers(*more: str) -> Any:
    return Prepared(sim.loads(TEXT, list(more))).run().summary["kv_tiers"]


def test_one_store_serves_all_replicas_and_files_only_their_own() -> None:
    """Requests go round: half of the turns come to the replica that has not seen the one before."""
    both = tiers()
    own = tiers("deployment.engine.hicache_storage_backend=file")
    assert [t["name"] for t in both["tiers"]] == ["cpu", "remote"]
    assert [(t["name"], t["stores"]) for t in own["tiers"]] == [("cpu", 2), ("disk", 2)]
    assert both["tiers"][1]["stores"] == 1
    assert both["tiers"][1]["hit_share"] > own["tiers"][1]["hit_share"] + 0.04
    assert both["tiers"][1]["written_bytes"] < own["tiers"][1]["written_bytes"]
    for s in (both, own):
        assert s["device_share"] + sum(t["hit_share"] for t in s["tiers"]) + s["recomputed_share"] == pytest.approx(1.0)
    assert tiers() == both


def test_what_is_told_over_time_adds_up_to_what_is_told_of_all() -> None:
    result = Prepared(sim.loads(TEXT)).run()
    s = result.summary["kv_tiers"]
    series = s["series"]
    end = result.summary["simulated_s"]
    seconds = np.minimum(series["width_s"], end - series["width_s"] * np.arange(len(series["time_s"])))
    assert seconds.sum() == pytest.approx(end)
    for row, tier in zip(series["tiers"], s["tiers"], strict=True):
        assert row["name"] == tier["name"]
        assert np.dot(row["hit_tokens_per_s"], seconds) == pytest.approx(tier["hit_tokens"])
        assert np.dot(row["read_bytes_per_s"], seconds) == pytest.approx(tier["read_bytes"])
        assert np.dot(row["written_bytes_per_s"], seconds) == pytest.approx(tier["written_bytes"])
        kept = (tier["written_bytes"] - tier["evicted_bytes"]) / tier["capacity_bytes"] / tier["stores"]
        assert row["used"][-1] == pytest.approx(kept, rel=0.05)
        assert 0 < max(row["used"]) <= 1
    assert {"tier_hits", "tier_moves", "tier_use"} <= {f.name for f in tier_figures(result)}
    counters = [e for e in events(result) if e["ph"] == "C" and e["name"].startswith("KV in the remote store")]
    assert len(counters) == 2 * len(series["time_s"])


def test_a_store_that_is_lost_gives_nothing_and_starts_empty() -> None:
    whole = tiers()["tiers"][1]
    result = Prepared(sim.loads(TEXT, ["faults=[{name: store_loss, at: 30s, for: 20s}]"])).run()
    lost = result.summary["kv_tiers"]["tiers"][1]
    assert lost["hit_tokens"] < 0.8 * whole["hit_tokens"]
    assert lost["evicted_bytes"] > 0 == whole["evicted_bytes"]
    assert result.summary["requests"]["finished"] == 300


def test_storage_outlives_the_server_before_it() -> None:
    crash = ["faults=[{name: crash, at: 30s, for: 1s}]", "deployment.engine.hicache_storage_backend=file"]
    lost = Prepared(sim.loads(TEXT, [*crash, "deployment.replicas=1"])).run().summary["kv_tiers"]
    host = (
        "deployment.engine={name: sglang, page_size: 16, context_length: 4096, enable_hierarchical_cache: true, hicache_ratio: 1}"
    )
    without = Prepared(sim.loads(TEXT, [*crash[:1], host, "deployment.replicas=1"])).run().summary["kv_tiers"]
    assert lost["recomputed_share"] < without["recomputed_share"] - 0.1


def test_clients_that_leave_while_their_kv_comes_leave_nothing_behind() -> None:
    slow = "deployment.engine.hicache_storage_backend_extra_config={bandwidth: 20MB}"
    result = Prepared(sim.loads(TEXT, [slow, "clients={name: simple, patience: {mean: 2s}}"])).run()
    count = result.summary["requests"]
    assert count["failed"] > 10
    assert count["finished"] + count["failed"] == 300


def test_what_comes_for_one_request_does_not_bind_what_another_has_computed() -> None:
    """The third asks for 640 tokens of storage; meanwhile the fourth has computed the first 192, of which the host has no copy.

    They may go when the fifth needs their room: it fits, and nothing is retracted.
    """
    text = [(1, 640), (1, 640), *((100 + k // 2, 640) for k in range(10)), (1, 640), (1, 192), (7, 480)]
    arrival = [0.0, 50.0, *(100.0 + 50 * k for k in range(10)), 1000.0, 1000.1, 1008.2]
    output = np.full(15, 4, np.int32)
    output[-1] = 540
    none, ids, lengths = np.zeros(15, np.int32), *(np.array(x, np.int64) for x in zip(*text, strict=True))
    columns = (np.array(arrival), lengths.astype(np.int32), output, output, none, none, np.arange(15) + 10**6)
    spans = (np.arange(16), ids, np.zeros(15, np.int64), lengths)
    params = SMALL | {"hicache_size": 0.18, "hicache_write_policy": "write_through_selective"}
    params |= storage(prefetch_threshold=256, bandwidth=1e7, latency=0.0)
    under_way, _, state = simulate(columns, spans, params, 1024, until=1008.45)
    t = state.tree
    assert (len(under_way["id"]), t.l_count[FETCHED]) == (13, 640)  # the third waits for room, the fifth runs
    alone = [int(x) for x in t.table if x >= 0 and not t.h_dev[x]]
    assert all(t.h_host[t.parent[x]] for x in alone)
    rows, _, state = simulate(columns, spans, params, 1024)
    assert not rows["preemptions"].any()
    check_tree(state.tree, 1024)


def test_who_waits_is_asked_about_again_until_the_storage_has_it() -> None:
    """The second server's queue holds the prompt that the first one is computing: nobody has stored it when it joins the queue."""
    prompts, output = [[(1, 512)], [(2, 64)], [(1, 512)]], [4, 120, 4]
    replicas, arrival = np.array([0, 1, 1], np.int32), np.array([0.0, 0.0, 1e-3])
    params = Sglang.resolve(SglangParams(**SMALL | storage(prefetch_threshold=256) | {"max_running_requests": 1}), Site())
    recorder = new_recorder(2, 64, 1.0, 16, 64, 1e-4, 10.0)
    cost = new_linear_cost(np.array([0.004, 0.004]), np.array([TOKENS], np.int64), np.array([[3e-5], [3e-5]]))
    states = [Sglang.new_state(params, Site(), 64, k, recorder, cost) for k in (0, 1)]
    group = HostEngines(states, recorder)
    group.with_tiers(Sglang.tiers(params, Site(), 64))
    flat = np.array([(content, 0, n) for ((content, n),) in prompts], np.int64)
    none, answers = np.zeros(3, np.int32), np.array(output, np.int32)
    columns = (arrival, flat[:, 2].astype(np.int32), answers, answers, none, none, np.arange(3) + 100)
    group.submit_routed(replicas, columns, (np.arange(4), *(flat[:, k].copy() for k in range(3))), 0)
    group.advance(1e9, False)
    rows = group.drain()
    (waited,) = np.flatnonzero(rows["id"] == 2)
    assert rows["cached_tokens"][waited] == 496
    assert states[1].tree.l_count[FETCHED] == 512


def test_who_is_looked_at_has_gone_as_far_as_the_clock() -> None:
    """Replicas of one store run in order of time; also those with nothing but steps ahead are where single steps would have them."""
    more = ["until=9s", "clients={name: simple, first_token_timeout: 400ms, deadline: 4s, max_attempts: 3, hedge_after: 150ms}"]
    strokes, steps = (Prepared(sim.loads(TEXT, more)).run(multi_step=on) for on in (True, False))
    assert (strokes.columns["status"] == 3).any()
    for name, column in strokes.columns.items():
        np.testing.assert_array_equal(column, steps.columns[name], err_msg=name)
