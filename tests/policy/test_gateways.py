"""Real gateways: recorded decisions, trees against a naive model, and what each does in a fleet."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sim
from sim.errors import DataError
from sim.policy.gateways.block_index import BlockIndex
from sim.policy.gateways.owner_tree import OwnerTree
from sim.policy.gateways.prompts import Letters, Pieces
from sim.policy.gateways.shared_tree import SharedTree
from sim.study.conformance import check

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "routers"
ROUTERS = [
    "sglang_router", "{name: sglang_router, version: smg-1.8}", "{name: sglang_router, version: smg-1.13}",
    "{name: sglang_router, policy: manual}", "{name: sglang_router, policy: power_of_two}", "vllm_router", "{name: vllm_router, tokens: false}",
    "{name: vllm_router, policy: sticky_least_loaded}", "production_stack", "{name: production_stack, routing_logic: session}",
    "{name: production_stack, routing_logic: prefixaware}", "ray_serve", ("{name: ray_serve, do_eviction: true, eviction_threshold_chars: 20000, "
    "eviction_target_chars: 10000}"), "llm_d", "{name: llm_d, picker: weighted-random-picker, scorers: {active-request-scorer: 1, queue-scorer: 1}}",
]  # fmt: skip
RECORDED = {
    "dynamo_select": 800,
    "prodstack_prefixaware_min0": 1_400,
    "prodstack_roundrobin": 600,
    "prodstack_session": 800,
    "ray_autoscaling": 2_400,
    "ray_prefix_tree": 4_511,
    "sglang_router_cache_aware": 1_200,
    "sglang_router_rr": 500,
    "smg_1.13.0_cache_aware": 1_000,
    "smg_1.13.0_capped_margin": 700,
    "unit rows": 82,
    "vllm_router_0.1.17_text_no_tokens": 900,
    "vllm_router_0.1.17_tokens": 700,
    "vtc_artifact": 6_338,
}
"""Decisions in each recording."""
SESSIONS = (
    "traffic.synthetic={arrival: {process: poisson, rate: 12/s}, lengths: {kind: lognormal, prompt_tokens: {mean: 400, cv: 0.6}, "
    "output_tokens: {mean: 60, cv: 0.6}}, sessions: {turns: 5, think_time: 4s, max_context: 8000}, requests: 1500}"
)

words = st.text(alphabet="ab", min_size=1, max_size=12)
steps = st.lists(st.tuples(words, st.integers(0, 2)), min_size=1, max_size=25)


def test_every_recorded_decision_is_matched() -> None:
    cases = list(check("router", [GOLDEN]))
    assert len(cases) > 20
    assert [(c.name, c.difference) for c in cases if c.difference] == []
    steps = Counter[str]()
    for case in cases:
        steps["unit rows" if case.name.startswith("unit rows ") else case.name] += case.steps
    assert steps == RECORDED


def test_a_file_that_is_no_recording(tmp_path: Path) -> None:
    file = tmp_path / "smg_x.json"
    for text, says in (
        ("{", "not readable"),
        ("{}", "not laid out"),
        ('{"registry_order": [0], "policy": "cache_aware", "rows": [[1]]}', "not laid out"),
    ):
        file.write_text(text)
        with pytest.raises(DataError, match=says):
            list(check("router", [file]))
    other = tmp_path / "other.json"
    other.write_text("{}")
    with pytest.raises(DataError, match="is no recording of a router"):
        list(check("router", [other]))


def longest(texts: list[str], prompt: str) -> int:
    """The longest prefix of a prompt that some text begins with."""
    return max((n for t in texts for n in range(len(prompt) + 1) if t.startswith(prompt[:n])), default=0)


@given(steps, words)
def test_a_shared_tree_matches_as_a_list_of_texts_does(inserted: list[tuple[str, int]], prompt: str) -> None:
    tree = SharedTree([0, 1, 2])
    for text, tenant in inserted:
        tree.insert(Letters(text), tenant)
    texts = [t for t, _ in inserted]
    assert tree.match(Letters(prompt)).length == longest(texts, prompt)
    for tenant in range(3):
        mine = [t for t, w in inserted if w == tenant]
        assert tree.match_tenant(Letters(prompt), tenant) == longest(mine, prompt)
        assert tree.sizes[tenant] == len({t[:n] for t in mine for n in range(1, len(t) + 1)})


@given(steps, st.integers(0, 20))
def test_eviction_keeps_sizes_and_paths_whole(inserted: list[tuple[str, int]], most: int) -> None:
    tree = SharedTree([0, 1, 2])
    for text, tenant in inserted:
        tree.insert(Letters(text), tenant)
    tree.evict(most)
    assert all(size <= most for size in tree.sizes.values())
    for text, tenant in inserted:
        held = tree.match_tenant(Letters(text), tenant)
        assert 0 <= held <= len(text)
    for tenant in range(3):
        tree.remove(tenant)
    assert tree.sizes == {}


@given(steps, words)
def test_an_owner_tree_tells_the_owners_of_the_longest_match(inserted: list[tuple[str, int]], prompt: str) -> None:
    tree = OwnerTree()
    tree.add("012", 0.0)
    for now, (text, owner) in enumerate(inserted, start=1):
        tree.insert(Letters(text), str(owner), float(now))
    length, owners = tree.match(Letters(prompt), "012")
    assert length == longest([t for t, _ in inserted], prompt)
    if length:
        assert owners == sorted({str(w) for t, w in inserted if t.startswith(prompt[:length])})
    for owner in "012":
        before = tree.sizes[owner]
        assert tree.evict(owner, 3) >= min(3, before)
        assert tree.sizes[owner] <= max(before - 3, 0)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 6), st.integers(1, 7)), min_size=1, max_size=5), st.integers(1, 5))
def test_pieces_compare_as_their_tokens_do(spans: list[tuple[int, int, int]], size: int) -> None:
    tokens = [(c, s + i) for c, s, n in spans for i in range(n)]
    prompt = Pieces(spans, len(tokens))
    assert [prompt.key(i) for i in range(len(prompt))] == tokens
    other = Pieces([*spans[:1], (9, 0, 4)], spans[0][2] + 4)
    shared = next(
        (i for i, (a, b) in enumerate(zip(tokens, [other.key(i) for i in range(len(other))], strict=False)) if a != b),
        min(len(tokens), len(other)),
    )
    assert prompt.common(0, other, 0, len(other)) == shared
    blocks = list(prompt.blocks(size, partial=False))
    assert len(blocks) == len(tokens) // size
    flat = [(c, s + i) for block in prompt.blocks(size, partial=True) for c, s, n in block for i in range(n)]  # type: ignore[attr-defined]
    assert flat == tokens


def test_prompts_without_spans_share_nothing() -> None:
    tree = SharedTree([0])
    tree.insert(Pieces([], 100), 0)
    assert tree.match(Pieces([], 100)).length == 0


def test_a_block_index_counts_over_a_gap_and_forgets_the_oldest() -> None:
    index = BlockIndex(2, capacity=3)
    keys = index.keys(Letters("aabbcc"))
    index.insert(keys, 0)
    index.insert(keys[:1], 1)
    index.insert(keys[2:], 1)
    assert index.match(keys, [0, 1]).tolist() == [3, 2]
    index.insert(index.keys(Letters("xxyy")), 0)
    assert index.match(keys, [0, 1]).tolist() == [0, 1]  # its first two blocks went; nobody has the second: all stop
    index.drop(1)
    assert index.match(keys, [0, 1]).sum() == 0


@pytest.mark.parametrize("router", ROUTERS)
def test_every_gateway_serves_a_fleet_and_gives_the_same_bytes_again(router: str) -> None:
    scenario = sim.load("fleet", [f"router={router}", "traffic.synthetic.requests=400", "deployment.replicas=3"])
    first, second = sim.run(scenario), sim.run(scenario)
    assert first.summary["requests"]["finished"] == 400
    for name, column in first.columns.items():
        assert np.array_equal(column, second.columns[name], equal_nan=column.dtype.kind == "f"), name
    assert set(first.columns["replica"]) <= {0, 1, 2}


@pytest.mark.parametrize(
    "router", ["sglang_router", "vllm_router", "ray_serve", "llm_d", "{name: production_stack, routing_logic: session}"]
)
def test_gateways_that_know_prefixes_or_sessions_save_prompt_tokens(router: str) -> None:
    def cached(name: str) -> float:
        changes = [
            f"router={name}",
            SESSIONS,
            "deployment.replicas=4",
            "deployment.engine={name: vllm, enable_prefix_caching: true}",
        ]
        return float(sim.run(sim.load("fleet", changes)).summary["tokens"]["cached_share"])

    assert cached(router) > cached("round_robin") + 0.1
