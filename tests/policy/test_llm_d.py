"""llm-d's endpoint picker: what it counts itself, and its decider between prefill and decode pools."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sim
from sim import registry
from sim.config import settings as made_of
from sim.errors import ConfigError, NotModelledError
from sim.policy.router import ReplicaFacts
from tests.fleet.test_combinations import SIDES, check, sides, text_of
from tests.fleet.test_side_faults import SLOW, played
from tests.policy.test_world_routers import Replicas, prompts, router

VLLM = "{name: vllm, max_model_len: 4096}"
TALKS = [
    "traffic.synthetic.sessions={turns: 4, think_time: 500ms, max_context: 3000}",
    "traffic.synthetic.lengths={kind: uniform, prompt_tokens: [20, 500], output_tokens: [1, 40]}",
]


def decider(least: int, **more: Any) -> str:
    given = "".join(f", {k}: {v}" for k, v in more.items())
    return f"router: {{name: llm_d, pd_decider: prefix-based-pd-decider, non_cached_tokens: {least}{given}}}"


def at_decode(**given: Any) -> Any:
    cls = registry.lookup("router", "llm_d")
    made = cls(made_of(cls.Params, {"pd_decider": "prefix-based-pd-decider"} | given, "router"), 2, np.random.default_rng(1))
    made.plays("decode")
    made.setup([ReplicaFacts(16, 1000.0, "vllm", role="decode")] * 2)
    return made


def talks(deployment: str, *more: str, requests: int = 200) -> str:
    return sim.config.to_yaml(sim.loads(text_of(deployment, *more, requests=requests), TALKS))


@pytest.mark.parametrize("prefix", ["approximate", "precise"])
def test_prompts_of_which_enough_is_not_cached_are_computed_by_a_prefill_replica(prefix: str) -> None:
    result = check(talks(SIDES["vllm"], decider(200, prefix=prefix)), 0)
    r, s = result.columns, result.summary
    alone = r["prefill_replica"] < 0
    assert 40 < alone.sum() < 160
    assert s["fleet"]["decode_only"] == alone.sum()
    assert s["fleet"]["kv_transfers"] == 200 - alone.sum()
    assert s["requests"]["finished"] == 200
    assert (r["prompt_tokens"][~alone] >= 200).all()
    left = r["prompt_tokens"] - r["cached_tokens"]
    assert (left[alone] < 200 + 16 * (prefix == "precise") + 64 * (prefix == "approximate")).mean() > 0.9  # blocks are whole
    assert np.isnan(r["kv_arrived_s"][alone]).all() and not np.isnan(r["kv_arrived_s"][~alone]).any()
    assert any(f"{alone.sum()} requests were not handed over" in said for said in result.warnings)


def test_a_decider_that_never_hands_over_leaves_the_decode_pool_as_if_it_were_alone() -> None:
    """0 is upstream's default."""
    one = sides(VLLM).replace("replicas: 2", "replicas: 1")
    apart = check(talks(one, decider(0)), 0)
    alone = check(talks(f"deployment: {{accelerator: h100-sxm, engine: {VLLM}}}", "router: llm_d"), 0)
    assert (apart.columns["prefill_replica"] == -1).all()
    for name in ("first_token_s", "finish_s", "cached_tokens"):
        np.testing.assert_array_equal(apart.columns[name], alone.columns[name])
    shares = apart.summary["hand_over"]["time"] if "hand_over" in apart.summary else {}
    assert not shares or shares["transfer"] == 0


@pytest.mark.parametrize(
    "trouble",
    [
        "faults: [{name: crash, replica: 2, at: [500ms, 1500ms], for: 400ms}, {name: crash, replica: 0, at: 1s, for: 500ms}]",
        "clients: {name: simple, patience: {mean: 60ms}}",
        "clients: {name: simple, first_token_timeout: 40ms, max_attempts: 3, hedge_after: 20ms}",
    ],
)
def test_who_computes_alone_dies_and_is_left_like_any_other(trouble: str) -> None:
    text = talks(SIDES["vllm"], decider(200), SLOW, trouble)
    result, _ = played(text)
    s = result.summary
    assert s["fleet"]["decode_only"] > 0
    assert s["clients"]["wasted"]["attempts"] > 0
    check(text, 0)


def test_where_there_is_nothing_to_decide_it_says_so() -> None:
    with pytest.raises(ConfigError, match="of which there are none"):
        sim.run(sim.loads(text_of(f"deployment: {{accelerator: h100-sxm, engine: {VLLM}}}", decider(10))))
    with pytest.raises(NotModelledError, match="does not compute them"):
        sim.run(sim.loads(text_of(SIDES["sglang"], decider(10))))


def test_both_endpoints_are_chosen_when_a_request_comes() -> None:
    made = router("llm_d", 2)
    assert made.pairs and not made.decides
    assert at_decode(non_cached_tokens=1).decides


def test_short_prompts_stay_on_the_decode_endpoint() -> None:
    made, seen = at_decode(non_cached_tokens=64, prompt_tokens=300), Replicas(2)
    long, short = prompts(tokens=320, contents=50), prompts(tokens=256, contents=50)
    for block, row, over in ((long, 0, True), (short, 1, False), (long, 0, False)):  # which by now is cached
        made.choose(seen, block, row)
        assert made.hands_over(seen, block, row) is over


def test_tokens_in_flight_count_until_the_first_of_the_answer() -> None:
    made, seen, block = router("llm_d", 2, scorers={"token-load-scorer": 1.0}), Replicas(2), prompts(contents=50)
    assert made.hears
    first = made.choose(seen, block, 0)
    made.on_sent(0, first, block, 0, 0.0)
    assert {made.choose(seen, block, row) for row in range(1, 8)} == {1 - first}
    made.on_first_token(0, 1.0)
    made.on_end(0, 2.0)
    assert {made.choose(seen, block, row) for row in range(8, 40)} == {0, 1}


def test_sessions_stay_and_cold_requests_go_to_who_had_none_for_the_longest_time() -> None:
    made, seen, block = router("llm_d", 3, scorers={"session-affinity-scorer": 1.0}), Replicas(3), prompts()
    where = [made.choose(seen, block, row) for row in range(5)]
    assert [made.choose(seen, block, row) for row in range(5, 15)] == where * 2
    cold = router("llm_d", 3, scorers={"no-hit-lru-scorer": 1.0})
    block = prompts(contents=50)
    assert [cold.choose(seen, block, row) for row in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    cold.members([0, 2])
    assert [cold.choose(Replicas(2), block, row) for row in range(7, 9)] == [1, 0]


def test_production_stack_takes_the_first_of_each_side_or_all_in_turn() -> None:
    runs = {}
    for logic in ("disaggregated_prefill", "disaggregated_prefill_orchestrated"):
        result = check(text_of(SIDES["vllm"], f"router: {{name: production_stack, routing_logic: {logic}}}", requests=60), 0)
        runs[logic] = [np.bincount(result.columns[c], minlength=4).tolist() for c in ("prefill_replica", "replica")]
    assert runs["disaggregated_prefill"] == [[60, 0, 0, 0], [0, 0, 60, 0]]
    assert runs["disaggregated_prefill_orchestrated"] == [[30, 30, 0, 0], [0, 0, 30, 30]]
    with pytest.raises(ConfigError, match="of which there are none"):
        router("production_stack", 2, routing_logic="disaggregated_prefill")
