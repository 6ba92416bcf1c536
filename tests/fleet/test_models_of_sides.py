"""Several models, each with prefill and decode pools of its own: every request at both sides of its model, and no model's fate in the other's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sim
from sim.errors import ConfigError, NotModelledError
from sim.study.single import Prepared
from tests.fleet.test_combinations import SCALING, check, started

LENGTHS = "{kind: uniform, prompt_tokens: [1, 700], output_tokens: [1, 40]}"
VLLM = "{name: vllm, max_model_len: 4096}"
ROWS = (
    ("p1", "prefill", "llama-3.1-8b", 2),
    ("d1", "decode", "llama-3.1-8b", 1),
    ("p2", "prefill", "qwen3-8b", 1),
    ("d2", "decode", "qwen3-8b", 2),
)
OF_LLAMA, OF_QWEN = ({0, 1}, {2}), ({3}, {4, 5})
"""Prefill and decode replicas."""


def pool(name: str, role: str, model: str, replicas: int, engine: str = VLLM, accelerator: str = "h100-sxm") -> str:
    return f"{{name: {name}, role: {role}, model: {model}, accelerator: {accelerator}, replicas: {replicas}, engine: {engine}}}"


def pools(*rows: tuple[str, str, str, int], engine: str = VLLM) -> str:
    return f"pools: [{', '.join(pool(*row, engine=engine) for row in rows)}]"


def klass(name: str, model: str) -> str:
    return (
        f"{name}: {{model: {model}, synthetic: {{arrival: {{process: poisson, rate: 20/s}}, lengths: {LENGTHS}, requests: 100}}}}"
    )


BOTH = f"traffic: {{classes: {{{klass('a', 'llama-3.1-8b')}, {klass('b', 'qwen3-8b')}}}}}"


def text(*lines: str) -> str:
    return sim.config.to_yaml(sim.loads("\n".join(["model: llama-3.1-8b", *lines])))


def at_its_own(r: Any, done: Any) -> None:
    """Whoever was served was served by both sides of its model."""
    for model, (prefill, decode) in enumerate((OF_LLAMA, OF_QWEN)):
        mine = done & (r["model"] == model)
        assert {*r["prefill_replica"][mine].tolist()} == prefill and {*r["replica"][mine].tolist()} == decode


@pytest.mark.parametrize(
    ("engine", "router"), [(VLLM, "least_outstanding"), ("sglang", "{name: sglang_router, policy: cache_aware}")]
)
def test_each_request_goes_through_both_sides_of_its_model(engine: str, router: str) -> None:
    result = check(text(BOTH, pools(*ROWS, engine=engine), f"router: {router}"), 0)
    assert result.summary["requests"]["finished"] == 200
    at_its_own(result.columns, result.columns["status"] == 0)


def test_two_models_are_two_fleets() -> None:
    """To the last digit."""
    together = check(text(BOTH, pools(*ROWS), "router: round_robin"), 0)
    alone = check(text(f"traffic: {{classes: {{{klass('a', 'llama-3.1-8b')}}}}}", pools(*ROWS[:2]), "router: round_robin"), 0)
    mine = together.columns["klass"] == 0
    for name in ("arrival_s", "prefill_end_s", "kv_arrived_s", "first_token_s", "finish_s"):
        assert np.array_equal(np.sort(together.columns[name][mine]), np.sort(alone.columns[name])), name


@pytest.mark.parametrize("replica", [1, 2])
def test_a_crash_hurts_only_its_own_model(replica: int) -> None:
    lines = (BOTH, pools(*ROWS), "router: least_outstanding")
    broken = check(text(*lines, f"faults: {{name: rank, replica: {replica}, at: 1s, for: 1s}}"), 0)
    r = broken.columns
    assert (r["status"][r["model"] == 0] != 0).any() and (r["status"][r["model"] == 1] == 0).all()
    calm = check(text(*lines), 0)
    mine = r["model"] == 1
    assert np.array_equal(r["finish_s"][mine], calm.columns["finish_s"][mine])


def test_routers_send_what_a_crash_has_cut_off_to_the_other_replica_of_its_model() -> None:
    lines = (BOTH, pools(*ROWS, engine="sglang"), "router: {name: sglang_router, policy: round_robin}")
    result = check(text(*lines, "faults: [{name: crash, replica: 1, at: 1s, for: 1s}, {name: router_restart, at: 2s}]"), 0)
    assert result.summary["clients"]["rerouted"] > 0
    at_its_own(result.columns, result.columns["status"] == 0)


def test_each_side_of_each_model_is_scaled_by_itself_from_nothing() -> None:
    result = check(text(BOTH, pools(*ROWS), SCALING.format(least=0, target="qps: 8"), "router: least_outstanding"), 0)
    assert result.summary["requests"]["finished"] == 200
    assert started(result)


def test_kv_travels_over_the_network_of_its_own_servers() -> None:
    """Prefill on slower networks takes longer, and the other model does not notice."""
    rows = [pool(*row, accelerator="h100-sxm" if row[2] == "llama-3.1-8b" else "a100-sxm-80g") for row in ROWS]
    result = check(text(BOTH, f"pools: [{', '.join(rows)}]", "router: round_robin"), 0)
    same = check(text(BOTH, pools(*ROWS), "router: round_robin"), 0)
    assert len(result.summary["context"]["KV transfer"].split(",")) == 2
    mine = result.columns["model"] == 0
    assert np.array_equal(result.columns["kv_arrived_s"][mine], same.columns["kv_arrived_s"][mine])


@pytest.mark.parametrize(
    ("rows", "error", "words"),
    [
        (ROWS[:3], ConfigError, ("pools[2].role", "qwen3-8b has no decode pool")),
        (ROWS, NotModelledError, ("pools[2].engine.name", "one kind of engine")),
    ],
)
def test_what_cannot_be_is_refused_by_name(rows: Any, error: type[Exception], words: tuple[str, ...]) -> None:
    made = [pool(*row, engine="sglang" if error is NotModelledError and row[2] == "qwen3-8b" else VLLM) for row in rows]
    with pytest.raises(error) as raised:
        Prepared(sim.loads(text(BOTH, f"pools: [{', '.join(made)}]")))
    assert all(word in str(raised.value) for word in words)


def test_models_whose_kv_is_kept_in_different_ways_are_refused() -> None:
    rows = [(name, role, "gpt-oss-20b" if model == "qwen3-8b" else model, n) for name, role, model, n in ROWS]
    with pytest.raises(NotModelledError, match="kept in different ways"):
        sim.run(sim.loads(text(BOTH.replace("qwen3-8b", "gpt-oss-20b"), pools(*rows))))
