"""SGLang's pools beside full KV: laws of memory, which model gets which pool, and how large it is."""

import numpy as np
import pytest

from sim.cost.memory import memory_budget
from sim.engine.contract import Site
from sim.engine.kv.radix import Radix
from sim.engine.kv.radix_walk import radix_functions
from sim.engine.outline import outlined_in
from sim.engine.schedulers.sglang import Sglang, pools
from sim.engine.schedulers.sglang.params import SglangParams
from sim.engine.schedulers.sglang.state import PLAIN, STATES, WINDOW
from sim.errors import ConfigError, NotModelledError
from sim.hardware import load_accelerator
from sim.jit import JIT
from sim.model import load_model
from sim.model.serving import cache_warning
from tests.engines.sglang_bench import random_params, random_traffic, simulate


def random_pool(r, params, tokens):
    """A pool beside ``tokens`` of full KV, and the settings that go with it."""
    page = params["page_size"]
    for name in ("speculative_algorithm", "pp", "pp_async_batch_depth"):
        params.pop(name, None)
    if r.random() < 0.5:
        return {"swa": {"window": 60, "swa_tokens": max(int(tokens * r.choice([0.3, 0.8])) // page * page, 128)}}
    params["enable_mixed_chunk"] = False
    params["mamba_radix_cache_strategy"] = str(r.choice(["no_buffer", "extra_buffer", "extra_buffer_lazy"]))
    if params["mamba_radix_cache_strategy"] == "no_buffer":
        params |= {"disable_overlap_schedule": True, "page_size": 1}
        params["chunked_prefill_size"] = params["chunked_prefill_size"] // page * page or -1
    elif params["mamba_radix_cache_strategy"] == "extra_buffer_lazy":
        params["disable_overlap_schedule"] = False
    params["max_running_requests"] = min(params["max_running_requests"], 8)
    return {"mamba": {"slots": 5 * params["max_running_requests"] + int(r.choice([1, 30]))}}


@pytest.mark.parametrize("seed", range(12))
def test_steps_in_one_stroke_are_the_same_and_all_memory_comes_back(seed):
    r = np.random.default_rng(seed)
    tokens = int(r.choice([1024, 4096]))
    params = random_params(r)
    beside = random_pool(r, params, tokens)
    columns, spans = random_traffic(r, 60, tokens)

    fast, fast_totals, state = simulate(columns, spans, params, tokens, True, pools=beside)
    slow, slow_totals, _ = simulate(columns, spans, params, tokens, False, pools=beside)

    assert fast_totals == slow_totals
    for name, values in fast.items():
        np.testing.assert_array_equal(values, slow[name], err_msg=name)
    t = state.tree
    assert t.protected == t.w_protected == 0
    assert t.free + t.evictable == tokens // params["page_size"] * params["page_size"]
    assert t.w_free + t.w_evictable == t.w_size


def site_of(name, **more):
    return Site(load_model(name), load_accelerator("h100-sxm", "accelerator"), **more)


def settings_of(name, **given):
    return Sglang.resolve(SglangParams(**given), site_of(name))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("llama-3.1-8b", PLAIN),
        ("gemma-3-27b", PLAIN),
        ("mistral-7b-v0.1", PLAIN),
        ("gpt-oss-20b", WINDOW),
        ("llama-4-scout", WINDOW),
        ("qwen3-next-80b-a3b", STATES),
        ("qwen3.5-9b", STATES),
    ],
)
def test_a_model_gets_the_pools_of_its_architecture_and_no_warning(name, kind):
    params = settings_of(name)
    model = load_model(name)

    assert pools.kind_of(params, model) == kind
    assert cache_warning(model, Sglang.caches(params, model)) is None


def test_what_is_not_modelled_beside_them_is_said():
    params = settings_of("gpt-oss-20b", speculative_algorithm="EAGLE3")
    model = load_model("gpt-oss-20b")

    assert pools.kind_of(params, model) == PLAIN
    assert "12 sliding-window layers" in cache_warning(model, Sglang.caches(params, model))


def test_windows_can_be_kept_in_one_pool():
    params = settings_of("gpt-oss-20b", disable_hybrid_swa_memory=True)

    assert pools.kind_of(params, load_model("gpt-oss-20b")) == PLAIN


def test_a_window_does_not_count_its_own_token_and_a_chunk_is_whole():
    assert pools.window_of(load_model("gpt-oss-20b")) == 127
    assert pools.window_of(load_model("llama-4-scout")) == 8192


@pytest.mark.parametrize(
    ("given", "strategy", "slots"),
    [
        ({}, "extra_buffer", 5),
        ({"disable_overlap_schedule": True}, "no_buffer", 3),
        ({"disable_overlap_schedule": True, "page_size": 16, "chunked_prefill_size": 8192}, "extra_buffer", 4),
        ({"linear_attn_backend": "flashinfer"}, "no_buffer", 3),
        ({"mamba_radix_cache_strategy": "extra_buffer_lazy"}, "extra_buffer_lazy", 4),
        ({"disable_radix_cache": True}, "auto", 1),
    ],
)
def test_how_states_are_cached_decides_how_many_requests_run(given, strategy, slots):
    params = settings_of("qwen3.5-9b", **given)

    assert params.mamba_radix_cache_strategy == strategy
    assert pools.slots_of_request(params) == slots
    assert params.disable_overlap_schedule == (strategy == "no_buffer" or given.get("disable_overlap_schedule", False))


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"linear_attn_backend": "flashinfer", "mamba_radix_cache_strategy": "extra_buffer"}, ConfigError),
        ({"mamba_radix_cache_strategy": "no_buffer", "page_size": 16}, ConfigError),
        ({"mamba_radix_cache_strategy": "extra_buffer_lazy", "disable_overlap_schedule": True}, ConfigError),
        ({"enable_mixed_chunk": True}, NotModelledError),
    ],
)
def test_what_does_not_go_with_states_is_refused(given, error):
    with pytest.raises(error):
        settings_of("qwen3.5-9b", **given)


def test_a_window_pool_smaller_than_a_window_is_refused():
    params = settings_of("gpt-oss-20b", swa_full_tokens_ratio=0.1)

    with pytest.raises(ConfigError, match="swa_full_tokens_ratio"):
        pools.second_pool(params, site_of("gpt-oss-20b"), 1000)


@pytest.mark.skipif(not JIT, reason="nothing is compiled")
def test_a_model_of_full_layers_compiles_nothing_of_other_pools():
    names = [f"sim.engine.kv.radix_{part}" for part in ("second", "window", "state", "host", "storage")]
    added = len(outlined_in(Radix, dict.fromkeys(names, True)))

    assert added > 0
    assert np.count_nonzero(radix_functions(0) == 0) == added + 1  # and what only `mru` needs


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("gpt-oss-20b", {}, (("full layers", 1.0), ("window layers", 0.8))),
        ("gpt-oss-20b", {"swa_full_tokens_ratio": 0.25}, (("full layers", 1.0), ("window layers", 0.25))),
        ("gemma-3-4b", {}, ()),
    ],
)
def test_the_budget_divides_what_is_left_by_the_ratio(name, given, expected):
    site = site_of(name)
    budget = memory_budget(site.model, site.accelerator, Sglang.memory_rule(settings_of(name, **given), site))

    assert tuple(p.name for p in budget.pools) == tuple(pool for pool, _ in expected)
    for pool, (_, share) in zip(budget.pools, expected, strict=True):
        assert pool.size == pytest.approx(budget.kv_tokens * share, abs=1)
    if expected:
        assert sum(p.bytes for p in budget.pools) == pytest.approx(budget.kv_bytes, rel=1e-4)
    else:  # every layer keeps every token
        assert budget.bytes_per_block == site.model.kv_bytes_per_token()


def test_states_take_their_share_before_keys_and_values():
    site = site_of("qwen3.5-9b")
    budget = memory_budget(site.model, site.accelerator, Sglang.memory_rule(settings_of("qwen3.5-9b"), site))
    lines = {line.name: line.bytes for line in budget.lines}
    full, states = budget.pools

    assert lines["recurrent states"] == states.bytes == states.size * site.model.state_bytes()
    share = (states.bytes + budget.kv_bytes) * 0.9 / 1.9 / site.model.state_bytes()
    assert states.size == int(share) - 1  # and one slot that nobody uses
    assert full.size == budget.kv_tokens


@pytest.mark.parametrize("name", ["gpt-oss-20b", "qwen3.5-9b"])
def test_a_cap_of_tokens_leaves_no_more_and_keeps_the_states(name):
    site = site_of(name)
    rule = Sglang.memory_rule(settings_of(name, max_total_tokens=5000), site)
    free = memory_budget(site.model, site.accelerator, Sglang.memory_rule(settings_of(name), site))
    budget = memory_budget(site.model, site.accelerator, rule)

    assert budget.pools[0].size == 5000
    assert budget.pools[1].size == (4000 if name == "gpt-oss-20b" else free.pools[1].size)
