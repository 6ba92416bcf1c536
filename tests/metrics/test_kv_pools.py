"""Pools within a replica in the summary: shares, what the queue waited for, and the laws they keep."""

from types import SimpleNamespace

import numpy as np
import pytest

import sim
from sim.metrics.sections.kv_pools import KvPools, KvUse, longest_waited
from sim.study.single import Prepared


def use(waited: float, shared: bool = False) -> KvUse:
    figures = np.array([[[500.0, 90.0, 0.0], [40.0, 8.0, waited]]])
    series = np.array([[[300.0, 30.0], [200.0, 10.0], [0.0, 0.0]]])
    return KvUse(
        "main", [("full layers", 100, "tokens"), ("recurrent states", 10, "states")], figures, series, np.array([5.0]), shared
    )


def section(waited: float, shared: bool = False) -> KvPools:
    facts = SimpleNamespace(record=SimpleNamespace(stations={"kv_pools": [use(waited, shared)]}), horizon=10.0)
    found = KvPools.of(facts)
    assert found is not None
    return found


def test_shares_are_of_each_pool_over_the_time_of_the_run() -> None:
    full, states = section(2.0).pools
    assert (full.mean, full.peak, full.waited) == (0.5, 0.9, 0.0)
    assert (states.mean, states.peak, states.waited) == pytest.approx((0.4, 0.8, 0.2))
    assert full.used == pytest.approx((0.6, 0.4))


def test_the_pool_that_bound_the_run_is_named() -> None:
    assert section(0.1).sentences() == []
    (sentence,) = section(5.0).sentences()
    assert "waited for recurrent states (10 states a replica) for 50% of the time" in sentence
    assert longest_waited([use(5.0)]) == "the pool of recurrent states"
    assert longest_waited([use(0.0)]) is None
    assert longest_waited([]) is None


def test_kinds_of_layer_that_share_a_pool() -> None:
    (sentence,) = section(5.0, shared=True).sentences()
    assert "waited for KV blocks for 50% of the time while recurrent states held most of them" in sentence
    assert longest_waited([use(5.0, shared=True)]) == "KV blocks, most of them held by recurrent states"


def test_blocks_of_a_run_are_those_of_its_kinds_of_layer() -> None:
    """Nothing is shared between requests here: what the kinds hold is what is in use, over time and at its peak."""
    given = [
        "model=gpt-oss-20b",
        "traffic.synthetic.requests=60",
        "deployment.kv_blocks=700",
        "traffic.too_long=skip",
        "deployment.engine.max_model_len=4096",
    ]
    result = Prepared(sim.load("quickstart", given)).run()
    kinds, use = result.summary["kv_pools"]["pools"], result.summary["utilisation"]
    assert [k["name"] for k in kinds] == ["windows of 128", "full attention"] and all(k["shared"] for k in kinds)
    assert sum(k["mean"] for k in kinds) == pytest.approx(use["kv_mean"], rel=0.02)
    assert sum(k["waited"] for k in kinds) == pytest.approx(use["kv_blocked"], abs=0.01)
    assert max(kinds[1]["used"]) <= kinds[1]["peak"] + 1e-9


def test_a_run_says_how_full_its_pools_were() -> None:
    given = ["model=gpt-oss-20b", "traffic.synthetic.requests=60", "deployment.engine={name: sglang, max_total_tokens: 4000}"]
    result = Prepared(sim.load("quickstart-sglang", given)).run()
    full, window = result.summary["kv_pools"]["pools"]
    assert (full["name"], window["name"]) == ("full layers", "window layers")
    assert 0 < window["peak"] <= 1
    assert full["mean"] * full["total"] == pytest.approx(result.summary["utilisation"]["kv_mean"] * full["total"], rel=1e-6)
    assert max(full["used"]) <= full["peak"] + 1e-9
    assert "kv_pools" not in Prepared(sim.load("quickstart-sglang", ["traffic.synthetic.requests=20"])).run().summary
