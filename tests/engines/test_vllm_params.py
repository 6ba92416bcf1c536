"""Defaults by hardware, usage and version, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sim.engine.contract import Site
from sim.engine.schedulers.vllm import Vllm, VllmParams
from sim.engine.schedulers.vllm.params import capture_sizes
from sim.errors import ConfigError, NotModelledError

GIB = 1 << 30


def site(name: str, gib: float, context: int = 131072, **layout: int) -> Site:
    accelerator = SimpleNamespace(name=name, device_name="", memory_bytes=gib * GIB, vendor="nvidia", is_cpu=False)
    return Site(model=SimpleNamespace(max_position=context), accelerator=accelerator, **layout)


@pytest.mark.parametrize(
    ("name", "gib", "usage", "tokens", "seqs"),
    [
        ("h100-sxm", 80, "server", 8192, 1024),
        ("h100-sxm", 80, "llm_class", 16384, 1024),
        ("a100-80g-sxm", 80, "server", 2048, 256),
        ("a100-80g-sxm", 80, "llm_class", 8192, 256),
        ("l40s", 48, "server", 2048, 256),
        ("b200", 180, "server", 16384, 1024),
    ],
)
def test_batch_defaults(name, gib, usage, tokens, seqs):
    p = Vllm.resolve(VllmParams(usage_context=usage), site(name, gib))

    assert (p.max_num_batched_tokens, p.max_num_seqs) == (tokens, seqs)
    assert p.async_scheduling and p.scheduler_reserve_full_isl and p.gpu_memory_utilization == 0.92


def test_older_versions():
    p = Vllm.resolve(VllmParams(version="0.11"), site("h100-sxm", 80))

    assert (p.async_scheduling, p.scheduler_reserve_full_isl, p.gpu_memory_utilization) == (False, False, 0.9)
    assert Vllm.memory_rule(p, site("h100-sxm", 80)).version == (0, 11)


def test_seqs_follow_a_small_budget():
    p = Vllm.resolve(VllmParams(max_num_batched_tokens=128), site("h100-sxm", 80))

    assert p.max_num_seqs == 128


@pytest.mark.parametrize(
    ("settings", "error", "field"),
    [
        ({"version": "0.6"}, NotModelledError, "engine.version"),
        ({"version": "0.99"}, NotModelledError, "engine.version"),
        ({"max_num_batched_tokens": 64, "max_num_seqs": 128}, ConfigError, "max_num_batched_tokens"),
        (
            {"enable_chunked_prefill": False, "max_num_batched_tokens": 512, "max_model_len": 1024},
            ConfigError,
            "max_num_batched_tokens",
        ),
        ({"max_num_seqs": 8, "max_num_active_seqs": 9}, ConfigError, "max_num_active_seqs"),
        ({"version": "0.9", "watermark": 0.1}, ConfigError, "watermark"),
        ({"speculative_config": {}, "kv_transfer_config": {"kv_role": "kv_consumer"}}, NotModelledError, "speculative_config"),
    ],
)
def test_refused(settings, error, field):
    with pytest.raises(error, match=field):
        Vllm.resolve(VllmParams(**settings), site("h100-sxm", 80))


@pytest.mark.parametrize(
    "settings",
    [
        {"prefix_match_unit": 32}, {"disable_hybrid_kv_cache_manager": True}, {"mamba_ssm_cache_dtype": "float32"},
        {"VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE": True},
    ],
)  # fmt: skip
def test_settings_of_kv_groups_are_refused_where_there_are_none(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Vllm.resolve(VllmParams(**settings), site("h100-sxm", 80))


def test_too_few_blocks():
    p = Vllm.resolve(VllmParams(max_model_len=4096), site("h100-sxm", 80))
    with pytest.raises(ConfigError, match="does not fit"):
        Vllm.new_state(p, Site(), 100, 0, None, None)


@pytest.mark.parametrize(("seqs", "count", "top"), [(256, 51, 512), (1024, 51, 512), (64, 19, 128), (16, 7, 32)])
def test_capture_sizes(seqs, count, top):
    sizes = capture_sizes(Vllm.resolve(VllmParams(max_num_seqs=seqs, max_num_batched_tokens=8192), site("h100-sxm", 80)))

    assert len(sizes) == count and sizes[-1] == top
