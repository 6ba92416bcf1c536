"""Rules in compiled code are their routers: the same choices as `choose`, whatever comes, and the same random numbers."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from sim.config import settings
from sim.fleet.ahead import Choice
from sim.policy.router import ReplicaFacts, Router
from sim.registry import lookup, names
from sim.rules import MORE, Rule
from sim.streams import stream
from sim.testing.routers import Engines
from sim.workload.table import RequestBlock

SMALL = {"balance_abs_threshold": 3, "balance_rel_threshold": 1.1}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("round_robin", {}),
    ("random", {}),
    ("least_outstanding", {}),
    ("power_of_two", {"choices": 3}),
    ("nginx", {}),
    ("nginx", {"weights": [3, 0, 1, 5]}),
    ("nginx", {"method": "round_robin", "weights": [3, 1]}),
    *[
        ("sglang_router", {"version": v, "cache_threshold": c, "worker_overload_protection": False} | more)
        for v in ("0.3", "smg-1.8", "smg-1.13")
        for c, more in ((0.3, {}), (0.05, SMALL), (0.5, SMALL | {"eviction_interval": 1.0, "max_tree_size": 12_000}))
    ],
    *[("sglang_router", {"policy": p}) for p in ("round_robin", "random", "consistent_hashing", "power_of_two")],
    *[("sglang_router", {"policy": "manual", "assignment_mode": m}) for m in ("random", "min_load", "min_group")],
    ("vllm_router", {}),
    ("vllm_router", SMALL | {"eviction_interval_secs": 1.0, "max_tree_size": 3000}),
    ("vllm_router", {"tokens": False}),
    *[
        ("vllm_router", {"policy": p})
        for p in ("round_robin", "random", "sticky_least_loaded", "consistent_hash", "power_of_two")
    ],
    ("litellm", {}),
    ("litellm", {"routing_strategy": "least-busy"}),
    ("production_stack", {}),
    ("production_stack", {"routing_logic": "session", "request_stats_window": 0.7}),
]


def block(rng: np.random.Generator, n: int, begin: float) -> RequestBlock:
    """Prompts that begin alike and part somewhere, some of content that nobody else has, some in sessions."""
    spans, off = [], [0]
    for _ in range(n):
        pieces = []
        if rng.random() < 0.85:
            pieces = [(int(rng.integers(0, 3)), 0, int(rng.choice([40, 64, 200])))]
            for depth in range(int(rng.integers(0, 4))):
                pieces.append((10 + 7 * depth + int(rng.integers(0, 4)), int(rng.choice([0, 5])), int(rng.integers(1, 120))))
        spans += pieces
        off.append(len(spans))
    ids, starts, lengths = np.array(spans, np.int64).reshape(-1, 3).T
    prompt = [sum(length for *_, length in spans[a:b]) or int(rng.integers(1, 300)) for a, b in itertools.pairwise(off)]
    arrival = begin + np.cumsum(rng.exponential(0.02, n))
    session = np.where(rng.random(n) < 0.8, rng.integers(0, 300, n), -1)
    return RequestBlock.of(arrival, prompt, np.ones(n), session=session, spans=(np.array(off), ids, starts, lengths)).validate()


def made(name: str, given: dict[str, Any], replicas: int) -> Router:
    cls: Any = lookup("router", name)
    router: Router = cls(settings(cls.Params, given, "router"), replicas, stream(5, "router"))
    router.setup([ReplicaFacts(16, 1000.0, "sglang", slots=256)] * replicas)
    return router


@pytest.mark.parametrize(("name", "given"), CASES, ids=[f"{n}-{'-'.join(map(str, g.values()))}" for n, g in CASES])
@pytest.mark.parametrize("replicas", [1, 2, 9])
def test_the_rule_chooses_as_its_router(name: str, given: dict[str, Any], replicas: int) -> None:
    """Also as replicas come and go, whose loads change, and as reports come in."""
    rng = np.random.default_rng(replicas)
    asked, router = made(name, given, replicas), made(name, given, replicas)
    rule = router.rule()
    assert isinstance(rule, Rule)
    assert router.rule() is rule
    seen = Engines(replicas, rng)
    everybody = list(range(replicas))
    serving: list[list[int]] = [everybody]
    can_be = replicas + 3  # more than there are at the start
    all_loads = rng.integers(0, 12, can_be)
    choice = Choice(rule, router.rng, lambda: serving[0], lambda: all_loads)
    polled = 0.0
    for part in range(4):
        rows = block(rng, 220, 5.0 * part)
        if part and router.elastic:
            members = everybody if part == 2 else sorted(rng.choice(can_be, max(replicas - part + 2, 1), replace=False).tolist())
            serving = [members]
            for r in (asked, router):
                r.members(members)
            seen = Engines(len(members), rng)
        for row in range(len(rows)):
            seen.now = float(rows.arrival_s[row])
            seen.outstanding = all_loads[serving[0]]
            while asked.interval is not None and polled <= seen.now:
                for r in (asked, router):
                    r.poll(seen)
                polled += 3.0
            expected = serving[0][asked.choose(seen, rows, row)]
            assert choice.one(rows, row, seen.now) == expected, (part, row)
            all_loads[expected] += 1
            all_loads[rng.integers(0, can_be, 2)] = rng.integers(0, 12, 2)
    assert (
        asked.rng.bit_generator.state["state"]["counter"].tolist() == router.rng.bit_generator.state["state"]["counter"].tolist()
    )


def test_memory_that_grows_many_times_changes_nothing() -> None:
    """Thousands of different prompts."""
    rng = np.random.default_rng(0)
    asked, router = (made("sglang_router", {"version": "0.3", "cache_threshold": 0.2}, 3) for _ in range(2))
    loads = np.zeros(3, np.int64)
    rule = router.rule()
    assert rule is not None
    choice = Choice(rule, router.rng, lambda: range(3), lambda: loads)
    seen = Engines(3, rng)
    seen.outstanding = loads
    began = len(rule.memory.node)
    for part in range(6):
        rows = block(rng, 700, 20.0 * part)
        rows = RequestBlock.of(
            rows.arrival_s, rows.prompt_tokens, rows.output_tokens,
            spans=(rows.span_off, rows.span_id + rng.integers(0, 40, len(rows.span_id)), rows.span_start, rows.span_len),
        )  # fmt: skip
        for row in range(len(rows)):
            seen.now = float(rows.arrival_s[row])
            assert choice.one(rows, row, seen.now) == asked.choose(seen, rows, row)
    assert len(rule.memory.node) > 2 * began


def test_draws_are_those_of_the_generator() -> None:
    """Whatever the range, and beside draws of others."""
    rule = made("random", {}, 1).rule()
    assert rule is not None
    for n in (1, 2, 3, 7, 1000, 2**20 + 1):
        mine, theirs = stream(3, "router"), stream(3, "router")
        choice = Choice(rule, mine, lambda n=n: range(n), lambda n=n: np.zeros(n, np.int64))  # type: ignore[misc]
        rows = block(np.random.default_rng(1), 50, 0.0)
        drawn = [choice.one(rows, row, 0.0) for row in range(50)]
        assert drawn == [int(theirs.integers(0, n)) for _ in range(50)]
        assert mine.integers(0, 100) == theirs.integers(0, 100)


def test_routers_without_a_rule_are_asked() -> None:
    """None is an answer; what a rule cannot do is refused when the run is built, not guessed."""
    without = [name for name in names("router") if lookup("router", name).rule is Router.rule]
    assert "llm_d" in without
    assert made("nginx", {"method": "random two least_conn"}, 3).rule() is None
    assert made("sglang_router", {"policy": "least_load"}, 3).rule() is None
    assert made("vllm_router", {"policy": "kv_aware"}, 3).rule() is None
    assert made("litellm", {"weights": [1.0, 2.0]}, 3).rule() is None
    assert made("litellm", {"routing_strategy": "latency-based-routing"}, 3).rule() is None
    assert MORE < -1
