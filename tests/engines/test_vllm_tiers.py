"""vLLM with tiers behind its KV cache: what is found where, what waits, and the laws of all that."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

import sim
from sim.engine.tiers import tier as t
from sim.errors import ConfigError, NotModelledError
from sim.jit import kernel
from sim.metrics.result import Result
from sim.report.html import render
from sim.study.single import Prepared
from tests.engines.talks import talks

BASE = (
    talks(400)
    + """deployment:
  accelerator: h100-sxm
  kv_blocks: 2000
  engine: {name: vllm, max_model_len: 8192}
"""
)
LMCACHE = "deployment.engine.kv_transfer_config={kv_connector: LMCacheConnectorV1, kv_role: kv_both}"
TOKEN = 131_072  # bytes of one


def run(*changes: str) -> Result:
    return Prepared(sim.loads(BASE, list(changes))).run()


def tiers(result: Result) -> Any:
    return result.summary["kv_tiers"]


@pytest.fixture(scope="module")
def plain() -> Result:
    return run()


@pytest.fixture(scope="module")
def native() -> Result:
    return run("deployment.engine.kv_offloading_size=8")


@pytest.fixture(scope="module")
def lmcache() -> Result:
    return run(
        LMCACHE, "deployment.engine.LMCACHE_CONFIG_FILE={max_local_cpu_size: 8, max_local_disk_size: 8, remote_url: lm://x}"
    )


def check_conservation(result: Result) -> None:
    s = tiers(result)
    shares = s["device_share"] + s["recomputed_share"] + sum(x["hit_share"] for x in s["tiers"])
    assert shares == pytest.approx(1.0)
    assert s["recomputed_share"] >= 0
    rows = result.requests
    assert (rows["cached_tokens"] <= rows["prompt_tokens"]).all()
    if rows["preemptions"].sum() == 0:
        found = s["device_share"] * s["looked_up_tokens"] + sum(x["hit_tokens"] for x in s["tiers"])
        assert rows["cached_tokens"].sum() == pytest.approx(found)
    for x in s["tiers"]:
        assert x["hit_tokens"] * TOKEN <= x["read_bytes"] + x["stores"] * 300 * 256 * TOKEN
        if x["name"] != "cpu":  # host memory also takes what is read from beyond
            assert 0 <= x["written_bytes"] - x["evicted_bytes"] <= x["stores"] * x["capacity_bytes"]


def test_what_was_evicted_is_loaded_back(plain: Result, native: Result) -> None:
    check_conservation(native)
    before, after = (r.summary["tokens"]["cached_share"] for r in (plain, native))
    assert after > before + 0.1
    (cpu,) = tiers(native)["tiers"]
    assert cpu["hit_share"] == pytest.approx(after - tiers(native)["device_share"])
    assert cpu["hit_tokens"] * TOKEN == cpu["read_bytes"]  # whole blocks
    assert cpu["evicted_bytes"] > 0
    assert tiers(native)["stalled_s"] == 0  # beside the steps


def test_lmcache_loads_and_saves_within_steps(lmcache: Result) -> None:
    check_conservation(lmcache)
    s = tiers(lmcache)
    cpu, disk, remote = s["tiers"]
    assert s["stalled_s"] > 0
    assert cpu["hit_tokens"] > 0
    assert disk["hit_tokens"] + remote["hit_tokens"] > 0
    assert remote["evicted_bytes"] == 0  # it is large


def test_the_screen_and_the_report_say_it(lmcache: Result) -> None:
    (said,) = [note for note in lmcache.notes if "tokens looked up" in note]
    assert f"{tiers(lmcache)['tiers'][0]['hit_share']:.0%} in host memory" in said
    page = render(lmcache)
    for words in ("KV beyond the accelerator", "1 × 8 GiB", "remote"):
        assert words in page


def test_the_same_run_gives_the_same_bytes(native: Result) -> None:
    again = run("deployment.engine.kv_offloading_size=8")
    for name in again.requests.columns:
        np.testing.assert_array_equal(again.requests[name], native.requests[name])
    assert tiers(again) == tiers(native)


def test_strokes_are_steps(native: Result) -> None:
    made = Prepared(sim.loads(BASE, ["deployment.engine.kv_offloading_size=8"]))
    build = made.plans[0].__class__.build

    def step_by_step(self: Any, *given: Any) -> Any:
        group = build(self, *given)
        group.set_multi_step(False)
        return group

    patch = pytest.MonkeyPatch()
    patch.setattr(made.plans[0].__class__, "build", step_by_step)
    one = made.run()
    patch.undo()
    for name in one.requests.columns:
        np.testing.assert_array_equal(one.requests[name], native.requests[name])
    assert tiers(one) == tiers(native)


def test_room_for_nothing_is_no_tier(plain: Result) -> None:
    none = run("deployment.engine.kv_offloading_size=0.001")
    assert "kv_tiers" not in none.summary
    for name in none.requests.columns:
        np.testing.assert_array_equal(none.requests[name], plain.requests[name])


def test_where_nothing_is_shared_tiers_change_nothing() -> None:
    alone = ["traffic.synthetic.sessions=null", "traffic.synthetic.requests=60", "deployment.engine.async_scheduling=false"]
    roomy = [*alone, "deployment.kv_blocks=20000"]
    without, with_tier = run(*roomy), run(*roomy, "deployment.engine.kv_offloading_size=8")
    assert tiers(with_tier)["tiers"][0]["hit_tokens"] == 0
    for name in without.requests.columns:
        np.testing.assert_array_equal(without.requests[name], with_tier.requests[name])


def test_a_large_tier_finds_what_a_large_accelerator_would() -> None:
    """Every turn finds the whole blocks of those before it, wherever they lie."""
    apart = ["traffic.synthetic.arrival={process: constant, rate: 1/s}", "traffic.synthetic.requests=120"]
    wide = run(*apart, "deployment.kv_blocks=30000")
    small = run(*apart, "deployment.kv_blocks=600", "deployment.engine.kv_offloading_size=64")
    s = tiers(small)
    assert s["tiers"][0]["hit_share"] > 0.1
    assert s["tiers"][0]["evicted_bytes"] == 0
    np.testing.assert_array_equal(wide.requests["cached_tokens"], small.requests["cached_tokens"])
    later = small.requests["first_token_s"] - wide.requests["first_token_s"]
    assert (later > -0.02).all()
    assert np.median(later) < s["wait_longest_s"] + 0.02


def test_a_remote_store_is_shared_by_replicas() -> None:
    changes = [
        LMCACHE,
        "deployment.replicas=3",
        "router=round_robin",
        "deployment.engine.LMCACHE_CONFIG_FILE={local_cpu: false, %s}",
    ]
    shared = run(*changes[:3], changes[3] % "remote_url: lm://x")
    own = run(*changes[:3], changes[3] % "max_local_disk_size: 400")
    (_, remote), (_, disk) = tiers(shared)["tiers"], tiers(own)["tiers"]
    assert (remote["stores"], disk["stores"]) == (1, 3)
    assert remote["hit_share"] > disk["hit_share"] + 0.15
    check_conservation(shared)
    check_conservation(own)


def test_what_is_loaded_ahead_keeps_no_step_waiting(lmcache: Result) -> None:
    """The same is found; disks and the store are read while the request waits, and only the copy to the accelerator holds the step up."""
    place = "local_cpu: false, max_local_disk_size: 8, disk_bandwidth: 1GB"
    within, ahead = (
        run(LMCACHE, f"deployment.engine.LMCACHE_CONFIG_FILE={{{place}, enable_async_loading: {on}}}") for on in ("false", "true")
    )
    a, b = tiers(within), tiers(ahead)
    check_conservation(ahead)
    assert b["tiers"][1]["hit_share"] == pytest.approx(a["tiers"][1]["hit_share"], rel=0.1)
    assert b["tiers"][1]["read_bytes"] == pytest.approx(a["tiers"][1]["read_bytes"], rel=0.1)
    assert b["stalled_s"] < 0.6 * a["stalled_s"]
    assert b["wait_mean_s"] < 0.3 * a["wait_mean_s"]


def test_a_mooncake_store_evicts_a_share_of_all_at_once() -> None:
    place = "local_cpu: false, remote_url: 'mooncakestore://x', max_remote_size: 2"
    remote = tiers(run(LMCACHE, f"deployment.engine.LMCACHE_CONFIG_FILE={{{place}}}"))["tiers"][1]
    blocks, size = remote["capacity_bytes"] // (256 * TOKEN), 256 * TOKEN
    assert remote["evicted_bytes"] > 0
    assert remote["written_bytes"] - remote["evicted_bytes"] <= 0.9 * remote["capacity_bytes"]
    assert remote["evicted_bytes"] / size >= int(0.05 * blocks)


def test_the_time_of_a_load_is_that_of_its_bytes() -> None:
    """Prompts of 4,112 tokens push each other out of 514 blocks; 256 blocks of 2 MiB come back at 0.8 × 63 GB/s."""
    text = BASE.replace("rate: 4/s", "rate: 0.5/s").replace("process: poisson", "process: constant")
    changes = [
        "traffic.synthetic.lengths={kind: fixed, prompt_tokens: 16, output_tokens: 1}",
        "traffic.synthetic.sessions=null",
        "traffic.synthetic.prefixes={groups: 4, shared_tokens: 4096}",
        "traffic.synthetic.requests=30",
        "deployment.kv_blocks=515",
        "deployment.engine.kv_offloading_size=8",
    ]
    s = tiers(Prepared(sim.loads(text, changes)).run())
    assert s["loads"] > 3
    assert s["wait_longest_s"] == pytest.approx(20e-6 + 256 * 16 * TOKEN / (0.8 * 63e9), rel=1e-6)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ("kv_transfer_config={kv_connector: OffloadingConnector, kv_role: kv_both}", ConfigError, "cpu_bytes_to_use"),
        ("kv_transfer_config={kv_connector: LMCacheConnectorV1, kv_role: kv_consumer}", ConfigError, "kv_both"),
        ("kv_transfer_config={kv_role: kv_both}", ConfigError, "kv_producer, kv_consumer"),
        ("LMCACHE_CONFIG_FILE={chunk_size: 128}", ConfigError, "LMCacheConnectorV1"),
        ("kv_offloading_backend=lmcache", ConfigError, "kv_offloading_size"),
        ("enable_prefix_caching=false", ConfigError, "hashes"),
        ("speculative_config={method: ngram}", NotModelledError, "drafts"),
        ("version='0.11'", ConfigError, "no such setting"),
    ],
)
def test_what_cannot_be_is_refused(change: str, kind: type[Exception], words: str) -> None:
    more = ["deployment.engine.kv_offloading_size=8"] if not change.startswith(("kv_", "LM")) else []
    with pytest.raises(kind, match=words):
        Prepared(sim.loads(BASE, [*more, f"deployment.engine.{change}"]))


def test_models_with_layers_that_forget_are_refused() -> None:
    with pytest.raises(NotModelledError, match="layers that forget"):
        Prepared(sim.loads(BASE, ["model=gemma-3-12b", "deployment.engine.kv_offloading_size=8", "deployment.kv_blocks=9000"]))


# -- one tier against a twin in plain Python


@kernel
def _step(tier, key, need, now, busy):  # type: ignore[no-untyped-def]
    """Look a key up (1: there), else keep it after room for ``need`` was made (2), or not (0)."""
    e = t.find_block(tier, key)
    if e != 0:
        t.touch_entry(tier, e)
        tier.busy[e] = max(tier.busy[e], busy)
        return 1
    tier.marks += 1
    if not t.make_room_for(tier, need, now):
        return 0
    t.put_block_in(tier, key, now)
    return 2


def test_the_least_recently_used_that_nobody_reads_goes_first() -> None:
    rng = np.random.default_rng(3)
    for case in range(20):
        size = int(rng.integers(1, 40 if case < 19 else 3000))
        tier, twin = t.new_tier(size, 0.0, 0.0, 0.0), OrderedDict[int, float]()
        for step in range(400 if case < 19 else 20_000):
            key, need, now = int(rng.integers(1, 2 * size + 2)) * 7919, int(rng.integers(1, 3)), float(step)
            busy = now + 5.0 if rng.random() < 0.2 else 0.0
            got = _step(tier, key, need, now, busy)
            if key in twin:
                twin.move_to_end(key)
                twin[key] = max(twin[key], busy)
                assert got == 1
                continue
            free = [k for k, until in twin.items() if until <= now]
            lack = need - (size - len(twin))
            if lack > len(free):
                assert got == 0
                continue
            for k in free[: max(lack, 0)]:
                del twin[k]
            twin[key] = 0.0
            assert got == 2
            assert tier.used == len(twin)


def test_transfers_queue_on_their_lane() -> None:
    @kernel
    def twice(tier):  # type: ignore[no-untyped-def]
        return t.transfer(tier, 0, 1.0, 10), t.transfer(tier, 0, 1.5, 5), t.transfer(tier, 1, 1.0, 10)

    assert twice(t.new_tier(4, 0.1, 0.2, 0.5)) == pytest.approx((2.5, 3.5, 3.5))


def test_a_lost_store_is_empty_and_while_it_is_out_keeps_nothing() -> None:
    far = [LMCACHE, "deployment.replicas=2", "deployment.engine.LMCACHE_CONFIG_FILE={local_cpu: false, remote_url: lm://x}"]
    remote = {}
    for name, fault in {
        "well": [],
        "lost": ["faults=[{name: store_loss, at: 40s}]"],
        "out": ["faults=[{name: store_loss, at: 40s, for: 60s}]"],
    }.items():
        result = run(*far, *fault)
        check_conservation(result)
        remote[name] = tiers(result)["tiers"][1]
    shares = [remote[name]["hit_share"] for name in ("well", "lost", "out")]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > shares[1] > shares[2] > 0
    assert remote["well"]["evicted_bytes"] == 0 < remote["lost"]["evicted_bytes"]
    assert remote["out"]["written_bytes"] < remote["lost"]["written_bytes"]


def test_there_must_be_a_store_to_lose() -> None:
    with pytest.raises(ConfigError, match="of which there is none"):
        Prepared(sim.loads(BASE, ["faults=[{name: store_loss, at: 40s}]", "deployment.engine.kv_offloading_size=8"]))


def test_a_scenario_written_out_reads_back() -> None:
    file = "deployment.engine.LMCACHE_CONFIG_FILE={max_local_cpu_size: 2}"
    for changes in ([], ["deployment.engine.kv_offloading_size=8"], [LMCACHE, file]):
        once = sim.loads(BASE, changes)
        again = sim.loads(sim.config.to_yaml(once))
        assert Prepared(again).plans[0].tiers == Prepared(once).plans[0].tiers


def test_a_store_with_a_watermark_lets_a_share_of_all_go_and_keeps_what_was_read() -> None:
    """Above 90 of 100 blocks 5 go at once, the oldest first; a store that never evicts keeps what it has."""
    tier = t.new_tier(100, 0.0, 0.0, 0.0)
    t.set_rules(tier, 90, 5, 10.0)
    for key in range(1, 91):
        assert _step(tier, key, 1, 0.0, 0.0) == 2
    tier.busy[t.find_block(tier, 2)] = 10.0  # its lease
    assert (tier.used, tier.evicted) == (90, 0)
    assert _step(tier, 1000, 1, 5.0, 0.0) == 2
    assert (tier.used, tier.evicted) == (86, 5)
    assert [t.find_block(tier, k) > 0 for k in (1, 2, 3, 6, 7)] == [False, True, False, False, True]
    full = t.new_tier(10, 0.0, 0.0, 0.0)
    t.set_rules(full, 10, -1, 0.0)
    assert [_step(full, key, 1, 0.0, 0.0) for key in range(1, 13)] == [2] * 10 + [0, 0]
    assert (full.used, full.evicted) == (10, 0)
