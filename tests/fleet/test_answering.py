"""Turns, joins and loops beside open traffic: nothing is sent before the answers that it waits for, and nothing is forgotten."""

import json

import numpy as np
import pytest

import sim
from sim.errors import NotModelledError
from sim.study.single import Prepared
from sim.workload import RequestBlock, content
from sim.workload.recorded import RecordedTraffic
from sim.workload.waits import Waits

LENGTHS = {"kind": "fixed", "prompt_tokens": 100, "output_tokens": 20}


def run(traffic, *more):
    return sim.run(sim.load("quickstart", [f"traffic={json.dumps(traffic)}", *more]))


def test_a_turn_comes_a_think_time_after_the_answer():
    sessions = {"turns": 5, "think_time": "3s", "think_cv": 0, "think_from": "answer"}
    synthetic = {"arrival": {"process": "poisson", "rate": 20}, "lengths": LENGTHS, "sessions": sessions, "requests": 600}
    result = run({"synthetic": synthetic})
    rows = result.requests.sort_values(["session", "arrival_s"])
    assert len(rows) == 600
    gap = (rows["arrival_s"] - rows["finish_s"].shift())[rows["session"] == rows["session"].shift()]
    assert len(gap) == 600 - rows["session"].nunique()
    assert gap.to_numpy() == pytest.approx(3.0, abs=1e-9)
    assert (result.sessions["requests"] == 5).all()


def test_an_overload_slows_its_sessions_down():
    def offered(think_from):
        sessions = {"turns": 6, "think_time": "1s", "think_from": think_from}
        lengths = {"kind": "fixed", "prompt_tokens": 3000, "output_tokens": 200}
        synthetic = {"arrival": {"process": "poisson", "rate": 40}, "lengths": lengths, "sessions": sessions, "requests": 1500}
        return run({"synthetic": synthetic}).requests["arrival_s"].max()

    assert offered("answer") > 1.5 * offered("arrival")


def joined(n=40):
    """Runs of an agent: one call, three at once after a tool, one when all three are there. Four of a run's five wait."""
    keys = content.OUTPUT + np.arange(5 * n)
    start = np.repeat(np.arange(n) * 0.5, 5)
    wait = np.tile([np.nan, 0.25, 0.25, 0.25, 0.1], n)
    awaited = np.tile([3, 1, 1, 1, 0], n)
    off, key = [0], []
    for i in range(n):
        k = keys[5 * i : 5 * i + 5]
        for parents in ([], [k[0]], [k[0]], [k[0]], k[1:4]):
            key += list(parents)
            off.append(len(key))
    waits = Waits(wait, awaited.astype(np.int32), np.array(off), np.array(key, np.int64))
    return RequestBlock.of(start, np.full(5 * n, 200), np.arange(5 * n) % 17 + 5, session=np.repeat(np.arange(n), 5), waits=waits)


def test_a_join_waits_for_all_that_it_waits_for():
    made = Prepared(sim.load("quickstart"))
    made.traffic = RecordedTraffic(joined())
    assert made.traffic.waits
    rows = made.run().requests
    assert len(rows) == 200
    for _, agent in rows.groupby("session"):
        a = agent.sort_values("arrival_s")
        first, branches, last = a.iloc[0], a.iloc[1:4], a.iloc[4]
        assert branches["arrival_s"].to_numpy() == pytest.approx(first["finish_s"] + 0.25)
        assert last["arrival_s"] == pytest.approx(branches["finish_s"].max() + 0.1)


def test_blocks_keep_who_waits_for_whom():
    block = joined(6)
    again = RequestBlock.concat([block[:7], block[7:30]])
    for name in ("wait_s", "awaited", "off", "key"):
        np.testing.assert_array_equal(getattr(again.waits, name), getattr(block.waits, name))
    odd = block.where(np.arange(30) % 5 != 2)
    assert odd.waits.off[-1] == len(odd.waits.key) == 6 * 5
    assert RequestBlock.concat([RequestBlock.of([0.0], [1], [1]), block]).waits.wait_s[1:].tolist()[1:4] == [0.25] * 3


def test_a_request_whose_predecessor_was_cut_out_is_sent():
    made = Prepared(sim.load("quickstart"))
    block = joined(10)
    made.traffic = RecordedTraffic(block.where(np.arange(50) % 5 != 0))
    assert len(made.run().requests) == 40


def test_what_waits_when_the_run_ends_is_said():
    made = Prepared(sim.load("quickstart", ["until=2s"]))
    made.traffic = RecordedTraffic(joined())
    result = made.run()
    assert len(result.requests) < 200
    assert any("were not sent" in w for w in result.warnings)


def test_loops_beside_open_traffic():
    classes = {
        "open": {"synthetic": {"arrival": {"process": "poisson", "rate": 5}, "lengths": LENGTHS}},
        "loop": {
            "synthetic": {"arrival": {"process": "poisson", "rate": 1}, "lengths": LENGTHS},
            "closed_loop": {"concurrency": 3, "think_time": "1s"},
        },
    }
    result = run({"classes": classes, "duration": "60s"})
    rows = result.requests
    loop = rows[rows["klass"] == 1]
    assert rows["arrival_s"].max() < 60
    assert 3 * 60 / 1.5 < len(loop) < 3 * 60
    at = np.sort(np.concatenate([loop["arrival_s"], loop["finish_s"]]))
    busy = np.searchsorted(np.sort(loop["arrival_s"]), at, "right") - np.searchsorted(np.sort(loop["finish_s"]), at, "right")
    assert busy.max() <= 3
    alone = run({"classes": {"open": classes["open"]}, "duration": "60s"}).requests
    assert (rows[rows["klass"] == 0]["arrival_s"].to_numpy() == alone["arrival_s"].to_numpy()).all()
    few = run({"classes": classes, "requests": 150}).requests
    assert len(few) == 150


def test_waiting_clients_ask_for_nothing_that_waits_already():
    sessions = {"turns": 2, "think_from": "answer"}
    synthetic = {"arrival": {"process": "poisson", "rate": 1}, "lengths": LENGTHS, "sessions": sessions}
    with pytest.raises(NotModelledError, match="closed_loop"):
        run({"synthetic": synthetic, "closed_loop": {"concurrency": 2}})
