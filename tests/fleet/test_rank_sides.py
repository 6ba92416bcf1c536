"""Data-parallel ranks that die with their server, and on the sides of a disaggregated deployment: every rank hands over by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sim
from tests.fleet.test_combinations import BASE, SCALING, check
from tests.fleet.test_side_faults import SLOW, played

VLLM = "{name: vllm, max_model_len: 4096}"
TOGETHER = "{name: sglang, enable_dp_attention: true}"
OF = {
    "vllm": ("llama-3.1-8b", VLLM, "dp: 2"),
    "sglang": ("llama-3.1-8b", "sglang", "dp: 2"),
    "together": ("deepseek-v2-lite", TOGETHER, "dp: 2, ep: 2"),
}
"""Model, engine and ranks: ranks that are engines of their own, and those that share experts and step together."""
ON_THE_WIRE = 0.02
"""Seconds within which clients have what left an engine."""
ROUTER = "router: {name: sglang_router, policy: round_robin}"


def text(kind: str, roles: bool, *more: str, requests: int = 300, arrival: str = "{process: poisson, rate: 40/s}") -> str:
    model, engine, ranks = OF[kind]
    if roles:
        pools = [
            f"{{name: {r}, role: {r}, accelerator: h100-sxm, replicas: 2, {ranks}, engine: {engine}}}"
            for r in ("prefill", "decode")
        ]
        deployment = f"pools: [{', '.join(pools)}]"
    else:
        deployment = f"deployment: {{accelerator: h100-sxm, replicas: 2, {ranks}, engine: {engine}}}"
    made = BASE.format(model=model, arrival=arrival, requests=requests, deployment="\n".join([deployment, *more]))
    return sim.config.to_yaml(sim.loads(made))


def silent(r: Any, ranks: set[int], dead: tuple[float, float], *times: str, column: str = "replica") -> None:
    """Nothing came from these while they were dead."""
    mine = np.isin(r[column], list(ranks))
    assert mine.any()
    for name in times:
        t = r[name][mine & (r["status"] == 0)]
        assert not ((t > dead[0] + ON_THE_WIRE) & (t < dead[1])).any(), name


@pytest.mark.parametrize("kind", ["vllm", "together"])
def test_a_server_dies_with_all_its_ranks(kind: str) -> None:
    result, _ = played(text(kind, False, "router: round_robin", "faults: {name: rank, replica: 1, at: 1s, for: 1s}"))
    r, s = result.columns, result.summary
    hurt, refused = s["faults"]["incidents"][0]["hurt"], s["clients"]["failed_attempts"]["connect"]
    assert s["requests"]["failed"] == hurt + refused == 300 - s["requests"]["finished"]
    assert hurt > 0 and refused > 10
    cut = r["finish_s"] == 1.0
    assert cut.sum() == hurt and {*r["replica"][cut].tolist()} <= {2, 3}
    silent(r, {2, 3}, (1.0, 2.0), "first_scheduled_s", "first_token_s", "finish_s")
    late = (r["arrival_s"] > 2.0) & (r["status"] == 0)
    assert {*r["replica"][late].tolist()} == {0, 1, 2, 3}  # it serves again, with both ranks


def test_ranks_die_and_running_answers_go_on_elsewhere() -> None:
    lines = (
        "router: {name: dynamo, use_kv_events: false, migration_limit: 2}",
        "faults: {name: crash, replica: 0, at: 1s, for: 1s}",
    )
    result = check(text("vllm", False, *lines), 0)
    assert result.summary["requests"]["finished"] == 300
    assert result.summary["clients"]["rerouted"] > 0


def test_spot_machines_with_ranks_are_reclaimed() -> None:
    scaling = SCALING.format(least=1, target="qps: 8").replace("scaling: {", "scaling: {spot: {at: [2s], notice: 100ms}, ")
    result = check(text("vllm", False, scaling, "router: least_outstanding"), 0)
    assert result.summary["fleet"]["spot_reclaimed"] == 1


@pytest.mark.parametrize("kind", [*OF])
def test_every_rank_computes_hands_over_and_decodes(kind: str) -> None:
    result, world = played(text(kind, True, ROUTER))
    r, s = result.columns, result.summary
    assert s["requests"]["finished"] == 300 == s["fleet"]["kv_transfers"]
    assert {*r["prefill_replica"].tolist()} == {0, 1, 2, 3} and {*r["replica"].tolist()} == {4, 5, 6, 7}
    ports = np.array(world.leaves()["links"][0])
    assert {*ports.tolist()} == {*range(8)}  # a rank has ports of its own
    for rank in range(8):
        column = "prefill_replica" if rank < 4 else "replica"
        assert (ports == rank).sum() == (r[column] == rank).sum()


def test_who_comes_at_the_very_start_goes_to_a_rank_at_once() -> None:
    result, _ = played(text("vllm", True, ROUTER, requests=30, arrival="burst"))
    assert result.summary["requests"]["finished"] == 30


def test_sglang_draws_the_rank_that_prefills_and_takes_those_that_decode_in_turn() -> None:
    """``--load-balance-method auto``: ``follow_bootstrap_room`` of a prefill server, round robin of a decode server."""
    r = check(text("sglang", True, ROUTER), 0).columns
    order = np.argsort(r["arrival_s"], kind="stable")
    prefills, decodes = r["prefill_replica"][order], r["replica"][order]
    turns = [decodes[decodes // 2 == server] for server in (2, 3)]
    assert all((np.diff(turn) != 0).mean() > 0.95 for turn in turns)
    drawn = [prefills[prefills // 2 == server] for server in (0, 1)]
    assert all(0.3 < (np.diff(turn) != 0).mean() < 0.7 for turn in drawn)


@pytest.mark.parametrize("replica", [0, 3])
@pytest.mark.parametrize("kind", [*OF])
def test_a_side_dies_with_all_its_ranks(kind: str, replica: int) -> None:
    result, _ = played(text(kind, True, ROUTER, SLOW, f"faults: {{name: crash, replica: {replica}, at: 1s, for: 1s}}"))
    r, s = result.columns, result.summary
    assert s["faults"]["incidents"][0]["hurt"] + s["fleet"]["kv_lost"] > 0
    assert s["requests"]["finished"] + s["requests"]["failed"] == 300
    assert s["requests"]["failed"] < 40 and s["clients"]["rerouted"] > 0
    ranks = {2 * replica, 2 * replica + 1}
    side, times = ("prefill_replica", ("prefill_end_s",)) if replica == 0 else ("replica", ("decode_start_s", "finish_s"))
    silent(r, ranks, (1.0, 2.0), *times, column=side)
    assert np.isnan(r["kv_arrived_s"][r["status"] == 0]).sum() == 0


def test_clients_leave_ranks_of_either_side() -> None:
    clients = "clients: {name: simple, patience: {mean: 200ms}, hedge_after: 50ms}"
    result, _ = played(text("together", True, ROUTER, SLOW, clients))
    assert result.summary["requests"]["failed"] > 10
    check(text("sglang", True, ROUTER, SLOW, clients, "faults: {name: crash, mtbf: 500ms, for: 200ms}"), 0)


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_ranks_that_step_together_on_one_side_only_are_refused(role: str) -> None:
    lone, both = "dp: 2, ep: 2, engine: {name: sglang, enable_dp_attention: true}", "tp: 2, engine: sglang"
    pools = [f"{{name: {r}, role: {r}, accelerator: h100-sxm, {lone if r == role else both}}}" for r in ("prefill", "decode")]
    deployment = f"pools: [{', '.join(pools)}]"
    made = BASE.format(model="deepseek-v2-lite", arrival="{process: burst}", requests=10, deployment=deployment)
    with pytest.raises(sim.NotModelledError, match=r"decode\.dp|pools\[1\]\.dp|pools\.1\.dp"):
        sim.run(sim.loads(made))
