"""Deployments with data-parallel ranks: the router chooses the engine, the engine's balancer the rank; results are by rank."""

from __future__ import annotations

import random

import numpy as np
import pytest

import sim
from sim.errors import ConfigError, NotModelledError
from sim.metrics.laws import check_laws
from sim.study.single import Prepared, _record

DENSE = ("slo={}", "expect={}", "traffic.synthetic.requests=800", "traffic.synthetic.arrival.rate=30/s")
MOE = ("slo={}", "expect={}", "traffic.synthetic.requests=600")


def dense(*overrides):
    return Prepared(sim.load("quickstart", overrides=(*DENSE, *overrides))).run()


def moe(*overrides, **how):
    return Prepared(sim.load("moe-dp", overrides=(*MOE, *overrides))).run(**how)


# -- ranks of a dense model


def test_sglang_divides_its_limits_by_the_ranks():
    engine = "deployment.engine={name: sglang, enable_dp_attention: true, max_running_requests: 100}"
    (together,) = Prepared(sim.load("moe-dp", overrides=(*MOE, engine))).plans
    (apart,) = Prepared(sim.load("moe-dp", overrides=(*MOE, "deployment.engine={name: sglang}", "deployment.ep=1"))).plans

    assert (together.params.chunked_prefill_size, together.params.max_running_requests) == (2048, 25)
    assert apart.params.chunked_prefill_size == 8192
    assert together.ranks.together and not apart.ranks.together
    assert together.accelerators == apart.accelerators == 4
    assert together.kv_blocks > apart.kv_blocks  # the experts are spread over the ranks


def test_ranks_of_a_dense_model_are_engines_behind_the_engines_own_balancer():
    ranks = dense("deployment.dp=4", "deployment.engine.api_server_count=1")
    engines = dense("deployment.replicas=4", "router=vllm_dp")

    assert ranks.requests.equals(engines.requests)
    assert ranks.summary["latency"] == engines.summary["latency"]
    assert ranks.summary["context"]["accelerators"] == engines.summary["context"]["accelerators"] == 4
    assert ranks.summary["context"]["replicas"] == 1
    assert [r["name"] for r in ranks.summary["replicas"]] == [f"replica 0 rank {k}" for k in range(4)]


def test_api_servers_with_counts_of_their_own_are_less_even():
    def spread(servers):
        result = dense("deployment.dp=4", f"deployment.engine.api_server_count={servers}", "traffic.synthetic.requests=2000")
        came, left, rank = (result.requests[c].to_numpy() for c in ("arrival_s", "finish_s", "replica"))
        return np.mean([np.ptp(np.bincount(rank[(came < t) & (left > t)], minlength=4)) for t in came])

    assert spread(1) < spread(8)


def same_latency(a, b):
    """To the last digit, but for the mean gap between tokens: gaps are summed in another order."""
    x, y = (r.summary.as_dict()["latency"] for r in (a, b))
    means = [d["itl_s"].pop("mean") for d in (x, y)]
    return x == y and (means[0] == means[1] or means[0] == pytest.approx(means[1], rel=1e-12))


@pytest.mark.parametrize("router", ["round_robin", "least_outstanding", "vllm_dp", "random"])
def test_the_router_chooses_the_engine(router):
    result = dense("deployment.dp=2", "deployment.replicas=3", f"router={router}")

    assert result.summary["requests"]["finished"] == 800
    per_rank = np.bincount(result.requests["replica"], minlength=6)
    assert (per_rank > 0).all()
    if router == "round_robin":
        assert per_rank.reshape(3, 2).sum(axis=1).tolist() == [267, 267, 266]


def test_pools_with_and_without_ranks_keep_their_rows():
    pools = [("a", 2, 1), ("b", 1, 3), ("c", 1, 1)]
    text = "\n".join(
        f"  - {{name: {name}, accelerator: h100-sxm, replicas: {n}, dp: {dp}, engine: {{name: vllm}}}}" for name, n, dp in pools
    )
    traffic = "{synthetic: {arrival: {process: poisson, rate: 30/s}, lengths: {kind: azure-2023-conv}, requests: 400}}"
    result = sim.run(sim.loads(f"model: llama-3.1-8b\ntraffic: {traffic}\npools:\n{text}\nrouter: round_robin\n"))

    names = [r["name"] for r in result.summary["replicas"]]
    assert names == ["a 0", "a 1", "b 0 rank 0", "b 0 rank 1", "b 0 rank 2", "c 0"]
    counts = np.bincount(result.requests["replica"], minlength=6)
    assert counts[[0, 1, 5]].tolist() == [100, 100, 100]
    assert counts[2:5].sum() == 100


# -- ranks that step together


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("deployment.replicas=2", "router=least_outstanding", "traffic.synthetic.arrival.rate=80/s"),
        ("traffic.closed_loop={concurrency: 50}",),
        ("deployment.engine.async_scheduling=false", "deployment.kv_blocks=300", "deployment.engine.max_model_len=4700",
         "traffic.too_long=skip", "traffic.synthetic.arrival.rate=100/s"),
        ("deployment.engine={name: sglang, enable_dp_attention: true, load_balance_method: total_tokens}",),
        ("deployment.engine={name: sglang, enable_dp_attention: true, disable_overlap_schedule: true, prefill_decode_interval: 3}",),
        ("deployment.engine={name: mindie, maxSeqLen: 8192, maxInputTokenLen: 8000, maxPrefillTokens: 8192}",
         "deployment.accelerator=ascend-910b4", "traffic.synthetic.arrival.rate=10/s"),
        ("deployment.engine={name: vllm-ascend, max_num_seqs: 6, additional_config: {scheduler_config: {enable_balance_scheduling: true}}}",
         "deployment.accelerator=ascend-910b4", "traffic.synthetic.arrival.rate=10/s"),
    ],
)  # fmt: skip
def test_laws_hold_and_one_stroke_is_step_by_step(overrides):
    study = Prepared(sim.load("moe-dp", overrides=(*MOE, *overrides)))
    result, again, slowly = study.run(), study.run(), study.run(multi_step=False)

    assert result.requests.equals(again.requests)
    assert result.requests.equals(slowly.requests)
    assert same_latency(result, slowly)
    assert result.summary["steps"] == slowly.summary["steps"]
    counts = result.summary["requests"]
    assert counts["finished"] + counts["rejected"] == counts["injected"] == 600


def random_ranks(seed):
    """An engine under memory pressure with settings that steps depend on, and how much comes to it."""
    r = random.Random(seed)
    name = ["sglang", "mindie", "vllm", "vllm-ascend"][seed % 4]
    yes = lambda: r.choice(["true", "false"])  # noqa: E731
    settings = {
        "sglang": f"enable_dp_attention: true, context_length: 8000, max_running_requests: {r.choice([8, 64])}, enable_mixed_chunk: {yes()}, "
        f"disable_overlap_schedule: {yes()}, schedule_policy: {r.choice(['fcfs', 'lpm'])}, prefill_decode_interval: {r.choice([0, 3])}",
        "mindie": f"maxSeqLen: 8000, maxInputTokenLen: 7900, maxPrefillTokens: 8192, maxBatchSize: {r.choice([8, 64])}, maxPrefillBatchSize: 4, "
        f"templateType: {r.choice(['Standard', 'Mix'])}, supportSelectBatch: {yes()}, enablePrefixCache: {yes()}",
    }.get(
        name,
        f"max_model_len: 8000, max_num_seqs: {r.choice([4, 32])}, async_scheduling: {yes()}, prefill_schedule_interval: {r.choice([1, 4])}",
    )
    if name == "vllm-ascend":
        settings += ", additional_config: {scheduler_config: {enable_balance_scheduling: true}}"
    blocks = {"sglang": [9000, 20000], "vllm": [520, 900]}.get(name, [70, 150])
    dp = r.choice([2, 4])
    overrides = [
        f"deployment.engine={{name: {name}, {settings}}}",
        f"deployment.kv_blocks={r.choice(blocks)}",
        f"deployment.dp={dp}",
    ]
    overrides += [f"deployment.ep={dp}", f"traffic.synthetic.arrival.rate={r.choice([3, 20, 80])}/s", f"seed={seed}"]
    return [*overrides, *(["deployment.accelerator=ascend-910b4"] if name in ("mindie", "vllm-ascend") else [])]


@pytest.mark.parametrize("seed", range(24))
def test_random_ranks_lose_nothing_and_one_stroke_is_step_by_step(seed):
    overrides = (*MOE, *random_ranks(seed), "traffic.synthetic.requests=150", "traffic.too_long=skip")
    study = Prepared(sim.load("moe-dp", overrides=overrides))
    result, slowly = study.run(), study.run(multi_step=False)

    assert result.requests.equals(slowly.requests)
    assert same_latency(result, slowly)
    counts = result.summary["requests"]
    assert counts["finished"] + counts["rejected"] + counts["failed"] == counts["injected"] > 100


def test_raw_arrays_obey_the_laws():
    from sim.fleet.run import execute
    from sim.metrics.histogram import ITL_BINS, ITL_LO, ITL_SCALE

    study = Prepared(sim.load("moe-dp", overrides=MOE))
    raw = execute(study.plans, study.traffic, study.scenario.router, 0, bins=200, histogram=(ITL_BINS, ITL_LO, ITL_SCALE))

    check_laws(_record(study.scenario, study.plans, raw, study.traffic))
    assert raw.kv_total.size == raw.parts.shape[0] == 4
    steps = raw.series["steps"].sum(axis=1)
    assert np.unique(steps).size == 1  # every rank takes part in every step


def test_a_run_that_ends_early_accounts_for_requests_at_the_door():
    counts = moe("until=3s").summary["requests"]

    assert counts["injected"] == counts["finished"] + counts["in_flight"]
    assert counts["in_flight"] > 0


def test_accelerators_are_counted_once():
    context = moe("deployment.replicas=2", "router=least_outstanding").summary["context"]

    assert context["accelerators"] == 8
    assert context["replicas"] == 2


def test_lock_step_has_its_price():
    """The same ranks without experts to share would not wait for each other: a prompt elsewhere does not show in a rank's gaps."""
    result = moe()
    itl = result.summary["latency"]["itl_s"]

    assert itl["p99"] > 3 * itl["p50"]


def test_engines_without_ranks_refuse_them():
    for engine in ("tgi", "static", "bladellm"):
        with pytest.raises((NotModelledError, ConfigError), match="dp"):
            Prepared(sim.load("quickstart", overrides=(*DENSE, "deployment.dp=2", f"deployment.engine={{name: {engine}}}")))


def test_what_ranks_cannot_do_is_refused():
    with pytest.raises(ConfigError, match="enable_dp_attention"):
        dense("deployment.engine={name: sglang, enable_dp_attention: true}")
    with pytest.raises(NotModelledError, match="without experts"):
        dense("deployment.dp=2", "deployment.engine={name: sglang, enable_dp_attention: true}")
    with pytest.raises(NotModelledError, match="dense models"):
        dense("deployment.accelerator=ascend-910b4", "deployment.dp=2", "deployment.engine={name: mindie}")
    with pytest.raises(ConfigError, match="enable_balance_scheduling"):
        dense(
            "deployment.accelerator=ascend-910b4",
            "deployment.engine={name: vllm-ascend, additional_config: {scheduler_config: {enable_balance_scheduling: true}}}",
        )
    with pytest.raises(NotModelledError, match="pp"):
        moe("deployment.pp=2", "deployment.ep=4")
    with pytest.raises(NotModelledError, match="data-parallel ranks"):
        dense("deployment.dp=2", "deployment.replicas=2", "router={name: llumnix_v0, enable_migration: true}")
