"""Defaults by GPU memory and the combinations that are refused."""

from types import SimpleNamespace

import pytest

from sim.engine.contract import Site
from sim.engine.schedulers.sglang import Sglang
from sim.engine.schedulers.sglang.params import MIB, SglangParams, decode_graph_sizes, max_running
from sim.errors import ConfigError, NotModelledError


def site(mib, tp=1):
    return Site(accelerator=SimpleNamespace(memory_bytes=mib * MIB), tp=tp)


@pytest.mark.parametrize(
    ("mib", "tp", "chunk", "graph"),
    [
        (16_000, 1, 2048, 8),
        (24_000, 1, 4096, 48),
        (24_000, 4, 4096, 160),
        (46_000, 2, 4096, 32),
        (81_000, 1, 8192, 256),
        (81_000, 8, 8192, 512),
    ],
)
def test_chunk_and_graphs_follow_the_memory(mib, tp, chunk, graph):
    params = Sglang.resolve(SglangParams(), site(mib, tp))

    assert (chunk, graph) == (params.chunked_prefill_size, params.cuda_graph_max_bs)


def test_an_unknown_gpu_has_its_own_default():
    assert Sglang.resolve(SglangParams(), Site()).chunked_prefill_size == 4096


def test_memory_fraction_of_an_80_gib_gpu_reserves_ten_gib_at_least():
    params = Sglang.resolve(SglangParams(), site(81_559))

    assert round((81_559 - (512 + 1.5 * 8192 + 128 + 512)) / 81_559, 3) == params.mem_fraction_static


def test_running_requests_follow_the_pool():
    params = Sglang.resolve(SglangParams(context_length=8192), Site())

    assert (max_running(params, 10_000), max_running(params, 1_000_000), max_running(params, 100)) == (2048, 4096, 50)


def test_graph_sizes_end_at_the_largest():
    assert decode_graph_sizes(30) == [1, 2, 4, 8, 12, 16, 24, 30]
    assert decode_graph_sizes(512)[-1] == 512


@pytest.mark.parametrize(
    "settings",
    [
        {"disaggregation_decode_enable_radix_cache": True},
        {"hicache_storage_backend": "nixl", "enable_hierarchical_cache": True},
        {"enable_dynamic_chunking": True},
    ],
)
def test_what_is_not_modelled_is_refused(settings):
    with pytest.raises(NotModelledError, match=next(iter(settings))):
        Sglang.resolve(SglangParams(**settings), Site())


def test_dp_attention_without_ranks_is_an_error():
    with pytest.raises(ConfigError, match="enable_dp_attention"):
        Sglang.resolve(SglangParams(enable_dp_attention=True), Site())


@pytest.mark.parametrize("settings", [{"enable_mixed_chunk": True}, {"speculative_algorithm": "EAGLE"}])
def test_what_does_not_go_with_pipeline_stages_is_an_error(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Sglang.resolve(SglangParams(**settings), Site(pp=2))


def test_pipeline_stages_switch_the_overlap_schedule_off():
    assert Sglang.resolve(SglangParams(), Site(pp=2)).disable_overlap_schedule


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule_policy": "shortest-prefill-first", "disable_radix_cache": True},
        {"schedule_policy": "lpm", "enable_priority_scheduling": True},
        {"enable_mixed_chunk": True, "chunked_prefill_size": -1},
        {"chunked_prefill_size": 100, "page_size": 16},
        {"pp_async_batch_depth": 1},
        {"disaggregation_mode": "decode"},
    ],
)
def test_what_sglang_refuses_is_an_error(settings):
    with pytest.raises(ConfigError):
        Sglang.resolve(SglangParams(**settings), Site())


def test_without_the_cache_prefix_policies_are_fcfs():
    assert Sglang.resolve(SglangParams(schedule_policy="lpm", disable_radix_cache=True), Site()).schedule_policy == "fcfs"


@pytest.mark.parametrize("algorithm", ["EAGLE", "EAGLE3", "NEXTN", "NGRAM"])
def test_speculation_lets_48_requests_run_and_knew_no_overlap_before_its_second_workers(algorithm):
    def resolved(version, **more):
        return Sglang.resolve(SglangParams(version=version, speculative_algorithm=algorithm, **more), Site())

    assert [resolved(v).disable_overlap_schedule for v in ("0.4.6", "0.5.6", "0.5.11", "0.5")] == [True, True, False, False]
    assert {resolved(v).max_running_requests for v in ("0.4.6", "0.5.6", "0.5")} == {48}
    assert resolved("0.5", max_running_requests=200).max_running_requests == 200
    assert Sglang.resolve(SglangParams(), Site()).max_running_requests is None
