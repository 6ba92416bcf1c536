"""HiCache: copies in host memory stay matchable, come back, and obey the laws of memory and of strokes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sim
from sim.engine.kv.radix import LRU, ROOT, key_add, key_clear, new_radix
from sim.engine.kv.radix_evict import evict_until
from sim.engine.kv.radix_host import EVICTED, LOADED, TREE, WRITE_BACK, WRITTEN, add_host, hold_host, leave_host
from sim.engine.kv.radix_storage import KEPT
from sim.engine.kv.radix_walk import radix_functions, radix_walk
from sim.engine.schedulers.sglang import hicache
from sim.engine.schedulers.sglang.hierarchy_group import HostEngines
from sim.engine.tiers.plan import Medium
from sim.errors import ConfigError, NotModelledError
from sim.jit import kernel
from sim.study.single import Prepared
from tests.engines.sglang_bench import random_params, random_traffic, simulate
from tests.engines.talks import talks

ON: dict[str, Any] = {"enable_hierarchical_cache": True}
SMALL: dict[str, Any] = {"page_size": 16, "chunked_prefill_size": 512, "max_running_requests": 8}


def random_hicache(r: np.random.Generator) -> dict[str, Any]:
    params: dict[str, Any] = random_params(r) | ON
    for name in ("speculative_algorithm", "pp", "pp_async_batch_depth"):
        params.pop(name, None)
    params["disable_radix_cache"] = False
    if params["radix_eviction_policy"] == "mru":
        params["radix_eviction_policy"] = "lru"
    params["hicache_write_policy"] = str(r.choice(["write_through", "write_through_selective", "write_back"]))
    if r.random() < 0.5:
        params["hicache_size"] = float(r.choice([0.02, 0.1]))  # some 150 and 760 tokens
    else:
        params["hicache_ratio"] = float(r.choice([0.3, 2.0]))
    return params


def check_tree(t: Any, tokens: int) -> None:
    """What nodes say adds up to what the pools say."""
    nodes = [int(x) for x in t.table if x >= 0]
    assert len(set(nodes)) == len(nodes)
    assert t.protected == 0
    assert t.free + t.evictable == tokens
    assert sum(int(t.size[x]) for x in nodes if t.h_dev[x]) == t.evictable
    assert sum(int(t.size[x]) for x in nodes if t.h_host[x]) + t.h_free == t.h_size
    fetched = t.l_count[KEPT] if t.l_on else 0
    assert t.h_count[WRITTEN] + fetched - t.h_count[EVICTED] == t.h_size - t.h_free
    assert not t.h_lock[nodes].any()
    kids, everyone = dict.fromkeys([ROOT, *nodes], 0), dict.fromkeys([ROOT, *nodes], 0)
    for x in nodes:
        up = int(t.parent[x])
        assert t.h_dev[x] or t.h_host[x]
        assert t.h_dev[up] or not t.h_dev[x]
        kids[up] += int(t.h_dev[x])
        everyone[up] += 1
    assert all(t.in_heap[x] for x in nodes if t.h_dev[x] and not t.kids[x])  # whatever can go may be asked to
    assert kids == {x: int(t.kids[x]) for x in kids}
    assert everyone == {x: int(t.h_all[x]) for x in everyone}


@pytest.mark.parametrize("seed", range(16))
def test_strokes_are_steps_and_all_memory_comes_back(seed: int) -> None:
    r = np.random.default_rng([seed, 5])
    tokens = int(r.choice([1024, 4096]))
    params = random_hicache(r)
    columns, spans = random_traffic(r, 80, tokens)
    fast, fast_totals, state = simulate(columns, spans, params, tokens, True)
    slow, slow_totals, _ = simulate(columns, spans, params, tokens, False)
    assert fast_totals == slow_totals
    for name, values in fast.items():
        np.testing.assert_array_equal(values, slow[name], err_msg=name)
    assert (fast["cached_tokens"] < fast["prompt_tokens"] + fast["output_tokens"]).all()
    check_tree(state.tree, tokens // params["page_size"] * params["page_size"])


def conversations(turns: int, sessions: int, apart: float) -> tuple[Any, Any]:
    """Sessions in turns: each prompt is all that was said before and 160 new tokens; 40 are answered."""
    n = turns * sessions
    spans: list[tuple[int, int, int]] = []
    offsets, prompt = [0], []
    for turn in range(turns):
        for k in range(sessions):
            pieces = [(1000 * k + 2 * j + a, 0, 40 if a else 160) for j in range(turn + 1) for a in (0, 1)][:-1]
            spans += pieces
            offsets.append(len(spans))
            prompt.append(sum(p[2] for p in pieces))
    answers = [1000 * k + 2 * turn + 1 for turn in range(turns) for k in range(sessions)]
    out = np.full(n, 40, np.int32)
    none = np.zeros(n, np.int32)
    columns = (np.arange(n) * apart, np.array(prompt, np.int32), out, out, none, none, np.array(answers))
    flat = np.array(spans, np.int64).reshape(-1, 3)
    return columns, (np.array(offsets, np.int64), *(np.ascontiguousarray(flat[:, k]) for k in range(3)))


@pytest.mark.parametrize("policy", ["write_through", "write_back"])
def test_large_host_memory_at_no_cost_is_a_large_device(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hicache, "host_memory", lambda size, site: Medium("cpu", size, 1e18, 1e18))
    traffic = conversations(5, 12, 2.0)
    params = SMALL | ON | {"hicache_ratio": 40.0, "hicache_write_policy": policy}
    host, _, state = simulate(*traffic, params, 1536)
    device, _, _ = simulate(*traffic, SMALL, 100_000)
    assert state.tree.h_count[LOADED] > 5000
    np.testing.assert_array_equal(host["cached_tokens"], device["cached_tokens"])
    for name in ("first_token_s", "finish_s"):
        np.testing.assert_allclose(host[name], device[name], rtol=1e-9)


def test_without_room_on_the_host_it_is_as_without_it() -> None:
    traffic = conversations(4, 10, 0.05)
    for params in ({}, {"schedule_policy": "lpm"}):
        none, _, _ = simulate(*traffic, SMALL | ON | params | {"hicache_ratio": 0.0}, 1536)
        off, _, _ = simulate(*traffic, SMALL | params, 1536)
        for name, values in none.items():
            np.testing.assert_array_equal(values, off[name])


def test_policies_copy_at_insertion_at_the_second_use_or_when_room_is_needed() -> None:
    traffic = conversations(3, 8, 1.0)
    written = {}
    for policy in ("write_through", "write_through_selective", "write_back"):
        _, _, state = simulate(*traffic, SMALL | ON | {"hicache_ratio": 40.0, "hicache_write_policy": policy}, 2048)
        written[policy] = float(state.tree.h_count[WRITTEN])
    assert 0 < written["write_through_selective"] < written["write_through"]
    assert 0 < written["write_back"] < written["write_through"]
    _, _, state = simulate(*traffic, SMALL | ON | {"hicache_write_policy": "write_back"}, 100_000)
    assert state.tree.h_count[WRITTEN] == 0  # nothing has to leave


def test_layers_that_compute_hide_the_layers_that_load() -> None:
    """A session that comes back to 880 of its tokens on the host: one layer's load is not hidden where computing is slower."""
    traffic = conversations(5, 12, 2.0)
    _, _, state = simulate(*traffic, SMALL | ON | {"hicache_ratio": 40.0}, 1536)
    loaded, loads = state.tree.h_count[LOADED], state.tc[2]
    seconds = loaded * 131_072 / 50e9 + loads * 20e-6
    assert state.stalled == pytest.approx(seconds)  # a model of one layer hides nothing but what the step is longer than
    assert state.tc[3] == pytest.approx(seconds)


@kernel
def _kept_below(fn, free):
    """``free``: tokens free after each wish for room, of a device of 1,024 with a node of 320 and one of 96 below it, and a host of 96."""
    t = new_radix(fn, 16, 1024, LRU, False, 64)
    add_host(t, 96, WRITE_BACK, 0.0, 0.0, 0.0, 1)
    for n in (320, 416):
        key_clear(t, 0)
        key_add(t, 1, 0, n)
        t.free -= n
        radix_walk(t, n, 1, 0, 0, 0)
    evict_until(t, 704)  # the lower one goes to the host
    free[0] = t.free
    radix_walk(t, 416, 0, 0, 0, 0)
    lower = t.h_end + 0
    hold_host(t, lower, 0)  # what is fetched from storage will hang below it
    evict_until(t, 1024)  # the upper one must stay: the host has no room for it, and more below it
    free[1] = t.free
    leave_host(t, lower)
    evict_until(t, 1024)
    free[2] = t.free


def test_a_node_that_had_to_stay_is_asked_again_when_the_host_can_do_without_what_is_below() -> None:
    free = np.zeros(3)
    _kept_below(radix_functions(LRU, TREE, storage=True), free)
    assert free.tolist() == [704, 704, 1024]


TEXT = (
    talks(300)
    + """deployment:
  accelerator: h100-sxm
  kv_blocks: 20000
  replicas: 2
  engine: {name: sglang, context_length: 8192, enable_hierarchical_cache: true}
router: {name: sglang_router}
"""
)


def test_a_run_says_what_host_memory_did() -> None:
    result = Prepared(sim.loads(TEXT)).run()
    s = result.summary["kv_tiers"]
    (cpu,) = s["tiers"]
    assert (cpu["stores"], cpu["capacity_bytes"]) == (2, 40_000 * 131_072)
    assert cpu["hit_share"] > 0.05
    assert s["device_share"] + cpu["hit_share"] + s["recomputed_share"] == pytest.approx(1.0)
    assert cpu["written_bytes"] - cpu["evicted_bytes"] <= 2 * cpu["capacity_bytes"]
    assert 0 < s["stalled_s"] < s["loads"] * s["wait_mean_s"]
    again = Prepared(sim.loads(TEXT)).run()
    assert again.summary["kv_tiers"] == s


def test_counts_survive_the_process_and_host_memory_does_not() -> None:
    crash = ["faults=[{name: crash, replica: 0, at: 30s}]"]
    result = Prepared(sim.loads(TEXT, crash)).run()
    s = result.summary["kv_tiers"]
    whole = Prepared(sim.loads(TEXT)).run().summary["kv_tiers"]
    assert s["looked_up_tokens"] > 0.8 * whole["looked_up_tokens"]
    assert s["tiers"][0]["hit_share"] + s["device_share"] < whole["tiers"][0]["hit_share"] + whole["device_share"]


@pytest.mark.parametrize(
    ("more", "kind", "words"),
    [
        ("{hicache_size: 3}", ConfigError, "goes with enable_hierarchical_cache"),
        ("{enable_hierarchical_cache: true, disable_radix_cache: true}", ConfigError, "radix cache"),
        ("{enable_hierarchical_cache: true, hicache_storage_backend: nixl}", NotModelledError, "file, mooncake, hf3fs"),
        ("{hicache_storage_backend: file}", ConfigError, "goes with enable_hierarchical_cache"),
        ("{hicache_storage_prefetch_policy: best_effort}", ConfigError, "goes with hicache_storage_backend"),
        ("{hicache_storage_backend_extra_config: {}}", ConfigError, "goes with hicache_storage_backend"),
        ("{enable_hierarchical_cache: true, radix_eviction_policy: mru}", NotModelledError, "mru"),
        ("{enable_hierarchical_cache: true, speculative_algorithm: EAGLE}", NotModelledError, "speculative"),
    ],
)
def test_what_cannot_be_is_refused(more: str, kind: type[Exception], words: str) -> None:
    engine = f"deployment.engine={{name: sglang, {more[1:]}"
    with pytest.raises(kind, match=words):
        Prepared(sim.loads(TEXT, [engine]))


def test_models_whose_layers_forget_are_refused() -> None:
    with pytest.raises(NotModelledError, match="layers forget"):
        Prepared(sim.loads(TEXT, ["model=gpt-oss-20b"]))


def test_engines_with_copies_are_groups_of_their_own() -> None:
    made = Prepared(sim.loads(TEXT))
    assert isinstance(made.plans[0].build(0, 1.0, (10, 1e-5, 200.0)), HostEngines)


def test_a_scenario_written_out_reads_back() -> None:
    for text in (TEXT, TEXT.replace(", enable_hierarchical_cache: true", "")):
        again = sim.config.to_yaml(sim.loads(text))
        assert Prepared(sim.loads(again)).plans[0].tiers == Prepared(sim.loads(text)).plans[0].tiers
