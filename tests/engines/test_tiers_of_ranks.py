"""Tiers behind data-parallel ranks, pipeline stages and prefill servers: each rank has its own, and what is asked for is found, loaded or computed."""

from __future__ import annotations

import pytest

import sim
from sim.errors import NotModelledError
from sim.study.single import Prepared
from tests.engines.talks import talks
from tests.fleet.test_combinations import check, run

HICACHE = "{name: sglang, page_size: 16, context_length: 4096, enable_hierarchical_cache: true, hicache_ratio: 2"
DEPLOYMENTS = {
    "vllm": "{accelerator: h100-sxm, dp: 2, kv_blocks: 300, engine: {name: vllm, max_model_len: 4096, kv_offloading_size: 8}}",
    "lmcache together": "{accelerator: h100-sxm, dp: 2, ep: 2, kv_blocks: 300, engine: {name: vllm, max_model_len: 4096, "
    "kv_offloading_size: 8, kv_offloading_backend: lmcache}}",
    "sglang": f"{{accelerator: h100-sxm, dp: 2, kv_blocks: 300, engine: {HICACHE}}}}}",
    "sglang together": f"{{accelerator: h100-sxm, dp: 2, ep: 2, kv_blocks: 300, engine: {HICACHE}, enable_dp_attention: true}}}}",
    "stages": f"{{accelerator: h100-sxm, pp: 2, kv_blocks: 300, engine: {HICACHE}}}}}",
}


def text(deployment: str, together: bool, *more: str) -> str:
    model = "model: {name: deepseek-v2-lite}" if together else "model: llama-3.1-8b"
    lines = [talks(150).replace("model: llama-3.1-8b", model), deployment, *more]
    return sim.config.to_yaml(sim.loads("\n".join(lines)))


@pytest.mark.parametrize("kind", [*DEPLOYMENTS])
def test_ranks_and_stages_find_load_or_compute_every_token(kind: str) -> None:
    result = check(text(f"deployment: {DEPLOYMENTS[kind]}", "together" in kind), 0)
    s = result.summary["kv_tiers"]
    (cpu,) = s["tiers"]
    assert cpu["stores"] == (1 if kind == "stages" else 2)
    assert cpu["hit_share"] > 0.02 and cpu["read_bytes"] > 0
    assert s["device_share"] + cpu["hit_share"] + s["recomputed_share"] == pytest.approx(1.0)
    assert result.summary["requests"]["finished"] == 150


def test_all_ranks_wait_for_the_one_that_loads() -> None:
    """LMCache loads before the step: what one rank loads makes the step of both longer, and what the other waits is communication."""
    result, record = run(text(f"deployment: {DEPLOYMENTS['lmcache together']}", True))
    assert result.summary["kv_tiers"]["stalled_s"] > 0
    one, other = record.parts.sum(axis=1)
    assert one == pytest.approx(other)


def sides(prefill: str, decode: str) -> str:
    pool = "{{name: {0}, role: {0}, accelerator: h100-sxm, kv_blocks: {2}, engine: {1}}}"
    return f"pools: [{pool.format('prefill', prefill, 300)}, {pool.format('decode', decode, 5000)}]"


PLAIN = "{name: sglang, page_size: 16, context_length: 4096}"


def test_a_prefill_server_brings_back_what_its_host_memory_keeps() -> None:
    with_it = check(text(sides(HICACHE + "}", PLAIN), False), 0)
    without = check(text(sides(PLAIN, PLAIN), False), 0)
    s = with_it.summary["kv_tiers"]
    assert s["tiers"][0]["hit_share"] > 0.05
    assert with_it.columns["cached_tokens"].sum() > 1.05 * without.columns["cached_tokens"].sum()
    assert with_it.summary["requests"]["finished"] == 150
    busy = [next(row["busy"] for row in result.summary["replicas"]) for result in (with_it, without)]
    assert busy[0] < busy[1]


def test_storage_outlives_a_prefill_server() -> None:
    store = HICACHE + ", hicache_storage_backend: file, hicache_storage_prefetch_policy: wait_complete}"
    crash = "faults: {name: crash, replica: 0, at: 20s, for: 1s}"
    kept = check(text(sides(store, PLAIN), False, crash), 0).summary["kv_tiers"]
    lost = check(text(sides(HICACHE + "}", PLAIN), False, crash), 0).summary["kv_tiers"]
    assert kept["tiers"][1]["hit_share"] > 0
    assert kept["recomputed_share"] < lost["recomputed_share"]


def test_a_decode_server_has_no_cache_that_could_be_hierarchical() -> None:
    with pytest.raises(NotModelledError, match="disaggregation_decode_enable_radix_cache"):
        Prepared(sim.loads(text(sides(PLAIN, HICACHE + "}"), False)))
